"""The fit-test Monte Carlo of residual rules against a literal loop, and what must hold exactly."""

import numpy as np
import pytest

from theory.confidence import one_edit, threshold_band, threshold_for_share
from theory.errors import InputError
from theory.rank_frame import residual_rule


def _literal(T, d, tau, *, high, generations, repeats, seed):
    """One pinv a repeat, true test error with a non-trivial truth, in units of v."""
    rng = np.random.default_rng(seed)
    errors, shares = np.empty((repeats, generations)), np.empty((repeats, generations - 1))
    for k in range(repeats):
        X, truth = rng.standard_normal((T, d)), rng.standard_normal(d)
        inverse = np.linalg.pinv(X)
        y = X @ truth + rng.standard_normal(T)
        for n in range(generations):
            w = inverse @ y
            errors[k, n] = np.sum((w - truth) ** 2)
            if n < generations - 1:
                fit = X @ w
                mask = (np.abs(y - fit) <= tau) == high
                shares[k, n] = mask.mean()
                y = np.where(mask, fit + rng.standard_normal(T), y)
    return errors * (T - d - 1) / d, shares


@pytest.mark.parametrize("selection", ["high-confidence", "low-confidence"])
def test_against_the_literal_loop(selection):
    T, d, generations = 40, 8, 8
    tau = threshold_for_share(T, d, 0.5, selection)
    errors, shares = _literal(
        T, d, tau, high=selection == "high-confidence", generations=generations, repeats=3000, seed=5
    )
    run = residual_rule(T, d, generations, tau, selection=selection, frames=200, replicates=64, seed=6)
    gap = run.error - errors.mean(0)
    se = np.hypot(run.standard_error, errors.std(0, ddof=1) / np.sqrt(len(errors)))
    assert np.all(np.abs(gap) < 4 * se)
    gap = run.share - shares.mean(0)
    se = np.hypot(run.share_standard_error, shares.std(0, ddof=1) / np.sqrt(len(shares)))
    assert np.all(np.abs(gap) < 4 * se)
    # Eq. 36 read at the measured shares, 1 + sum a_i, is rejected (the two curves cross at generation 3).
    paper = 1 + np.cumsum(np.r_[0, run.share])
    assert abs(run.error[1] - paper[1]) > 10 * run.standard_error[1]
    assert abs(run.error[-1] - paper[-1]) > 10 * run.standard_error[-1]


def test_first_edit_is_the_exact_law():
    T, d = 16, 6
    tau = threshold_for_share(T, d, 0.4)
    run = residual_rule(T, d, 2, tau, frames=400, replicates=128, seed=1)
    assert abs(run.error[1] - one_edit(T, d, threshold_band(tau))) < 4 * run.standard_error[1]
    assert run.standard_error[1] < 0.004
    assert abs(run.share[0] - 0.4) < 4 * run.share_standard_error[0]


def test_editing_stops_by_itself():
    # Theorem (note): finitely many edits, almost surely; then nothing moves, to the last bit.
    run = residual_rule(20, 5, 400, 0.4, frames=4, replicates=32, seed=2)
    assert run.active[0] > 0.9
    assert run.active[-1] == 0
    assert run.late_slope == 0
    assert run.error[-1] == run.error[-2]


def test_low_confidence_energy_bound():
    # Theorem (note): tau > sigma gives sum_n m_n <= (T-d) sigma^2/(tau^2 - sigma^2) in expectation.
    T, d, tau = 30, 6, 1.4
    run = residual_rule(T, d, 120, tau, selection="low-confidence", frames=16, replicates=64, seed=3)
    assert run.share.sum() * T < (T - d) / (tau**2 - 1)
    assert run.active[-1] == 0


def test_same_seed_same_numbers_and_chunks_do_not_matter_for_memory():
    one = residual_rule(24, 4, 6, 0.7, frames=3, replicates=300, seed=9)
    two = residual_rule(24, 4, 6, 0.7, frames=3, replicates=300, seed=9)
    assert np.array_equal(one.error, two.error)
    assert one.error[0] == pytest.approx(1.0, abs=1e-12)


def test_bad_arguments():
    with pytest.raises(InputError, match="T >= d"):
        residual_rule(5, 4, 3, 0.5)
    with pytest.raises(InputError, match="positive"):
        residual_rule(20, 4, 3, 0.0)
    with pytest.raises(InputError, match="selection"):
        residual_rule(20, 4, 3, 0.5, selection="sideways")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="frames"):
        residual_rule(20, 4, 3, 0.5, frames=1)
    for late in (0, -1):
        with pytest.raises(InputError, match="late"):
            residual_rule(20, 4, 3, 0.5, late=late)
    # Two controls fitted to four runs leave one degree of freedom: errors of .07 +- .08 where e >= 1.
    with pytest.raises(InputError, match="too few runs"):
        residual_rule(20, 4, 3, 0.5, frames=2, replicates=9)
