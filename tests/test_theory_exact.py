"""Rational results: disjoint blocks at finite T, certificates; and ridge."""

from collections import defaultdict
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from theory import certificates, disjoint
from theory.bounds import disjoint_bound, disjoint_uniform_bound, random_edit_bounds, schedule_bound
from theory.closed_forms import disjoint_limit, honest_error, one_random_edit, two_random_edits
from theory.disjoint import disjoint_exact, frame_moments
from theory.engines import fixed_edits, random_edits
from theory.errors import InputError
from theory.fittest import haar_frames
from theory.moments import spectral_moments
from theory.ridge import ridge_random_edits, ridge_replace, ridge_replace_limit
from theory.schedules import consecutive_blocks

SIGMAS = 4.0  # standard errors allowed; 1 in 16,000 by chance


def test_two_blocks_are_the_known_fraction():
    assert disjoint_exact(12, 10, (4, 4))[-1] == Fraction(5237, 3003)
    # One block is one random edit, whatever its rows.
    assert disjoint_exact(12, 10, (4,))[-1] == certificates.one_random_edit_exact(12, 10, 4)


@pytest.mark.parametrize(
    ("T", "d", "counts"),
    [(12, 3, (3, 3, 3, 3)), (15, 8, (4, 1, 6, 0, 2)), (36, 4, (6,) * 6), (10, 8, (1,) * 5)],
)
def test_exact_fractions_match_the_engine(T, d, counts):
    exact = np.array([float(value) for value in disjoint_exact(T, d, counts)])
    curve = fixed_edits(T, d, consecutive_blocks(counts, T), draws=20_000)
    assert (np.abs(exact - curve.error) <= SIGMAS * curve.standard_error + 1e-12).all()
    # The limit law for T/d -> infinity is rejected at finite T.
    if len(set(counts)) == 1:
        limit = disjoint_limit(len(counts), counts[0] / T)
        assert abs(limit - curve.error[-1]) > 10 * curve.standard_error[-1]


def test_one_feature_against_dirichlet_moments():
    """At d = 1 the W_i are scalars with a Dirichlet(m_i/2) law: an independent exact computation."""
    T, counts = 11, (3, 2, 4)

    def rising(twice, power):
        value = Fraction(1)
        for i in range(power):
            value *= Fraction(twice, 2) + i
        return value

    def times(p, q):
        out = defaultdict(Fraction)
        for a, x in p.items():
            for b, y in q.items():
                out[tuple(i + j for i, j in zip(a, b, strict=True))] += x * y
        return out

    n = len(counts)
    unit = [tuple(int(i == j) for j in range(n)) for i in range(n)]
    one = {(0,) * n: Fraction(1)}

    def product_from(k):
        out = one
        for i in range(k, n):
            out = times(out, {(0,) * n: Fraction(1), unit[i]: Fraction(1)})
        return out

    total = defaultdict(Fraction, times(product_from(0), product_from(0)))
    for k in range(n):
        tail, w = product_from(k + 1), {unit[k]: Fraction(2)}
        for powers, value in times(times(tail, tail), w).items():
            total[powers] += value
        for powers, value in times(times(product_from(0), tail), w).items():
            total[powers] -= value
    expected = Fraction(0)
    for powers, value in total.items():
        moment = Fraction(1)
        for m, power in zip(counts, powers, strict=True):
            moment *= rising(m, power)
        expected += value * moment / rising(T, sum(powers))
    assert disjoint_exact(T, 1, counts)[-1] == expected


def test_moment_equations_are_checked():
    levels = frame_moments(12, 10, 6)
    levels[6][6,] += Fraction(1, 10**9)
    with pytest.raises(ArithmeticError):
        disjoint._verify(12, 10, 6, levels[6], levels[5])
    # Known value: Phi(2) = d(T-d)/(T(T-1)(T+2)).
    assert levels[2][2,] == Fraction(10 * 2, 12 * 11 * 14)


def test_blocks_stay_below_the_limit_law_and_the_proved_bounds():
    for T, d, m, n in product((8, 14, 20), (1, 3, 5), (1, 2, 3), (1, 2, 3, 4)):
        if m * n > T:
            continue
        exact = [float(value) for value in disjoint_exact(T, d, (m,) * n)]
        bound = disjoint_bound(T, d, (m,) * n)
        uniform = [disjoint_uniform_bound(m * k / T) for k in range(n + 1)]
        assert (np.array(exact) <= bound + 1e-12).all()
        assert exact[1] == pytest.approx(bound[1], rel=1e-13)  # sharp for one block
        assert (bound <= np.array(uniform) + 1e-12).all()
        assert (bound <= schedule_bound(T, d, (m,) * n) + 1e-12).all()
        assert exact[-1] <= disjoint_limit(n, m / T)
        assert exact[-1] > disjoint_exact(T, d + 1, (m,) * n)[-1]
    assert disjoint_bound(12, 3, (6, 0, 6))[1] == disjoint_bound(12, 3, (6, 0, 6))[2]
    # The constant 2 lies below the truth at full coverage, the proved constant above.
    truth = float(disjoint_exact(200, 10, (20,) * 10)[-1])
    assert 2 < truth < disjoint_bound(200, 10, (20,) * 10)[-1] < disjoint_uniform_bound(1.0)
    assert disjoint_uniform_bound(1.0) == pytest.approx((3**0.5 + np.pi / 2) ** 2)


