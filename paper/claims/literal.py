"""Curves from the literal simulator `sim`, in units of v, run once for all the claims that read them."""

from functools import cache
from typing import Any

import numpy as np

from paper.claims.process import Mean
from sim.regression import (
    Accumulate,
    ConfidenceEdits,
    DisjointEdits,
    RandomEdits,
    RankedEdits,
    Replace,
    Result,
    RowEdits,
    Rule,
    Setting,
    simulate,
)

SEED = 14689
# XLA compiles anew for every shape, which takes longer than the runs: all rules share T, generations and draws.
GENERAL = (40, 10, 11)
BLOCKS = (40, 4, (4,) * 10)
TWO_EDITS = (4, 3)  # with BLOCKS' T and d; its second generation is the one-edit case


def honest(T: int, d: int) -> float:
    """Return v at sigma = 1: d/(T-d-1), the mean error of one honest fit (Lemma 3)."""
    return d / (T - d - 1)


def curve(result: Result, T: int, d: int) -> tuple[Mean, ...]:
    """Return the error by generation in units of v, standard errors clustered by X."""
    v = honest(T, d)
    pairs = zip(result.error, result.standard_error, strict=True)
    return tuple(Mean(float(value / v), float(error / v)) for value, error in pairs)


def general(rule: Rule, *, designs: int = 400, **setting: Any) -> Result:
    """Run a rule at the shape GENERAL."""
    T, d, generations = GENERAL
    return simulate(
        Setting(T=T, d=d, **setting), rule, generations=generations, designs=designs, noise_replicates=32, seed=SEED
    )


@cache
def replace() -> tuple[Mean, ...]:
    """All labels redrawn in every generation, same X; T, d, generations of GENERAL."""
    return curve(general(Replace()), *GENERAL[:2])


@cache
def disjoint_edits() -> tuple[Mean, ...]:
    """Blocks that no other edit touches: BLOCKS."""
    T, d, counts = BLOCKS
    return curve(_blocks(DisjointEdits(counts), 800), T, d)


@cache
def two_random_edits() -> tuple[Mean, ...]:
    """TWO_EDITS rows drawn afresh in each edit, T and d of BLOCKS; one draw of the rows for each X."""
    T, d, counts = BLOCKS
    # As many edits as BLOCKS has, of no rows after the second, so that the shapes are the same.
    rule = RandomEdits((*TWO_EDITS, *[0] * (len(counts) - len(TWO_EDITS))))
    return curve(_blocks(rule, 1600), T, d)[: len(TWO_EDITS) + 1]


@cache
def same_rows() -> tuple[Mean, ...]:
    """The first block of BLOCKS edited again and again."""
    T, d, counts = BLOCKS
    return curve(_blocks(RowEdits((tuple(range(counts[0])),) * len(counts)), 800), T, d)


def _blocks(rule: Rule, designs: int) -> Result:
    T, d, counts = BLOCKS
    return simulate(
        Setting(T=T, d=d), rule, generations=len(counts) + 1, designs=designs, noise_replicates=32, seed=SEED
    )


@cache
def confident_edits(tau: float) -> tuple[Mean, ...]:
    """Rows with |r_t| <= tau, Sigma_ij = 0.8^|i-j| times a scale from 1 to 100; T, d, generations of GENERAL."""
    T, d, _ = GENERAL
    return curve(general(ConfidenceEdits(tau), designs=2400, covariance=correlation(d)), T, d)


@cache
def ranked_edits(count: int) -> tuple[Mean, ...]:
    """The rows with the smallest residuals, `count` in each edit; T, d, generations of GENERAL."""
    return curve(general(RankedEdits(count), designs=2400), *GENERAL[:2])


def correlation(d: int) -> np.ndarray:
    """A covariance far from the identity: 0.8^|i-j| with variances from 1 to 100."""
    index = np.arange(d)
    scale = 10.0 ** np.linspace(0.0, 1.0, d)
    return 0.8 ** np.abs(index[:, None] - index) * scale[:, None] * scale


@cache
def accumulate(fresh_x: bool) -> tuple[Mean, ...]:
    """All pairs kept; the same X stacked or a fresh X in every generation; T, d, generations of GENERAL."""
    return curve(general(Accumulate(fresh_x=fresh_x)), *GENERAL[:2])


@cache
def ridge_replace(ridge: float, signal: float) -> Result:
    """Ridge fits on replaced labels, w* of the given length; absolute errors; T, d, generations of GENERAL."""
    w_star = np.full(GENERAL[1], signal / np.sqrt(GENERAL[1]))
    return general(Replace(), ridge=ridge, w_star=w_star)
