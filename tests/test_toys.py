"""Closed forms of the toys against enumeration and simulation; 4 standard errors unless said otherwise."""

import itertools

import numpy as np
import pytest

from sim.discrete import OUTCOMES, run_discrete, run_fixation
from sim.errors import InputError as SimInputError
from sim.gaussian import run_gaussian
from sim.kde import run_kde
from theory import toys
from theory.errors import InputError

SHORT = 12  # generations: later on the laws are too skewed for a normal interval from 100 replicates


def assert_within(values: np.ndarray, theory: np.ndarray, wrong: np.ndarray | None = None) -> None:
    """All generations' means within 4 standard errors of theory; of `wrong` some are 6 or more away."""
    se = values.std(1, ddof=1) / np.sqrt(values.shape[1])
    z = np.abs(values.mean(1) - theory) / se
    assert z.max() < 4, z
    if wrong is not None:
        assert (np.abs(values.mean(1) - wrong) / se).max() > 6


def literal_second_moment(rule: str, n: int, generations: int, added: float, repeats: int) -> np.ndarray:
    """Biased variance behind each fit, by resampling points in plain NumPy (any law will do: uniform here)."""
    rng = np.random.default_rng(0)
    out = np.empty((generations, repeats))
    for repeat in range(repeats):
        pool = rng.uniform(-np.sqrt(3), np.sqrt(3), n)
        for g in range(generations):
            points = rng.choice(pool, n, replace=False) if rule == "accumulate-subsample" else pool
            out[g, repeat] = points.var()
            new = rng.choice(points, n) + np.sqrt(added) * rng.normal(size=n)
            pool = new if rule == "replace" else np.append(pool, new)
    return out


@pytest.mark.parametrize("rule", toys.RULES)
@pytest.mark.parametrize("added", [0.0, 0.25])
def test_variance_recursion_against_plain_resampling(rule: str, added: float) -> None:
    theory = toys.variance_curve(rule, 5, 6, added)
    # wrong: the pool's spread of subsample means or batch means left out
    other = "accumulate" if rule == "accumulate-subsample" else "accumulate-subsample"
    wrong = toys.variance_curve(other, 5, 6, added)
    assert_within(literal_second_moment(rule, 5, 6, added, 6000), theory, wrong)


def test_variance_curves_have_their_closed_forms() -> None:
    n, g = 7, np.arange(1, 31)
    np.testing.assert_allclose(toys.variance_curve("replace", n, 30), (1 - 1 / n) ** g, rtol=1e-12)
    np.testing.assert_allclose(toys.variance_curve("accumulate", n, 30), np.cumprod(1 - 1 / (n * g**2)), rtol=1e-12)
    far = toys.variance_curve("accumulate", n, 20_000)[-1]
    # the product's tail beyond g is 1 - 1/(n g) to first order
    assert far == pytest.approx(toys.accumulate_limit(n), rel=2 / (n * 20_000))
    widened = toys.variance_curve("replace", n, 4000, 0.5)[-1]
    assert widened == pytest.approx(0.5 * (n - 1), rel=1e-9)
    many = toys.variance_curve("accumulate", 10**9, 50, 0.5)
    np.testing.assert_allclose(many, 1 + 0.5 * (np.cumsum(1 / np.arange(1, 51)) - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "d", "n"), [("replace", 3, 20), ("accumulate", 3, 20), ("accumulate-subsample", 2, 15)]
)
def test_gaussian_fitting(rule: str, d: int, n: int) -> None:
    run = run_gaussian(rule, d, n, SHORT, seeds=2000, seed=1)
    other = "accumulate" if rule == "replace" else "replace"
    assert_within(run.trace_ratio, toys.variance_curve(rule, n, SHORT), toys.variance_curve(other, n, SHORT))
    assert_within(run.mean_error, toys.mean_error_curve(rule, n, SHORT, d), toys.mean_error_curve(other, n, SHORT, d))
    if rule == "replace":
        drift, spread = toys.log_det_drift(n, d)
        steps = np.arange(1, SHORT + 1)
        unbiased = drift + d * np.log(n / (n - 1))  # wrong: the unbiased covariance's drift
        assert_within(run.log_det, drift * steps, unbiased * steps)
        # var of a variance of 2000 near-normal values: relative standard error sqrt(2/2000)
        ratio = run.log_det.var(1, ddof=1) / (spread * steps)
        assert np.abs(ratio - 1).max() < 4 * np.sqrt(2 / 2000)
        deviation = toys.trace_deviation(n, d, SHORT)
        # relative standard error of a variance is sqrt((kurtosis - 1)/2000); kurtosis below 9 for these laws
        assert np.abs(run.trace_ratio.std(1) ** 2 / deviation**2 - 1).max() < 4 * np.sqrt(8 / 2000)
        assert deviation[0] ** 2 == pytest.approx(2 * (n - 1) / (d * n**2))  # chi-square with d(n-1) degrees
        det = np.exp(run.log_det[:3])
        assert_within(det, toys.mean_det_factor(n, d) ** steps[:3])


