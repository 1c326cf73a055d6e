r"""The fit-test theorem: the test error is a property of a uniformly random projection.

**Theorem (this work).** Let X have T >= d + 2 independent rows N(0, Sigma), Sigma > 0, and let the labels of
generation n be y_n = X w* + u_n, where u_n is any random vector that is, given the projection H = X X^+,
independent of X. That holds whenever u_n is built from noise independent of X, from row choices independent
of X, and from earlier fitted values X w^_k = X w* + H u_k and residuals r_k = (I - H) u_k (edit, replace and
accumulate on the same X, with random, disjoint, one-sided or confidence selection). Then

    E ||w^_n - w*||_Sigma^2 = v E||H u_n||^2 / (d sigma^2),     v = sigma^2 d / (T - d - 1),

and H is a uniformly distributed (Haar) projection of rank d.

*Proof.* Write X = Z Sigma^{1/2}, Z standard Gaussian. Then w^_n - w* = X^+ u_n = Sigma^{-1/2} Z^+ u_n, so
that ||w^_n - w*||_Sigma^2 = u_n' G u_n with G = Z (Z'Z)^{-2} Z': Sigma has gone, and H = Z Z^+ does not see
it either. Let Z = U W^{1/2} with W = Z'Z and U = Z W^{-1/2}. For a fixed orthogonal O, OZ has the law of Z
and the polar factors (OU, W), so U is Haar on the frames and its law given W is Haar too: U and W are
independent. G = U W^{-1} U' and E W^{-1} = I/(T-d-1) (inverse Wishart mean), so E[G | U] = U U'/(T-d-1) =
H/(T-d-1). H is a function of U, so E[G | H] = H/(T-d-1) too, and u_n is independent of G given H: E[u_n' G
u_n] = E[u_n' E[G | H] u_n] = E||H u_n||^2/(T-d-1).  QED

Consequences. Every ridgeless rule on one kept X is invariant to Sigma (ridge is not). At T = d + 2 and d + 3
the literal quadratic form has infinite variance (E tr W^{-2} is infinite for T <= d + 3) while ||H u_n||^2
has all moments: there, only this form can be held to a standard error.
"""

import numpy as np

from theory.schedules import check_count, check_real


def haar_frames(T: int, d: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Independent Haar-distributed orthonormal frames.

    Args:
        T: rows, T >= d.
        d: columns, d >= 1.
        draws: number of frames.
        rng: NumPy generator, advanced by draws T d normals.

    Returns:
        float64 array (draws, T, d); U'U = I, and H = U U' is a uniformly random rank-d projection.

    Raises:
        InputError: if T < d or a number is no positive integer.
    """
    check_count("d", d)
    check_count("T", T, low=d)
    check_count("draws", draws)
    Z = rng.standard_normal((draws, T, d))
    if d >= 8 and T - d >= d:
        # Ten times faster than Householder; cond(Z) stays below about 10 here, so rounding is below 1e-13.
        factor = np.linalg.cholesky(Z.transpose(0, 2, 1) @ Z)
        return Z @ np.linalg.inv(factor).transpose(0, 2, 1)
    Q, R = np.linalg.qr(Z)
    # The sign of R's diagonal makes the factorisation unique, and with it Q exactly Haar.
    return Q * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]


def fit_test_error(U: np.ndarray, u: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """||H u||^2 / (d sigma^2), whose mean is E_test / v by the fit-test theorem.

    Args:
        U: orthonormal frames, float64 (..., T, d), H = U U'.
        u: label errors y - X w*, float64 (..., T).
        sigma: noise standard deviation, in the units of u.

    Returns:
        float64 (...).

    Raises:
        InputError: if sigma is not a positive number.
    """
    sigma = check_real("sigma", sigma, low=0.0, open_low=True)
    projected = np.einsum("...td,...t->...d", U, u)
    return np.einsum("...d,...d->...", projected, projected) / (U.shape[-1] * sigma**2)
