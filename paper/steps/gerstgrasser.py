"""The linear-regression grid of Gerstgrasser et al. (2024), with editing beside replace and accumulate.

The error of a ridgeless fit is exactly proportional to sigma^2 at equal seed (every label error is linear in the
noise, thresholds are in units of sigma), so each (T, rule) is simulated once, at sigma^2 = 1, and scaled. The
proportionality is itself checked by running both ends of the sigma^2 grid at the smallest T.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sim.regression import Accumulate, ConfidenceEdits, Replace, Rule, Setting, simulate
from theory.closed_forms import accumulate_same_x, honest_error, replace_curve
from theory.confidence import threshold_for_share

CONFIG: dict = {
    "seed": 0,
    "d": 32,
    "T": [100, 316, 1000],
    "noise_variance": [0.01, 0.1, 1.0, 10.0, 100.0],
    "generations": 50,
    "designs": 30,
    "noise_replicates": 20,
    "confidence_share": 0.125,
}
SECONDS = 25.0
NEEDS: tuple[str, ...] = ()


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Simulates replace, accumulate (same X) and high-confidence editing at each T.

    Returns:
        "curves": list of {T, rule, v (at sigma^2 = 1), error, standard_error (in units of v), theory or None,
        edited_share}; "scaling": largest relative deviation from proportionality in sigma^2; "tables": the
        grid at generation 1 and at the last, in absolute units.
    """
    d, n = config["d"], config["generations"]
    theory = {"replace": replace_curve(n).tolist(), "accumulate": accumulate_same_x(n).tolist()}
    curves, rows = [], []
    for index, T in enumerate(config["T"]):
        v = honest_error(T, d)
        for name, rule in _rules(config, T).items():
            progress(index / len(config["T"]), f"T = {T}, {name}")
            result = _simulate(config, T, rule, 1.0)
            curves.append(
                {
                    "T": T,
                    "rule": name,
                    "v": v,
                    "error": (result.error / v).tolist(),
                    "standard_error": (result.standard_error / v).tolist(),
                    "edited_share": result.edited_share.tolist(),
                    "theory": theory.get(name),
                }
            )
            rows += [
                {
                    "T": T,
                    "noise_variance": variance,
                    "rule": name,
                    "error_1": variance * result.error[0],
                    "error_last": variance * result.error[-1],
                    "standard_error_last": variance * result.standard_error[-1],
                    "theory_last": variance * v * theory[name][-1] if name in theory else None,
                }
                for variance in config["noise_variance"]
            ]
    return {"curves": curves, "scaling": _scaling(config), "tables": {"gerstgrasser": rows}}


def _rules(config: dict, T: int) -> dict[str, Rule]:
    tau = threshold_for_share(T, config["d"], config["confidence_share"], "high-confidence")
    return {"replace": Replace(), "accumulate": Accumulate(), "high-confidence": ConfidenceEdits(tau)}


def _simulate(config: dict, T: int, rule: Rule, variance: float):
    return simulate(
        Setting(T, config["d"], sigma=variance**0.5), rule, generations=config["generations"],
        designs=config["designs"], noise_replicates=config["noise_replicates"], seed=config["seed"],
    )  # fmt: skip


def _scaling(config: dict) -> float:
    T = min(config["T"])
    deviations = []
    for rule in _rules(config, T).values():
        errors = [
            _simulate(config, T, rule, variance).error / variance
            for variance in (min(config["noise_variance"]), max(config["noise_variance"]))
        ]
        deviations.append(np.max(np.abs(errors[1] / errors[0] - 1)))
    return float(max(deviations))