def test_gaussian_moments_equal_a_literal_fit() -> None:
    # the sufficient-statistics route against points drawn and fitted one by one
    rng = np.random.default_rng(5)
    d, n, repeats = 2, 6, 3000
    traces = np.empty((2, repeats))
    for repeat in range(repeats):
        points = rng.normal(size=(n, d))
        for g in range(2):
            cov = np.cov(points.T, bias=True)
            traces[g, repeat] = np.trace(cov) / d
            new = rng.multivariate_normal(points.mean(0), cov, size=n)
            points = np.concatenate([points, new])
    run = run_gaussian("accumulate", d, n, 2, seeds=3000, seed=2)
    gap = run.trace_ratio.mean(1) - traces.mean(1)
    se = np.sqrt((run.trace_ratio.var(1) + traces.var(1)) / 3000)
    assert np.all(np.abs(gap) < 4 * se)
    assert (
        abs(run.trace_ratio.std(1) / traces.std(1) - 1).max() < 0.1
    )  # 4 sqrt(2 * 1.5/3000) with the kurtosis of chi-square


@pytest.mark.parametrize("rule", ["replace", "accumulate"])
def test_kernel_density(rule: str) -> None:
    h, n = 0.5, 20
    run = run_kde(rule, h, n, SHORT, seeds=2000, seed=3)
    right = h**2 + toys.variance_curve(rule, n, SHORT, h**2)
    infinite = 1 + h**2 * (np.arange(1, SHORT + 1) if rule == "replace" else np.cumsum(1 / np.arange(1, SHORT + 1)))
    assert_within(run.variance, right, infinite)
    big = run_kde(rule, h, 20_000, 4, seeds=8, seed=4)
    # bias of a density estimate's log-likelihood at n = 20000, h = 0.5: below 1/(n h) = 1e-4
    assert np.abs(big.cross_entropy.mean(1) - toys.kde_cross_entropy(rule, h, 4)).max() < 1e-3
    wrong = toys.kde_cross_entropy("accumulate" if rule == "replace" else "replace", h, 4)
    assert np.abs(big.cross_entropy.mean(1) - wrong).max() > 1e-2


