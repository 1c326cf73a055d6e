"""The literal simulator against closed forms: all tolerances are 4 of its own standard errors."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from sim.regression import (
    Accumulate,
    AccumulateSubsample,
    ConfidenceEdits,
    DisjointEdits,
    FixedRealShare,
    RandomEdits,
    Replace,
    Setting,
    simulate,
)

SEED = 7
SMALL = Setting(T=30, d=10)
V = 10 / 19  # sigma^2 d/(T - d - 1) of SMALL


def within(result, expected, *, rejected=()):
    """All entries within 4 standard errors of `expected`; some entry further than 4 from every `rejected`."""
    z = np.abs(result.error / V - expected) / (result.standard_error / V)
    assert (z < 4).all(), z
    for wrong in rejected:
        assert (np.abs(result.error / V - wrong) / (result.standard_error / V) > 4).any()


def test_replace_gives_n_honest_errors():
    """Error n v; the formula of section 2, which counts from n = 0, is one generation off and rejected."""
    n = np.arange(1, 9)
    result = simulate(SMALL, Replace(), generations=8, designs=1000, noise_replicates=20, seed=SEED)
    within(result, n, rejected=[n - 1, np.full(8, 2.0)])
    np.testing.assert_array_equal(result.edited_share, 1.0)
    # y_2 - y_1 = E_2 - Q E_1, whose mean square is sigma^2 (1 + (T - d)/T).
    expected = 1 + (30 - 10) / 30
    assert abs(result.effective_noise[0] - expected) < 4 * result.effective_noise_se[0]


def test_accumulate_same_x():
    """Error v sum 1/i^2, and not the fresh-X value (1.3877 at n = 8), which is a different process."""
    expected = np.cumsum(1 / np.arange(1, 9) ** 2)
    result = simulate(SMALL, Accumulate(), generations=8, designs=1000, noise_replicates=20, seed=SEED)
    within(result, expected, rejected=[np.where(np.arange(8) == 7, 1.39, expected)])


def test_accumulate_fresh_x_is_lower():
    result = simulate(SMALL, Accumulate(fresh_x=True), generations=8, designs=1000, noise_replicates=20, seed=SEED)
    same = np.cumsum(1 / np.arange(1, 9) ** 2)
    assert abs(result.error[0] / V - 1) < 4 * result.standard_error[0] / V
    # the fresh-X value is given to two digits
    assert abs(result.error[7] / V - 1.39) < 4 * result.standard_error[7] / V + 0.005
    assert (result.error[1:] / V + 4 * result.standard_error[1:] / V < same[1:]).all()


@pytest.mark.parametrize("m", [5, 15])
def test_one_random_edit(m):
    """1 + m/T + f m(T-m)/(T(T-1)), f = (T-d)/(T+2); the paper's eq. 36 says 1 + m/T."""
    T, d = 30, 10
    expected = 1 + m / T + (T - d) / (T + 2) * m * (T - m) / (T * (T - 1))
    # The change of error is far less noisy than the error: both share X and E_1.
    result = simulate(SMALL, RandomEdits((m,)), generations=2, designs=6000, noise_replicates=40, seed=SEED)
    change = np.diff(result.cluster_error / V, axis=1)[:, 0]
    standard_error = change.std(ddof=1) / np.sqrt(change.size)
    assert abs(change.mean() - (expected - 1)) < 4 * standard_error
    assert abs(change.mean() - m / T) > 4 * standard_error


def test_two_random_edits():
    """1 + a1 + a2 + (c1 + c2) f - c1 c2 S/d, with S from the Beta law of a leverage."""
    T, d, m = 30, 10, 10
    a, c, f = m / T, m * (T - m) / (T * (T - 1)), (T - d) / (T + 2)
    leverage = beta(d / 2, (T - d) / 2)
    both = leverage.expect(lambda h: h**2 * (1 - h) ** 2)
    one = leverage.expect(lambda h: h**2 * (1 - h))
    S = T * both + T * (3 * both + (d - 1) * one) / (T + 1)
    expected = 1 + 2 * a + 2 * c * f - c * c * S / d
    result = simulate(SMALL, RandomEdits((m, m)), generations=3, designs=6000, noise_replicates=40, seed=SEED)
    change = (result.cluster_error[:, 2] - result.cluster_error[:, 0]) / V
    standard_error = change.std(ddof=1) / np.sqrt(change.size)
    assert abs(change.mean() - (expected - 1)) < 4 * standard_error
    for wrong in (2 * a, 2 * a + 2 * c * f):  # eq. 36; the second edit without its interaction
        assert abs(change.mean() - wrong) > 4 * standard_error


def test_full_disjoint_coverage_exceeds_the_papers_constant():
    """T = 200, d = 10, ten disjoint blocks: 3.72 v (3.7195, exactly rational), above the paper's 2 v."""
    result = simulate(
        Setting(T=200, d=10), DisjointEdits((20,) * 10), generations=11, designs=200, noise_replicates=50, seed=SEED
    )
    last, error = result.error[-1] * 189 / 10, result.standard_error[-1] * 189 / 10
    assert abs(last - 3.72) < 4 * error + 0.005
    assert last - 4 * error > 2


def test_one_confident_edit():
    """Edited share P(|Z| sqrt(1 - h) <= tau), h ~ Beta: exact, since r_t = sigma sqrt(1 - h_t) Z_t."""
    T, d, tau = 30, 10, 0.5
    share = beta(d / 2, (T - d) / 2).expect(lambda h: 2 * norm.cdf(tau / np.sqrt(1 - h)) - 1)
    high, low = (
        simulate(SMALL, ConfidenceEdits(tau, side), generations=3, designs=500, noise_replicates=20, seed=SEED)
        for side in ("high", "low")
    )
    assert abs(high.edited_share[0] - share) < 4 * high.edited_share_se[0]
    assert abs(high.edited_share[0] - (2 * norm.cdf(tau) - 1)) > 4 * high.edited_share_se[0]
    # Same X and E_1: each row is edited by exactly one of the two.
    assert high.edited_share[0] + low.edited_share[0] == pytest.approx(1, abs=1e-12)


def test_fixed_real_share_interpolates_between_replace_and_nothing():
    everything, nothing = (
        simulate(SMALL, FixedRealShare(share), generations=5, designs=50, noise_replicates=4, seed=SEED)
        for share in (0.0, 1.0)
    )
    replaced = simulate(SMALL, Replace(), generations=5, designs=50, noise_replicates=4, seed=SEED)
    # The same key draws the same noise; only the order of sums differs.
    np.testing.assert_allclose(everything.error, replaced.error, rtol=1e-11)
    np.testing.assert_allclose(nothing.error, nothing.error[0], rtol=1e-12)
    np.testing.assert_array_equal(nothing.edited_share, 0)
    np.testing.assert_array_equal(nothing.effective_noise, 0)


def test_subsample_of_accumulated_data_lies_between():
    """Kazdan's rule: bounded slower than replace, worse than all data; both X conventions start the same."""
    same, fresh = (
        simulate(SMALL, AccumulateSubsample(fresh_x), generations=5, designs=400, noise_replicates=10, seed=SEED)
        for fresh_x in (False, True)
    )
    np.testing.assert_array_equal(same.error[0], fresh.error[0])
    accumulated = np.cumsum(1 / np.arange(1, 6) ** 2)
    for result in (same, fresh):
        assert (result.error[1:] / V > accumulated[1:] + 4 * result.standard_error[1:] / V).all()
    # Two generations, fresh X: each subsample row carries w* or w_1 with probability 1/2 each.
    assert fresh.error[1] / V < 2 - 4 * fresh.standard_error[1] / V
