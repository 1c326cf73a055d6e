"""Closed forms and bounds against literal Monte Carlo, the engines and each other."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import digamma

from theory import bounds, closed_forms, moments
from theory.engines import fixed_edits, random_edits
from theory.errors import InputError
from theory.fittest import haar_frames
from theory.schedules import consecutive_blocks, constant_counts, geometric_counts

SIGMAS = 4.0  # standard errors allowed; 1 in 16,000 by chance
SHAPES = ((3, 1), (4, 2), (5, 1), (8, 6), (9, 4), (14, 1), (20, 18), (40, 8), (100, 50))


def mean_and_error(samples):
    return samples.mean(), samples.std(ddof=1) / np.sqrt(samples.size)


@pytest.mark.parametrize(("T", "d"), [(16, 4), (20, 3)])
def test_gram_identities(T, d):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40_000, T, d))
    inverse = np.linalg.inv(X.transpose(0, 2, 1) @ X)
    B = X @ inverse
    G = np.einsum("ntd,ntd->nt", B, B)
    h = np.einsum("ntd,ntd->nt", B, X)
    for samples, exact, wrong in (
        (np.einsum("ndd->n", inverse), closed_forms.trace_inverse_gram(T, d), d / (T - d)),
        (
            np.einsum("nde,nde->n", inverse, inverse),
            closed_forms.trace_inverse_gram_squared(T, d),
            d / (T - d - 1) ** 2,
        ),
        (
            np.sum((1 - h) * G, axis=1),
            closed_forms.leverage_weighted_gram(T, d),
            d * (T - d) / (T - d - 1) / T,
        ),
    ):
        mean, se = mean_and_error(samples)
        assert abs(mean - exact) < SIGMAS * se
        assert abs(mean - wrong) > 2 * SIGMAS * se


def test_leverage_moments():
    T, d = 9, 4
    U = haar_frames(T, d, 100_000, np.random.default_rng(1))
    Q = np.eye(T) - U @ U.transpose(0, 2, 1)
    h = 1 - np.einsum("ntt->nt", Q)
    mean, se = mean_and_error(h[:, 0] ** 2 * (1 - h[:, 0]))
    assert abs(mean - float(moments.beta_moment(T, d, 2, 1))) < SIGMAS * se
    x = np.ones((100_000, T))
    for exact in moments.spectral_moments(T, d):
        mean, se = mean_and_error(x.mean(axis=1))
        # mu_0 and mu_1 are the same for every H, up to rounding.
        assert abs(mean - float(exact)) < SIGMAS * se + 1e-12
        x = np.einsum("nst,nt->ns", Q**2, x)


def test_two_point_rule_has_the_four_moments():
    for T, d in SHAPES:
        x, weight = closed_forms.two_point_rule(T, d)
        assert 0 < x[0] < x[1] < 1
        exact = [float(moment) for moment in moments.spectral_moments(T, d)[:4]]
        # A 2 x 2 Gauss rule in float64: a few roundings, enlarged by 1/(x2 - x1).
        np.testing.assert_allclose([weight @ x**j for j in range(4)], exact, rtol=0, atol=1e-13 / (x[1] - x[0]))


def test_accumulation_and_real_share_limits():
    fresh = closed_forms.accumulate_fresh_x(30, 10, 100_000)
    assert fresh[7] == pytest.approx(1.3877, abs=5e-5)
    # The tail beyond n is about (1 - t)/n.
    assert fresh[-1] == pytest.approx(closed_forms.accumulate_fresh_x_limit(30, 10), abs=1e-5)
    assert (fresh[1:] < closed_forms.accumulate_same_x(100_000)[1:]).all()
    assert closed_forms.accumulate_subsample_limit(100_000)[-1] == pytest.approx(np.pi**2 / 2 - 2, abs=1e-4)
    assert closed_forms.fixed_real_share_limit(0.4, 60)[-1] == pytest.approx(1.8 / 0.84, rel=1e-12)
    np.testing.assert_allclose(closed_forms.fixed_real_share_limit(1.0, 4), [1, 2, 3, 4])


def test_limits_at_large_arguments():
    eps = np.finfo(np.float64).eps
    for T in (10**14, 10**15, 10**16, 10**17):
        assert closed_forms.accumulate_fresh_x_limit(T, 1) == pytest.approx(np.pi**2 / 6, rel=4 * eps + 2 / T)
    for T, d in ((21, 1), (19, 1), (10**4, 1100), (10**4, 900)):  # on either side of the change at t = 0.1
        t = (d + 1) / T
        cancelling = (1 - t) / t * (digamma(1) - digamma(1 - t))
        assert closed_forms.accumulate_fresh_x_limit(T, d) == pytest.approx(cancelling, rel=8 * eps / t)
    assert closed_forms.he_weight(1e17) == 1
    assert closed_forms.he_weight(1e9) == pytest.approx(1 - 1e-9 + 2e-18, abs=2 * eps)
    assert closed_forms.he_weight(1e-300) == pytest.approx(1e-150, rel=4 * eps)


@pytest.mark.parametrize("k", [0.2, 1.0, 5.0])
def test_he_weight_minimises_the_stationary_error(k):
    best = closed_forms.he_weight(k)
    settled = closed_forms.fresh_real_share(best, k, 400)[-1]
    assert settled == pytest.approx(best, rel=1e-9)
    for weight in (best - 0.02, best + 0.02):
        assert closed_forms.fresh_real_share(weight, k, 400)[-1] > settled
    if k == 1.0:
        assert best == pytest.approx((5**0.5 - 1) / 2)


def test_sandwich_and_paper_bounds_hold_for_random_edits():
    rng = np.random.default_rng(0)
    for T, d in SHAPES:
        for counts in (
            constant_counts(T, 0.3, 13),
            geometric_counts(T, 0.9, 0.7, 13),
            tuple(int(m) for m in rng.integers(0, T + 1, 12)),
        ):
            curve = random_edits(T, d, counts, draws=200)
            slack = SIGMAS * curve.standard_error + 1e-12
            low, high = bounds.random_edit_bounds(T, d, counts)
            crude_low, crude_high, crudest = bounds.simple_bounds(T, counts)
            chain = (crude_low, low, curve.error, high, crude_high, crudest)
            for smaller, larger in pairwise(chain):
                assert (smaller <= larger + slack).all()
            # Sharp: equal after one edit.
            assert low[1] == pytest.approx(high[1], rel=1e-14)
            assert curve.error[1] == pytest.approx(high[1], rel=1e-13)
            assert (curve.error <= bounds.cauchy_schwarz_bound(T, d, counts) + slack).all()


def test_bracket_holds_is_narrow_and_exact_for_three_edits():
    for (T, d), width in {
        (3, 1): 0.01,
        (14, 1): 3e-3,
        (30, 25): 3e-4,
        (200, 10): 3e-4,
        (1000, 100): 6e-5,
    }.items():
        counts = constant_counts(T, 0.34, 101)
        curve = random_edits(T, d, counts, draws=200 if T < 1000 else 4)
        low, high = bounds.random_edit_bracket(T, d, counts)
        slack = SIGMAS * curve.standard_error + 1e-12
        assert (low <= curve.error + slack).all()
        assert (curve.error <= high + slack).all()
        assert np.max(high / low - 1) < width
        np.testing.assert_allclose(low[:4], high[:4], rtol=1e-12)
        assert high[4] > low[4] + 1e-9 * high[4]
        crude_low, crude_high = bounds.random_edit_bounds(T, d, counts)
        assert (crude_low <= low + 1e-12).all()
        assert (high <= crude_high + 1e-12).all()


def test_random_limit():
    shares = 0.3
    previous = None
    for T in (200, 2000):
        curve = random_edits(T, T // 10, constant_counts(T, shares, 31), draws=4)
        limit = np.array([closed_forms.random_edits_limit(n, shares, 0.1) for n in range(31)])
        gap = np.abs(curve.error / limit - 1).max()
        if previous is not None:
            assert previous / gap == pytest.approx(10, rel=0.15)  # the gap falls like 1/T
        previous = gap
    assert closed_forms.random_edits_limit(7, 0.3, 0.0) == pytest.approx(1 + 7 * bounds.constant_share_slope(0.3))
    assert closed_forms.random_edits_limit(7, 0.0, 0.2) == 1
    assert closed_forms.random_edits_limit(7, 1e-17, 0.2) == 1
    assert closed_forms.random_edits_limit(7, 1.0, 0.2) == 8


def test_each_true_increment_is_at_most_half_of_eq_41():
    sharpest = 0.0
    for T, d in product((8, 20, 57, 200, 2000), (1, 3, 4, 28, 100, 1000)):
        if d + 4 > T:
            continue
        for m in {1, T // 4, T // 2, 3 * T // 4, T}:
            low, high = bounds.random_edit_bounds(T, d, (m,))
            paper = bounds.cauchy_schwarz_bound(T, d, (m,))[1] - 1
            ratio = (high[1] - low[0]) / paper
            assert ratio <= 0.5 + 1e-12
            sharpest = max(sharpest, ratio)
    assert sharpest > 0.499  # at d = T/2 and m = T the half is reached in the limit


def test_eq_41_and_42():
    assert bounds.cauchy_schwarz_bound(13, 10, (4,))[1] == np.inf
    assert bounds.cauchy_schwarz_bound(13, 10, (0,))[1] == 1
    assert np.isfinite(bounds.cauchy_schwarz_bound(14, 10, (4,))[1])
    counts = geometric_counts(20_000, 0.5, 0.81, 40)
    full = bounds.cauchy_schwarz_bound(20_000, 10, counts)[-1]
    # The geometric sum continues past 39 edits and the counts are rounded: 2 % of the sum.
    assert bounds.decay_bound(20_000, 10, 10_000, 0.9) == pytest.approx(full, rel=0.02)
    assert bounds.decay_bound(20_000, 10, 10_000, 0.81, norm="trace") == pytest.approx(full, rel=0.02)
    # The printed 1 - eta under the trace reading is below the sum it bounds.
    assert bounds.decay_bound(20_000, 10, 10_000, 0.81) < 0.6 * full
    with pytest.raises(InputError):
        bounds.decay_bound(20, 10, 5, 1.0)
    with pytest.raises(InputError, match="spectral"):  # 0 or 1 for a 0/1 matrix: no ratio in (0, 1)
        bounds.decay_bound(40, 2, 1, 0.5, "spectral")  # pyright: ignore[reportArgumentType]


def test_the_constant_two_fails():
    counts = geometric_counts(200, 0.5, 0.9, 16)
    curve = random_edits(200, 10, counts)
    assert curve.error[-1] == pytest.approx(7.455, abs=2e-3)
    assert curve.error[-1] < bounds.geometric_bound(0.5, 0.9)
    disjoint = fixed_edits(200, 10, consecutive_blocks((20,) * 10, 200), draws=200)
    assert disjoint.error[-1] > bounds.PAPER_CONSTANT + 1
    # Even one edit of every row that is not a refit of all: half the rows once, then the other half.
    assert closed_forms.disjoint_limit(2, 0.5) > bounds.PAPER_CONSTANT


def test_disjoint_limits():
    assert closed_forms.disjoint_limit(0, 0.3) == 1
    # The discrete law tends to the continuum at rate 1/n.
    gaps = [closed_forms.disjoint_continuum(0.6) - closed_forms.disjoint_limit(n, 0.6 / n) for n in (100, 200)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.02)
    assert closed_forms.disjoint_continuum(1) == pytest.approx(2 * np.e - 1)
    wide = fixed_edits(4000, 2, consecutive_blocks((400,) * 5, 4000), draws=400)
    # d/T = 1/2000: the finite-T correction is about d/T of the excess error.
    expected = [closed_forms.disjoint_limit(n, 0.1) for n in range(6)]
    np.testing.assert_allclose(wide.error, expected, rtol=2e-3)


def test_scalar_recursion_error_and_fixed_point():
    for (T, d), (low, high) in {
        (14, 1): (0.01, 0.025),
        (200, 10): (1e-3, 3e-3),
        (1000, 100): (2e-4, 5e-4),
    }.items():
        exact = random_edits(T, d, constant_counts(T, 0.3, 301), draws=200 if T < 300 else 4)
        gap = np.abs(closed_forms.scalar_recursion(T, d, constant_counts(T, 0.3, 301)) / exact.error - 1).max()
        assert low < gap < high
    curve = closed_forms.scalar_recursion(50, 10, (20,) * 400)
    f, c = float(moments.mean_residual_leverage(50, 10)), 20 * 30 / (50 * 49)
    slope = 20 / 50 + c * f * closed_forms.scalar_fixed_point(50, 10, 20)
    assert curve[-1] - curve[-2] == pytest.approx(slope, rel=1e-12)


def test_fractions_are_exact():
    assert moments.beta_moment(12, 10, 1, 1) == Fraction(5 * 1, 6 * 7)
    assert moments.mean_residual_leverage(12, 10) == Fraction(1, 7)
    assert closed_forms.one_random_edit(12, 10, 4) == pytest.approx(316 / 231, rel=1e-15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: closed_forms.honest_error(10, 9),
        lambda: closed_forms.honest_error(10, 2, float("nan")),
        lambda: closed_forms.honest_error(10, 2, -1.0),
        lambda: closed_forms.one_random_edit(10, 2, 11),
        lambda: closed_forms.disjoint_limit(4, 0.3),
        lambda: closed_forms.disjoint_continuum(1.2),
        lambda: closed_forms.he_weight(0.0),
        lambda: closed_forms.fresh_real_share(1.2, 1.0, 3),
        lambda: closed_forms.scalar_fixed_point(10, 2, 0),
        lambda: closed_forms.replace_curve(0),
        lambda: bounds.geometric_bound(0.5, 1.0),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(InputError):
        call()
