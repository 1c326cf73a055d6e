"""Confidence editing over generations: error, edited share, random control, and the approach to T/d -> infinity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from theory.confidence import limit_threshold, threshold_for_share
from theory.engines import random_edits
from theory.rank_frame import ResidualRun, Selection, residual_rule
from theory.schedules import constant_counts
from theory.state_evolution import bounded_share, feedback_ratio, state_evolution

CONFIG: dict[str, Any] = {
    "seed": 20250102,
    "T": 200,
    "d": 10,
    "generations": 40,
    "shares": [0.125, 0.5, 0.7],
    "frames": 48,
    "replicates": 128,
    "random_draws": 4,
    "limit": {
        "shares": [0.125, 0.3, 0.5, 0.7, 0.8, 0.9],
        "generations": 30,
        "samples": 10000,
        "solutions": 4,
        "long_shares": [0.95, 0.98, 0.99],
        "long_generations": 80,
        "long_samples": 2000,
    },
    "approach": {
        "d": 20,
        "share": 0.5,
        "generations": 12,
        "ratios": [10, 20, 40, 80, 160, 320],
        "frames": 24,
        "replicates": 48,
    },
    "stopping": [
        {"T": 20, "d": 5, "share": 0.5},
        {"T": 40, "d": 20, "share": 0.5},
        {"T": 100, "d": 10, "share": 0.5},
        {"T": 100, "d": 10, "share": 0.8},
    ],
    "stopping_generations": 1000,
    "few_samples": {
        "d": 2,
        "sizes": [4, 5, 8],
        "threshold": 0.5,
        "generations": 321,
        "frames": 60,
        "replicates": 64,
        "printed": [1, 11, 21, 41, 81, 161, 321],
    },
}
SECONDS = 22.0
NEEDS: tuple[str, ...] = ()
RULES: tuple[Selection, ...] = ("high-confidence", "low-confidence")


def _curve(run: ResidualRun) -> dict[str, Any]:
    return {
        "error": run.error,
        "standard_error": run.standard_error,
        "share": run.share,
        "share_standard_error": run.share_standard_error,
        "late_slope": run.late_slope,
        "late_slope_standard_error": run.late_slope_standard_error,
    }


def _generations(config: dict[str, Any], progress: Callable[[float, str], None]) -> list[dict[str, Any]]:
    T, d, n = config["T"], config["d"], config["generations"]
    out = []
    for index, share in enumerate(config["shares"]):
        progress(0.3 * index / len(config["shares"]), f"a_1 = {share}, T = {T}")
        entry: dict[str, Any] = {"share": share}
        for offset, name in enumerate(RULES):
            tau = threshold_for_share(T, d, share, name)
            run = residual_rule(
                T, d, n, tau, selection=name, frames=config["frames"], replicates=config["replicates"],
                seed=np.random.SeedSequence([config["seed"], index, offset]),
            )  # fmt: skip
            entry[name] = {"threshold": tau, **_curve(run)}
        constant = random_edits(T, d, constant_counts(T, share, n), draws=config["random_draws"], seed=config["seed"])
        counts = tuple(round(T * a) for a in entry["high-confidence"]["share"])
        same = random_edits(T, d, counts, draws=config["random_draws"], seed=config["seed"])
        entry["random"] = {"error": constant.error, "standard_error": constant.standard_error}
        entry["random-same-shares"] = {
            "error": same.error,
            "standard_error": same.standard_error,
            "share": [count / T for count in counts],
        }
        out.append(entry)
    return out


def _limits(config: dict[str, Any], progress: Callable[[float, str], None]) -> list[dict[str, Any]]:
    limit, out = config["limit"], []
    cases = [(share, limit["generations"], limit["samples"]) for share in limit["shares"]]
    cases += [(share, limit["long_generations"], limit["long_samples"]) for share in limit["long_shares"]]
    for index, (share, generations, samples) in enumerate(cases):
        progress(0.3 + 0.35 * index / len(cases), f"state evolution, a_1 = {share}")
        for name in RULES:
            tau = limit_threshold(share, name)
            curve = state_evolution(
                tau, generations, selection=name, samples=samples, solutions=limit["solutions"],
                seed=np.random.SeedSequence([config["seed"], 100 + index]),
            )  # fmt: skip
            out.append(
                {
                    "rule": name,
                    "share": share,
                    "threshold": tau,
                    "feedback_ratio": feedback_ratio(tau, name),
                    "error": curve.error,
                    "standard_error": curve.standard_error,
                    "increment": curve.increment,
                }
            )
    return out


def _ends(limits: list[dict[str, Any]], share: float) -> dict[str, float]:
    """Numbers that the note quotes of the high-confidence limit curve at one share."""
    row = next(row for row in limits if row["rule"] == "high-confidence" and row["share"] == share)
    return {
        "share": share,
        "feedback_ratio": row["feedback_ratio"],
        "third": row["error"][2],
        "last": row["error"][-1],
        "standard_error": row["standard_error"][-1],
    }


def _approach(config: dict[str, Any], progress: Callable[[float, str], None]) -> dict[str, Any]:
    """Error at growing T/d and its extrapolation, a parabola in sqrt(d/T) fitted by weighted least squares."""
    spec = config["approach"]
    d, n = spec["d"], spec["generations"]
    rows, error, se = [], [], []
    for index, ratio in enumerate(spec["ratios"]):
        progress(0.65 + 0.25 * index / len(spec["ratios"]), f"T/d = {ratio}")
        tau = threshold_for_share(ratio * d, d, spec["share"])
        run = residual_rule(
            ratio * d, d, n, tau, frames=spec["frames"], replicates=spec["replicates"],
            seed=np.random.SeedSequence([config["seed"], 200 + index]),
        )  # fmt: skip
        error.append(run.error)
        se.append(run.standard_error)
        rows += [
            {"ratio": ratio, "generation": k + 1, "error": run.error[k], "standard_error": run.standard_error[k]}
            for k in range(n)
        ]
    x = 1 / np.sqrt(np.asarray(spec["ratios"], float))
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    limit = state_evolution(limit_threshold(spec["share"]), n, samples=20_000, solutions=4, seed=config["seed"] + 1)
    fits = []
    for k in range(1, n):
        y, s = np.array([curve[k] for curve in error]), np.array([curve[k] for curve in se])
        covariance = np.linalg.inv((design / s[:, None] ** 2).T @ design)
        beta = covariance @ ((design / s[:, None] ** 2).T @ y)
        fits.append(
            {
                "generation": k + 1,
                "extrapolated": beta[0],
                "standard_error": np.sqrt(covariance[0, 0]),
                "slope": beta[1],
                "chi2": np.sum(((y - design @ beta) / s) ** 2),
                "state_evolution": limit.error[k],
                "state_evolution_standard_error": limit.standard_error[k],
                "score": (beta[0] - limit.error[k]) / np.hypot(np.sqrt(covariance[0, 0]), limit.standard_error[k]),
            }
        )
    return {"rows": rows, "fits": fits}


def _stopping(config: dict[str, Any]) -> list[dict[str, Any]]:
    """How many generations until no row is edited any more, in a run long enough to see the last one stop."""
    rows = []
    for index, case in enumerate(config["stopping"]):
        tau = threshold_for_share(case["T"], case["d"], case["share"])
        run = residual_rule(
            case["T"], case["d"], config["stopping_generations"], tau, frames=16, replicates=32,
            seed=np.random.SeedSequence([config["seed"], 300 + index]),
        )  # fmt: skip
        half = np.flatnonzero(run.active < 0.5)
        rows.append(
            {
                **case,
                "generations": config["stopping_generations"],
                "half_stopped_after": int(half[0]) if half.size else None,
                "still_editing": run.active[-1],
                "final": run.error[-1],
                "standard_error": run.standard_error[-1],
            }
        )
    return rows


def _few_samples(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Error averaged over X where it does not level off, T = d + 2 and d + 3, and where it does, T = d + 6."""
    spec, rows = config["few_samples"], []
    for index, T in enumerate(spec["sizes"]):
        run = residual_rule(
            T, spec["d"], spec["generations"], spec["threshold"], frames=spec["frames"], replicates=spec["replicates"],
            seed=np.random.SeedSequence([config["seed"], 400 + index]),
        )  # fmt: skip
        rows += [
            {
                "T": T,
                "d": spec["d"],
                "generation": n,
                "error": run.error[n - 1],
                "standard_error": run.standard_error[n - 1],
            }
            for n in spec["printed"]
        ]
    return rows


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Return curves at finite T, state-evolution curves, the approach to the limit and stopping times."""
    approach = _approach(config, progress)
    limits = _limits(config, progress)
    progress(0.95, "stopping times")
    return {
        "T": config["T"],
        "d": config["d"],
        "share_at_rho_two": bounded_share(),
        "half": _ends(limits, 0.5),
        "steepest": _ends(limits, max(row["share"] for row in limits)),
        "curves": _generations(config, progress),
        "limits": limits,
        "approach_d": config["approach"]["d"],
        "approach_share": config["approach"]["share"],
        "tables": {
            "approach": approach["rows"],
            "extrapolation": approach["fits"],
            "stopping": _stopping(config),
            "few_samples": _few_samples(config),
            "limit_final": [
                {
                    "rule": row["rule"],
                    "share": row["share"],
                    "generations": len(row["error"]),
                    "feedback_ratio": row["feedback_ratio"],
                    "error": row["error"][-1],
                    "standard_error": row["standard_error"][-1],
                    "last_increment": row["increment"][-1],
                }
                for row in limits
            ],
        },
    }
