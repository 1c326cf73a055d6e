"""One edit under any residual rule: limit law, exact value at finite T, shares against thresholds.

Setting of the fit-test theorem (this work) with sigma = 1: u ~ N(0, I_T), H a uniformly random rank-d
projection, g = H u, r = u - g. Row t is edited iff r_t lies in a set S. Then

    e_2 = 1 + (1/d) [ E tr(H M) + E r'M H M r ],

the cross term E g'M r being zero because g is centred and independent of r. With studentised residuals
r_t = sqrt(1-phi) Z, phi = d/T fixed and T -> infinity,

    e_2 -> 1 + a + (1-phi) kappa (1-kappa),   a = P(Z in S/sqrt(1-phi)),   kappa = E Z^2 1{...}.

An intercept, a column of ones among the features, adds mu^2 (1-phi)^2/phi, mu = E Z 1{...}: rules that are
not symmetric then tilt the whole fit (1'H1 is T instead of d on average, and (E r s)^2 = (1-phi) mu^2).
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from scipy.stats import norm

from theory.errors import InputError
from theory.rank_frame import Selection
from theory.schedules import check_shape

_NODES = 24  # Gauss nodes an axis: error below 3e-6 at T = d + 2, below 1e-9 from T = d + 8 (against 80 nodes)
_TERMS = 24  # Mehler terms: |correlation| is of order T^(-1/2), its 24th power is below rounding


@dataclass(frozen=True)
class Band:
    """The set S = {low <= r <= high}, or its complement, in units of sigma; bounds may be infinite."""

    low: float
    high: float
    complement: bool = False

    def __post_init__(self):
        """Refuse bounds in the wrong order; raises InputError."""
        if not self.low <= self.high:
            raise InputError(f"the band from {self.low} to {self.high} has its bounds in the wrong order")


def threshold_band(threshold: float, selection: Selection = "high-confidence") -> Band:
    """S = {|r| <= threshold} (high confidence) or {|r| > threshold} (low confidence)."""
    if not threshold > 0:
        raise InputError(f"threshold = {threshold} must be positive (units of sigma)")
    return Band(-threshold, threshold, selection == "low-confidence")


def band_moments(band: Band) -> tuple[float, float, float]:
    """(a, mu, kappa) = (E s(Z), E Z s(Z), E Z^2 s(Z)) for the indicator s of a band, Z ~ N(0, 1)."""
    low, high = band.low, band.high
    a = norm.cdf(high) - norm.cdf(low)
    mu = norm.pdf(low) - norm.pdf(high)
    edge = (low * norm.pdf(low) if np.isfinite(low) else 0.0) - (high * norm.pdf(high) if np.isfinite(high) else 0.0)
    kappa = a + edge
    sign = -1.0 if band.complement else 1.0
    return float(band.complement + sign * a), float(sign * mu), float(band.complement + sign * kappa)


def one_edit_limit(share: float, kappa: float, ratio: float = np.inf, *, mu: float = 0.0, intercept: bool = False):
    """Error after one edit in units of v, T -> infinity at fixed T/d (this work).

    e_2 = 1 + a + (1 - phi) kappa (1 - kappa), phi = d/T, plus mu^2 (1 - phi)^2/phi if one feature is
    constant.

    Args:
        share: a = E s(Z) in [0, 1].
        kappa: E Z^2 s(Z) in [0, 1]; a random choice of rows has kappa = a.
        ratio: T/d > 1, or infinity.
        mu: E Z s(Z), used with an intercept only.
        intercept: whether a column of ones is among the features.

    Raises:
        InputError: if an argument is outside its range.
    """
    if not 0 <= share <= 1 or not 0 <= kappa <= 1:
        raise InputError(f"share = {share} and kappa = {kappa} must lie in [0, 1]")
    if not ratio > 1:
        raise InputError(f"ratio = {ratio} must exceed 1 (T/d)")
    if intercept and mu and not np.isfinite(ratio):
        raise InputError("with an intercept and mu != 0 there is no limit as T/d grows; give a finite ratio")
    tilt = mu * mu * (1 - 1 / ratio) ** 2 * ratio if intercept and mu else 0.0
    return 1 + share + (1 - 1 / ratio) * kappa * (1 - kappa) + tilt


def _beta_nodes(p: float, q: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes in (0, 1) and probability weights of Beta(p, q), from its Jacobi matrix (Golub and Welsch).

    Works with p and q in the thousands, where the unnormalised Jacobi weight overflows.
    """
    k, s = np.arange(1.0, count), p + q - 2
    diagonal, square = np.empty(count), np.empty(count - 1)
    diagonal[0] = (p - q) / (p + q)
    diagonal[1:] = ((p - 1) ** 2 - (q - 1) ** 2) / ((2 * k + s) * (2 * k + s + 2))
    square[0] = 4 * p * q / ((p + q) ** 2 * (p + q + 1))  # the general form is 0/0 here at p + q = 1
    k = k[1:]
    square[1:] = 4 * k * (k + p - 1) * (k + q - 1) * (k + s) / ((2 * k + s) ** 2 * ((2 * k + s) ** 2 - 1))
    x, vectors = eigh_tridiagonal(diagonal, np.sqrt(square))
    return (1 + x) / 2, vectors[0] ** 2


