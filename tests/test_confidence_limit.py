"""State evolution (T/d to infinity): its row law, its coefficients and its approach from finite T."""

import numpy as np
import pytest
from scipy.stats import norm

from theory.confidence import limit_threshold, threshold_for_share
from theory.errors import InputError
from theory.phase import crossing, limit_crossing
from theory.rank_frame import residual_rule
from theory.state_evolution import bounded_share, edit_moments, feedback_ratio, record_weights, state_evolution


def _row_law(path, tau, high):
    """One-sided derivative of E u_{n+1} along the fits t * path: smooth part and returning rows."""
    a, kappa = edit_moments(tau, "high-confidence" if high else "low-confidence")
    s = np.concatenate([[0.0], path])
    n = len(path)
    smooth = kappa * sum(a ** (b - 1) * (s[b] - s[b - 1]) for b in range(1, n + 1))
    edge = sum(a ** (b - 1) * (s[b : n + 1].max() + s[b : n + 1].min() - 2 * s[b]) for b in range(1, n))
    return smooth, (-1 if high else 1) * tau * norm.pdf(tau) * edge


@pytest.mark.parametrize("high", [True, False])
@pytest.mark.parametrize("path", [[1.0, 2.0], [1.0, -0.5, 1.5], [2.0, 1.0, 3.0, -1.0]])
def test_directional_derivative_of_the_label_map(path, high):
    # Rows run at the fits +-t path with shared noise: E u is odd in t, so [u(+) - u(-)]/2t is the law plus
    # O(t), the map having a kink at 0; 2 D(t/2) - D(t) removes that order. What is at stake are frozen rows
    # that come back.
    tau, t, rows = 0.9, 0.04, 3_000_000
    noise = np.random.default_rng(8).standard_normal((len(path) + 1, rows))
    quotients = []
    for size in (t, t / 2):
        ends = []
        for sign in (1.0, -1.0):
            u = noise[0].copy()
            for fit, fresh in zip(path, noise[1:], strict=True):
                s = sign * size * fit
                edit = (np.abs(u - s) <= tau) == high
                u[edit] = s + fresh[edit]
            ends.append(u)
        quotients.append((ends[0] - ends[1]) / (2 * size))
    value = 2 * quotients[1] - quotients[0]
    se = value.std() / np.sqrt(rows)
    smooth, edge = _row_law(path, tau, high)
    remainder = t**2 * max(np.abs(path)) ** 3  # third order of a map whose densities' derivatives are below 1
    assert abs(value.mean() - smooth - edge) < 4 * se + remainder
    if abs(edge) > 0.2:  # the law without returning rows is rejected
        assert abs(value.mean() - smooth) > 2 * (4 * se + remainder)


def test_record_weights_are_stein_coefficients():
    # E[x f(x'Z)] = sum_k z_k E d_k f: the left side is averaged directly, for correlated paths.
    rng = np.random.default_rng(4)
    root = np.array([[1.0, 0.3, 0.0], [0.7, 0.6, 0.4], [0.2, 0.9, 1.1]])  # rows: z_1, z_2, z_3
    x = rng.standard_normal((400_000, 3))
    paths = x @ root.T
    a = 0.6
    last = paths[:, 2]
    f = np.zeros(len(x))
    for b in (1, 2):
        window = paths[:, b - 1 : 2]
        f += a ** (b - 1) * (np.maximum(last - window.max(1), 0) - np.maximum(window.min(1) - last, 0))
    direct = x * f[:, None]
    stein = record_weights(paths, a) @ root
    se = direct.std(0) / np.sqrt(len(x))
    assert np.all(np.abs(direct.mean(0) - stein) < 5 * se)  # both sides noisy, the Stein side less
    # Closed form for two points: P(g_2 > g_1) + P(g_2 < g_1) = 1.
    assert record_weights(paths[:, :2], a) == pytest.approx([-1, 1], abs=1e-12)


def test_third_generation_closed_form():
    # n = 2: beta = (-1, 1) exactly, so z_3 = S_3 + kappa z_1 + kappa a (z_2 - z_1) - tau pdf(tau) (z_2 -
    # z_1).
    tau = limit_threshold(0.5)
    a, kappa = edit_moments(tau)
    edge = tau * norm.pdf(tau)
    covariance = np.empty((3, 3))  # of S_1..S_3, from the redraw chain
    for m in range(1, 4):
        for n in range(m, 4):
            frozen = (1 - kappa) * (1 - a ** (m - (m == n))) / (1 - a)
            covariance[m - 1, n - 1] = covariance[n - 1, m - 1] = frozen + (a ** (m - 1) if m == n else 0)
    z1 = np.array([1.0, 0, 0])
    z2 = np.array([kappa, 1.0, 0])
    z3 = np.array([0, 0, 1.0]) + kappa * z1 + (kappa * a - edge) * (z2 - z1)
    curve = state_evolution(tau, 3, samples=1000, solutions=2)
    exact = [z @ covariance @ z for z in (z1, z2, z3)]
    assert curve.error == pytest.approx(exact, abs=1e-12)
    assert exact[1] == pytest.approx(1 + a + kappa * (1 - kappa), abs=1e-14)  # the one-edit law


