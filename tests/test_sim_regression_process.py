"""The simulator's process row by row and draw by draw, its invariances, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sim import regression
from sim.errors import InputError
from sim.noise import from_bits
from sim.regression import (
    Accumulate,
    AccumulateSubsample,
    ConfidenceEdits,
    DisjointEdits,
    FixedRealShare,
    RandomEdits,
    RankedEdits,
    Replace,
    RowEdits,
    Setting,
    simulate,
    trace,
)

SETTING = Setting(T=30, d=6, sigma=0.7)
SCHEDULE = (9, 0, 30, 4)
RELABELLING = [
    Replace(),
    FixedRealShare(0.4),
    RandomEdits(SCHEDULE),
    DisjointEdits((9, 0, 11, 4)),
    RowEdits(((0, 3), (3, 29), (), (7,))),
    ConfidenceEdits(0.5),
    ConfidenceEdits(1.2, "low"),
    RankedEdits(7),
]
APPENDING = [Accumulate(), Accumulate(True), AccumulateSubsample(), AccumulateSubsample(True)]
name = repr


def loop(X, w_star, noise, mask_of, covariance, ridge=0.0):
    """The process of eq. 3 in plain NumPy, one fit at a time by its textbook formula."""
    T, d = X.shape
    y = X @ w_star + noise[0]
    labels, fits, errors = [], [], []
    for n in range(len(noise)):
        w = np.linalg.solve(X.T @ X + T * ridge * np.eye(d), X.T @ y) if ridge else np.linalg.pinv(X) @ y
        labels.append(y.copy())
        fits.append(w)
        errors.append((w - w_star) @ covariance @ (w - w_star))
        if n + 1 < len(noise):
            mask = mask_of(n, y - X @ w)
            y = np.where(mask, X @ w + noise[n + 1], y)
    return np.array(labels), np.array(fits), np.array(errors)


def mask_rule(rule, drawn, sigma):
    match rule:
        case Replace():
            return lambda n, r: np.ones(r.size, bool)
        case FixedRealShare(share):
            return lambda n, r: np.arange(r.size) >= round(share * r.size)
        case RowEdits(rows):
            return lambda n, r: np.isin(np.arange(r.size), rows[n])
        case ConfidenceEdits(tau, "high"):
            return lambda n, r: np.abs(r) <= tau * sigma
        case ConfidenceEdits(tau, "low"):
            return lambda n, r: np.abs(r) >= tau * sigma
        case RankedEdits(count):
            return lambda n, r: np.isin(np.arange(r.size), np.argsort(np.abs(r))[:count])
        case _:  # random and disjoint rows are known only from the noise that was drawn for them
            return lambda n, r: drawn[n + 1] != 0


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("rule", RELABELLING, ids=name)
def test_same_noise_same_process(rule, ridge):
    """Labels, fits and errors agree with the NumPy loop sample by sample, to accumulated rounding."""
    covariance = np.diag(np.linspace(0.5, 2, 6)) + 0.1
    setting = Setting(30, 6, 0.7, covariance, ridge, np.arange(6.0))
    for replicate in (0, 3):
        seen = trace(setting, rule, generations=5, seed=11, design=1, replicate=replicate)
        mask_of = mask_rule(rule, seen.noise, setting.sigma)
        labels, fits, errors = loop(seen.X, np.arange(6.0), seen.noise, mask_of, covariance, ridge)
        np.testing.assert_allclose(seen.labels, labels, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(seen.fits, fits, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(seen.error, errors, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", RELABELLING, ids=name)
def test_rows_left_alone_are_bitwise_unchanged(rule):
    seen = trace(SETTING, rule, generations=5, seed=3)
    mask_of = mask_rule(rule, seen.noise, SETTING.sigma)
    for n in range(4):
        mask = mask_of(n, seen.labels[n] - seen.X @ seen.fits[n])
        kept = seen.labels[n] == seen.labels[n + 1]
        np.testing.assert_array_equal(kept, ~mask)


@pytest.mark.parametrize(("rule", "counts"), [(RELABELLING[2], SCHEDULE), (RELABELLING[3], (9, 0, 11, 4))])
def test_schedules_edit_as_many_rows_as_they_say(rule, counts):
    changed = [trace(SETTING, rule, generations=5, seed=3, design=i).noise[1:] != 0 for i in range(3)]
    for masks in changed:
        np.testing.assert_array_equal(masks.sum(axis=1), counts)
    if isinstance(rule, DisjointEdits):
        assert all((masks.sum(axis=0) <= 1).all() for masks in changed)
    assert (changed[0] != changed[1]).any()


@pytest.mark.parametrize("rule", RELABELLING, ids=name)
def test_simulate_averages_the_traces(rule):
    """Mean, edited share, effective noise and clustered standard error are those of the repeats themselves."""
    result = simulate(SETTING, rule, generations=5, designs=3, noise_replicates=4, seed=5)
    paths = [[trace(SETTING, rule, generations=5, seed=5, design=i, replicate=j) for j in range(4)] for i in range(3)]
    errors = np.array([[path.error for path in row] for row in paths])
    change = np.array([[np.mean(np.diff(path.labels, axis=0) ** 2, axis=1) for path in row] for row in paths])
    shares = np.array([[np.mean(np.diff(path.labels, axis=0) != 0, axis=1) for path in row] for row in paths])
    np.testing.assert_allclose(result.error, errors.mean(axis=(0, 1)), rtol=1e-11)
    np.testing.assert_allclose(result.effective_noise, change.mean(axis=(0, 1)), rtol=1e-11)
    np.testing.assert_allclose(result.edited_share, shares.mean(axis=(0, 1)), rtol=1e-12)
    clustered = errors.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(result.standard_error, clustered, rtol=1e-9)


def one_design(setting, rule, n, replicates):
    """Data, noise (n, T, B) and summed errors of one draw of X, by the simulator's own parts."""
    with jax.enable_x64(True):
        data = regression._prepare(setting, rule, n, 0, 1)
        noise = regression.process.draw_noise(
            regression._key(0), np.asarray([1]), np.arange(replicates), generations=n, T=setting.T
        )
        model = regression._model(setting)
        later = [regression.process._noise(model, keys, setting.T) for keys in noise.keys[0]]
        stacked = tuple(part[None] for part in data)
        sums = regression._sums(model, noise, stacked, tau=jnp.asarray(0.0), kind=regression._kind(rule))
        return data, np.stack([noise.first[0], *later]), np.asarray(sums)[0]


