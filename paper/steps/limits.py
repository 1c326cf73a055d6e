"""Approach to the limits as T/d grows: one random edit, ten disjoint blocks, one confident edit."""

from collections.abc import Callable
from pathlib import Path

from sim.regression import ConfidenceEdits, DisjointEdits, RandomEdits, Rule, Setting, simulate
from theory.closed_forms import disjoint_limit, honest_error, one_random_edit
from theory.confidence import limit_threshold, one_edit, one_edit_limit, threshold_band, threshold_for_share
from theory.engines import disjoint_edits
from theory.schedules import consecutive_blocks
from theory.state_evolution import edit_moments

CONFIG: dict = {
    "seed": 0,
    "d": 10,
    "ratios": [2, 3, 5, 10, 20, 50, 100],
    "simulated_ratios": [3, 50],  # each shape costs a compilation
    "share": 0.5,
    "blocks": 10,
    "designs": 200,
    "noise_replicates": 50,
    "theory_draws": 200,
}
SECONDS = 28.0
NEEDS: tuple[str, ...] = ()


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Error after the last edit of each schedule, at T = ratio * d.

    Returns:
        "ratios"; "curves": name -> error, standard_error, theory, theory_standard_error (one entry per ratio, in
        units of v; the simulation is None where not run) and limit, its value as T/d goes to infinity; "tables".
    """
    d = config["d"]
    curves: dict[str, dict] = {}
    for index, ratio in enumerate(config["ratios"]):
        T = ratio * d
        progress(index / len(config["ratios"]), f"T/d = {ratio}")
        for name, (rule, edits, theory, error) in _cases(config, T).items():
            line = curves.setdefault(
                name, {"theory": [], "theory_standard_error": [], "error": [], "standard_error": []}
            )
            line["theory"].append(float(theory))
            line["theory_standard_error"].append(float(error))
            if ratio not in config["simulated_ratios"]:
                line["error"].append(None)
                line["standard_error"].append(None)
                continue
            result = simulate(
                Setting(T, d), rule, generations=edits + 1, designs=config["designs"],
                noise_replicates=config["noise_replicates"], seed=config["seed"],
            )  # fmt: skip
            v = honest_error(T, d)
            line["error"].append(float(result.error[-1] / v))
            line["standard_error"].append(float(result.standard_error[-1] / v))
    share = config["share"]
    tau = limit_threshold(share, "high-confidence")
    curves["random"]["limit"] = 1 + share * (2 - share)
    curves["disjoint"]["limit"] = disjoint_limit(config["blocks"], 1 / config["blocks"])
    curves["high-confidence"]["limit"] = float(one_edit_limit(share, edit_moments(tau)[1]))
    rows = [
        {"schedule": name, "T_over_d": ratio, "limit": line["limit"]}
        | {key: line[key][index] for key in ("error", "standard_error", "theory", "theory_standard_error")}
        for name, line in curves.items()
        for index, ratio in enumerate(config["ratios"])
    ]
    return {"ratios": config["ratios"], "curves": curves, "tables": {"limits": rows}}


def _cases(config: dict, T: int) -> dict[str, tuple[Rule, int, float, float]]:
    """Name -> rule, number of edits, exact error after them and its standard error."""
    d, share, blocks = config["d"], config["share"], config["blocks"]
    m = round(share * T)
    sizes = (T // blocks,) * blocks
    tau = threshold_for_share(T, d, share, "high-confidence")
    disjoint = disjoint_edits(T, d, consecutive_blocks(sizes, T), draws=config["theory_draws"], seed=config["seed"])
    return {
        "random": (RandomEdits((m,)), 1, one_random_edit(T, d, m), 0.0),
        "disjoint": (DisjointEdits(sizes), blocks, disjoint.error[-1], disjoint.standard_error[-1]),
        "high-confidence": (ConfidenceEdits(tau), 1, one_edit(T, d, threshold_band(tau)), 0.0),
    }
