"""Confidence editing in every generation at once, T/d to infinity: the state evolution (this work).

Let sigma = 1. Row t is edited at generation n iff |r_t| <= tau (high) or > tau (low confidence). With d
fixed and T -> infinity, sqrt(T)(w^_1 - w*, ..., w^_n - w*) converges in law to (z_1, ..., z_n), vectors of
R^d with

    z_{n+1} = S_{n+1} + kappa sum_{b<=n} a^{b-1} (z_b - z_{b-1}) -+ tau pdf(tau) sum_{b<n} a^{b-1} F_b,
    F_b = E_x[x (max_{b<=k<=n} x'z_k + min_{b<=k<=n} x'z_k - 2 x'z_b)],

z_0 = 0, x ~ N(0, I_d), a = P(edit), kappa = E Z^2 1{edit}, minus for high and plus for low confidence, and S
the Gaussian limit of T^{-1/2} sum_t x_t xi_{n,t}, xi the labels' noise redrawn with the fit held at the
truth. As d -> infinity the Gram matrix z_m'z_n / d becomes deterministic, E_x[x ...] = sum_k z_k E[d_k ...]
by Stein's lemma, and E_test(w^_n)/v -> e_n = ||z_n||^2/d. The proof is in the note, section "Confidence
selection".

The coordinates of S_n are P_1 + ... + P_n + O_n with independent P_b ~ N(0, a^{b-1}(1-kappa)) and
O_b ~ N(0, a^{b-1} kappa): P_b is the noise of rows frozen as they were written at generation b, O_b of those
that will be written again.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, hyp1f1
from scipy.stats import norm

from theory.confidence import FAR, band_moments, threshold_band
from theory.errors import InputError
from theory.rank_frame import Selection, check_selection
from theory.schedules import check_count

_SETTLED = 1e-9  # ||z_{n+1} - z_n||^2/d below this: later moves are below every standard error here


def edit_moments(threshold: float, selection: Selection = "high-confidence") -> tuple[float, float]:
    """Return a = P(Z in S) and kappa = E Z^2 1{Z in S} of the rule with S = {|z| <= tau} or {|z| > tau}.

    Args:
        threshold: tau > 0 in units of the residual's standard deviation.
        selection: "high-confidence" or "low-confidence".

    Raises:
        InputError: if the threshold is not a positive number or the selection is unknown.
    """
    _check_rule(threshold, selection)
    a, _, kappa = band_moments(threshold_band(threshold, selection))
    return a, kappa


def _check_rule(threshold: float, selection: Selection) -> None:
    if not 0 < threshold < np.inf:
        raise InputError(f"threshold = {threshold} must be a positive number (units of sigma)")
    check_selection(selection)


def feedback_ratio(threshold: float, selection: Selection = "high-confidence") -> float:
    """Return rho = tau pdf(tau)/(1-a): for rho < 2 (high), always (low), the limit law is bounded in n.

    The increments z_{n+1} - z_n then vanish geometrically; for the high-confidence rule rho < 2 means a_1 <
    0.93. Computed without 1 - a, which cancels: tau/(sqrt(2 pi) erfcx(tau/sqrt 2)) for high confidence,
    about tau^2/2 at large tau, and 1/(2 M(1, 3/2, tau^2/2)) <= 1/2 for low, M Kummer's function (DLMF
    7.11.4).

    Raises:
        InputError: as ``edit_moments``.
    """
    _check_rule(threshold, selection)
    threshold = float(threshold)
    if selection == "high-confidence":
        return threshold / (math.sqrt(2 * math.pi) * float(erfcx(threshold / math.sqrt(2))))
    return 1 / (2 * float(hyp1f1(1, 1.5, min(threshold, FAR) ** 2 / 2)))  # 0 from tau = 38 on


def bounded_share() -> float:
    """Share a_1 at which rho = 2 (high confidence): below it the limit law is bounded in n (this work)."""
    low, high = norm.isf(0.25), norm.isf(0.01)  # a_1 = 0.5 and 0.98, where rho is 0.43 and 3.1
    tau = brentq(lambda t: feedback_ratio(t) - 2, low, high, xtol=1e-12)
    return float(2 * norm.cdf(tau) - 1)


@dataclass(frozen=True)
class LimitCurve:
    """e_n = lim lim E_test(w^_n)/v (T to infinity first, then d), n = 1..generations.

    Attributes:
        error: float64 (n,), mean over independent solutions of the recursion.
        standard_error: float64 (n,), from their spread.
        share: float64 (n-1,), edited share of each edit, a^k exactly.
        increment: float64 (n-1,), E (z_{n+1} - z_n)^2, mean over solutions.
    """

    error: np.ndarray
    standard_error: np.ndarray
    share: np.ndarray
    increment: np.ndarray


def record_weights(paths: np.ndarray, a: float) -> np.ndarray:
    """Stein coefficients sum_b a^{b-1} E d_k[(g_n - max_{b<=k<n} g_k)^+ - (min_{b<=k<n} g_k - g_n)^+].

    Args:
        paths: float64 (samples, n), Gaussian paths g_1..g_n, n >= 2.
        a: weight ratio.

    Returns:
        float64 (n,), coefficient of z_k, k = 1..n: a^{b-1} times P(record) at k = n, minus P(record, k the
        previous extreme) at k < n, both signs together. For one window b these are the beta_k of theory.
    """
    n = paths.shape[1]
    last = paths[:, -1]
    total = np.zeros(n)
    for sign in (1.0, -1.0):
        extreme = sign * paths[:, n - 2]
        place = np.full(len(paths), n - 2)
        alive = sign * last > extreme
        for b in range(n - 1, 0, -1):  # windows b..n-1 (1-based), growing backwards
            if b < n - 1:
                value = sign * paths[:, b - 1]
                higher = value > extreme
                np.copyto(extreme, value, where=higher)
                place[higher] = b - 1
                alive &= sign * last > extreme
            weight = a ** (b - 1) / len(paths)
            hits = np.bincount(place[alive], minlength=n) * weight
            total -= hits
            total[-1] += hits.sum()
    return total


def _solve(tau: float, selection: Selection, generations: int, samples: int, rng: np.random.Generator):
    a, kappa = edit_moments(tau, selection)
    sign = -1.0 if selection == "high-confidence" else 1.0
    strength = sign * tau * norm.pdf(min(tau, FAR))  # 0 from there on, without a square that overflows
    N = generations
    scale = np.concatenate([np.sqrt(a ** np.arange(N) * (1 - kappa)), np.sqrt(a ** np.arange(N) * kappa)])
    base = rng.standard_normal((samples // 2, 2 * N))
    z = np.zeros((N + 1, 2 * N))  # z_n in the orthonormal basis (P_1..P_N, O_1..O_N)
    z[1, 0], z[1, N] = scale[0], scale[N]
    paths = np.empty((samples // 2, N))
    paths[:, 0] = base @ z[1]
    for n in range(1, N):
        step = kappa * a ** (n - 1) * (z[n] - z[n - 1])
        step[n] += scale[n]
        step[N + n] += scale[N + n]
        step[N + n - 1] -= scale[N + n - 1]
        if n >= 2:
            step += strength * (record_weights(paths[:, :n], a) @ z[1 : n + 1])
        if step @ step < _SETTLED:
            z[n + 1 :] = z[n]
            break
        z[n + 1] = z[n] + step
        paths[:, n] = base @ z[n + 1]
    return np.einsum("nk,nk->n", z[1:], z[1:]), np.einsum("nk,nk->n", np.diff(z[1:], axis=0), np.diff(z[1:], axis=0))


def state_evolution(
    threshold: float,
    generations: int,
    *,
    selection: Selection = "high-confidence",
    samples: int = 20_000,
    solutions: int = 8,
    seed: int | np.random.SeedSequence = 0,
) -> LimitCurve:
    """Solve the T/d -> infinity recursion; record probabilities by Monte Carlo, everything else exactly.

    Args:
        threshold: tau in units of sigma.
        generations: fits counted, n >= 2.
        selection: "high-confidence" or "low-confidence".
        samples: Gaussian paths a solution; the law is symmetric, so each path stands for its mirror image
            too.
        solutions: independent solutions, >= 2, whose spread is the standard error (bias of order 1/samples).
        seed: seed of NumPy's default generator.

    Returns:
        LimitCurve; entries 1 and 2 (generations 1 and 2) are exact. Moves with E (z_{n+1} - z_n)^2 < 1e-9 are
        taken as zero from there on.

    Raises:
        InputError: if an argument is outside its range.
    """
    for name, value in (("generations", generations), ("samples", samples), ("solutions", solutions)):
        check_count(name, value, low=2)
    a, _ = edit_moments(threshold, selection)
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    runs = [
        _solve(threshold, selection, generations, samples, np.random.default_rng(child))
        for child in sequence.spawn(solutions)
    ]
    errors = np.stack([run[0] for run in runs])
    return LimitCurve(
        errors.mean(axis=0),
        errors.std(axis=0, ddof=1) / np.sqrt(solutions),
        a ** np.arange(1, generations),
        np.stack([run[1] for run in runs]).mean(axis=0),
    )
