r"""Ridge regression: the second-moment engine for random edits (m_n = T is replace), mean and variance apart.

Ridge keeps the scale of X, so the fit-test theorem does not apply: the engine averages over literal X with
rows N(0, Sigma), the noise and the choice of rows being integrated out. All values are absolute (units of
y^2), not of v.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theory.curve import Curve
from theory.errors import InputError
from theory.schedules import check_count, check_counts, check_real


@dataclass(frozen=True)
class RidgeCurve:
    """Expected test error by generation in absolute units, with its two parts.

    Attributes:
        error: E ||w^_n - w*||_Sigma^2, the sum of the parts, and its standard error.
        bias: E_X ||E[w^_n | X] - w*||_Sigma^2, what the fit forgets of w*.
        variance: E_X tr(Sigma Cov(w^_n | X)), over the noise and the choice of rows.
    """

    error: Curve
    bias: Curve
    variance: Curve


def _check_problem(Sigma: np.ndarray, w_star: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    Sigma, w_star = np.asarray(Sigma, dtype=np.float64), np.asarray(w_star, dtype=np.float64)
    if w_star.ndim != 1 or Sigma.shape != (w_star.size, w_star.size) or w_star.size == 0:
        raise InputError(f"Sigma {Sigma.shape} must be d x d for the d={w_star.size} entries of w_star.")
    if not (np.isfinite(Sigma).all() and np.isfinite(w_star).all()):
        raise InputError("Sigma and w_star must be finite: remove NaN and infinite entries.")
    scale = np.abs(Sigma).max()
    if not np.allclose(Sigma, Sigma.T, rtol=0, atol=1e-12 * scale) or np.linalg.eigvalsh(Sigma)[0] <= 0:
        raise InputError("Sigma must be symmetric positive definite: give a covariance matrix.")
    return Sigma, w_star


def _gram(X: np.ndarray, d: int) -> np.ndarray:
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != d:
        raise InputError(f"X {X.shape} must have one column for each of the {d} entries of w_star.")
    with np.errstate(over="ignore", invalid="ignore"):
        gram = X.T @ X
    if not np.isfinite(gram).all():
        raise InputError("X and its squares must be finite: remove NaN, infinite and huge entries.")
    return gram


def ridge_random_edits(
    T: int,
    counts: Sequence[int],
    *,
    Sigma: np.ndarray,
    w_star: np.ndarray,
    sigma: float,
    penalty: float,
    draws: int = 50,
    seed: int = 0,
) -> RidgeCurve:
    r"""Error of ridge fits when m_n uniformly random rows are edited after generation n.

    w^ = B y, B = (X'X + penalty I)^{-1} X', H_l = X B, Q_l = I - H_l. Given X, with a = m/T,
    c = m(T-m)/(T(T-1)) and the mean mu_n = E y_n, the recursion y_{n+1} = (I - M Q_l) y_n + M E_{n+1} gives
    (E M A M = (a-c) A + c diag A for a uniformly random set of rows)

        mu_{n+1} = (I - a Q_l) mu_n,   mu_1 = X w*,   r = Q_l mu_n,
        V_{n+1} = V - a (Q_l V + V Q_l) + (a-c) Q_l V Q_l + c diag(Q_l V Q_l)
                  + (a-c-a^2) r r' + c diag(r r') + a sigma^2 I,   V_1 = sigma^2 I,

    V_n = Cov(y_n | X). Then bias = ||B mu_n - w*||_Sigma^2 and variance = tr(Sigma B V_n B'). Its sum is the
    second moment recursion of Y = E y y'. With penalty 0 the bias vanishes and T >= d + 2 is required.
    Source: this work.

    Args:
        T: samples, at least 2.
        counts: m_1..m_{n-1} in 0..T; all T is replace.
        Sigma: covariance of a row of X, float64 (d, d), positive definite.
        w_star: true parameter, float64 (d,).
        sigma: noise standard deviation.
        penalty: coefficient of ||w||^2 beside the sum of squared residuals, >= 0.
        draws: independent X, at least 2.
        seed: their seed.

    Returns:
        RidgeCurve with standard errors over the draws; O(T^2 d) a generation and draw.

    Raises:
        InputError: for a bad shape, count, Sigma, sigma or penalty.
    """
    Sigma, w_star = _check_problem(Sigma, w_star)
    d = w_star.size
    sigma = check_real("sigma", sigma, low=0.0)
    penalty = check_real("penalty", penalty, low=0.0)
    check_count("T", T, low=d + 2 if penalty == 0 else 2)
    counts = check_counts(counts, T)
    check_count("draws", draws, low=2)
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(Sigma)
    bias, variance = np.empty((2, draws, len(counts) + 1))
    diagonal = np.arange(T)
    for draw in range(draws):
        X = rng.standard_normal((T, d)) @ root.T
        left, s, right = np.linalg.svd(X, full_matrices=False)
        shrink = s**2 / (s**2 + penalty)
        B = (right.T * (s / (s**2 + penalty))) @ left.T
        test = B.T @ Sigma @ B
        mu, V = X @ w_star, sigma**2 * np.eye(T)

        def residual(A: np.ndarray, left: np.ndarray = left, shrink: np.ndarray = shrink) -> np.ndarray:
            """Return Q_l A for A of shape (T, ...)."""
            return A - (left * shrink) @ (left.T @ A)

        for n in range(len(counts) + 1):
            offset = B @ mu - w_star
            bias[draw, n] = offset @ Sigma @ offset
            variance[draw, n] = np.vdot(test, V)
            if n == len(counts):
                break
            m = counts[n]
            a, c = m / T, m * (T - m) / (T * (T - 1))
            r, QV = residual(mu), residual(V)
            QVQ = residual(QV.T)
            V = V - a * (QV + QV.T) + (a - c) * QVQ + (a - c - a * a) * np.outer(r, r)
            V[diagonal, diagonal] += c * (np.diagonal(QVQ) + r * r) + a * sigma**2
            mu = mu - a * r
    parts = (bias + variance, bias, variance)
    return RidgeCurve(*(Curve(part.mean(axis=0), part.std(axis=0, ddof=1) / np.sqrt(draws)) for part in parts))


def _replace_problem(
    X: np.ndarray, Sigma: np.ndarray, w_star: np.ndarray, sigma: float, penalty: float
) -> tuple[np.ndarray, np.ndarray, float, float, np.ndarray, np.ndarray]:
    """Return the problem checked, eigenvalues >= 0 and eigenvectors of X'X; raises InputError."""
    Sigma, w_star = _check_problem(Sigma, w_star)
    sigma = check_real("sigma", sigma, low=0.0)
    penalty = check_real("penalty", penalty, low=0.0, open_low=True)
    s, R = np.linalg.eigh(_gram(X, w_star.size))
    return Sigma, w_star, sigma, penalty, np.maximum(s, 0.0), R


def ridge_replace(
    X: np.ndarray, *, Sigma: np.ndarray, w_star: np.ndarray, sigma: float, penalty: float, generations: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Bias and variance by generation of ridge + replace for one given X, in closed form; both (n,).

    With X'X = R diag(s) R' and k = s/(s + penalty): w^_n = K^n w* + sum_{j<n} K^j B E, so bias = ||(K^n - I)
    w*||_Sigma^2 and variance = sigma^2 sum_{j<n} tr(Sigma K^j B B' K^j), B B' = R diag(s/(s+penalty)^2) R'.

    Raises:
        InputError: for shapes that do not fit, entries that are not finite, sigma < 0, penalty <= 0 or
            generations < 1.
    """
    Sigma, w_star, sigma, penalty, s, R = _replace_problem(X, Sigma, w_star, sigma, penalty)
    k = s / (s + penalty)
    rotated, w_rotated = R.T @ Sigma @ R, R.T @ w_star
    n = np.arange(1, check_count("generations", generations) + 1)
    offset = (k ** n[:, None] - 1) * w_rotated
    bias = np.einsum("ni,ij,nj->n", offset, rotated, offset)
    steps = np.sum(np.diagonal(rotated) * (k / (s + penalty)) * k ** (2 * (n[:, None] - 1)), axis=1)
    return bias, sigma**2 * np.cumsum(steps)


def ridge_replace_limit(
    X: np.ndarray, *, Sigma: np.ndarray, w_star: np.ndarray, sigma: float, penalty: float
) -> tuple[float, float]:
    r"""Limit n -> infinity of ``ridge_replace``: bounded error that has forgotten everything.

    **Proposition (this work).** For penalty > 0 every k < 1, so bias -> ||w*||_Sigma^2, the error of the
    zero vector, whatever the data, and variance -> sigma^2 sum_i Sigma_ii s_i/(penalty (2 s_i + penalty)),
    finite, in the eigenbasis of X'X: s/(s+p)^2 / (1 - (s/(s+p))^2) = s/(p (2s + p)). A bounded error is not
    "no collapse".

    Raises:
        InputError: as ``ridge_replace``.
    """
    Sigma, w_star, sigma, penalty, s, R = _replace_problem(X, Sigma, w_star, sigma, penalty)
    diagonal = np.einsum("ij,ik,kj->j", R, Sigma, R)
    return float(w_star @ Sigma @ w_star), float(sigma**2 * np.sum(diagonal * (s / (2 * s + penalty)) / penalty))
