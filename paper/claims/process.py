"""The process in NumPy, as literally as it can be written: the ledger's own witness.

It shares no code with `theory` or `sim`, keeps every X, noise and residual, and so can compare both
sides of an identity draw by draw. Every draw has its own X: draws are independent, and standard errors
are those of independent draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import sqrt

import numpy as np

SEED = 2412_14689
Select = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Mean:
    """A mean over independent draws and its standard error."""

    mean: float
    error: float


def mean(values: np.ndarray) -> Mean:
    """Return the mean of independent values with its standard error."""
    return Mean(float(values.mean()), float(values.std(ddof=1) / sqrt(values.size)))


@dataclass(frozen=True)
class Run:
    """One batch of independent runs, sigma = 1 and w* = 0 without loss of generality.

    Attributes:
        X: (B, T, d).
        E: noise of each generation, n arrays (B, T).
        masks: edited rows of each edit, n-1 arrays (B, T) of bool.
        residuals: r_1..r_n, each (B, T).
        fits: w^_1..w^_n, each (B, d).
        pinv: X^+, (B, d, T).
    """

    X: np.ndarray
    E: list[np.ndarray]
    masks: list[np.ndarray]
    residuals: list[np.ndarray]
    fits: list[np.ndarray]
    pinv: np.ndarray

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Return X^+ times a vector of each draw, (B, T) -> (B, d)."""
        return np.einsum("bdt,bt->bd", self.pinv, rows)


def random_rows(m: int) -> Select:
    """Edit m rows drawn uniformly in each generation."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del X, n
        order = np.argsort(rng.random(residual.shape), axis=1)
        return order < m

    return select


def scheduled_rows(counts: tuple[int, ...]) -> Select:
    """Edit counts[n-1] rows drawn uniformly in edit n."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del X
        order = np.argsort(rng.random(residual.shape), axis=1)
        return order < counts[n - 1]

    return select


def disjoint_rows(m: int) -> Select:
    """Edit rows (n-1) m .. n m - 1 in edit n; the rows of X are exchangeable, so this is a random partition."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del X, rng
        mask = np.zeros(residual.shape, dtype=bool)
        mask[:, (n - 1) * m : n * m] = True
        return mask

    return select


def confident_rows(tau: float) -> Select:
    """Edit the rows with |r_t| <= tau: what a confidence threshold does."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del X, n, rng
        return np.abs(residual) <= tau

    return select


def ranked_rows(m: int) -> Select:
    """Edit the m rows with the smallest |r_t|: what confidence does where its threshold is a quantile."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del X, n, rng
        return np.argsort(np.argsort(np.abs(residual), axis=1), axis=1) < m

    return select


def aligned_rows(m: int) -> Select:
    """Edit the m rows with the largest x_t1 r_t: a data-dependent choice that no statement of the paper excludes."""

    def select(residual: np.ndarray, X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        del n, rng
        order = np.argsort(-residual * X[:, :, 0], axis=1)
        mask = np.zeros(residual.shape, dtype=bool)
        np.put_along_axis(mask, order[:, :m], True, axis=1)
        return mask

    return select


def batches(T: int, d: int, select: Select, generations: int, draws: int, seed: int, batch: int = 4000):
    """Yield `Run`s of at most `batch` draws until `draws` are done."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, batch):
        B = min(batch, draws - start)
        X = rng.standard_normal((B, T, d))
        pinv = np.linalg.solve(X.transpose(0, 2, 1) @ X, X.transpose(0, 2, 1))
        y = rng.standard_normal((B, T))
        E, masks, residuals, fits = [y], [], [], []
        for n in range(1, generations + 1):
            w = np.einsum("bdt,bt->bd", pinv, y)
            prediction = np.einsum("btd,bd->bt", X, w)
            fits.append(w)
            residuals.append(y - prediction)
            if n < generations:
                mask = select(residuals[-1], X, n, rng)
                noise = rng.standard_normal((B, T))
                y = np.where(mask, prediction + noise, y)
                masks.append(mask)
                E.append(noise)
        yield Run(X, E, masks, residuals, fits, pinv)


def gathered(per_run: list[np.ndarray]) -> Mean:
    """Return the mean over all draws of all batches."""
    return mean(np.concatenate(per_run))


@cache
def errors(T: int, d: int, name: str, parameter: float, generations: int, draws: int, seed: int) -> tuple[Mean, ...]:
    """Return the literal error E ||w^_n - w*||^2 / v by generation for a named selection.

    `name` is "random", "disjoint" or "aligned" (`parameter` = rows per edit), or "high-confidence"
    (`parameter` = tau in units of sigma).
    """
    return error_curve(T, d, selection(name, parameter), generations, draws, seed)


@cache
def scheduled_errors(T: int, d: int, counts: tuple[int, ...], draws: int, seed: int) -> tuple[Mean, ...]:
    """Return the literal error in units of v for random rows on a schedule."""
    return error_curve(T, d, scheduled_rows(counts), len(counts) + 1, draws, seed)


