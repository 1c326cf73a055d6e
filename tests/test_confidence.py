"""The one-edit law: limit, exact finite-T value, shares and thresholds."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln
from scipy.stats import beta, norm

from theory.confidence import (
    Band,
    band_moments,
    first_edit_share,
    limit_threshold,
    one_edit,
    one_edit_limit,
    threshold_band,
    threshold_for_share,
)
from theory.errors import InputError
from theory.state_evolution import edit_moments

EPS = np.finfo(np.float64).eps

INF = float("inf")
BANDS = [
    Band(-0.6, 0.6),
    Band(-0.9, 0.9, complement=True),
    Band(0.3, INF),
    Band(-0.2, 1.1),
    Band(-INF, -0.5, True),
]


@pytest.mark.parametrize("band", BANDS)
def test_band_moments_are_integrals(band):
    def inside(power):
        value = quad(lambda z: z**power * norm.pdf(z), max(band.low, -12), min(band.high, 12))[0]
        return (1.0, 0.0, 1.0)[power] - value if band.complement else value

    assert band_moments(band) == pytest.approx([inside(k) for k in range(3)], abs=1e-9)  # quad's own tolerance


def test_small_moments_keep_their_digits():
    # Series of erf and of the second moment at 0: their next terms are below rounding at tau = 1e-8.
    for tau in (1e-8, 1e-100):
        a, mu, kappa = band_moments(threshold_band(tau))
        assert (a, mu) == (pytest.approx(np.sqrt(2 / np.pi) * tau, rel=4 * EPS), 0)
        assert kappa == pytest.approx(np.sqrt(2 / np.pi) * tau**3 / 3, rel=8 * EPS)
        assert edit_moments(tau) == (a, kappa)
    # Both tails as sums of positive terms; exp(-t^2/2) loses t^2/2 = 313 units of rounding at t = 25.
    tail, edge = norm.sf(25.0), 25 * norm.pdf(25.0)
    for band, sides in ((threshold_band(25.0, "low-confidence"), 2), (Band(25.0, INF), 1), (Band(-30.0, -25.0), 1)):
        a, _, kappa = band_moments(band)
        assert (a, kappa) == pytest.approx((sides * tail, sides * (tail + edge)), rel=1000 * EPS)
    assert band_moments(threshold_band(1e200)) == (1, 0, 1)
    # A band between the two: the series and the tail take over from each other.
    for low in (0.4, 0.9, 3.0):
        a = band_moments(Band(low, low + 0.5))[0]
        assert a == pytest.approx(norm.cdf(low + 0.5) - norm.cdf(low), abs=4 * EPS)
        assert band_moments(Band(low, low + 0.5, True))[0] == pytest.approx(1 - a, abs=4 * EPS)


@pytest.mark.parametrize("T_d", [(3, 1), (10, 2), (10**6, 10)])
def test_thresholds_of_extreme_shares(T_d):
    T, d = T_d
    for selection in ("high-confidence", "low-confidence"):
        for share in (1e-9, 0.5, 1 - 1e-9):
            tau = threshold_for_share(T, d, share, selection)
            # The share is nowhere a difference of numbers near 1.
            assert first_edit_share(T, d, threshold_band(tau, selection)) == pytest.approx(share, rel=64 * EPS)
    # At a small threshold the share is sqrt(2/pi) tau E q^(-1/2), q ~ Beta((T-d)/2, d/2).
    inverse_root = np.exp(gammaln((T - d - 1) / 2) - gammaln((T - d) / 2) + gammaln(T / 2) - gammaln((T - 1) / 2))
    rounding = 8 * EPS * gammaln(T / 2) + 64 * EPS
    tau = threshold_for_share(T, d, 1e-9)
    assert tau == pytest.approx(1e-9 / np.sqrt(2 / np.pi) / inverse_root, rel=rounding)


@pytest.mark.parametrize("selection", ["high-confidence", "low-confidence"])
def test_threshold_gives_the_share(selection):
    T, d, share = 20, 8, 0.3
    tau = threshold_for_share(T, d, share, selection)
    inside = quad(lambda q: (2 * norm.cdf(tau / np.sqrt(q)) - 1) * beta.pdf(q, (T - d) / 2, d / 2), 0, 1)[0]
    assert (inside if selection == "high-confidence" else 1 - inside) == pytest.approx(share, abs=1e-7)
    # Large T at fixed d approaches the limit threshold; the wrong one (no leverage) is off by d/(2T) of it.
    wide = threshold_for_share(100_000, 10, share, selection)
    assert wide == pytest.approx(limit_threshold(share, selection) * np.sqrt(1 - 1e-4), rel=1e-6)


def _sampled_one_edit(T, d, band, draws, seed):
    """1 + (tr HM + r'MHMr)/d over literal projections X X^+: no orthonormal frame, no quadrature."""
    rng = np.random.default_rng(seed)
    values = np.empty(draws)
    for k in range(draws):
        X = rng.standard_normal((T, d))
        H = X @ np.linalg.solve(X.T @ X, X.T)
        r = (np.eye(T) - H) @ rng.standard_normal((T, 32))
        inside = (r >= band.low) & (r <= band.high)
        M = ~inside if band.complement else inside
        s = M * r
        values[k] = 1 + np.mean(np.diag(H) @ M + np.einsum("tb,tb->b", s, H @ s)) / d
    return values.mean(), values.std(ddof=1) / np.sqrt(draws)


def _one_edit_on_the_sphere(tau, low, nodes):
    """e_2 at T = 3, d = 1, by integration: r = R omega, R Rayleigh, omega uniform on S^2, H = h h', h normal to omega.

    omega runs over 0 < omega_1 < omega_2 < omega_3, a 48th of the sphere, so that row 3 is the first to leave
    |r| <= tau as R grows; the mean over h is that over any two orthogonal h, the forms being quadratic.
    """
    x, weight = np.polynomial.legendre.leggauss(nodes)
    x, weight = (x + 1) / 2, weight / 2
    y, t = x[:, None], x[None, :]
    omega = np.stack(np.broadcast_arrays(y * t, y, 1.0))
    length = np.linalg.norm(omega, axis=0)
    area = 48 / (4 * np.pi) * y * weight[:, None] * weight / length**3
    omega = omega / length
    first = np.stack(np.broadcast_arrays(-y, y * t, 0.0)) / (y * np.hypot(1, t))
    frame = (first, np.cross(omega, first, axis=0))
    leave = [np.full(y.shape, 0.0), *(tau / omega[::-1]), np.full(y.shape, np.inf)]  # R at which rows 3, 2, 1 leave
    total = np.zeros(length.shape)
    for k, (a, b) in enumerate(pairwise(leave)):
        inside = np.arange(3) < 3 - k
        edited = (~inside if low else inside)[:, None, None]
        ends = [np.exp(-(c**2) / 2) for c in (a, b)]
        mass = ends[0] - ends[1]
        square = (a**2 + 2) * ends[0] - (np.where(np.isfinite(b), b, 0) ** 2 + 2) * ends[1]  # E R^2 1{a < R < b}
        for h in frame:
            total += mass * (h**2 * edited).sum(0) / 2 + square * (h * omega * edited).sum(0) ** 2 / 2
    return 1 + float((area * total).sum())


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_exact_one_edit_at_three_samples(tau, low):
    # The residuals lie in a plane: their correlations are of order 1, and a Mehler series of 24 terms is off by 1e-4.
    value = _one_edit_on_the_sphere(tau, low, 60)
    assert value == pytest.approx(_one_edit_on_the_sphere(tau, low, 120), abs=1e-12)  # converged
    assert one_edit(3, 1, threshold_band(tau, "low-confidence" if low else "high-confidence")) == pytest.approx(
        value, abs=1e-12
    )


@pytest.mark.parametrize(("T", "d"), [(18, 5), (12, 10), (4, 2)])
@pytest.mark.parametrize("band", BANDS)
def test_exact_one_edit_against_sampling(band, T, d):
    mean, se = _sampled_one_edit(T, d, band, 3000, seed=11)
    exact = one_edit(T, d, band)
    assert abs(exact - mean) < 4 * se
    if (T, d) == (18, 5):  # the paper's 1 + a (eq. 36) is rejected by the same sample
        assert abs(1 + first_edit_share(T, d, band) - mean) > 6 * se


def test_exact_one_edit_of_all_rows_is_replace():
    # Every row edited: r'M H M r = r'H r = 0 and tr H = d, so e_2 = 2 whatever T and d (replace doubles).
    for T, d in [(12, 4), (40, 20), (9, 1)]:
        assert one_edit(T, d, Band(-INF, INF)) == pytest.approx(2.0, abs=8 * EPS)


@pytest.mark.parametrize("ratio", [2, 10])
def test_exact_value_approaches_the_limit_as_one_over_T(ratio):
    gaps = []
    for T in (200, 400, 800):
        band = threshold_band(0.8 * np.sqrt(1 - 1 / ratio))
        a, _, kappa = band_moments(threshold_band(0.8))
        gaps.append(one_edit(T, T // ratio, band) - one_edit_limit(a, kappa, ratio))
    assert abs(gaps[2]) < 1.5e-3
    # Halving at each doubling of T, up to the 1/T^2 term (a few per cent at T = 200): a wrong limit would
    # not halve.
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.03)


def test_random_choice_is_kappa_equal_a():
    # Uniformly random rows, exact: 1 + a + f a (1-a) T/(T-1), f = (T-d)/(T+2); its limit is the law at kappa
    # = a.
    T, ratio, a = 10**7, 5, 0.3
    f = (T - T / ratio) / (T + 2)
    assert one_edit_limit(a, a, ratio) == pytest.approx(1 + a + f * a * (1 - a) * T / (T - 1), abs=1e-6)


def test_intercept_adds_the_squared_tilt():
    # d features, one of them constant, one-sided rule r > 0.3 (studentised).
    T, d, rng = 400, 20, np.random.default_rng(3)
    cut = 0.3
    a, mu, kappa = band_moments(Band(cut, INF))
    values = np.empty(400)
    for k in range(values.size):
        X = rng.standard_normal((T, d))
        X[:, 0] = 1.0
        U = np.linalg.qr(X)[0]
        u = rng.standard_normal((T, 32))
        r = u - U @ (U.T @ u)
        M = r > cut * np.sqrt(1 - d / T)
        values[k] = 1 + np.mean((U**2).sum(1) @ M + ((U.T @ (M * r)) ** 2).sum(0)) / d
    se = values.std(ddof=1) / np.sqrt(values.size)
    law = one_edit_limit(a, kappa, T / d, mu=mu, intercept=True)
    finite = 3 / T * law  # corrections of the law are of order 1/T
    assert abs(values.mean() - law) < 4 * se + finite
    # Without the factor (1-phi) of the residual's variance the tilt would be mu^2 (T/d - 1): rejected, as is
    # no tilt.
    assert abs(values.mean() - (one_edit_limit(a, kappa, T / d) + mu**2 * (T / d - 1))) > 3 * (4 * se + finite)
    assert abs(values.mean() - one_edit_limit(a, kappa, T / d)) > 20 * (4 * se + finite)


def test_bad_arguments():
    with pytest.raises(InputError, match="share"):
        threshold_for_share(20, 5, 1.5)
    with pytest.raises(InputError, match="T >= d"):
        one_edit(5, 4, BANDS[0])
    with pytest.raises(InputError, match="positive"):
        threshold_band(float("nan"))
    with pytest.raises(InputError, match="wrong order"):
        Band(1.0, -1.0)
    for threshold in (0.0, np.inf, np.nan):
        with pytest.raises(InputError, match="positive number"):
            edit_moments(threshold)
    for call in (edit_moments, threshold_band, limit_threshold, partial(threshold_for_share, 20, 5)):
        with pytest.raises(InputError, match="unknown"):
            call(0.5, "unsure")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="ratio"):
        one_edit_limit(0.5, 0.2, 0.9)
    with pytest.raises(InputError, match="kappa"):
        one_edit_limit(0.5, 1.2)