def _scaled(band: Band, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return band.low / sd, band.high / sd


def first_edit_share(T: int, d: int, band: Band) -> float:
    """Expected edited share of the first edit, exactly: r_t = sqrt(1-h) Z with 1-h ~ Beta((T-d)/2, d/2).

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)
    q, w = _beta_nodes((T - d) / 2, d / 2, 200)
    low, high = _scaled(band, np.sqrt(q))
    inside = float(w @ (norm.cdf(high) - norm.cdf(low)))
    return 1 - inside if band.complement else inside


def threshold_for_share(T: int, d: int, share: float, selection: Selection = "high-confidence") -> float:
    """Raw threshold tau on |r_t|/sigma whose expected share at the first edit is a_1 = `share`, exactly.

    Args:
        T: samples, T >= d + 2.
        d: features.
        share: a_1 in (0, 1).
        selection: "high-confidence" (|r_t| <= tau) or "low-confidence" (|r_t| > tau).

    Raises:
        InputError: if an argument is outside its range.
    """
    check_shape(T, d)
    if not 1e-9 <= share <= 1 - 1e-9:
        raise InputError(f"share = {share} must lie between 1e-9 and 1 - 1e-9")
    inside = share if selection == "high-confidence" else 1 - share
    top = norm.isf((1 - inside) / 2)  # |r| is stochastically below |Z|, so the root is below this
    root = brentq(lambda tau: first_edit_share(T, d, Band(-tau, tau)) - inside, 1e-12, top, xtol=1e-13)
    return float(root)  # pyright: ignore[reportArgumentType]


def limit_threshold(share: float, selection: Selection = "high-confidence") -> float:
    """Threshold of first edited share a_1 as T/d -> infinity: P(|Z| <= tau) = a_1, or P(|Z| > tau) = a_1."""
    if not 0 < share < 1:
        raise InputError(f"share = {share} must lie strictly between 0 and 1")
    return float(norm.isf((1 - share) / 2 if selection == "high-confidence" else share / 2))


def _hermite_moments(band: Band, sd: np.ndarray, terms: int) -> np.ndarray:
    """E[psi(sd Z) He_k(Z)]/sqrt(k!) for psi(r) = r 1{r in S}, k = 0..terms-1; shape (terms, *sd.shape).

    With j_k = E[1{Z in (l, u)} h_k(Z)], h_k = He_k/sqrt(k!): j_0 = Phi(u) - Phi(l), j_k = [pdf h_{k-1}]_u^l
    / sqrt(k), and Z h_k = sqrt(k+1) h_{k+1} + sqrt(k) h_{k-1}.
    """
    low, high = _scaled(band, sd)
    j = np.empty((terms + 1, *sd.shape))
    j[0] = norm.cdf(high) - norm.cdf(low)
    at = [np.where(np.isfinite(x), x, 0.0) for x in (low, high)]
    density = [norm.pdf(x) for x in (low, high)]
    h = [np.zeros((2, *sd.shape)), np.ones((2, *sd.shape))]  # h_{-1}, h_0 at both ends
    for k in range(1, terms + 1):
        j[k] = (density[0] * h[1][0] - density[1] * h[1][1]) / np.sqrt(k)
        h = [h[1], (np.stack(at) * h[1] - np.sqrt(k - 1) * h[0]) / np.sqrt(k)]
    k = np.arange(terms).reshape(-1, *[1] * sd.ndim)
    inside = np.sqrt(k + 1) * j[1:]
    inside[1:] += np.sqrt(k[1:]) * j[: terms - 1]
    if band.complement:
        inside = -inside
        inside[1] += 1.0
    return sd * inside


def one_edit(T: int, d: int, band: Band, nodes: int = _NODES) -> float:
    """Error after one edit in units of v, exactly at finite T (this work), by quadrature.

    d (e_2 - 1) = T E[h s] + T E[h r^2 s] + T(T-1) E[H_12 psi(r_1) psi(r_2)], psi(r) = r s(r). The pair
    (H_11, H_22, H_12) is drawn from three independent Beta variables (two unit vectors in general position
    to a random subspace): h_1 ~ Beta(d/2, (T-d)/2), w^2 ~ Beta(1/2, (T-2)/2), b ~ Beta((d-1)/2, (T-d-1)/2),
    H_12^2 = h_1(1-h_1) w^2, h_2 = w^2 (1-h_1) + (1-w^2) b; given H, (r_1, r_2) is Gaussian with correlation
    -H_12/sqrt((1-h_1)(1-h_2)), expanded in Hermite polynomials (Mehler). The sign of H_12 is symmetric, so
    odd orders alone survive.

    Args:
        T: samples, T >= d + 2.
        d: features, d >= 1.
        band: the selection set on r_t/sigma.
        nodes: quadrature nodes an axis; see `_NODES` for the accuracy of the default.

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)
    h, w = _beta_nodes(d / 2, (T - d) / 2, 200)
    sd = np.sqrt(1 - h)
    low, high = _scaled(band, sd)
    share = norm.cdf(high) - norm.cdf(low)
    square = _second_moment(band, sd)
    if band.complement:
        share = 1 - share
    single = T * float(w @ (h * (share + square)))

    h1, w1 = _beta_nodes(d / 2, (T - d) / 2, nodes)
    omega2, w2 = _beta_nodes(0.5, (T - 2) / 2, nodes)
    b, w3 = (np.zeros(1), np.ones(1)) if d == 1 else _beta_nodes((d - 1) / 2, (T - d - 1) / 2, nodes)
    h1, omega2, b = np.meshgrid(h1, omega2, b, indexing="ij")
    h2 = omega2 * (1 - h1) + (1 - omega2) * b
    h12 = np.sqrt(h1 * (1 - h1) * omega2)
    weight = w1[:, None, None] * w2[:, None] * w3
    correlation = -h12 / np.sqrt((1 - h1) * (1 - h2))
    first = _hermite_moments(band, np.sqrt(1 - h1[:, 0, 0]), _TERMS)
    second = _hermite_moments(band, np.sqrt(1 - h2), _TERMS)
    pair = np.zeros_like(h1)
    for k in range(1, _TERMS, 2):
        pair += correlation**k * first[k][:, None, None] * second[k]
    double = T * (T - 1) * float(np.sum(weight * h12 * pair))
    return 1 + (single + double) / d


def _second_moment(band: Band, sd: np.ndarray) -> np.ndarray:
    """E[r^2 1{r in S}] for r = sd Z."""
    low, high = _scaled(band, sd)
    value = norm.cdf(high) - norm.cdf(low)
    if np.isfinite(band.low):
        value = value + low * norm.pdf(low)
    if np.isfinite(band.high):
        value = value - high * norm.pdf(high)
    return sd**2 * (1 - value if band.complement else value)