def test_schedule_bound_for_overlapping_schedules():
    T, d = 20, 5
    rng = np.random.default_rng(0)
    for trial in range(6):
        if trial < 3:  # two alternating blocks, one block again and again, a sliding window
            rows = [np.arange(10), np.arange(5, 15)] if trial == 0 else [np.arange(8)]
            blocks = [np.sort((rows[i % len(rows)] + (3 * i if trial == 2 else 0)) % T) for i in range(10)]
        else:
            blocks = [rng.choice(T, rng.integers(1, T), replace=False) for _ in range(10)]
        curve = fixed_edits(T, d, blocks, draws=300)
        bound = schedule_bound(T, d, [block.size for block in blocks])
        assert (curve.error <= bound + SIGMAS * curve.standard_error + 1e-12).all()
        shares = np.array([block.size / T for block in blocks])
        assert (np.sqrt(bound[1:]) <= 1 + 2 * np.cumsum(np.sqrt(shares))).all()


def test_frame_moments_against_frames():
    """E tr W^2 for a block of m rows is Phi(2) (m^2 + m) + Phi(1, 1) m."""
    T, d, m = 9, 4, 3
    levels = frame_moments(T, d, 2)
    W = np.einsum("ntd,nte->nde", *(2 * [haar_frames(T, d, 200_000, np.random.default_rng(0))[:, :m]]))
    trace_of_square = np.einsum("nde,nde->n", W, W)
    # Row pairings in tr W^2: straight (m^2, type 2), crossed (m, type 2), joined (m, type 1+1).
    exact = float(levels[2][2,] * (m * m + m) + levels[2][1, 1] * m)
    se = trace_of_square.std() / np.sqrt(trace_of_square.size)
    assert abs(trace_of_square.mean() - exact) < SIGMAS * se


def test_ten_blocks_over_all_rows():
    exact = [float(value) for value in disjoint_exact(200, 10, (20,) * 10)]
    assert exact[-1] == pytest.approx(3.7195, abs=5e-5)
    assert exact[5] > 2


def test_counterexample_to_the_constant_two():
    certificate = certificates.certify_constant_two()
    assert certificate.error == Fraction(37, 15) == disjoint_exact(4, 1, (2, 2))[-1]
    assert not certificate.holds
    curve = fixed_edits(4, 1, consecutive_blocks((2, 2), 4), draws=20_000)
    assert abs(curve.error[-1] - 37 / 15) < SIGMAS * curve.standard_error[-1]
    assert curve.error[-1] - 2 > 100 * curve.standard_error[-1]
    # One block of all rows is replace, and exactly 2.
    assert disjoint_exact(3, 1, (3,))[-1] == 2


def test_bad_blocks():
    with pytest.raises(InputError):
        disjoint_exact(12, 10, (8, 8))
    with pytest.raises(InputError):
        disjoint_exact(5, 1, (1, 1, 1))  # moments of order 6 need T >= 6
    with pytest.raises(InputError):
        disjoint_exact(12, 11, (1,))


@pytest.mark.parametrize("blocks", [((0, 1), (2,)), ((0, 1), (1, 2)), ((3,), (3,))])
def test_identity_holds_and_theorem_1_fails(blocks):
    certificate = certificates.certify_identity(blocks=blocks)
    assert certificate.steps_hold
    assert certificate.residuals_hold
    assert certificate.sum_holds
    assert not certificate.theorem_1_holds
    assert certificate.gap_is_residuals


def test_identity_on_random_integer_instances():
    rng = np.random.default_rng(0)
    for _ in range(20):
        X = rng.integers(-3, 4, (6, 2)).tolist()
        if np.linalg.matrix_rank(np.array(X)) < 2:
            continue
        noise = rng.integers(-3, 4, (4, 6)).tolist()
        blocks = [np.flatnonzero(rng.random(6) < 0.5).tolist() for _ in range(3)]
        certificate = certificates.certify_identity(X, [1, -2], noise, blocks)
        assert certificate.steps_hold
        assert certificate.residuals_hold
        assert certificate.sum_holds
        assert certificate.gap_is_residuals


