"""The engines against literal brute force, and against each other on the same projections."""

import numpy as np
import pytest

from theory import engines
from theory.accumulation import accumulate_subsample
from theory.closed_forms import (
    accumulate_fresh_x,
    accumulate_same_x,
    accumulate_subsample_limit,
    honest_error,
    one_random_edit,
    paper_sum,
    random_edits_two_point,
    replace_curve,
    scalar_recursion,
    two_random_edits,
)
from theory.engines import disjoint_edits, fixed_edits, fixed_real_share, random_edits
from theory.errors import InputError
from theory.fittest import fit_test_error, haar_frames
from theory.schedules import consecutive_blocks, constant_counts

# A mean is called equal when it lies within 4 standard errors of the difference: 1 in 16,000 by chance.
SIGMAS = 4.0


def literal_edits(T, d, choose, generations, *, Sigma, repeats, seed):
    """Error/v (repeats, n) on literal X; ``choose(rng, n, residual)`` returns the mask of edited rows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((repeats, T, d)) @ np.linalg.cholesky(Sigma).T
    plus = np.linalg.solve(X.transpose(0, 2, 1) @ X, X.transpose(0, 2, 1))
    w_star = rng.standard_normal(d)
    y = X @ w_star + rng.standard_normal((repeats, T))
    errors = []
    for n in range(generations):
        w = (plus @ y[:, :, None])[:, :, 0]
        errors.append(np.einsum("ni,ij,nj->n", w - w_star, Sigma, w - w_star))
        fitted = (X @ w[:, :, None])[:, :, 0]
        mask = choose(rng, n, y - fitted)
        y = np.where(mask, fitted + rng.standard_normal((repeats, T)), y)
    return np.stack(errors, axis=1) / honest_error(T, d)


def choose_random(counts, T):
    def choose(rng, n, residual):
        m = counts[n] if n < len(counts) else 0
        return np.argsort(rng.random(residual.shape), axis=1) < m

    assert all(m <= T for m in counts)
    return choose


def z_scores(literal, curve):
    mean, se = literal.mean(axis=0), literal.std(axis=0, ddof=1) / np.sqrt(literal.shape[0])
    return (mean - curve.error) / np.hypot(se, curve.standard_error)


def test_random_edits_match_the_literal_process_and_reject_the_paper():
    T, d, counts = 20, 4, (8, 5, 12, 3)
    Sigma = np.array([[2.0, 0.5, 0, 0], [0.5, 1.0, 0, 0], [0, 0, 0.3, 0.1], [0, 0, 0.1, 4.0]])
    literal = literal_edits(T, d, choose_random(counts, T), 5, Sigma=Sigma, repeats=40_000, seed=1)
    curve = random_edits(T, d, counts, draws=400)
    assert np.abs(z_scores(literal, curve)).max() < SIGMAS
    standard_error = literal.std(axis=0, ddof=1) / np.sqrt(literal.shape[0])
    # eq. 36 of the paper, 1 + sum a, is rejected at every edit by more than 10 standard errors.
    assert ((literal.mean(axis=0) - paper_sum(T, counts))[1:] > 10 * standard_error[1:]).all()


@pytest.mark.parametrize(("T", "d"), [(6, 4), (7, 4), (3, 1)])
def test_random_edits_where_the_literal_error_has_no_variance(T, d):
    """At T = d + 2 and d + 3 only the fit-test form can be held to a standard error."""
    counts, repeats = (2, 1, 2), 40_000
    rng = np.random.default_rng(11)
    U = haar_frames(T, d, repeats, rng)
    u = rng.standard_normal((repeats, T))
    errors = []
    for n in range(4):
        errors.append(fit_test_error(U, u))
        fitted = np.einsum("ntd,nsd,ns->nt", U, U, u, optimize=True)
        edited = np.argsort(rng.random((repeats, T)), axis=1) < (counts[n] if n < 3 else 0)
        u = np.where(edited, fitted + rng.standard_normal((repeats, T)), u)
    simulated = np.stack(errors, axis=1)
    assert np.abs(z_scores(simulated, random_edits(T, d, counts, draws=1000))).max() < SIGMAS
    gap = simulated.mean(axis=0) - paper_sum(T, counts)
    assert (gap[1:] > SIGMAS * simulated.std(axis=0)[1:] / np.sqrt(repeats)).all()


def test_fixed_edits_match_the_literal_process():
    T, d = 18, 3
    blocks = ([0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8], [0, 8, 9], [0, 1, 2, 3, 4])

    def choose(rng, n, residual):
        mask = np.zeros(residual.shape, dtype=bool)
        if n < len(blocks):
            mask[:, blocks[n]] = True
        return mask

    literal = literal_edits(T, d, choose, 5, Sigma=np.eye(d), repeats=40_000, seed=2)
    curve = fixed_edits(T, d, blocks, draws=2000, seed=5)
    assert np.abs(z_scores(literal, curve)).max() < SIGMAS
    disjoint = disjoint_edits(T, d, consecutive_blocks((5, 6, 3, 4), T), draws=2000, seed=5)
    # Overlaps matter: the disjoint schedule of nearly equal sizes is told apart.
    assert abs(disjoint.error[-1] - curve.error[-1]) > 10 * curve.standard_error[-1]


@pytest.mark.parametrize("selection", ["random", "high", "low", "one-sided"])
def test_fit_test_theorem_for_data_dependent_rules(selection):
    """The literal error with a general Sigma equals E||H u||^2/d for selections that look at residuals."""
    T, d, generations = 16, 3, 4

    def choose(rng, n, residual):
        if selection == "random":
            return rng.random(residual.shape) < 0.4
        if selection == "one-sided":
            return residual > 0.5
        return np.abs(residual) <= 0.6 if selection == "high" else np.abs(residual) >= 0.6

    Sigma = np.array([[5.0, 1.0, 0.2], [1.0, 1.0, 0.0], [0.2, 0.0, 0.1]])
    literal = literal_edits(T, d, choose, generations, Sigma=Sigma, repeats=40_000, seed=3)
    rng = np.random.default_rng(4)
    U = haar_frames(T, d, 40_000, rng)
    u = rng.standard_normal(U.shape[:2])
    for n in range(generations):
        value = fit_test_error(U, u)
        se = np.hypot(value.std(), literal[:, n].std()) / np.sqrt(40_000)
        assert abs(value.mean() - literal[:, n].mean()) < SIGMAS * se, n
        fitted = np.einsum("ntd,nsd,ns->nt", U, U, u, optimize=True)
        u = np.where(choose(rng, n, u - fitted), fitted + rng.standard_normal(u.shape), u)


@pytest.mark.parametrize(("T", "d"), [(14, 1), (12, 3), (12, 10), (9, 7), (30, 20)])
def test_spectral_form_equals_the_plain_recursion_on_the_same_frames(T, d, monkeypatch):
    """random_edits less its control variate against D <- p D + c diag(Q D Q) + a I, frame by frame."""
    counts = (T // 2, T // 3, 1, T, T // 2, T - 1, 0, T // 4)
    k = min(d, T - d)
    V = haar_frames(T, k, 50, np.random.default_rng(7))
    x, weight = engines._schur_square_nodes(V, d <= T - d, 5)
    F, _ = engines.spectral_integrand(T, d, counts, x)
    spectral = paper_sum(T, counts) + np.einsum("nbk,bk->bn", F, weight)
    P = V @ V.transpose(0, 2, 1)
    Q = np.eye(T) - P if d <= T - d else P
    K, h = Q**2, 1 - np.einsum("ntt->nt", Q)
    D, e = np.ones((50, T)), np.ones(50)
    plain = [e]
    for m in counts:
        a, c = m / T, m * (T - m) / (T * (T - 1))
        KD = np.einsum("nst,nt->ns", K, D)
        e = e + a + c * np.sum(h * KD, axis=1) / d
        D = (1 - a - c) * D + c * KD + a
        plain.append(e)
    # Eight edits: the five-step quadrature is exact, what remains is rounding of order 100 machine epsilons.
    np.testing.assert_allclose(spectral, np.stack(plain, axis=1), rtol=0, atol=1e-12)


def test_random_edits_reach_the_precision_asked_for():
    T, d = 1000, 100
    curve = random_edits(T, d, constant_counts(T, 0.1, 101), draws=2)
    other = random_edits(T, d, constant_counts(T, 0.1, 101), draws=2, seed=1)
    assert np.max(curve.standard_error / curve.error) < 1e-4
    # Two draws give a poor standard error, so agreement is asked of the requirement itself.
    np.testing.assert_allclose(curve.error, other.error, rtol=1e-5)
    # The scalar recursion is off by 10 times that at the end.
    assert abs(scalar_recursion(T, d, constant_counts(T, 0.1, 101))[-1] / curve.error[-1] - 1) > 1e-4


@pytest.mark.parametrize(("T", "d"), [(3, 1), (5, 3), (12, 10), (14, 1), (60, 10)])
def test_one_and_two_random_edits_are_exact(T, d):
    m1, m2 = max(1, T // 3), T // 2
    curve = random_edits(T, d, (m1, m2, m1), draws=300)
    assert curve.error[1] == pytest.approx(one_random_edit(T, d, m1), rel=1e-13)
    assert curve.error[2] == pytest.approx(two_random_edits(T, d, m1, m2), rel=1e-13)
    # A plain average over frames agrees with the second closed form, but not with it without S.
    U = haar_frames(T, d, 200_000 // T, np.random.default_rng(3))
    Q = np.eye(T) - U @ U.transpose(0, 2, 1)
    h = 1 - np.einsum("ntt->nt", Q)
    energy = np.einsum("ns,nst,nt->n", h, Q**2, h)
    c1, c2 = (m * (T - m) / (T * (T - 1)) for m in (m1, m2))
    without = one_random_edit(T, d, m1) + one_random_edit(T, d, m2) - 1
    se = c1 * c2 * energy.std() / np.sqrt(energy.size) / d
    assert abs(without - c1 * c2 * energy.mean() / d - two_random_edits(T, d, m1, m2)) < SIGMAS * se
    assert c1 * c2 * energy.mean() / d > 100 * se


def test_two_point_rule_is_close_and_better_than_the_scalar_recursion():
    for (T, d), bound in {(1000, 100): 1e-6, (200, 10): 2e-5, (5, 3): 2e-3, (14, 1): 4e-3}.items():
        counts = constant_counts(T, 0.3, 61)
        exact = random_edits(T, d, counts, draws=400 if T < 100 else 4)
        gap = np.max(np.abs(random_edits_two_point(T, d, counts) / exact.error - 1))
        assert gap < bound
        assert gap < 0.2 * np.max(np.abs(scalar_recursion(T, d, counts) / exact.error - 1))


def test_disjoint_form_equals_the_full_covariance():
    U = haar_frames(15, 4, 20, np.random.default_rng(0))
    blocks = consecutive_blocks((3, 5, 2, 4), 15)
    small, full = engines._disjoint_samples(U, blocks), engines._fixed_samples(U, blocks)
    # Both are a few hundred float64 operations on numbers of order 10.
    np.testing.assert_allclose(small, full, rtol=0, atol=1e-12)


def test_fixed_covariance_equals_the_matrix_recursion():
    T, d = 12, 3
    U = haar_frames(T, d, 10, np.random.default_rng(1))
    H = U @ U.transpose(0, 2, 1)
    blocks = (np.arange(5), np.arange(3, 9), np.arange(5), np.arange(0))
    curves = engines._fixed_samples(U, blocks)
    C = np.broadcast_to(np.eye(T), (10, T, T))
    for n, rows in enumerate(blocks, start=1):
        M = np.diag(np.isin(np.arange(T), rows).astype(float))
        step = np.eye(T) - M @ (np.eye(T) - H)
        C = step @ C @ step.transpose(0, 2, 1) + M
        np.testing.assert_allclose(np.einsum("nij,nji->n", H, C) / d, curves[:, n], rtol=0, atol=1e-12)


def test_residual_covariance_never_exceeds_the_honest_one():
    """Cov(r_n | H) <= sigma^2 Q in the Loewner order, for any fixed schedule."""
    T, d = 12, 4
    H = (U := haar_frames(T, d, 20, np.random.default_rng(1))) @ U.transpose(0, 2, 1)
    Q = np.eye(T) - H
    rng = np.random.default_rng(2)
    R = Q
    for _ in range(6):
        M = np.diag((rng.random(T) < 0.4).astype(float))
        step = np.eye(T) - Q @ M
        R = step @ R @ step.transpose(0, 2, 1) + Q @ M @ Q
        eigenvalues = np.linalg.eigvalsh(Q - R)
        assert eigenvalues.min() > -1e-12  # rounding of 12 x 12 products of order 1
        assert eigenvalues.max() > 0.01


def test_martingale_part_alone_has_the_error_of_eq_36():
    """E||H(E_1 + sum M_i E_{i+1})||^2/d = 1 + sum E tr(H M_i)/d for a rule that looks at residuals."""
    T, d, repeats = 16, 3, 40_000
    rng = np.random.default_rng(8)
    U = haar_frames(T, d, repeats, rng)
    h = np.einsum("ntd,ntd->nt", U, U)
    part = u = rng.standard_normal((repeats, T))
    predicted = np.ones(repeats)
    for _ in range(3):
        fitted = np.einsum("ntd,nsd,ns->nt", U, U, u, optimize=True)
        mask = np.abs(u - fitted) <= 0.8
        noise = rng.standard_normal((repeats, T))
        predicted = predicted + np.sum(h * mask, axis=1) / d
        part = part + mask * noise
        u = np.where(mask, fitted + noise, u)
    difference = fit_test_error(U, part) - predicted
    assert abs(difference.mean()) < SIGMAS * difference.std() / np.sqrt(repeats)
    # The whole error is another number (here a smaller one): the residual terms cannot be left out.
    rest = fit_test_error(U, u) - predicted
    assert abs(rest.mean()) > SIGMAS * rest.std() / np.sqrt(repeats)


def test_all_rows_every_time_is_replace():
    np.testing.assert_allclose(random_edits(10, 3, (10,) * 6).error, replace_curve(7), rtol=1e-13)
    whole = [np.arange(10)] * 6
    np.testing.assert_allclose(fixed_edits(10, 3, whole, draws=5).error, replace_curve(7), rtol=1e-12)
    for redraw in (False, True):
        curve = fixed_real_share(10, 3, 10, 7, redraw=redraw, draws=5)
        np.testing.assert_allclose(curve.error, replace_curve(7), rtol=1e-12)


def test_fixed_real_share_equals_one_block_repeated():
    T, d, m = 12, 3, 5
    closed = fixed_real_share(T, d, m, 6, draws=50, seed=9)
    U = haar_frames(T, d, 50, np.random.default_rng(9))
    engine = engines._fixed_samples(U, (np.arange(m),) * 5).mean(axis=0)
    np.testing.assert_allclose(closed.error, engine, rtol=1e-12)


def test_redrawn_real_share_matches_simulation():
    T, d, m, n, repeats = 12, 3, 5, 5, 40_000
    rng = np.random.default_rng(0)
    U = haar_frames(T, d, repeats, rng)
    first = u = rng.standard_normal((repeats, T))
    errors = []
    for _ in range(n):
        errors.append(fit_test_error(U, u))
        fitted = np.einsum("ntd,nsd,ns->nt", U, U, u, optimize=True)
        edited = np.argsort(rng.random((repeats, T)), axis=1) < m
        u = np.where(edited, fitted + rng.standard_normal((repeats, T)), first)
    curve = fixed_real_share(T, d, m, n, redraw=True, draws=2000)
    assert np.abs(z_scores(np.stack(errors, axis=1), curve)[1:]).max() < SIGMAS
    # Keeping the same rows throughout is worse, and told apart.
    assert fixed_real_share(T, d, m, n, draws=2000).error[-1] > curve.error[-1] + 0.1


def test_accumulation_against_literal():
    T, d, generations, repeats = 14, 3, 4, 20_000
    rng = np.random.default_rng(5)
    for fresh, exact in (
        (False, accumulate_same_x(generations)),
        (True, accumulate_fresh_x(T, d, generations)),
    ):
        X = rng.standard_normal((repeats, T, d))
        gram, moment, w = np.zeros((repeats, d, d)), np.zeros((repeats, d, 1)), np.zeros((repeats, d, 1))
        error = np.zeros(repeats)
        for n in range(generations):
            if fresh and n:
                X = rng.standard_normal((repeats, T, d))
            y = X @ w + rng.standard_normal((repeats, T, 1))
            gram, moment = gram + X.transpose(0, 2, 1) @ X, moment + X.transpose(0, 2, 1) @ y
            w = np.linalg.solve(gram, moment)
            error = np.sum(w**2, axis=(1, 2)) / honest_error(T, d)
            assert abs(error.mean() - exact[n]) < SIGMAS * error.std() / np.sqrt(repeats)
        # The other rule's curve is rejected.
        other = accumulate_same_x(generations) if fresh else accumulate_fresh_x(T, d, generations)
        assert abs(error.mean() - other[-1]) > SIGMAS * error.std() / np.sqrt(repeats)


def test_accumulate_subsample_against_literal_and_limit():
    T, d, generations, repeats = 14, 2, 4, 6_000
    rng = np.random.default_rng(6)
    errors = np.empty((repeats, generations))
    for i in range(repeats):
        X, y = np.empty((0, d)), np.empty(0)
        w = np.zeros(d)
        for n in range(generations):
            rows = rng.standard_normal((T, d))
            X, y = np.concatenate((X, rows)), np.concatenate((y, rows @ w + rng.standard_normal(T)))
            pick = rng.choice(y.size, T, replace=False)
            w = np.linalg.solve(X[pick].T @ X[pick], X[pick].T @ y[pick])
            errors[i, n] = w @ w
    curve = accumulate_subsample(T, d, generations, draws=1500)
    assert np.abs(z_scores(errors / honest_error(T, d), curve)).max() < SIGMAS
    wide = accumulate_subsample(400, 1, 6, draws=200)
    # 1/T corrections of order 1 % remain beside the standard error; the same-X curve is 0.6 lower.
    gap = np.abs(wide.error - accumulate_subsample_limit(6))
    assert (gap < SIGMAS * wide.standard_error + 0.02).all()
    assert wide.error[-1] > accumulate_same_x(6)[-1] + 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: random_edits(5, 4, (1,)),
        lambda: random_edits(10, 2, (11,)),
        lambda: random_edits(10, 2, (-1,)),
        lambda: random_edits(10, 2, (float("nan"),)),  # pyright: ignore[reportArgumentType]
        lambda: random_edits(10, 2, (1,), draws=1),
        lambda: fixed_edits(10, 2, ([0, 10],)),
        lambda: fixed_edits(10, 2, ([0, 0],)),
        lambda: disjoint_edits(10, 2, ([0, 1], [1, 2])),
        lambda: fixed_real_share(10, 2, 11, 3),
        lambda: fixed_real_share(10, 2, 1, 0),
        lambda: accumulate_subsample(3, 2, 3),
        lambda: fit_test_error(np.eye(3)[None, :, :1], np.ones((1, 3)), 0.0),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(InputError):
        call()
