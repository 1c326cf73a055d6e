"""The linear model of section 4.2: its parameters, the draw of X and the linear map of a fit."""

import math
from dataclasses import dataclass

import numpy as np

from sim.errors import InputError


@dataclass(frozen=True, eq=False)
class Setting:
    """x ~ N(0, Sigma) in R^d, y = x . w* + eps, eps ~ N(0, sigma^2); T samples a generation.

    Attributes:
        T: samples, at least d + 2 (below, the expected error of a ridgeless fit is infinite: Lemma 3).
        d: features.
        sigma: standard deviation of the label noise, in units of y.
        covariance: Sigma, float64 (d, d), positive definite; None is the identity.
        ridge: lambda >= 0 in w = argmin ||Xw - y||^2 / N + lambda ||w||^2 over the N pairs of a fit, that is
            w = (X'X + N lambda I)^{-1} X'y; 0 is the ridgeless fit X^+ y.
        w_star: w*, float64 (d,); None is the unit vector (1, .., 1)/sqrt(d).
    """

    T: int
    d: int
    sigma: float = 1.0
    covariance: np.ndarray | None = None
    ridge: float = 0.0
    w_star: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            InputError: T < d + 2, a number outside its range, a wrong shape or a Sigma that is no covariance.
        """
        for name in ("T", "d"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}: give an integer of at least 1")
        if self.d + 2 > self.T:
            raise InputError(f"T = {self.T} samples are too few for d = {self.d}: give T >= d + 2 = {self.d + 2}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InputError(f"sigma is {self.sigma}: give a finite number above 0")
        if not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise InputError(f"ridge is {self.ridge}: give a finite number of at least 0")
        if self.w_star is not None:
            w_star = np.asarray(self.w_star)
            if w_star.shape != (self.d,) or not np.isfinite(w_star).all():
                raise InputError(f"w_star must be {self.d} finite numbers, has shape {w_star.shape}")
        if self.covariance is not None:
            self._validate_covariance(np.asarray(self.covariance))

    def _validate_covariance(self, sigma: np.ndarray) -> None:
        if sigma.shape != (self.d, self.d) or not np.isfinite(sigma).all():
            raise InputError(f"covariance must be a {self.d} x {self.d} matrix of finite numbers")
        eigenvalues = np.linalg.eigvalsh(sigma)
        floor = self.d * np.finfo(np.float64).eps * np.abs(eigenvalues).max()
        if not np.allclose(sigma, sigma.T, rtol=1e-12, atol=floor) or eigenvalues[0] <= floor:
            raise InputError(
                "covariance is not symmetric positive definite: "
                f"its smallest eigenvalue is {eigenvalues[0]:.3g}, drop or combine dependent features"
            )

    def root(self) -> np.ndarray:
        """Lower Cholesky factor L of Sigma = L L', float64 (d, d)."""
        return np.eye(self.d) if self.covariance is None else np.linalg.cholesky(np.asarray(self.covariance))

    def parameter(self) -> np.ndarray:
        """w*, float64 (d,)."""
        if self.w_star is None:
            return np.full(self.d, self.d**-0.5)
        return np.asarray(self.w_star, dtype=np.float64)


def draw(setting: Setting, blocks: int, seed: int, design: int) -> np.ndarray:
    """Draws X for `blocks` generations, rows N(0, Sigma), float64 (blocks, T, d).

    Block 0 is the same whatever their number.

    Args:
        setting: the linear model.
        blocks: 1 where all generations share X.
        seed: of the simulation.
        design: index of the draw; X depends on (seed, design) alone.
    """
    rng = np.random.default_rng((seed, design, 0))
    return rng.standard_normal((blocks, setting.T, setting.d)) @ setting.root().T


# LAPACK is called from NumPy on purpose. In a jitted loop, XLA's CPU thread pool can come to wait for itself
# when a batched decomposition meets a parallel kernel: seen as a hang on 2 cores with jax 0.10.


def fit_map(X: np.ndarray, ridge: float) -> np.ndarray:
    """The map y -> w of one fit, (X'X + T lambda I)^{-1} X', float64 (d, T).

    By QR of X with sqrt(T lambda) I below it, so that no condition number is squared. (`numpy.linalg.solve`
    for the triangle: SciPy's triangular solver starts threads that cost 100 times the work at this size.)
    """
    T, d = X.shape
    stacked = np.concatenate([X, np.sqrt(T * ridge) * np.eye(d)]) if ridge else X
    Q, R = np.linalg.qr(stacked)
    return np.linalg.solve(R, Q[:T].T)


def minimum_norm_map(X: np.ndarray, ridge: float) -> np.ndarray:
    """As `fit_map` for an X that may lack full rank, float64 (d, T); at lambda = 0 the pseudo-inverse.

    Singular values below T eps times the largest count as zero.
    """
    T = X.shape[0]
    Q, R = np.linalg.qr(X)
    U, s, Vt = np.linalg.svd(R)
    kept = s > T * np.finfo(np.float64).eps * s[0]
    inverse = np.where(kept, s, 0.0) / np.where(kept, s**2 + T * ridge, 1.0)
    return (Vt.T * inverse) @ (Q @ U).T


def growing_maps(X: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Updates of a fit to pairs that arrive in blocks: [R; X_n] = Q R', c' = Q'[c; y_n], w = S c'.

    Args:
        X: (n, T, d), one block per generation.
        ridge: lambda; after n blocks the penalty is n T lambda.

    Returns:
        Q': float64 (n, d, d + T), and S: float64 (n, d, d).
    """
    n, T, d = X.shape
    updates, solves = np.empty((n, d, d + T)), np.empty((n, d, d))
    R = np.zeros((d, d))
    for index, block in enumerate(X):
        Q, R = np.linalg.qr(np.concatenate([R, block]))
        updates[index] = Q.T
        Q, S = np.linalg.qr(np.concatenate([R, np.sqrt((index + 1) * T * ridge) * np.eye(d)]))
        solves[index] = np.linalg.solve(S, Q[:d].T)
    return updates, solves