@pytest.mark.parametrize(("share", "selection"), [(0.5, "high-confidence"), (0.5, "low-confidence")])
def test_finite_T_extrapolates_to_the_limit(share, selection):
    # e(T/d) = e + c sqrt(d/T) + O(d/T): Lagrange weights of a parabola in sqrt(d/T) at T/d = 16, 64, 256.
    d, generations = 20, 5
    limit = state_evolution(limit_threshold(share, selection), generations, selection=selection, seed=1)
    x = np.array([1 / 4, 1 / 8, 1 / 16])
    weights = np.array([np.prod([-x[j] / (x[i] - x[j]) for j in range(3) if j != i]) for i in range(3)])
    curve, variance = np.zeros(generations), np.zeros(generations)
    for k, (ratio, frames) in enumerate([(16, 64), (64, 64), (256, 24)]):
        tau = threshold_for_share(ratio * d, d, share, selection)
        run = residual_rule(ratio * d, d, generations, tau, selection=selection, frames=frames, replicates=64, seed=k)
        curve += weights[k] * run.error
        variance += (weights[k] * run.standard_error) ** 2
    se = np.sqrt(variance + limit.standard_error**2)
    assert np.all(np.abs(curve - limit.error)[1:] < 4 * se[1:])
    # Random editing of the same shares (no memory of what was edited) has e_5 = 3.1 at a = .5: far outside.
    assert np.all(se < 0.05)


def test_feedback_ratio():
    assert feedback_ratio(limit_threshold(0.5)) == pytest.approx(0.4287, abs=1e-4)
    assert feedback_ratio(limit_threshold(0.92)) < 2 < feedback_ratio(limit_threshold(0.94))
    assert feedback_ratio(limit_threshold(bounded_share())) == pytest.approx(2, abs=1e-9)
    for share in np.linspace(0.01, 0.99, 30):
        assert feedback_ratio(limit_threshold(share, "low-confidence"), "low-confidence") < 0.5
    eps = np.finfo(np.float64).eps
    for tau in (1.0, 8.0, 8.5, 40.0):  # exp(-tau^2/2) loses tau^2/2 roundings here, twice
        mills = np.exp(np.log(tau) + norm.logpdf(tau) - norm.logsf(tau)) / 2
        assert feedback_ratio(tau) == pytest.approx(mills, rel=2 * tau**2 * eps + 16 * eps)
    assert feedback_ratio(1e4) == pytest.approx(1e8 / 2 + 0.5, rel=4 * eps)  # tau^2/2 (1 + tau^-2 - 2 tau^-4)
    assert feedback_ratio(1e-300) == pytest.approx(norm.pdf(0) * 1e-300, rel=4 * eps)
    for tau in (0.3, 1.0, 3.0):
        low = tau * norm.pdf(tau) / (2 * norm.cdf(tau) - 1)
        assert feedback_ratio(tau, "low-confidence") == pytest.approx(low, rel=16 * eps)
    assert feedback_ratio(1e-300, "low-confidence") == 0.5
    assert feedback_ratio(1e200, "low-confidence") == 0


def test_small_shares_have_a_curve():
    # kappa is of order a^3: the first edit adds a, the next ones the rows edited before and nothing to rounding.
    curve = state_evolution(limit_threshold(1e-8), 4, samples=200, solutions=2)
    assert curve.error == pytest.approx([1, 1 + 1e-8, 1 + 1e-8, 1 + 1e-8], abs=1e-14)
    everything = state_evolution(1e200, 4, samples=200, solutions=2)
    assert everything.error == pytest.approx([1, 2, 3, 4], abs=1e-14)  # replace


def test_limit_levels_off_where_the_theorem_says_so():
    for share in (0.3, 0.7, 0.9):
        curve = state_evolution(limit_threshold(share), 40, samples=4000, solutions=2, seed=3)
        assert curve.increment[-1] < 0.05 * curve.increment[0]
        assert abs(curve.error[-1] - curve.error[-6]) < 0.05 * curve.error[-1]


def test_crossing_of_two():
    share = np.array([0.1, 0.2, 0.3])
    at, se = crossing(share, np.array([1.0, 1.5, 3.0]), np.array([0.0, 0.015, 0.03])) or (0, 0)
    assert at == pytest.approx(0.2 + 0.1 * np.log(2 / 1.5) / np.log(2), abs=1e-12)
    assert 0 < se < 0.002
    assert crossing(share, np.array([1.0, 1.1, 1.2]), np.zeros(3)) is None
    root, root_se = limit_crossing(generations=20, samples=4000, solutions=2, seed=1)
    assert abs(root - 0.665) < 0.01  # where the a = .65 and a = .68 curves, 1.96 and 2.05, enclose 2
    assert root_se < 0.005


def test_bad_arguments():
    with pytest.raises(InputError, match="generations"):
        state_evolution(0.5, 1)
    with pytest.raises(InputError, match="positive"):
        state_evolution(-1.0, 5)
    with pytest.raises(InputError, match="another bracket"):
        limit_crossing(generations=4, samples=200, solutions=2, bracket=(0.1, 0.2))
