"""Error by generation of every rule, simulated literally, with the exact value beside it where one is known."""

from collections.abc import Callable
from pathlib import Path

from sim.regression import (
    Accumulate,
    AccumulateSubsample,
    ConfidenceEdits,
    DisjointEdits,
    FixedRealShare,
    RandomEdits,
    RankedEdits,
    Replace,
    Rule,
    Setting,
    simulate,
)
from theory import closed_forms
from theory.accumulation import accumulate_subsample
from theory.confidence import threshold_for_share
from theory.engines import disjoint_edits, fixed_real_share, random_edits
from theory.schedules import consecutive_blocks, geometric_counts

CONFIG: dict = {
    "seed": 0,
    "T": 200,
    "d": 10,
    "generations": 16,
    "designs": 400,
    "noise_replicates": 25,
    "random_share": 0.5,
    "random_decay": 0.9,
    "block": 20,
    "confidence_share": 0.125,
    "real_share": 0.5,
    "theory_draws": 60,
}
SECONDS = 35.0
NEEDS: tuple[str, ...] = ()

Line = tuple[list[float], list[float]]


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Simulates all rules at one (T, d) and evaluates the theory of each.

    Returns:
        "curves": rule -> error, standard_error (in units of v), edited_share, effective_noise (units of
        sigma^2), with their standard errors, and theory, theory_standard_error or None; "tables".
    """
    T, d, n = config["T"], config["d"], config["generations"]
    v = closed_forms.honest_error(T, d)
    rules = _rules(config)
    exact = _theory(config)
    curves, rows = {}, []
    for index, (name, rule) in enumerate(rules.items()):
        progress(index / len(rules), name)
        result = simulate(
            Setting(T, d), rule, generations=n, designs=config["designs"],
            noise_replicates=config["noise_replicates"], seed=config["seed"],
        )  # fmt: skip
        theory = exact.get(name)
        curves[name] = {
            "error": (result.error / v).tolist(),
            "standard_error": (result.standard_error / v).tolist(),
            "edited_share": result.edited_share.tolist(),
            "edited_share_standard_error": result.edited_share_se.tolist(),
            "effective_noise": result.effective_noise.tolist(),
            "effective_noise_standard_error": result.effective_noise_se.tolist(),
            "theory": None if theory is None else theory[0],
            "theory_standard_error": None if theory is None else theory[1],
        }
        rows += [
            {
                "rule": name,
                "generation": generation + 1,
                "error_over_v": curves[name]["error"][generation],
                "standard_error": curves[name]["standard_error"][generation],
                "theory": None if theory is None else theory[0][generation],
                "theory_standard_error": None if theory is None else theory[1][generation],
            }
            for generation in range(n)
        ]
    return {"curves": curves, "v": v, "tables": {"curves": rows}}


def _blocks(config: dict) -> tuple[int, ...]:
    """Disjoint blocks until every row is edited once, then nothing."""
    return tuple(
        max(0, min(config["block"], config["T"] - config["block"] * edit)) for edit in range(config["generations"] - 1)
    )


def _rules(config: dict) -> dict[str, Rule]:
    T, d, n = config["T"], config["d"], config["generations"]
    share = config["confidence_share"]
    return {
        "replace": Replace(),
        "accumulate": Accumulate(),
        "accumulate, fresh X": Accumulate(fresh_x=True),
        "accumulate-subsample": AccumulateSubsample(fresh_x=True),
        "fixed-real-share": FixedRealShare(config["real_share"]),
        "random": RandomEdits(geometric_counts(T, config["random_share"], config["random_decay"], n)),
        "disjoint": DisjointEdits(_blocks(config)),
        "random, constant share": RandomEdits((round(share * T),) * (n - 1)),
        "high-confidence": ConfidenceEdits(threshold_for_share(T, d, share, "high-confidence"), "high"),
        "high-confidence, by rank": RankedEdits(round(share * T)),
        "low-confidence": ConfidenceEdits(threshold_for_share(T, d, share, "low-confidence"), "low"),
    }


def _theory(config: dict) -> dict[str, Line]:
    T, d, n, draws, seed = (config[key] for key in ("T", "d", "generations", "theory_draws", "seed"))
    constant = (round(config["confidence_share"] * T),) * (n - 1)
    exact = {
        "replace": closed_forms.replace_curve(n),
        "accumulate": closed_forms.accumulate_same_x(n),
        "accumulate, fresh X": closed_forms.accumulate_fresh_x(T, d, n),
    }
    counts = geometric_counts(T, config["random_share"], config["random_decay"], n)
    relabelled = T - round(config["real_share"] * T)
    sampled = {
        "accumulate-subsample": accumulate_subsample(T, d, n, draws=draws, seed=seed),
        "fixed-real-share": fixed_real_share(T, d, relabelled, n, draws=draws, seed=seed),
        "random": random_edits(T, d, counts, draws=draws, seed=seed),
        "random, constant share": random_edits(T, d, constant, draws=draws, seed=seed),
        "disjoint": disjoint_edits(T, d, consecutive_blocks(_blocks(config), T), draws=draws, seed=seed),
    }
    lines: dict[str, Line] = {name: (curve.tolist(), [0.0] * n) for name, curve in exact.items()}
    lines |= {name: (curve.error.tolist(), curve.standard_error.tolist()) for name, curve in sampled.items()}
    return lines
