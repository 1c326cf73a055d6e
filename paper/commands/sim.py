"""`toedit sim`: the literal process of section 4.2, simulated."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from paper.commands.options import Output, Process, emit
from paper.errors import InputError

if TYPE_CHECKING:
    from sim.rules import Rule


@dataclass(frozen=True)
class Sim:
    """Test error by generation from literal simulation, with its standard error (draws of X are the clusters).

    Example: `toedit sim --selection high-confidence --share 0.125 --designs 200 --plot error.png`.
    """

    process: Annotated[Process, tyro.conf.arg(name="")] = field(default_factory=Process)
    ridge: float = 0.0
    """Ridge lambda in (X'X + T lambda I)^{-1} X'y; 0 is the ridgeless fit."""
    designs: int = 100
    """Draws of X, at least 2."""
    repeats: int = 20
    """Draws of all label noise for each draw of X."""
    memory: float = 1.0
    """Memory that the arrays of one chunk may take, in GiB."""
    output: Annotated[Output, tyro.conf.arg(name="")] = field(default_factory=Output)

    def run(self) -> int:
        """Simulate, print and write; return the exit code."""
        from sim.regression import Setting, simulate

        process, started = self.process, time.perf_counter()
        process.check()
        self.output.check()
        if not 0 < self.memory < 2**20:
            raise InputError(f"--memory is {self.memory}; give the GiB that one chunk may take")
        setting = Setting(process.T, process.d, sigma=process.sigma, ridge=self.ridge)
        result = simulate(
            setting,
            rule(process),
            generations=process.generations,
            designs=self.designs,
            noise_replicates=self.repeats,
            seed=process.seed,
            memory_limit=int(self.memory * 2**30),
        )
        v = process.sigma**2 * process.d / (process.T - process.d - 1)
        share = [None, *result.edited_share.tolist()]
        note = f"Literal simulation, {self.designs} draws of X x {self.repeats} draws of noise; v = {v:.6g}."
        if self.ridge == 0 and process.T < process.d + 4:
            note += (
                " At T < d + 4 the error has infinite variance: the means settle slowly and their standard errors "
                "mean nothing; give T >= d + 8."
            )
        rows = [
            {
                "generation": n + 1,
                "error": float(error),
                "standard_error": float(se),
                "error_over_v": float(error / v),
                "error_over_v_se": float(se / v),
                "edited_share_before": share[n],
            }
            for n, (error, se) in enumerate(zip(result.error, result.standard_error, strict=True))
        ]
        emit(
            "sim",
            self,
            rows,
            note,
            started,
        )
        return 0


def rule(process: Process) -> "Rule":
    """Return the rule of sim/ that the command line asks for."""
    from sim import rules

    match process.rule:
        case "replace":
            return rules.Replace()
        case "accumulate":
            return rules.Accumulate(process.fresh_x)
        case "accumulate-subsample":
            return rules.AccumulateSubsample(process.fresh_x)
        case "fixed-real-share":
            return rules.FixedRealShare(0.5 if process.share is None else process.share)
    if process.selection == "random":
        return rules.RandomEdits(process.edit_counts())
    if process.selection == "disjoint":
        return rules.DisjointEdits(process.edit_counts())
    if process.threshold is None:
        from theory.confidence import threshold_for_share

        share = 0.125 if process.share is None else process.share
        tau = threshold_for_share(process.T, process.d, share, process.selection)
    else:
        tau = process.threshold
    return rules.ConfidenceEdits(tau, "high" if process.selection == "high-confidence" else "low")