def test_accumulated_density_is_the_record_mixture() -> None:
    # enumerate which kernels a point of the pool of three batches has passed: 1 + B(1/2) + B(1/3)
    h = 0.7
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    density = np.zeros_like(nodes)
    for second, third in itertools.product((0, 1), repeat=2):
        chance = (0.5) * (1 / 3 if third else 2 / 3)
        variance = 1 + (1 + second + third) * h**2
        density += chance * np.exp(-(nodes**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    expected = -(weights * np.log(density)).sum() / weights.sum()
    assert toys.kde_cross_entropy("accumulate", h, 3)[2] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", toys.RULES)
def test_discrete_diversity(rule: str) -> None:
    K, n = 8, 10
    run = run_discrete(rule, K, n, SHORT, seeds=2000, seed=5)
    other = "accumulate" if rule == "replace" else "replace"
    scale = 1 - 1 / K
    assert_within(
        run.heterozygosity, scale * toys.variance_curve(rule, n, SHORT), scale * toys.variance_curve(other, n, SHORT)
    )
    law = np.full(K, 1 / K)
    if rule == "replace":
        support = toys.support_curve(law, n, SHORT)
        assert_within(run.support.astype(float), support, np.full(SHORT, support[0]))
    if rule == "accumulate":
        assert np.all(run.support == run.support[0])
    assert run.entropy.min() >= 0
    assert np.all(run.entropy <= np.log(run.support) + 1e-12)


def exact_two_outcome_time(x: float, n: int) -> float:
    """Mean fixation time from the Wright-Fisher transition matrix; generation 1 is the first n samples."""
    from scipy.stats import binom

    chain = binom.pmf(np.arange(n + 1)[None], n, np.arange(n + 1)[:, None] / n)
    inner = np.linalg.solve(np.eye(n - 1) - chain[1:n, 1:n], np.ones(n - 1))
    return float(1 + binom.pmf(np.arange(1, n), n, x) @ inner)


def test_fixation_time_against_the_wright_fisher_chain() -> None:
    for n, x in ((5, 0.5), (30, 0.2), (200, 0.5)):
        law = np.array([x, 1 - x])
        assert toys.fixation_time(law, n) == pytest.approx(exact_two_outcome_time(x, n), rel=1e-9)
    classical = -2 * 200 * (0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    assert toys.fixation_time_diffusion(np.array([0.2, 0.8]), 200) == pytest.approx(classical, rel=1e-12)
    # the diffusion formula is right to order 1/n
    law = np.full(10, 0.1)
    assert toys.fixation_time(law, 1000) == pytest.approx(toys.fixation_time_diffusion(law, 1000), rel=5e-3)


def test_fixation_runs() -> None:
    n, seeds = 20, 1500
    run = run_fixation(n, seeds=seeds, seed=6)
    assert not run.capped.any()
    for times, outcomes in zip(run.time, OUTCOMES, strict=True):
        exact = toys.fixation_time(np.full(outcomes, 1 / outcomes), n)
        se = times.std(ddof=1) / np.sqrt(seeds)
        assert abs(times.mean() - exact) < 4 * se
        if outcomes == 10:
            assert abs(times.mean() - 2 * n) > 4 * se  # wrong: the limit 2n for all numbers of outcomes
    assert np.all(np.diff(run.time, axis=0)[0] >= 0) or run.time[0].mean() < run.time[-1].mean()


def test_capped_fixation_runs_are_extrapolated_without_bias() -> None:
    n, seeds = 60, 400
    run = run_fixation(n, cap=40, seeds=seeds, seed=7)
    assert run.capped.mean() > 0.5
    for times, outcomes in zip(run.time, OUTCOMES, strict=True):
        exact = toys.fixation_time(np.full(outcomes, 1 / outcomes), n)
        # the remainder is the diffusion formula's: 2 % off at n = 60 (order 1/n)
        assert abs(times.mean() - exact) < 4 * times.std(ddof=1) / np.sqrt(seeds) + 0.02 * exact


@pytest.mark.parametrize(
    "call",
    [
        lambda: toys.variance_curve("edit", 5, 5),
        lambda: toys.variance_curve("replace", 0, 5),
        lambda: toys.variance_curve("replace", 5, 5, -1.0),
        lambda: toys.variance_curve("replace", np.nan, 3),  # pyright: ignore[reportArgumentType]
        lambda: toys.variance_curve("replace", 2.5, 3),  # pyright: ignore[reportArgumentType]
        lambda: toys.variance_curve("replace", 5, 2.5),  # pyright: ignore[reportArgumentType]
        lambda: toys.genealogy(2.5),  # pyright: ignore[reportArgumentType]
        lambda: toys.mean_det_factor(5, 1.5),  # pyright: ignore[reportArgumentType]
        lambda: toys.kde_cross_entropy("replace", 1e200, 2),
        lambda: toys.kde_cross_entropy("replace", 1.0, 1.5),  # pyright: ignore[reportArgumentType]
        lambda: toys.mean_error_curve("replace", 5, 5, 0),
        lambda: toys.trace_deviation(5, 0, 5),
        lambda: toys.log_det_drift(3, 3),
        lambda: toys.mean_det_factor(2, 3),
        lambda: toys.kde_cross_entropy("accumulate-subsample", 1.0, 3),
        lambda: toys.kde_cross_entropy("replace", np.nan, 3),
        lambda: toys.fixation_time_diffusion(np.array([0.5, 0.6]), 10),
        lambda: toys.genealogy(10**6),
    ],
)
def test_bad_arguments_of_theory(call) -> None:
    with pytest.raises(InputError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: run_gaussian("edit", 1, 10),
        lambda: run_gaussian("replace", 10, 10),
        lambda: run_gaussian("accumulate-subsample", 100, 1000),
        lambda: run_kde("accumulate-subsample", 1.0),
        lambda: run_kde("replace", 0.0),
        lambda: run_discrete("edit", 2, 2, 2),
        lambda: run_discrete("replace", 0, 2, 2),
        lambda: run_fixation(1),
    ],
)
def test_bad_arguments_of_sim(call) -> None:
    with pytest.raises(SimInputError):
        call()