def test_proof_steps_fail_with_the_stated_gap():
    first = certificates.certify_step_25_26()
    assert not first.holds
    assert first.gap == (Fraction(66, 175), Fraction(-64, 1225))
    second = certificates.certify_step_29_30()
    assert not second.holds
    assert second.gap == (Fraction(3, 25), Fraction(-109, 1225))
    assert certificates.cross_term(certificates.EXAMPLE_X, (0, 1), (2,)) == Fraction(113, 1225)
    assert all(certificates.penrose_conditions(certificates.EXAMPLE_X))
    # Editing every row is replace: there the steps do hold (M = I leaves no old residual).
    assert not any(certificates.certify_identity(blocks=((), ())).gap)


def test_certified_error_equals_float_recursion():
    certificate = certificates.certify_error()
    X = np.array(certificates.EXAMPLE_X, dtype=float)
    plus = np.linalg.pinv(X)
    G, Q, C = plus.T @ plus, np.eye(4) - X @ plus, np.eye(4)
    for n, block in enumerate(certificates.EXAMPLE_BLOCKS):
        M = np.diag(np.isin(np.arange(4), block).astype(float))
        C = (np.eye(4) - M @ Q) @ C @ (np.eye(4) - Q @ M) + M
        assert float(certificate.true[n + 1]) == pytest.approx(np.trace(G @ C), rel=1e-12)
        assert certificate.true[n + 1] > certificate.paper[n + 1]


def test_random_edit_fractions_equal_floats():
    for T, d, m in ((3, 1, 1), (12, 10, 4), (40, 8, 13)):
        assert float(certificates.one_random_edit_exact(T, d, m)) == pytest.approx(one_random_edit(T, d, m), rel=1e-14)
        exact = certificates.two_random_edits_exact(T, d, m, m)
        assert float(exact) == pytest.approx(two_random_edits(T, d, m, m), rel=1e-14)


def test_three_random_edits_are_exact():
    for T, d in ((3, 1), (12, 10), (40, 8)):
        m = max(1, T // 3)
        exact = certificates.random_edits_exact(T, d, (m, m + 1, m))
        assert exact[1] == certificates.one_random_edit_exact(T, d, m)
        assert exact[2] == certificates.two_random_edits_exact(T, d, m, m + 1)
        curve = random_edits(T, d, (m, m + 1, m), draws=20_000 // T)
        assert abs(float(exact[3]) - curve.error[3]) < SIGMAS * curve.standard_error[3] + 1e-12
        # Told apart from the bounds that use f only.
        low, high = random_edit_bounds(T, d, (m, m + 1, m))
        assert min(high[3] - float(exact[3]), float(exact[3]) - low[3]) > 100 * curve.standard_error[3]
    with pytest.raises(InputError):
        certificates.random_edits_exact(12, 10, (1, 1, 1, 1))


def test_fourth_spectral_moment_at_one_feature():
    """At d = 1, K(1-h) = 1 - 2 p + 2 p^2 - p |p|^2 with p ~ Dirichlet(1/2, ...): an independent exact value."""
    T = 7

    def mixed(*powers):
        """E p_1^j p_2^k p_3^l."""
        value, total = Fraction(1), 0
        for power in powers:
            for i in range(power):
                value *= (Fraction(1, 2) + i) / (Fraction(T, 2) + total)
                total += 1
        return value

    # (1 - 2p + 2p^2 - p s)^2 = 1 - 4p + 8p^2 - 8p^3 + 4p^4 - 2 s (p - 2p^2 + 2p^3) + p^2 s^2, p = p_1, s = |p|^2.
    def with_s(j):
        return mixed(j + 2) + (T - 1) * mixed(j, 2)

    with_s2 = mixed(6) + 2 * (T - 1) * mixed(4, 2) + (T - 1) * mixed(2, 4) + (T - 1) * (T - 2) * mixed(2, 2, 2)
    exact = 1 - 4 * mixed(1) + 8 * mixed(2) - 8 * mixed(3) + 4 * mixed(4)
    exact += -2 * (with_s(1) - 2 * with_s(2) + 2 * with_s(3)) + with_s2
    assert spectral_moments(T, 1)[4] == exact


def test_bad_certificate_input():
    with pytest.raises(InputError):
        certificates.pseudo_inverse(((1, 2), (2, 4), (3, 6)))
    with pytest.raises(InputError):
        certificates.run_edits(certificates.EXAMPLE_X, (1, 2), ((0, 0, 0, 0),), ((0,),))


SIGMA = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.0], [0.0, 0.0, 0.5]])
W_STAR = np.array([1.0, -1.0, 2.0])


