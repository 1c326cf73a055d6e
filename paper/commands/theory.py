"""`toedit theory`: exact errors by generation, without sampling the labels."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from paper.commands.options import Output, Process, emit
from paper.errors import InputError

if TYPE_CHECKING:
    from theory.curve import Curve


MEMORY = 8 * 2**30  # bytes


@dataclass(frozen=True)
class Theory:
    """Test error by generation from closed forms and exact engines, with its standard error (0 where exact).

    Random, disjoint and fixed rows: the noise is integrated out exactly and only the projection is
    averaged. Confidence: a Monte Carlo in the fit-test form, as no exact engine is known.

    Example: `toedit theory --share 0.5 --decay 0.9 --generations 16 --plot error.png`.
    """

    process: Annotated[Process, tyro.conf.arg(name="")] = field(default_factory=Process)
    draws: int = 16
    """Draws of the projection (of the features, for accumulate-subsample) where a rule needs them, at least 2."""
    output: Annotated[Output, tyro.conf.arg(name="")] = field(default_factory=Output)

    def run(self) -> int:
        """Compute, print and write; return the exit code."""
        from theory.closed_forms import honest_error

        if self.draws < 2:
            raise InputError(f"--draws is {self.draws}; give at least 2, their spread is the standard error")
        process, started = self.process, time.perf_counter()
        process.check()
        self.output.check()
        v = honest_error(process.T, process.d, process.sigma)
        curve, share, note = compute(process, self.draws)
        rows = [
            {
                "generation": n + 1,
                "error": float(error * v),
                "standard_error": float(se * v),
                "error_over_v": float(error),
                "error_over_v_se": float(se),
                "edited_share_before": share[n],
            }
            for n, (error, se) in enumerate(zip(curve.error, curve.standard_error, strict=True))
        ]
        emit("theory", self, rows, f"{note} v = {v:.6g}.", started)
        return 0


def compute(process: Process, draws: int) -> "tuple[Curve, list[float | None], str]":
    """Return the error in units of v, the share edited before each generation, and how it was computed."""
    import numpy as np

    from theory import closed_forms, engines
    from theory.accumulation import accumulate_subsample
    from theory.confidence import threshold_for_share
    from theory.curve import Curve
    from theory.rank_frame import residual_rule
    from theory.schedules import consecutive_blocks

    T, d, n, seed = process.T, process.d, process.generations, process.seed
    none: list[float | None] = [None] * n
    match process.rule:
        case "replace":
            return Curve(closed_forms.replace_curve(n), np.zeros(n)), none, "Exact: n v (eq. 7 of the paper)."
        case "accumulate" if process.fresh_x:
            exact = closed_forms.accumulate_fresh_x(T, d, n)
            return Curve(exact, np.zeros(n)), none, "Exact for fresh features."
        case "accumulate":
            return Curve(closed_forms.accumulate_same_x(n), np.zeros(n)), none, "Exact: v sum 1/i^2, same features."
        case "accumulate-subsample":
            if not process.fresh_x:
                raise InputError(
                    "a subsample of repeated features has no finite expected error to compute; give --fresh-x, "
                    "or simulate it with toedit sim"
                )
            needed = 8 * (n + 1) * d * n * T
            if needed > MEMORY:
                raise InputError(
                    f"{n} generations of T = {T} and d = {d} need {needed / 2**30:.0f} GiB here; lower one of them"
                )
            drawn = accumulate_subsample(T, d, n, draws=draws, seed=seed)
            return drawn, none, f"Noise integrated out, {draws} draws of features and subsamples."
        case "fixed-real-share":
            share = 0.5 if process.share is None else process.share
            if not 0 <= share <= 1:
                raise InputError(f"--share is {share}; the share of real rows lies in [0, 1]")
            edited_rows = T - round(share * T)
            drawn = engines.fixed_real_share(T, d, edited_rows, n, draws=draws, seed=seed)
            edited: list[float | None] = [None, *[edited_rows / T] * (n - 1)]
            return drawn, edited, f"Noise integrated out, {draws} projections."
    if process.selection in ("random", "disjoint"):
        counts = process.edit_counts()
        edited = [None, *(m / T for m in counts)]
        if process.selection == "random":
            drawn = engines.random_edits(T, d, counts, draws=draws, seed=seed)
        else:
            drawn = engines.disjoint_edits(T, d, consecutive_blocks(counts, T), draws=draws, seed=seed)
        return drawn, edited, f"Noise integrated out, {draws} projections."
    tau = process.threshold
    if tau is None:
        tau = threshold_for_share(T, d, 0.125 if process.share is None else process.share, process.selection)
    if n == 1:
        return Curve(np.ones(1), np.zeros(1)), none, "Exact: one honest fit."
    run = residual_rule(T, d, n, tau, selection=process.selection, frames=draws, seed=seed)
    edited = [None, *run.share.tolist()]
    note = f"Monte Carlo in the fit-test form, threshold {tau:.6g} sigma, {draws} projections."
    return Curve(run.error, run.standard_error), edited, note
