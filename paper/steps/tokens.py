"""Algorithm 1 on Markov sources: the exact engine and the token toy beside each other."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from sim.tokens import TokenRule, TokenRun, run_tokens, zipf_markov_source
from theory import markov

CONFIG: dict = {
    "seed": 0,
    "vocabulary": 200,
    "confident_share": 0.125,
    "documents": 2000,
    "length": 101,
    "generations": 8,
    "seeds": 4,
    "smoothing": 1.0,
    "small_vocabulary": 8,
    "small_confident_rest": 0.006,
    "small_sources": 20,
    "map_thresholds": [
        0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99,
    ],
    "map_temperatures": [0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0],
    "map_generations": 30,
    "collapse_level": 0.1,
    "repair_start_temperature": 0.6,
    "repair_thresholds": [0.99, 0.9, 0.7, 0.5, 0.3, 0.1, 0.01],
    "repair_temperatures": [1.0, 1.5, 2.0, 3.0],
    "untestable_below": 0.001,
}  # fmt: skip
SECONDS = 28.0
NEEDS: tuple[str, ...] = ()

_RELEASED = {"temperature": 1.5, "strict": True, "keep_original": True}
ARMS: dict[str, dict] = {
    "replace": {"kind": "replace"},
    "replace, temperature 0.8": {"kind": "replace", "temperature": 0.8},
    "accumulate": {"kind": "accumulate"},
    "edit, paper, own prior": {"kind": "edit"},
    "edit, paper, first prior": {"kind": "edit", "prior": "first"},
    "edit, released, own prior": {"kind": "edit", **_RELEASED},
    "edit, released, first prior": {"kind": "edit", "prior": "first", **_RELEASED},
    "edit, released, source prior": {"kind": "edit", "prior": "source", **_RELEASED},
    "edit, p = 0.9": {"kind": "edit", "threshold": 0.9},
    "edit, p = 0.5": {"kind": "edit", "threshold": 0.5},
    "edit, p = 0.1": {"kind": "edit", "threshold": 0.1},
    "edit, p = 0.1, temperature 0.5": {"kind": "edit", "threshold": 0.1, "temperature": 0.5},
}
CONTROLS: dict[str, tuple[str, dict]] = {
    "random, rate of released, first prior": (
        "edit, released, first prior",
        {"kind": "random", "prior": "first", "temperature": 1.5, "keep_original": True},
    ),
    "random, rate of p = 0.5": ("edit, p = 0.5", {"kind": "random"}),
}
REPAIRS: dict[str, dict] = {
    "repair, p = 0.99, temperature 1.5": {"kind": "edit", "temperature": 1.5},
    "repair, p = 0.9, temperature 1.5": {"kind": "edit", "threshold": 0.9, "temperature": 1.5},
    "repair, p = 0.1, temperature 1.5": {"kind": "edit", "threshold": 0.1, "temperature": 1.5},
}
# Table 15 of the paper: tokens above 0.99 in generations 1, 2, 3
TABLE_15 = [584_103, 549_519, 517_433]


def _finite(values: np.ndarray) -> list:
    return [float(value) if np.isfinite(value) else None for value in np.ravel(values)]


def _summary(run: TokenRun, untestable_below: float) -> dict:
    """Mean and standard error over seeds of every measure, and the paired change from generation 0."""
    out: dict = {}
    for name in ("kl", "reverse_kl", "entropy", "tail", "vocabulary", "bigrams", "selected", "changed"):
        values = getattr(run, name)
        root = np.sqrt(values.shape[1])
        out[name] = {"mean": values.mean(1).tolist(), "se": (values.std(1, ddof=1) / root).tolist()}
    gain = run.kl - run.kl[:1]
    out["kl_change"] = {
        "mean": gain.mean(1).tolist(),
        "se": (gain.std(1, ddof=1) / np.sqrt(gain.shape[1])).tolist(),
    }
    share = run.selected.mean(1)
    out["share_ratio"] = [float(b / a) if a > 0 else None for a, b in pairwise(share)]
    rate = run.changed.mean(1).max()
    out["largest_edit_rate"] = float(rate)
    out["verdict"] = "untestable" if 0 < rate < untestable_below else "testable"
    return out


def _toy(config: dict, progress: Callable[[float, str], None]) -> tuple[dict, dict]:
    """The sampled arms: (measures by arm, facts about the source)."""
    source = zipf_markov_source(config["vocabulary"], config["confident_share"], config["seed"])
    sizes = {name: config[name] for name in ("documents", "length", "generations", "seeds", "smoothing", "seed")}
    arms: dict[str, dict] = {}
    total = len(ARMS) + len(CONTROLS) + len(REPAIRS)
    rates: dict[str, np.ndarray] = {}
    for name, rule in ARMS.items():
        progress(0.8 * len(arms) / total, name)
        run = run_tokens(source, TokenRule(**rule), **sizes)
        rates[name] = run.changed.mean(1)[1:]
        arms[name] = _summary(run, config["untestable_below"])
    for name, (twin, rule) in CONTROLS.items():
        progress(0.8 * len(arms) / total, name)
        arms[name] = _summary(
            run_tokens(source, TokenRule(**rule), **sizes, rates=rates[twin]), config["untestable_below"]
        )
    collapsed = markov.temper(source.transition, config["repair_start_temperature"])
    for name, rule in REPAIRS.items():
        progress(0.8 * len(arms) / total, name)
        run = run_tokens(source, TokenRule(**rule), **sizes, start=collapsed)
        arms[name] = _summary(run, config["untestable_below"])
    honest = arms["replace"]["kl"]["se"][0]
    joint = source.stationary[:, None] * source.transition
    theory = markov.iterate_edit(
        source.transition, markov.Editor.released(), config["generations"], prior=source.transition, regenerate=True
    )
    measured = arms["edit, released, source prior"]
    # an edited document's first token keeps its place in the denominator, theory has no first token
    inside = (config["length"] - 1) / config["length"]
    facts = {
        "entropy_rate": source.entropy,
        "share_at_0.99": float(joint[source.transition >= 0.99].sum()),
        "tokens": config["documents"] * config["length"],
        "minimal_detectable_kl": 2.8 * np.sqrt(2) * honest,
        "theory_released_source_prior": {
            "selected": (inside * theory.selected).tolist(),
            "changed": (inside * theory.changed).tolist(),
            "kl": theory.kl.tolist(),
            "selected_z": (
                (np.array(measured["selected"]["mean"]) - inside * theory.selected)
                / np.array(measured["selected"]["se"])
            ).tolist(),
        },
    }  # fmt: skip
    return arms, facts


def _curves(curve: markov.TokenCurve) -> dict:
    share = curve.selected
    return {
        "kl": _finite(curve.kl),
        "reverse_kl": _finite(curve.reverse_kl),
        "entropy": _finite(curve.entropy),
        "memory": _finite(curve.memory),
        "selected": _finite(curve.selected),
        "changed": _finite(curve.changed),
        "share_ratio": [float(b / a) if a > 0 else None for a, b in pairwise(share)],
    }


def _harm(config: dict) -> list[dict]:
    """KL of one confident edit over KL of a random edit at the same effective rate, over random small sources."""
    rows = []
    for label, editor in (("paper", markov.Editor.paper()), ("released", markov.Editor.released())):
        ratios, rates = [], []
        for seed in range(config["small_sources"]):
            source = markov.example_source(config["small_vocabulary"], config["small_confident_rest"], seed)
            curve = markov.iterate_edit(source, editor, 1)
            if curve.changed[0] == 0:
                continue
            every = markov.Editor(1e-12, editor.candidates, editor.temperature, keep_original=True)
            kernel = markov.edit_kernel(source, every)
            pairs = markov.stationary(source)[:, None] * source
            share = curve.changed[0] / float((pairs * (1 - kernel.unchanged)).sum())
            ratios.append(curve.kl[1] / markov.kl_rate(source, markov.random_edit(source, kernel, share)))
            rates.append(curve.changed[0])
        rows.append(
            {
                "setting": label,
                "sources": len(ratios),
                "median_ratio": float(np.median(ratios)),
                "smallest_ratio": float(np.min(ratios)),
                "largest_ratio": float(np.max(ratios)),
                "median_edit_rate": float(np.median(rates)),
            }
        )
    return rows


def _map(config: dict, source: np.ndarray, prior: np.ndarray | None) -> dict:
    """KL after many edits, over the source's memory (1: as bad as independent tokens), and the entropy change."""
    loss, entropy, threshold = [], [], {}
    for temperature in config["map_temperatures"]:
        runs = [
            markov.iterate_edit(
                source, markov.Editor(p, temperature=temperature), config["map_generations"],
                prior=prior, regenerate=True,
            )
            for p in config["map_thresholds"]
        ]  # fmt: skip
        row = [run.kl[-1] / markov.memory(source) for run in runs]
        loss.append(_finite(np.array(row)))
        entropy.append(_finite(np.array([run.entropy[-1] - run.entropy[0] for run in runs])))
        bad = [
            p for p, value in zip(config["map_thresholds"], row, strict=True) if not value < config["collapse_level"]
        ]
        threshold[str(temperature)] = max(bad) if bad else None
    return {"loss": loss, "entropy_change": entropy, "largest_collapsing_threshold": threshold}


