"""One edit under any residual rule: limit law, exact value at finite T, shares against thresholds.

Setting of the fit-test theorem (this work) with sigma = 1: u ~ N(0, I_T), H a uniformly random rank-d
projection, g = H u, r = u - g. Row t is edited iff r_t lies in a set S. Then

    e_2 = 1 + (1/d) [ E tr(H M) + E r'M H M r ],

the cross term E g'M r being zero because g is centred and independent of r.

**Theorem (this work).** Let a_q = P(sqrt(q) Z in S) and kappa_q = E Z^2 1{sqrt(q) Z in S}, Z ~ N(0, 1). For
every T >= d + 2

    e_2 = 1 + E a_{q'} + (T-d)/(T+2) E[kappa_{q''} (1 - kappa_{q''})],
    q' ~ Beta((T-d)/2, (d+2)/2),   q'' ~ Beta((T-d+2)/2, (d+2)/2).

*Proof.* Given r, H is a uniformly random projection of the space orthogonal to r, so that E[H | r] =
d/(T-1) (I - r r'/R^2), R = |r|. With omega = r/R, s_t = 1{r_t in S} and w = sum omega_t^2 s_t this makes

    e_2 - 1 = E[ sum_t (1 - omega_t^2) s_t + R^2 w (1-w) ] / (T-1),
    w (1-w) = sum_{t != u} omega_t^2 s_t omega_u^2 (1 - s_u).

R^2 is chi-square with T-d degrees of freedom and independent of omega, which is uniform on the sphere of R^T.
Weighting by 1 - omega_1^2, of mean 1 - 1/T, turns the law of omega_1^2 into Beta(1/2, (T+1)/2): r_1 has the
law of sqrt(q') Z. Weighting by R^2 omega_1^2 omega_2^2, of mean (T-d)/(T(T+2)), makes R^2 chi-square with
T-d+2 degrees of freedom and (omega_1^2, omega_2^2) Dirichlet(3/2, 3/2, (T-2)/2). Their sum is Beta(3,
(T-2)/2) and R^2 times that has the law of q'' times a chi-square variable of 6 degrees of freedom (equal
moments), which Dirichlet(3/2, 3/2) splits into independent parts of 3 degrees each: (r_1, r_2) has the law of
sqrt(q'') (Z_1, Z_2), Z_1 and Z_2 independent of density z^2 pdf(z).  QED

With phi = d/T fixed and T -> infinity, q' and q'' tend to 1 - phi and

    e_2 -> 1 + a + (1-phi) kappa (1-kappa),   a = P(Z in S/sqrt(1-phi)),   kappa = E Z^2 1{...}.

An intercept, a column of ones among the features, adds mu^2 (1-phi)^2/phi, mu = E Z 1{...}: rules that are
not symmetric then tilt the whole fit (1'H1 is T instead of d on average, and (E r s)^2 = (1-phi) mu^2).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import erf, erfc, erfinv, gammainc, gammaincc
from scipy.stats import norm

from theory.errors import InputError
from theory.rank_frame import Selection, check_selection
from theory.schedules import check_shape

FAR = 40.0  # P(|Z| > 40) is zero in float64
_DROP = 42.0  # exp(-42) = 6e-19: quadrature weights below that share of the largest are left out


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
    """S = {|r| <= threshold} (high confidence) or {|r| > threshold} (low confidence).

    Raises:
        InputError: if the threshold is not positive or the selection is unknown.
    """
    check_selection(selection)
    if not threshold > 0:
        raise InputError(f"threshold = {threshold} must be positive (units of sigma)")
    return Band(-threshold, threshold, selection == "low-confidence")


def _even_moment(band: Band, power: int, scale: np.ndarray | float = 1.0) -> np.ndarray:
    """E Z^power 1{scale Z in S}, Z ~ N(0, 1), power 0 or 2, scale in (0, 1]; same shape as scale.

    Under the density z^2 pdf(z), z^2/2 is a Gamma(3/2) variable. SciPy has both tails to rounding, and so are
    these, small ones too, but for a narrow band away from 0, where the values at its ends cancel.
    """
    ends = [np.abs(np.clip(bound, -FAR, FAR) / scale) for bound in (band.low, band.high)]
    # The measure between 0 and each end, and beyond it.
    if power == 0:
        below, above = ([tail(z / np.sqrt(2)) / 2 for z in ends] for tail in (erf, erfc))
    else:
        below, above = ([tail(1.5, z * z / 2) / 2 for z in ends] for tail in (gammainc, gammaincc))
    if band.low <= 0 <= band.high:
        return above[0] + above[1] if band.complement else below[0] + below[1]
    near, far = (0, 1) if band.low > 0 else (1, 0)
    if band.complement:
        return 0.5 + below[near] + above[far]
    small = below[far] < above[near]
    return np.where(small, below[far] - below[near], above[near] - above[far])


def band_moments(band: Band) -> tuple[float, float, float]:
    """(a, mu, kappa) = (E s(Z), E Z s(Z), E Z^2 s(Z)) for the indicator s of a band, Z ~ N(0, 1)."""
    low, high = (norm.pdf(np.clip(bound, -FAR, FAR)) for bound in (band.low, band.high))
    mu = low - high
    return float(_even_moment(band, 0)), float(-mu if band.complement else mu), float(_even_moment(band, 2))


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


def _beta_rule(p: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1) and probability weights of Beta(p, b): the trapezoidal rule in x = log(q/(1-q)).

    The density of x, proportional to exp(p x)/(1 + exp x)^(p+b), times a moment of sqrt(q) Z in a band is
    analytic and bounded for |Im x| < pi/2: a step of 1/5 leaves an error of order exp(-5 pi^2). Where the
    density, of variance about 1/p + 1/b, is narrower, 0.4 of its deviation do.
    """
    y = min(0.2, 0.4 * np.sqrt(1 / p + 1 / b)) * np.arange(-500.0, 501.0)  # x less its mode log(p/b)
    # Mirrored to the smaller of the two exponents, from which the logarithm loses nothing.
    least, z = (p, y) if p < b else (b, -y)
    log_weight = least * z - (p + b) * np.log1p(least / (p + b) * np.expm1(z))
    kept = log_weight > -_DROP
    weight = np.exp(log_weight[kept])
    return p / (p + b * np.exp(-y[kept])), weight / weight.sum()