def test_ridge_engine_matches_the_literal_process():
    T, counts, penalty, sigma, repeats = 20, (7, 12, 5, 20, 6), 2.0, 0.7, 40_000
    rng = np.random.default_rng(2)
    X = rng.standard_normal((repeats, T, 3)) @ np.linalg.cholesky(SIGMA).T
    B = np.linalg.solve(X.transpose(0, 2, 1) @ X + penalty * np.eye(3), X.transpose(0, 2, 1))
    y = X @ W_STAR + sigma * rng.standard_normal((repeats, T))
    curve = ridge_random_edits(T, counts, Sigma=SIGMA, w_star=W_STAR, sigma=sigma, penalty=penalty, draws=1500)
    for n in range(len(counts) + 1):
        w = (B @ y[:, :, None])[:, :, 0]
        error = np.einsum("ni,ij,nj->n", w - W_STAR, SIGMA, w - W_STAR)
        se = np.hypot(error.std() / np.sqrt(repeats), curve.error.standard_error[n])
        assert abs(error.mean() - curve.error.error[n]) < SIGMAS * se
        # Neither part alone explains it.
        assert error.mean() - max(curve.bias.error[n], curve.variance.error[n]) > 4 * se
        if n < len(counts):
            edited = np.argsort(rng.random((repeats, T)), axis=1) < counts[n]
            fresh = (X @ w[:, :, None])[:, :, 0] + sigma * rng.standard_normal((repeats, T))
            y = np.where(edited, fresh, y)


def test_ridge_without_penalty_is_the_ridgeless_engine():
    curve = ridge_random_edits(20, (7, 6), Sigma=SIGMA, w_star=W_STAR, sigma=0.7, penalty=0.0, draws=4000)
    v = honest_error(20, 3, 0.7)
    exact = np.array([1.0, one_random_edit(20, 3, 7), two_random_edits(20, 3, 7, 6)])
    assert (np.abs(curve.error.error / v - exact) < SIGMAS * curve.error.standard_error / v).all()
    assert curve.bias.error.max() < 1e-25


def test_ridge_replace_is_bounded_and_forgets():
    X = np.random.default_rng(0).standard_normal((20, 3))
    problem = {"Sigma": SIGMA, "w_star": W_STAR, "sigma": 0.7, "penalty": 2.0}
    bias, variance = ridge_replace(X, generations=3000, **problem)
    forgotten, noise = ridge_replace_limit(X, **problem)
    assert forgotten == pytest.approx(W_STAR @ SIGMA @ W_STAR)
    assert bias[-1] == pytest.approx(forgotten, rel=1e-9)
    assert variance[-1] == pytest.approx(noise, rel=1e-9)
    assert (np.diff(bias) > -1e-12).all()
    assert bias[0] < 0.2 * forgotten
    engine = ridge_random_edits(20, (20,) * 5, draws=300, **problem)
    rng = np.random.default_rng(0)
    mean = np.mean(
        [
            np.add(*ridge_replace(rng.standard_normal((20, 3)) @ np.linalg.cholesky(SIGMA).T, generations=6, **problem))
            for _ in range(300)
        ],
        axis=0,
    )
    np.testing.assert_allclose(engine.error.error, mean, rtol=1e-10)


def test_ridge_replace_takes_lists_and_weak_penalties():
    eye = [[1.0, 0.0], [0.0, 1.0]]
    problem: dict[str, Any] = {"X": eye, "Sigma": eye, "w_star": [1.0, 1.0], "sigma": 1.0, "penalty": 1.0}
    assert ridge_replace(generations=1, **problem)[0] == pytest.approx([0.5])
    assert ridge_replace_limit(**problem) == pytest.approx((2, 2 / 3))
    # The square of this penalty is 0 in float64, and so is the eigenvalue of the second column.
    problem |= {"X": [[1.0, 0.0]], "penalty": 1e-200}
    assert ridge_replace(generations=1, **problem)[1] == pytest.approx([1.0])
    assert ridge_replace_limit(**problem)[1] == pytest.approx(0.5e200)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_ridge_replace_refuses_features_that_overflow(value):
    problem = {"Sigma": np.eye(2), "w_star": np.ones(2), "sigma": 1.0, "penalty": 1.0}
    X = np.full((4, 2), value)
    with pytest.raises(InputError, match="finite"):
        ridge_replace(X, generations=2, **problem)
    with pytest.raises(InputError, match="finite"):
        ridge_replace_limit(X, **problem)


@pytest.mark.parametrize(
    "change",
    [
        {"Sigma": np.eye(2)},
        {"Sigma": -np.eye(3)},
        {"Sigma": np.full((3, 3), np.nan)},
        {"sigma": -1.0},
        {"penalty": float("nan")},
        {"T": 4, "penalty": 0.0},
        {"counts": (21,)},
    ],
)
def test_bad_ridge_input(change):
    problem = {
        "T": 20,
        "counts": (5,),
        "Sigma": SIGMA,
        "w_star": W_STAR,
        "sigma": 1.0,
        "penalty": 1.0,
    } | change
    with pytest.raises(InputError):
        ridge_random_edits(problem.pop("T"), problem.pop("counts"), **problem)