def error_curve(T: int, d: int, select: Select, generations: int, draws: int, seed: int) -> tuple[Mean, ...]:
    """Return E ||w^_n - w*||^2 / v by generation."""
    v = d / (T - d - 1)
    values: list[list[np.ndarray]] = [[] for _ in range(generations)]
    for run in batches(T, d, select, generations, draws, seed, batch=500):
        for n, fit in enumerate(run.fits):
            values[n].append((fit**2).sum(axis=1) / v)
    return tuple(gathered(value) for value in values)


def selection(name: str, parameter: float) -> Select:
    """Return the selection of that name."""
    match name:
        case "random":
            return random_rows(int(parameter))
        case "disjoint":
            return disjoint_rows(int(parameter))
        case "aligned":
            return aligned_rows(int(parameter))
        case "high-confidence":
            return confident_rows(parameter)
    raise ValueError(f"no selection is called {name!r}")


@cache
def fit_test(T: int, d: int, name: str, parameter: float, generations: int, draws: int, seed: int) -> tuple[Mean, ...]:
    """Return E ||H u_n||^2 / (d sigma^2) by generation: the fit-test form, from its own draws."""
    values: list[list[np.ndarray]] = [[] for _ in range(generations)]
    for run in batches(T, d, selection(name, parameter), generations, draws, seed):
        for n, fit in enumerate(run.fits):
            # w* = 0, so H u_n = X w^_n.
            values[n].append((np.einsum("btd,bd->bt", run.X, fit) ** 2).sum(axis=1) / d)
    return tuple(gathered(value) for value in values)


@dataclass(frozen=True)
class OneEdit:
    """What one random edit does, in units of v.

    Attributes:
        error: E ||w^_2 - w*||^2 / v.
        claimed: E ||Theorem 1's w^_2 - w*||^2 / v, the same noise.
        dropped: E ||w^_2 - Theorem 1's w^_2||^2 / v.
        paired: error minus claimed, draw by draw.
    """

    error: Mean
    claimed: Mean
    dropped: Mean
    paired: Mean


@cache
def one_random_edit(T: int, d: int, m: int, seed: int, draws: int = 20_000) -> OneEdit:
    """Run the process once with stored noise and set Theorem 1's right side beside it."""
    v = d / (T - d - 1)
    actual, claimed, dropped = [], [], []
    for run in batches(T, d, random_rows(m), 2, draws, seed):
        formula = run.apply(run.E[0] + run.masks[0] * run.E[1])
        actual.append((run.fits[1] ** 2).sum(axis=1) / v)
        claimed.append((formula**2).sum(axis=1) / v)
        dropped.append(((run.fits[1] - formula) ** 2).sum(axis=1) / v)
    a, c = np.concatenate(actual), np.concatenate(claimed)
    return OneEdit(mean(a), mean(c), gathered(dropped), mean(a - c))


def dropped_share(T: int, d: int, m: int) -> float:
    """Return E ||X^+ M_1 r_1||^2 / v = f m(T-m)/(T(T-1)), f = (T-d)/(T+2), for m random rows (this work)."""
    return (T - d) / (T + 2) * m * (T - m) / (T * (T - 1))


@cache
def overlap(name: str) -> Mean:
    """Return the share of the rows of edit 1 that edit 2 edits again, T = 200, d = 10, an eighth edited.

    For "high-confidence" tau is the quantile of |N(0, 1)| at an eighth.
    """
    parameter = 25.0 if name == "random" else 0.15731068
    shares = []
    for run in batches(200, 10, selection(name, parameter), 3, 1000, SEED, batch=500):
        first, second = run.masks
        shares.append((first & second).sum(axis=1) / np.maximum(first.sum(axis=1), 1))
    return gathered(shares)


@cache
def martingale(T: int, d: int, tau: float, generations: int, draws: int, seed: int) -> tuple[Mean, Mean]:
    """Return E ||A||^2/v - 1 - sum_i E tr(G M_i)/v (paired) and its second part, for confidence selection.

    A = X^+ (E_1 + sum_i M_i E_{i+1}).
    """
    v = d / (T - d - 1)
    differences, traces = [], []
    for run in batches(T, d, confident_rows(tau), generations, draws, seed):
        inside = run.E[0] + sum(mask * noise for mask, noise in zip(run.masks, run.E[1:], strict=True))
        leverage = (run.pinv**2).sum(axis=1)
        expected = leverage.sum(axis=1) + sum((leverage * mask).sum(axis=1) for mask in run.masks)
        differences.append(((run.apply(inside) ** 2).sum(axis=1) - expected) / v)
        traces.append(sum((leverage * mask).sum(axis=1) for mask in run.masks) / v)
    return gathered(differences), gathered(traces)
