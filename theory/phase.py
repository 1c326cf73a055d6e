"""Phase diagram of confidence editing: the error after many generations against a_1 and T/d (this work)."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq

from theory.confidence import limit_threshold, threshold_for_share
from theory.errors import InputError
from theory.rank_frame import Selection, residual_rule
from theory.state_evolution import state_evolution

LEVEL = 1e-3  # relative gain a generation, two standard errors included, below which a curve is level


@dataclass(frozen=True)
class PhaseCell:
    """The end of one run.

    Attributes:
        final: error at the last generation, units of v.
        standard_error: of `final`, clustered by H.
        slope: mean gain a generation over the last ten, units of v.
        slope_standard_error: of `slope`, clustered by H.
        active: share of replicates that still edit a row at the last edit; 0 means that every run has
            stopped.
        status: "level" (slope + 2 SE < 0.1 % of the error a generation), "rising" (slope > 2 SE and not
            level), or "undecided".
    """

    final: float
    standard_error: float
    slope: float
    slope_standard_error: float
    active: float
    status: str


def phase_cell(
    T: int,
    d: int,
    share: float,
    generations: int,
    *,
    selection: Selection = "high-confidence",
    frames: int = 16,
    replicates: int = 32,
    seed: int | np.random.SeedSequence = 0,
) -> PhaseCell:
    """Run the rule whose expected share at the first edit is `share` and judge its end.

    Args:
        T: samples, T >= d + 2.
        d: features.
        share: a_1 in (0, 1); the raw threshold follows from `threshold_for_share`.
        generations: fits counted, >= 12.
        selection: "high-confidence" or "low-confidence".
        frames: draws of H, >= 2.
        replicates: noise replicates on each.
        seed: seed of NumPy's default generator.

    Raises:
        InputError: if an argument is outside its range.
    """
    if generations < 12:
        raise InputError(f"generations = {generations} must be at least 12, ten of them for the late slope")
    tau = threshold_for_share(T, d, share, selection)
    run = residual_rule(
        T, d, generations, tau, selection=selection, frames=frames, replicates=replicates, seed=seed, late=10
    )
    final, slope, se = float(run.error[-1]), run.late_slope, run.late_slope_standard_error
    level, rising = slope + 2 * se < LEVEL * final, slope > 2 * se
    status = "level" if level else "rising" if rising else "undecided"
    return PhaseCell(final, float(run.standard_error[-1]), slope, se, float(run.active[-1]), status)


def crossing(share: np.ndarray, error: np.ndarray, standard_error: np.ndarray, level: float = 2.0):
    """Where a rising curve error(share) crosses `level`, by linear interpolation of log error.

    Args:
        share: float64 (k,), increasing.
        error: float64 (k,), positive.
        standard_error: float64 (k,).
        level: the value crossed.

    Returns:
        (crossing, standard error by the delta method), or None if the curve stays on one side.
    """
    above = np.flatnonzero((error[:-1] < level) & (error[1:] >= level))
    if not above.size:
        return None
    i = int(above[0])
    low, high = np.log(error[i]), np.log(error[i + 1])
    weight = (np.log(level) - low) / (high - low)
    width = share[i + 1] - share[i]
    noise = np.hypot((1 - weight) * standard_error[i] / error[i], weight * standard_error[i + 1] / error[i + 1])
    return float(share[i] + weight * width), float(noise * width / (high - low))


def limit_crossing(
    level: float = 2.0,
    generations: int = 60,
    *,
    samples: int = 20_000,
    solutions: int = 4,
    bracket: tuple[float, float] = (0.55, 0.8),
    seed: int = 0,
) -> tuple[float, float]:
    """Share a_1 whose T/d -> infinity error after `generations` fits equals `level`, and its standard error.

    The same seed at every share makes the curve smooth, so that a root can be found; its noise is that of
    the curve divided by the slope.

    Args:
        level: the value crossed, in units of v.
        generations: fits counted, >= 2.
        samples: as `state_evolution`.
        solutions: as `state_evolution`.
        bracket: two shares in (0, 1) whose errors lie on either side of `level`.
        seed: as `state_evolution`.

    Raises:
        InputError: if the errors at the ends of the bracket lie on one side of `level`, or an argument is
            outside its range.
    """

    @cache  # the ends are asked for twice, and the root
    def last(share: float) -> tuple[float, float]:
        curve = state_evolution(limit_threshold(share), generations, samples=samples, solutions=solutions, seed=seed)
        return float(curve.error[-1]), float(curve.standard_error[-1])

    ends = [last(share)[0] for share in bracket]
    if not min(ends) <= level <= max(ends):
        raise InputError(
            f"the error goes from {ends[0]:.4g} to {ends[1]:.4g} over the shares {bracket} and does not cross "
            f"{level}; give another bracket"
        )
    found = brentq(lambda share: last(share)[0] - level, *bracket, xtol=1e-4)
    root = float(found)  # pyright: ignore[reportArgumentType]
    width = min(0.02, root / 2, (1 - root) / 2)
    slope = (last(root + width)[0] - last(root - width)[0]) / (2 * width)
    return root, last(root)[1] / slope