def first_edit_share(T: int, d: int, band: Band) -> float:
    """Expected edited share of the first edit, exactly: r_t = sqrt(1-h) Z with 1-h ~ Beta((T-d)/2, d/2).

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)
    q, weight = _beta_rule((T - d) / 2, d / 2)
    return float(weight @ _even_moment(band, 0, np.sqrt(q)))


def threshold_for_share(T: int, d: int, share: float, selection: Selection = "high-confidence") -> float:
    """Raw threshold tau on |r_t|/sigma whose expected share at the first edit is a_1 = `share`, exactly.

    Args:
        T: samples, T >= d + 2.
        d: features.
        share: a_1 in [1e-9, 1 - 1e-9].
        selection: "high-confidence" (|r_t| <= tau) or "low-confidence" (|r_t| > tau).

    Raises:
        InputError: if an argument is outside its range.
    """
    check_shape(T, d)
    if not 1e-9 <= share <= 1 - 1e-9:
        raise InputError(f"share = {share} must lie between 1e-9 and 1 - 1e-9")
    top = 1.01 * limit_threshold(share, selection)  # |r| is stochastically below |Z|, so the root is below this

    def excess(tau: float) -> float:
        return first_edit_share(T, d, threshold_band(tau, selection)) - share

    return float(brentq(excess, 1e-9 * top, top, xtol=np.finfo(float).tiny))  # pyright: ignore[reportArgumentType]


def limit_threshold(share: float, selection: Selection = "high-confidence") -> float:
    """Threshold of first edited share a_1 as T/d -> infinity: P(|Z| <= tau) = a_1, or P(|Z| > tau) = a_1.

    Raises:
        InputError: if the share is not strictly between 0 and 1 or the selection is unknown.
    """
    check_selection(selection)
    if not 0 < share < 1:
        raise InputError(f"share = {share} must lie strictly between 0 and 1")
    return float(np.sqrt(2) * erfinv(share) if selection == "high-confidence" else norm.isf(share / 2))


def one_edit(T: int, d: int, band: Band) -> float:
    """Error after one edit in units of v, exactly at finite T: the theorem above, by quadrature to rounding.

    Within 1e-15 of rules with a quarter of the step, measured for T - d from 2, and d from 1, to 100,000 and
    thresholds from 1e-6 to 7, and of 20-digit quadrature on some of them.

    Args:
        T: samples, T >= d + 2.
        d: features, d >= 1.
        band: the selection set on r_t/sigma.

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)
    q, weight = _beta_rule((T - d + 2) / 2, (d + 2) / 2)
    scale = np.sqrt(q)
    other = Band(band.low, band.high, not band.complement)
    pair = float(weight @ (_even_moment(band, 2, scale) * _even_moment(other, 2, scale)))
    # r_1 weighted by 1 - omega_1^2 has the law of a residual at T + 2 and d + 2.
    return 1 + first_edit_share(T + 2, d + 2, band) + (T - d) / (T + 2) * pair
