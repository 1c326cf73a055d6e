"""Results of the three experiments as they are committed, with losses that a test chooses."""

from collections.abc import Callable
from typing import Any

from lm.experiments.tables import over_seeds

RULES = ("replace", "accumulate", "accumulate-subsample", "fixed-real-share", "edit", "edit-random")
RATES = (0.03, 5.0, 20.0)
HUMAN = {"speech": "trained", "verse": "held-out", "news": "held-out", "law": "held-out", "brown": "trained"}
HUMAN |= {"maths": "held-out"}
AVERAGES = ("human", "trained", "held-out")
JITTER = (0.0, 0.001, -0.001)

Change = Callable[[dict[str, Any], str], float]


def mixture_change(about: dict[str, Any], domain: str) -> float:
    """Return .4 times the share of synthetic text; twice that in trained domains, and a fall on synthetic text."""
    weight = {"written": -1.0, "trained": 2.0, "speech": 2.0, "brown": 1.9, "maths": 0.1, "law": 0.2, "news": 0.3}
    slope = 0.4 if about["synthetic"] == "written" else 0.3
    return slope * weight.get(domain, 1.0) * about["share"] / 100


def edited_change(about: dict[str, Any], domain: str) -> float:
    """Return the rate in nats, half of it for random positions; the released settings help."""
    del domain
    named = {"none": 0.0, "paper": 0.01, "released": -0.05}
    return named.get(about["selection"], (about["rate"] or 0) / 100 * (0.5 if about["selection"] == "random" else 1))


def iterate_change(about: dict[str, Any], domain: str) -> float:
    """Return growth by generation; edits stop after the first."""
    del domain
    slopes = dict(zip(RULES, (0.3, 0.1, 0.12, 0.08, 0.1, 0.05), strict=True)) | {"human": 0.0}
    return slopes[about["rule"]] * (min(1, about["generation"]) if about["rule"] == "edit" else about["generation"])


def _data(arms: dict[str, dict[str, Any]], change: Change, edits: dict[str, float], seeds: int) -> dict[str, Any]:
    cells, perplexity, edited = [], [], []
    for number, (arm, about) in enumerate(arms.items()):
        base = number == 0 or about.get("share") == 0
        for seed in range(seeds):
            name = {"arm": arm, **about, "seed": seed}
            off = 0.0 if base else JITTER[seed] * (1 + number)
            confident = about.get("selection") == "confident"
            cells.append(
                {
                    **name,
                    "final_training_loss": 5 - about.get("share", 0) / 100 + off,
                    "share_above_0.9": 0.02 - 0.01 * confident + off / 100,
                    "rare_nats": 7 - confident + off,
                    "tail_coverage": 1 - 0.1 * about.get("generation", 0) + off,
                    "distinct_trigram_share": 0.6 - 0.1 * about.get("generation", 0) + off,
                }
            )
            if arm in edits:
                edited.append(
                    {
                        **name,
                        "effective_rate": edits[arm],
                        "selected_share": 0.1,
                        "share_above_0.9": 0.01,
                        "share_above_0.99": 1e-4,
                        "median": 0.05,
                    }
                )
            for step in (5, 10):
                for domain in (*HUMAN, "written", *AVERAGES):
                    value = (change(about, domain) + off) * step / 10
                    row = {**name, "step": step, "domain": domain, "nats": 5 + value, "change": value}
                    perplexity.append({**row, "change_se": 0.0 if base else 0.001})
    arms_of_seeds = over_seeds(perplexity, set(), HUMAN | {"written": "synthetic"})
    loss = [{key: cell[key] for key in (*about_keys(arms), "seed")} | {"loss": [[1, 6.0], [2, 5.0]]} for cell in cells]
    tables = {"cells": cells, "perplexity": perplexity, "edits": edited, "arms": arms_of_seeds}
    return {"tables": tables, "loss": loss}


def about_keys(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Return what is said of every arm."""
    return ["arm", *next(iter(arms.values()))]


def committed(
    seeds: int = 3,
    mixture: Change = mixture_change,
    edited: Change = edited_change,
    iterate: Change = iterate_change,
) -> dict[str, Any]:
    """Return {experiment: {"commit", "seeds", "data"}}; the two lowest rates of edits are below .1 %."""
    shares = {
        f"{source} {share} %": {"synthetic": source, "share": share}
        for source in ("written", "self")
        for share in (0, 25, 50, 75, 100)
    }
    arms: dict[str, dict[str, Any]] = {"source": {"selection": "none", "rate": 0.0}}
    arms |= {name: {"selection": name, "rate": None} for name in ("paper", "released")}
    arms |= {
        f"{kind} {rate:g} %": {"selection": kind, "rate": rate} for rate in RATES for kind in ("confident", "random")
    }
    changed = {"paper": 0.0004, "released": 0.004} | {
        name: about["rate"] / 100 for name, about in arms.items() if about["rate"]
    }
    rules = {"human 0": {"rule": "human", "generation": 0}} | {
        f"{rule} {generation}": {"rule": rule, "generation": generation} for rule in RULES for generation in (1, 2, 3)
    }
    redrawn = {arm: 0.05 for arm, about in rules.items() if about["rule"].startswith("edit")}
    data = {
        "mixture": _data(shares, mixture, {}, seeds),
        "edited": _data(arms, edited, changed, seeds),
        "iterate": _data(rules, iterate, redrawn, seeds),
    }
    return {
        name: {"commit": "0123456789abcdef", "seeds": list(range(seeds)), "data": one} for name, one in data.items()
    }
