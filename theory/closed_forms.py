r"""Closed forms in units of v = sigma^2 d/(T-d-1) unless said otherwise; index 0 is generation 1.

Each docstring names the range where the form is exact and its source: an equation of arXiv 2412.14689 ("the
paper"), another paper, or this work.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import digamma, zeta

from theory.errors import InputError
from theory.moments import leverage_energy, mean_residual_leverage, spectral_moments
from theory.schedules import check_count, check_counts, check_real, check_shape


def honest_error(T: int, d: int, sigma: float = 1.0) -> float:
    """Expected test error of one honest fit, v = sigma^2 d/(T-d-1); exact for T >= d + 2 (paper, eq. 39).

    Raises:
        InputError: if T < d + 2, d < 1 or sigma is no finite number >= 0.
    """
    check_shape(T, d)
    return check_real("sigma", sigma, low=0.0) ** 2 * d / (T - d - 1)


def trace_inverse_gram(T: int, d: int) -> float:
    """E tr (X'X)^{-1} = d/(T-d-1) for Sigma = I, T >= d + 2 (paper, eq. 39; inverse Wishart mean)."""
    check_shape(T, d)
    return d / (T - d - 1)


def trace_inverse_gram_squared(T: int, d: int) -> float:
    """E tr (X'X)^{-2} = d(T-1)/((T-d)(T-d-1)(T-d-3)), Sigma = I; infinite for T < d + 4 (inverse Wishart)."""
    check_shape(T, d)
    if T - d < 4:
        return float("inf")
    return d * (T - 1) / ((T - d) * (T - d - 1) * (T - d - 3))


def leverage_weighted_gram(T: int, d: int) -> float:
    """E sum_t (1 - h_t) G_tt = d(T-d)/((T-d-1)(T+2)), G = X (X'X)^{-2} X', T >= d + 2 (this work).

    The fit-test theorem turns G into H/(T-d-1), and E sum_t (1-h_t) h_t = d(T-d)/(T+2) by the Beta law of
    h_t.
    """
    check_shape(T, d)
    return d * (T - d) / ((T - d - 1) * (T + 2))


def replace_curve(generations: int) -> np.ndarray:
    """The integers n = 1..generations: exact for replaced labels on the same X, T >= d + 2 (paper, eq. 7).

    w^_{n+1} = w^_n + X^+ E_{n+1}: independent steps of error v. The introduction's formula, n v for fit n +
    1, is one generation off.
    """
    return np.arange(1, check_count("generations", generations) + 1, dtype=np.float64)


def accumulate_same_x(generations: int) -> np.ndarray:
    """sum_{i<=n} 1/i^2 <= pi^2/6: exact for accumulated labels on the same X (Gerstgrasser et al. 2024).

    Least squares on n stacked label sets is X^+ of their mean, w^_n = w^_{n-1} + X^+ E_n / n.
    """
    n = np.arange(1, check_count("generations", generations) + 1, dtype=np.float64)
    return np.cumsum(n**-2.0)


def accumulate_fresh_x(T: int, d: int, generations: int) -> np.ndarray:
    """sum_{i<=n} (T-d-1)/(i (iT-d-1)): exact when each generation brings T fresh rows, all kept (this work).

    With A_n the Gram matrix of all n T rows, A_n w^_n = A_{n-1} w^_{n-1} + X_n'(X_n w^_{n-1} + E_n), hence
    w^_n = w^_{n-1} + A_n^{-1} X_n' E_n, a step independent of the earlier noise given all X. Its error is
    sigma^2 E tr(Sigma A_n^{-1} X_n'X_n A_n^{-1}), which by exchangeability of the n parts is sigma^2/n
    E tr(Sigma A_n^{-1}) = sigma^2 d/(n (nT-d-1)). Below the same-X curve for n >= 2.

    Raises:
        InputError: if T < d + 2 or generations < 1.
    """
    check_shape(T, d)
    n = np.arange(1, check_count("generations", generations) + 1, dtype=np.float64)
    return np.cumsum((T - d - 1) / (n * (n * T - d - 1)))


def accumulate_fresh_x_limit(T: int, d: int) -> float:
    """Limit of ``accumulate_fresh_x``: (1-t)/t (psi(1) - psi(1-t)) <= pi^2/6, t = (d+1)/T (this work).

    Equal to (1-t) sum_{k>=0} zeta(k+2) t^k, which is used for small t: there the difference of psi cancels.
    Both to a few roundings.

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)
    t, rest = (d + 1) / T, (T - d - 1) / T
    if t < 0.1:  # 16 terms leave less than zeta(18) t^16/(1-t), below rounding
        return float(rest * np.polynomial.polynomial.polyval(t, zeta(np.arange(2.0, 18.0))))
    return float(rest / t * (digamma(1.0) - digamma(rest)))


def accumulate_subsample_limit(generations: int) -> np.ndarray:
    r"""Accumulate-subsample, T/d -> infinity: fits on T pairs drawn from the n T kept ones (this work).

    e_n = sum_{i<=n} 1/i^2 + sum_{k=2}^{n-1} (1-1/k)/(k+1)^2 + 1 - 1/n  ->  pi^2/2 - 2 = 2.93.

    Derivation, to first order in d/T. Fit n averages: delta_n = (1/n) sum_{k<n} delta_k + z_n with delta_0 =
    0 and z_n the noise of its sample. Samples n and m > n share T/m pairs in the mean, so Cov(z_n, z_m) =
    v/m, Var z_n = v: z_n is a running mean of independent terms of variance v (which gives
    ``accumulate_same_x``) plus independent noise of variance v (1 - 1/n), whose partial sums s_n = (1 + 1/n)
    s_{n-1} + noise add the rest.
    """
    n = np.arange(1, check_count("generations", generations) + 1, dtype=np.float64)
    thinning = (1 - 1 / n) / (n + 1) ** 2
    earlier = np.concatenate(([0.0], np.cumsum(thinning)[:-1]))
    return accumulate_same_x(generations) + earlier + 1 - 1 / n


def fixed_real_share_limit(a: float, generations: int) -> np.ndarray:
    """A fixed share a of rows relabelled by every model, the rest keeping real labels; T/d -> infinity.

    e_n = a (1 - a^{2n})/(1 - a^2) + (1 - a^n)^2/(1 - a)  ->  (1 + 2a)/(1 - a^2); n at a = 1, which is
    replace. ``engines.fixed_real_share`` is the same at finite T.
    """
    a = check_real("share a", a, low=0.0, high=1.0)
    n = np.arange(1, check_count("generations", generations) + 1, dtype=np.float64)
    if a == 1.0:
        return n
    return a * (1 - a ** (2 * n)) / (1 - a**2) + (1 - a**n) ** 2 / (1 - a)


def fresh_real_share(weight: float, real_per_synthetic: float, generations: int) -> np.ndarray:
    """Weighted real and synthetic data, both fresh in each generation, in units of the real sample's error.

    e_1 = 1, e_{n+1} = w^2 + (1-w)^2 (e_n + k): exact for Gaussian mean estimation, the T/d -> infinity limit
    for regression (He et al. 2025). k is the ratio of real to synthetic sample sizes.

    Raises:
        InputError: for a weight outside [0, 1] or k not positive.
    """
    w = check_real("weight", weight, low=0.0, high=1.0)
    k = check_real("real_per_synthetic", real_per_synthetic, low=0.0, open_low=True)
    curve = np.ones(check_count("generations", generations))
    for n in range(1, generations):
        curve[n] = w**2 + (1 - w) ** 2 * (curve[n - 1] + k)
    return curve


def he_weight(real_per_synthetic: float) -> float:
    """The weight of real data with the smallest stationary error, (sqrt(k^2+4k) - k)/2 (He et al. 2025).

    The stationary error (w^2 + k (1-w)^2)/(1 - (1-w)^2) has derivative zero iff w^2 + k w - k = 0, and its
    value there is w itself; w = 0.618, the golden ratio's inverse, at k = 1.
    """
    k = check_real("real_per_synthetic", real_per_synthetic, low=0.0, open_low=True)
    # 2 sqrt(k)/(sqrt(k) + sqrt(k+4)) is the same without the difference, which loses all digits at large k.
    return float(2 * np.sqrt(k) / (np.sqrt(k) + np.sqrt(k + 4)))


def one_random_edit(T: int, d: int, m: int) -> float:
    """1 + m/T + f m(T-m)/(T(T-1)), f = (T-d)/(T+2): exact for m random rows edited once (this work).

    The paper's (26) gives 1 + m/T: it drops the edited rows' old residuals.

    Raises:
        InputError: if T < d + 2 or m is outside 0..T.
    """
    f = mean_residual_leverage(T, d)
    (m,) = check_counts((m,), T)
    return float(1 + (m + f * m * (T - m) / (T - 1)) / T)


def two_random_edits(T: int, d: int, m1: int, m2: int) -> float:
    """1 + a1 + a2 + (c1+c2) f - c1 c2 S/d: exact for two independent random edits, T >= d + 2 (this work).

    S is ``moments.leverage_energy``. Raises InputError as ``one_random_edit``.
    """
    f = mean_residual_leverage(T, d)
    a1, a2 = (m / T for m in check_counts((m1, m2), T))
    c1, c2 = (m * (T - m) / (T * (T - 1)) for m in (m1, m2))
    return float(1 + a1 + a2 + (c1 + c2) * float(f) - c1 * c2 * float(leverage_energy(T, d)) / d)


def two_point_rule(T: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights, float64 (2,), of the Gauss rule of the mean spectral measure of Q o Q (``moments``).

    The nodes are the roots of z^2 - (k3/k2) z - k2, shifted by the mean 1 - d/T, with k2 and k3 its second
    and third central moments.
    """
    _, mu1, mu2, mu3, _ = spectral_moments(T, d)
    k2 = mu2 - mu1**2
    half = float((mu3 - 3 * mu1 * mu2 + 2 * mu1**3) / k2) / 2
    root = np.hypot(half, np.sqrt(float(k2)))
    # The root of larger modulus first: the other follows from the product -k2 without cancellation.
    far = half + np.copysign(root, half)
    low, high = sorted((far, -float(k2) / far))
    return float(mu1) + np.array([low, high]), np.array([high, -low]) / (high - low)


def spectral_integrand(T: int, d: int, counts: Sequence[int], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_n(x) = (T/d) sum_{i<n} c_i (1-x) x g_i(x) of ``random_edits``, and its derivative, (n, *x.shape)."""
    counts = check_counts(counts, T)
    F, dF = np.zeros((2, len(counts) + 1, *x.shape))
    g, dg = np.ones_like(x), np.zeros_like(x)
    bridge, slope = (1 - x) * x * T / d, (1 - 2 * x) * T / d
    for n, m in enumerate(counts):
        a, c = m / T, m * (T - m) / (T * (T - 1))
        p = 1 - a - c
        F[n + 1] = F[n] + c * bridge * g
        dF[n + 1] = dF[n] + c * (slope * g + bridge * dg)
        g, dg = (p + c * x) * g + a, (p + c * x) * dg + c * g
    return F, dF


def paper_sum(T: int, counts: Sequence[int]) -> np.ndarray:
    """1 + sum_{i<n} a_i, the paper's eq. 36 for random or disjoint rows: only the error's martingale part."""
    check_count("T", T)
    return 1 + np.cumsum([0.0, *(m / T for m in check_counts(counts, T))])


def random_edits_two_point(T: int, d: int, counts: Sequence[int]) -> np.ndarray:
    """Closed form for random edits: the spectral integral of ``engines.random_edits`` by its two-point rule.

    Exact for one and two edits. Largest relative error beyond, measured against the engine for shares 0.05 to
    0.9 and up to 300 edits: 8e-7 at T=1000, d=100; 2e-5 at T=200, d=10; 3e-3 at T=14, d=1; 6e-3 at T=3, d=1.
    ``bounds.random_edit_bracket`` bounds it without measurement (this work).

    Returns:
        float64 (n,), in units of v.
    """
    check_shape(T, d)
    x, weight = two_point_rule(T, d)
    return paper_sum(T, counts) + spectral_integrand(T, d, counts, x)[0] @ weight


def scalar_recursion(T: int, d: int, counts: Sequence[int]) -> np.ndarray:
    """Approximation e += a + c D f, D <- (p + c (1-d/T)) D + a: the residuals taken as white.

    D starts at 1. Exact for one edit, and for any number as T -> infinity at fixed d/T
    (``random_edits_limit``). Largest relative error measured against the engine, shares 0.05 to 0.9, up to
    300 edits: 4e-4 at T=1000, d=100; 3e-3 at T=200, d=10; 2.5e-2 at T=14, d=1. ``random_edits_two_point``
    costs the same.

    Returns:
        float64 (n,), in units of v.
    """
    f = float(mean_residual_leverage(T, d))
    curve, D = [1.0], 1.0
    for m in check_counts(counts, T):
        a, c = m / T, m * (T - m) / (T * (T - 1))
        curve.append(curve[-1] + a + c * D * f)
        D = (1 - a - c * d / T) * D + a
    return np.array(curve)


def scalar_fixed_point(T: int, d: int, m: int) -> float:
    """Fixed point 1/(1 + d(T-m)/(T(T-1))) of D in ``scalar_recursion`` at a constant count m > 0."""
    check_shape(T, d)
    (m,) = check_counts((m,), T)
    if m == 0:
        raise InputError("the recursion settles only when rows are edited: use m >= 1.")
    return 1 / (1 + d * (T - m) / (T * (T - 1)))


def random_edits_limit(n: int, a: float, phi: float) -> float:
    """Error after n random edits of share a as T -> infinity with d/T = phi fixed (this work).

    1 + n a + a (1-a) (1-phi) [n D* + (1 - D*)(1 - l^n)/(1 - l)], l = (1-a)(1-a phi), D* = 1/(1 + phi (1-a)).
    The mean spectral measure of ``engines.random_edits`` has mean 1 - phi and variance 2 phi(1-phi)/(T+2),
    so it tends to a point mass; the geometric recursion D <- l D + a is then solved. At phi = 0: 1 + n a (2
    - a).

    Raises:
        InputError: if n < 0, or a or phi is outside [0, 1].
    """
    check_count("n", n, low=0)
    a = check_real("share a", a, low=0.0, high=1.0)
    phi = check_real("phi = d/T", phi, low=0.0, high=1.0)
    rate, settled = (1 - a) * (1 - a * phi), 1 / (1 + phi * (1 - a))
    transient = n if rate == 1 else (1 - rate**n) / (1 - rate)
    return 1 + n * a + a * (1 - a) * (1 - phi) * (n * settled + (1 - settled) * transient)


def disjoint_limit(n: int, a: float) -> float:
    """2 q^n - (a q^{2n} + 2)/(2 + a), q = 1 + a: n disjoint blocks of share a, T/d -> infinity (this work).

    W_i -> a I in ``engines.fixed_edits``, and the geometric sums give the form. n edits, so n a <= 1 is
    required.

    Raises:
        InputError: if n < 0, a is outside [0, 1] or n a > 1.
    """
    check_count("n", n, low=0)
    a = check_real("share a", a, low=0.0, high=1.0)
    if n * a > 1 + 1e-12:
        raise InputError(f"{n} disjoint blocks of share {a} cover more than all rows: use n a <= 1.")
    q = 1 + a
    return 2 * q**n - (a * q ** (2 * n) + 2) / (2 + a)


def disjoint_continuum(A: float) -> float:
    """2 e^A - 1: infinitely small disjoint blocks covering a share A, T/d -> infinity (this work).

    At A = 1, when every row has been edited once: 2 e - 1 = 4.4366.

    Raises:
        InputError: if A is outside [0, 1].
    """
    return float(2 * np.exp(check_real("covered share A", A, low=0.0, high=1.0)) - 1)
