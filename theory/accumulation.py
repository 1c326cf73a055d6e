"""Accumulating generations: all pairs kept (exact), or fits on a sample of them (noise integrated out)."""

import numpy as np

from theory.closed_forms import accumulate_fresh_x, accumulate_same_x, honest_error
from theory.curve import Curve
from theory.schedules import check_count, check_shape


def accumulate(T: int, d: int, generations: int, *, fresh_x: bool = False) -> Curve:
    """Exact curve when every fit uses all pairs so far, on the same X stacked or on fresh rows (``closed_forms``).

    Raises:
        InputError: if T < d + 2 or generations < 1.
    """
    check_shape(T, d)
    error = accumulate_fresh_x(T, d, generations) if fresh_x else accumulate_same_x(generations)
    return Curve(error, np.zeros_like(error))


def accumulate_subsample(T: int, d: int, generations: int, *, draws: int = 200, seed: int = 0) -> Curve:
    r"""Expected error when every fit uses T pairs drawn from all pairs so far (Kazdan et al. 2025).

    Generation k brings T fresh rows X_k, labelled by fit k - 1 (by w* for k = 1) with fresh noise; fit n
    uses T of the n T pairs, uniformly without replacement. With A_{n,k} the Gram matrix of the sample's
    rows from generation k and A_n their sum, the errors delta_n = w^_n - w* obey

        A_n delta_n = sum_{k<=n} A_{n,k} delta_{k-1} + X_S' E_S,   delta_0 = 0,

    so delta_n = L_n E for a matrix L_n, and the error is E||L_n||_F^2 sigma^2 (Sigma = I without loss of
    generality: Sigma^{1/2} delta_n does not depend on Sigma). Finite for T >= d + 2, as the rows of a
    sample are independent Gaussian. For one kept X a sample may repeat a row, its distinct rows can be
    fewer than d + 2 and the expectation infinite: no engine for that case. ``closed_forms``
    has the limit T/d -> infinity. Source: this work.

    Args:
        T: pairs of one generation and of one sample, T >= d + 2; T >= d + 4 for a finite variance.
        d: features.
        generations: fits n >= 1; O(n^3 T d^2) operations a draw.
        draws: independent designs and samples, at least 2.
        seed: their seed.

    Returns:
        Curve of n values in units of v and standard errors over the draws.

    Raises:
        InputError: for a bad shape, generations < 1 or draws < 2.
    """
    check_shape(T, d)
    check_count("generations", generations)
    check_count("draws", draws, low=2)
    rng = np.random.default_rng(seed)
    samples = np.empty((draws, generations))
    for draw in range(draws):
        X = rng.standard_normal((generations * T, d))
        L = np.zeros((generations + 1, d, generations * T))
        for n in range(1, generations + 1):
            chosen = rng.choice(n * T, T, replace=False)
            rows = X[chosen]
            right = np.zeros((d, generations * T))
            right[:, chosen] = rows.T
            for k in range(2, n + 1):
                part = rows[chosen // T == k - 1]
                right += (part.T @ part) @ L[k - 1]
            L[n] = np.linalg.solve(rows.T @ rows, right)
        samples[draw] = np.einsum("nij,nij->n", L[1:], L[1:])
    samples /= honest_error(T, d)
    return Curve(samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(draws))