def _repair(config: dict, source: np.ndarray) -> list[dict]:
    """G.8 exactly: edit a sharpened source with its own model; KL to the true source in units of where it began."""
    start = markov.temper(source, config["repair_start_temperature"])
    rows = []
    for p in config["repair_thresholds"]:
        for temperature in config["repair_temperatures"]:
            run = markov.iterate_edit(
                source, markov.Editor(p, temperature=temperature), config["generations"], start=start, regenerate=True
            )
            best = int(np.argmin(run.kl))
            rows.append(
                {
                    "p": p,
                    "temperature": temperature,
                    "best_kl": float(run.kl[best] / run.kl[0]),
                    "best_generation": best,
                    "last_kl": float(run.kl[-1] / run.kl[0]),
                    "first_edit_rate": float(run.changed[0]),
                }
            )
    return rows


def _headline(data: dict) -> dict:
    """The numbers that the note quotes."""
    arms = data["arms"]
    paper, released = arms["edit, paper, first prior"], arms["edit, released, first prior"]
    random = arms["random, rate of released, first prior"]
    best = min(data["repair"], key=lambda row: row["best_kl"])
    toy = min((arms[name] for name in REPAIRS), key=lambda arm: min(arm["kl"]["mean"]) / arm["kl"]["mean"][0])
    low = [row["best_kl"] for row in data["repair"] if row["p"] <= 0.3]
    return {
        "share_ratio_paper": float(np.mean(paper["share_ratio"])),
        "share_ratio_released": float(np.mean(released["share_ratio"])),
        "paper_edit_rate": paper["largest_edit_rate"],
        "released_edit_rate": released["largest_edit_rate"],
        "confident_kl": released["kl_change"]["mean"][-1],
        "confident_kl_se": released["kl_change"]["se"][-1],
        "random_kl": random["kl_change"]["mean"][-1],
        "random_kl_se": random["kl_change"]["se"][-1],
        "repair_best": best["best_kl"],
        "repair_p": best["p"],
        "repair_temperature": best["temperature"],
        "repair_generation": best["best_generation"],
        "repair_best_low_threshold": min(low),
        "repair_toy_best": min(toy["kl"]["mean"]) / toy["kl"]["mean"][0],
        "repair_toy_last": toy["kl"]["mean"][-1] / toy["kl"]["mean"][0],
    }


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Runs the toy arms and the exact maps; see `figures/tokens.py` and `figures/markov.py` for what is drawn."""
    del needs, folder
    arms, facts = _toy(config, progress)
    progress(0.82, "exact engine")
    small = markov.example_source(config["small_vocabulary"], config["small_confident_rest"], config["seed"])
    editors = {
        "paper": markov.Editor.paper(),
        "released": markov.Editor.released(),
        "p = 0.5": markov.Editor(0.5),
        "p = 0.05": markov.Editor(0.05),
    }
    exact = {"replace, temperature 0.8": _curves(markov.iterate_replace(small, 0.8, 8))}
    exact["accumulate, temperature 0.8"] = _curves(markov.iterate_replace(small, 0.8, 8, accumulate=True))
    for name, editor in editors.items():
        exact[f"{name}, own prior"] = _curves(markov.iterate_edit(small, editor, 8, regenerate=True))
        exact[f"{name}, fixed prior"] = _curves(markov.iterate_edit(small, editor, 8, prior=small, regenerate=True))
    windows = {name: _curves(markov.iterate_edit(small, editor, 5)) for name, editor in editors.items()}
    progress(0.9, "maps")
    data = {
        "arms": arms,
        "source": facts,
        "table_15": {"paper": [b / a for a, b in pairwise(TABLE_15)]},
        "exact": exact,
        "exact_windows": windows,
        "exact_source": {"entropy_rate": markov.entropy_rate(small), "memory": markov.memory(small)},
        "change_probability": {
            "paper": markov.change_range(0.99, markov.Editor.paper(), 128_256),
            "released": markov.change_range(0.99, markov.Editor.released(), 128_256),
        },
        "harm": _harm(config),
        "map_own": _map(config, small, None),
        "map_fixed": _map(config, small, small),
        "repair": _repair(config, small),
    }
    data["headline"] = _headline(data)
    data["tables"] = {
        "tokens-arms": [
            {
                "arm": name,
                "kl_first": arm["kl"]["mean"][0],
                "kl_last": arm["kl"]["mean"][-1],
                "kl_change": arm["kl_change"]["mean"][-1],
                "kl_change_se": arm["kl_change"]["se"][-1],
                "entropy_last": arm["entropy"]["mean"][-1],
                "tail_last": arm["tail"]["mean"][-1],
                "bigrams_last": arm["bigrams"]["mean"][-1],
                "selected_first": arm["selected"]["mean"][0],
                "selected_last": arm["selected"]["mean"][-1],
                "largest_edit_rate": arm["largest_edit_rate"],
                "verdict": arm["verdict"],
            }
            for name, arm in arms.items()
        ],
        "tokens-harm": data["harm"],
        "tokens-repair": data["repair"],
    }
    return data
