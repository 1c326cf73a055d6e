"""The one-edit law: limit, exact finite-T value, shares and thresholds."""

import numpy as np
import pytest
from scipy.integrate import quad
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


@pytest.mark.parametrize("band", BANDS)
def test_exact_one_edit_against_sampling(band):
    T, d = 18, 5
    mean, se = _sampled_one_edit(T, d, band, 3000, seed=11)
    exact = one_edit(T, d, band)
    assert abs(exact - mean) < 4 * se
    # The paper's 1 + a (eq. 36) and the law without its -kappa^2 term are rejected by the same sample.
    share = first_edit_share(T, d, band)
    assert abs(1 + share - mean) > 6 * se


def test_exact_one_edit_of_all_rows_is_replace():
    # Every row edited: r'M H M r = r'H r = 0 and tr H = d, so e_2 = 2 whatever T and d (replace doubles).
    for T, d in [(12, 4), (40, 20), (9, 1)]:
        assert one_edit(T, d, Band(-INF, INF)) == pytest.approx(2.0, abs=1e-9)  # quadrature, see _NODES


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
    with pytest.raises(InputError, match="unknown"):
        edit_moments(1.0, "unsure")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="ratio"):
        one_edit_limit(0.5, 0.2, 0.9)
    with pytest.raises(InputError, match="kappa"):
        one_edit_limit(0.5, 1.2)
