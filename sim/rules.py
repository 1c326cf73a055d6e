"""The rules by which a generation's training labels come from the fit before it.

Every rule is a frozen dataclass; `validate` checks it against the number of samples and of edits.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.errors import InputError


@dataclass(frozen=True)
class Replace:
    """All labels are drawn afresh from the last fit, on the same X: y_{n+1} = X w_n + E_{n+1}."""


@dataclass(frozen=True)
class Accumulate:
    """Generation n + 1 is fitted to all pairs so far, T of them added by every generation.

    Attributes:
        fresh_x: False: every generation labels the same X (the pairs are stacked); True: every generation
            draws its own X.
    """

    fresh_x: bool = False


@dataclass(frozen=True)
class AccumulateSubsample:
    """As `Accumulate`, but each fit sees T pairs drawn without replacement from all pairs so far.

    With the same X a subsample holds rows several times; where fewer than d distinct rows are left the
    minimum-norm fit is taken. Its error has no finite mean when T is close to d, whatever the sample size.

    Attributes:
        fresh_x: as in `Accumulate`.
    """

    fresh_x: bool = False


@dataclass(frozen=True)
class FixedRealShare:
    """The first round(share * T) rows keep their real labels for ever, all others are redrawn every time.

    Attributes:
        share: share of real rows, in [0, 1].
    """

    share: float


@dataclass(frozen=True)
class RandomEdits:
    """Edit n relabels counts[n-1] rows, chosen uniformly at random and independently of all other edits.

    Attributes:
        counts: edited rows m_1 .. m_{n-1}, each in 0..T.
    """

    counts: tuple[int, ...]


@dataclass(frozen=True)
class DisjointEdits:
    """Edit n relabels counts[n-1] random rows that no other edit touches: M_i M_j = 0, the paper's eq. 16.

    Attributes:
        counts: block sizes m_1 .. m_{n-1}, together at most T.
    """

    counts: tuple[int, ...]


@dataclass(frozen=True)
class RowEdits:
    """Edit n relabels exactly the rows given.

    Attributes:
        rows: one tuple of distinct row indices in 0..T-1 per edit.
    """

    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ConfidenceEdits:
    """Edit n relabels the rows whose residual r_t = y_t - x_t . w_n is small (or large).

    Attributes:
        tau: threshold in units of sigma, > 0.
        side: "high" relabels the confident rows |r_t| <= tau sigma, the twin of P(x_i | x_<i) >= p in the
            paper's eq. 2; "low" relabels |r_t| >= tau sigma.
    """

    tau: float
    side: Literal["high", "low"] = "high"


@dataclass(frozen=True)
class RankedEdits:
    """Edit n relabels the rows whose residuals |y_t - x_t . w_n| are the smallest: confident rows by quantile.

    Attributes:
        count: of rows, in every edit, in 1..T.
    """

    count: int


Rule = (
    Replace
    | Accumulate
    | AccumulateSubsample
    | FixedRealShare
    | RandomEdits
    | DisjointEdits
    | RowEdits
    | ConfidenceEdits
    | RankedEdits
)


def validate(rule: Rule, T: int, edits: int) -> None:
    """Checks a rule against T samples and `edits` = generations - 1 edits.

    Raises:
        InputError: a count, a row, a share or a threshold is outside its range, or a schedule has another
            length than `edits`.
    """
    match rule:
        case RandomEdits(counts) | DisjointEdits(counts):
            _validate_counts(counts, T, edits)
            if isinstance(rule, DisjointEdits) and sum(counts) > T:
                raise InputError(
                    f"disjoint blocks of {sum(counts)} rows in all overlap in T = {T} rows: "
                    "give counts that sum to at most T"
                )
        case RowEdits(rows):
            _validate_length(len(rows), edits)
            for number, block in enumerate(rows, start=1):
                if len(set(block)) != len(block) or any(not _is_int(row) or not 0 <= row < T for row in block):
                    raise InputError(f"edit {number} must list distinct integer rows in 0..{T - 1}")
        case FixedRealShare(share):
            if not 0 <= share <= 1:
                raise InputError(f"share of real rows is {share}: give a number in [0, 1]")
        case ConfidenceEdits(tau, side):
            if not (math.isfinite(tau) and tau > 0):
                raise InputError(f"threshold tau is {tau}: give a finite number above 0, in units of sigma")
            if side not in ("high", "low"):
                raise InputError(f"side is {side!r}: give 'high' or 'low'")
        case RankedEdits(count):
            if not _is_int(count) or not 1 <= count <= T:
                raise InputError(f"a count of {count} rows: give an integer in 1..{T}")
        case Replace() | Accumulate() | AccumulateSubsample():
            pass
        case _:
            raise InputError(f"{rule!r} is no rule: give one of the dataclasses in sim.rules")


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _validate_length(length: int, edits: int) -> None:
    if length != edits:
        raise InputError(f"the schedule has {length} edits: give generations - 1 = {edits} of them")


def _validate_counts(counts: tuple[int, ...], T: int, edits: int) -> None:
    _validate_length(len(counts), edits)
    for number, count in enumerate(counts, start=1):
        if not _is_int(count) or not 0 <= count <= T:
            raise InputError(f"edit {number} has a row count of {count}: give an integer in 0..{T}")


def edited_rows(rule: Rule, T: int, edits: int, seed: int, design: int) -> np.ndarray | None:
    """Row indices that each edit relabels, for rules that fix them beforehand.

    Args:
        rule: a validated rule.
        T: samples.
        edits: generations - 1.
        seed: of the simulation.
        design: index of the draw of X; the rows depend on (seed, design) alone.

    Returns:
        int32, shape (edits, max(1, largest count)), padded with T; None for rules without row lists.
    """
    rng = np.random.default_rng((seed, design, 1))
    match rule:
        case RandomEdits(counts):
            blocks = [rng.choice(T, count, replace=False, shuffle=False) for count in counts]
        case DisjointEdits(counts):
            order = rng.permutation(T)
            blocks = np.split(order, np.cumsum(counts))[:-1]
        case RowEdits(rows):
            blocks = [np.asarray(block, dtype=np.int32) for block in rows]
        case FixedRealShare(share):
            blocks = [np.arange(round(share * T), T)] * edits
        case _:
            return None
    return _padded(blocks, edits, T)


def _padded(blocks: list[np.ndarray], edits: int, T: int) -> np.ndarray:
    width = max([1, *map(len, blocks)])
    table = np.full((edits, width), T, dtype=np.int32)
    for row, block in zip(table, blocks, strict=True):
        row[: len(block)] = block
    return table


def subsamples(T: int, edits: int, seed: int, design: int) -> np.ndarray:
    """Pairs that fits 2, 3, .. see under `AccumulateSubsample`, drawn without replacement.

    Returns:
        int32, shape (edits, T); index g T + t is row t of generation g (g = 0 is the real data).
    """
    rng = np.random.default_rng((seed, design, 2))
    picks = [rng.choice((n + 2) * T, T, replace=False, shuffle=False) for n in range(edits)]
    return np.asarray(picks, dtype=np.int32).reshape(edits, T)