@pytest.mark.parametrize("fresh_x", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_accumulated_fits_are_those_to_the_stacked_pairs(fresh_x, ridge):
    """Least squares on all pairs at once, in NumPy, with the simulator's X and noise."""
    setting = Setting(12, 4, ridge=ridge)
    T, d, n = 12, 4, 4
    data, E, seen = one_design(setting, Accumulate(fresh_x), n, replicates=2)
    X = data[0] if fresh_x else np.broadcast_to(data[0], (n, T, d))
    w_star, total = setting.parameter(), []
    for replicate in range(2):
        w, labels, errors = w_star, [], []
        for generation in range(n):
            labels.append(X[generation] @ w + E[generation, :, replicate])
            stack, y = X[: generation + 1].reshape(-1, d), np.concatenate(labels)
            w = np.linalg.solve(stack.T @ stack + len(y) * ridge * np.eye(d), stack.T @ y)
            errors.append(np.sum((w - w_star) ** 2))
        total.append(errors)
    np.testing.assert_allclose(seen[:n], np.sum(total, axis=0), rtol=1e-10)


@pytest.mark.parametrize("fresh_x", [False, True])
def test_subsampled_fits_are_those_to_the_pairs_picked(fresh_x):
    setting, rule = Setting(12, 4), AccumulateSubsample(fresh_x)
    T, d, n = 12, 4, 4
    (X, _, picks), E, seen = one_design(setting, rule, n, replicates=1)
    blocks = X if fresh_x else np.broadcast_to(X[0], (n, T, d))
    w_star, pairs, labels, errors = setting.parameter(), [], [], []
    w = w_star
    for generation in range(n):
        pairs.append(blocks[generation])
        labels.append(blocks[generation] @ w + E[generation, :, 0])
        pick = np.arange(T) if generation == 0 else picks[generation - 1]
        assert len(set(pick.tolist())) == T
        assert pick.max() < (generation + 1) * T
        w = np.linalg.pinv(np.concatenate(pairs)[pick]) @ np.concatenate(labels)[pick]
        errors.append(np.sum((w - w_star) ** 2))
    np.testing.assert_allclose(seen[:n], errors, rtol=1e-9)


@pytest.mark.parametrize("rule", [ConfidenceEdits(0.5), Accumulate(True)], ids=name)
def test_ridgeless_error_does_not_depend_on_sigma_matrix_nor_on_w_star(rule):
    """X = Z L' with the same Z: the fit transforms along, whatever Sigma. With ridge it does not."""
    covariance = np.diag(np.geomspace(0.1, 10, 6)) + 0.05
    run = {"generations": 5, "designs": 3, "noise_replicates": 4, "seed": 9}
    plain = simulate(Setting(30, 6), rule, **run)
    other = simulate(Setting(30, 6, 1.0, covariance, 0.0, np.arange(6.0)), rule, **run)
    # cond(X) is at most about 30 here: 1e-10 is rounding with room to spare.
    np.testing.assert_allclose(plain.error, other.error, rtol=1e-10)
    ridged = simulate(Setting(30, 6, ridge=0.1), rule, **run)
    ridged_other = simulate(Setting(30, 6, 1.0, covariance, 0.1), rule, **run)
    assert (np.abs(ridged.error / ridged_other.error - 1) > 0.01).any()


@pytest.mark.parametrize("rule", [*RELABELLING, *APPENDING], ids=name)
def test_error_scales_with_the_noise_variance(rule):
    """Ridgeless errors are exactly proportional to sigma^2, at equal seed: thresholds are in units of sigma."""
    run = {"generations": 5, "designs": 3, "noise_replicates": 4, "seed": 2}
    one, ten = (simulate(Setting(30, 6, sigma), rule, **run).error for sigma in (1.0, 10.0))
    np.testing.assert_allclose(ten, 100 * one, rtol=1e-9)


@pytest.mark.parametrize("rule", [Replace(), RandomEdits(SCHEDULE), ConfidenceEdits(0.5), *APPENDING], ids=name)
def test_results_do_not_depend_on_the_memory_limit(rule):
    run = {"generations": 5, "designs": 3, "noise_replicates": 4, "seed": 4}
    wide = simulate(SETTING, rule, **run)
    design, replicate = regression._bytes(SETTING, rule, 5)
    narrow = simulate(SETTING, rule, **run, memory_limit=design + 2 * replicate)
    # Matrix products of another width may round in another order, nothing else changes.
    np.testing.assert_allclose(narrow.cluster_error, wide.cluster_error, rtol=1e-11)
    np.testing.assert_allclose(narrow.effective_noise, wide.effective_noise, rtol=1e-11)


@pytest.mark.parametrize("rule", [RandomEdits((60,) * 4), ConfidenceEdits(0.5), *APPENDING[1:3]], ids=name)
def test_compiled_chunks_keep_to_the_estimate(rule):
    """What XLA itself allots to one chunk, arguments included, is below the estimate that the chunking uses."""
    setting, designs, replicates = Setting(200, 20), 3, 40
    with jax.enable_x64(True):
        parts = [regression._prepare(setting, rule, 5, 0, i) for i in range(designs)]
        data = tuple(np.stack(part) for part in zip(*parts, strict=True))
        noise = regression.process.draw_noise(
            regression._key(0), np.arange(designs), np.arange(replicates), generations=5, T=200
        )
        lowered = regression._sums.lower(
            regression._model(setting), noise, data, tau=jnp.asarray(0.5), kind=regression._kind(rule)
        )
        taken = lowered.compile().memory_analysis()
    assert taken is not None
    design, replicate = regression._bytes(setting, rule, 5)
    allotted = taken.temp_size_in_bytes + taken.argument_size_in_bytes + taken.output_size_in_bytes
    assert allotted <= designs * (design + replicates * replicate)


def test_label_noise_is_standard_normal():
    """Moments over all 2^24 atoms of the law.

    Errors are quadratic in the noise, so the second moment is what must be right: no simulation of this project
    resolves a relative 1e-6. The fourth lacks the tail beyond |z| = 5.4, where z^4 = 850 on cells of mass 6e-8:
    of order 1e-5.
    """
    sums = np.zeros(5)
    with jax.enable_x64(True):
        for start in range(0, 2**24, 2**22):
            words = jnp.arange(start, start + 2**22, dtype=jnp.uint32) << 8
            z = np.asarray(from_bits(words))
            sums += [np.sum(z**k) for k in range(5)]
    moments = sums / 2**24
    np.testing.assert_allclose(moments[:4], [1, 0, 1, 0], atol=1e-6)
    assert abs(moments[4] - 3) < 1e-5


def test_noise_of_replicates_designs_and_generations_is_uncorrelated():
    noise = np.array(
        [[trace(SETTING, Replace(), generations=5, seed=1, design=i, replicate=j).noise[:4].ravel() for j in range(8)]
         for i in range(8)]
    ).reshape(64, 4, 30)  # fmt: skip
    flat = noise.reshape(64, -1) / SETTING.sigma
    gram = flat @ flat.T / flat.shape[1]
    # Off-diagonal entries have standard deviation 1/sqrt(120); 5 of them cover all 2016 pairs.
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 5 / np.sqrt(120)
    assert abs(np.mean(noise[:, 0] * noise[:, 1])) < 4 * SETTING.sigma**2 / np.sqrt(64 * 30)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Setting(T=11, d=10), "T >= d \\+ 2"),
        (lambda: Setting(T=0, d=1), "T is 0"),
        (lambda: Setting(T=30, d=10, sigma=float("nan")), "sigma"),
        (lambda: Setting(T=30, d=10, sigma=0.0), "sigma"),
        (lambda: Setting(T=30, d=10, ridge=-1.0), "ridge"),
        (lambda: Setting(T=30, d=2, covariance=np.array([[1.0, 2.0], [2.0, 1.0]])), "positive definite"),
        (lambda: Setting(T=30, d=2, covariance=np.array([[1.0, 0.5], [0.0, 1.0]])), "positive definite"),
        (lambda: Setting(T=30, d=2, covariance=np.eye(3)), "2 x 2"),
        (lambda: Setting(T=30, d=2, covariance=np.full((2, 2), np.nan)), "finite"),
        (lambda: Setting(T=30, d=2, w_star=np.ones(3)), "w_star"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RandomEdits((31,) * 4), "0..30"),
        (RandomEdits((-1,) * 4), "0..30"),
        (RandomEdits((1.5,) * 4), "integer"),  # type: ignore[arg-type]
        (RandomEdits((1, 1)), "2 edits"),
        (DisjointEdits((10,) * 4), "overlap"),
        (RowEdits(((0, 0), (), (), ())), "distinct"),
        (RowEdits(((30,), (), (), ())), "0..29"),
        (FixedRealShare(1.2), "share"),
        (FixedRealShare(float("nan")), "share"),
        (ConfidenceEdits(0.0), "tau"),
        (ConfidenceEdits(float("nan")), "tau"),
        (ConfidenceEdits(1.0, "middle"), "side"),  # type: ignore[arg-type]
        (RankedEdits(0), "1..30"),
        (RankedEdits(31), "1..30"),
        (RankedEdits(2.5), "integer"),  # type: ignore[arg-type]
        ("edit", "no rule"),
    ],
)
def test_bad_rules_are_refused(rule, message):
    with pytest.raises(InputError, match=message):
        simulate(SETTING, rule, generations=5, designs=2, noise_replicates=1, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generations": 0}, "generations"),
        ({"designs": 1}, "designs"),
        ({"noise_replicates": 0}, "noise_replicates"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"memory_limit": 1000}, "memory limit"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    good = {"generations": 2, "designs": 2, "noise_replicates": 1, "seed": 0}
    with pytest.raises(InputError, match=message):
        simulate(SETTING, Replace(), **(good | arguments))
    if "seed" in arguments:
        with pytest.raises(InputError, match="appends"):
            trace(SETTING, Accumulate(), generations=2, seed=0)
