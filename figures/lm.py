"""Perplexity on held-out human text by generation, and what the edits did."""

from typing import Any

import matplotlib.figure
import numpy as np

from figures.style import COLOURS, GREY, band, figure

NEEDS: tuple[str, ...] = ("lm_iterate",)
CAPTION = (
    "Small decoders trained on real text, generation after generation: change of the held-out loss "
    "against generation 0 (nats per token; bands: two standard errors over works, paired; points: seeds), "
    "and the share of tokens selected and really changed by each edit (the random control is made to change as many)."
)

LABELS = {
    "replace": "replace",
    "accumulate": "accumulate",
    "edit": "edit, most confident tokens",
    "edit-random": "edit, random tokens",
}
MARKERS = {"replace": "v", "accumulate": "s", "edit": "o", "edit-random": "D"}


def _colour(rule: str) -> str:
    return COLOURS["random" if rule == "edit-random" else rule]


def draw(results: dict[str, dict[str, Any]]) -> matplotlib.figure.Figure:
    """Draw one panel a domain, the edit rates and the generation-0 learning curve."""
    data = results["lm_iterate"]["data"]
    domains = [name for name in dict.fromkeys(arm["domain"] for arm in data["arms"]) if name != "all"]
    drawn = figure("double", 4.4)
    grid = drawn.subplot_mosaic([domains, ["edits", "learning"]])
    for domain in domains:
        _perplexity(grid[domain], data, domain)
    _edits(grid["edits"], data)
    _learning(grid["learning"], data)
    lines, labels = grid[domains[0]].get_legend_handles_labels()
    drawn.legend(lines, labels, loc="outside upper center", ncols=len(labels))
    return drawn


def _perplexity(ax: Any, data: dict[str, Any], domain: str) -> None:
    for arm in data["arms"]:
        if arm["domain"] != domain:
            continue
        errors = [error or 0.0 for error in arm["change_se"]]
        label = LABELS[arm["rule"]] + ("" if arm["verdict"] == "testable" else " (untestable)")
        band(ax, arm["generation"], arm["change"], errors, color=_colour(arm["rule"]), label=label)
        rows = [row for row in data["tables"]["perplexity"] if row["domain"] == domain and row["rule"] == arm["rule"]]
        ax.plot(
            [row["generation"] for row in rows],
            [row["change"] for row in rows],
            MARKERS[arm["rule"]],
            color=_colour(arm["rule"]),
            markersize=3,
        )
    base = next(arm for arm in data["arms"] if arm["domain"] == domain)
    start = base["perplexity"][0]
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set_title(f"{domain}: perplexity {start:.0f} at generation 0")
    ax.set_xlabel("generation")
    ax.set_ylabel("loss against generation 0 (nats)")
    ax.set_xticks(base["generation"])
    right = ax.secondary_yaxis(
        "right",
        functions=(
            lambda change: start * np.exp(change),
            lambda perplexity: np.log(np.maximum(perplexity, 1e-9) / start),
        ),
    )
    right.set_ylabel("perplexity")


def _edits(ax: Any, data: dict[str, Any]) -> None:
    rows = data["tables"]["edits"]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        generations = sorted({row["generation"] for row in rows})

        def mean(key: str, rule: str = rule, generations: list[int] = generations) -> list[float]:
            return [
                float(np.mean([row[key] for row in rows if (row["rule"], row["generation"]) == (rule, number)]))
                for number in generations
            ]

        colour, marker = _colour(rule), MARKERS[rule]
        ax.plot(generations, 100 * np.asarray(mean("selected_share")), marker, linestyle="--", color=colour)
        ax.plot(generations, 100 * np.asarray(mean("effective_rate")), marker, linestyle="-", color=colour)
    ax.plot([], [], "--", color=GREY, label="selected")
    ax.plot([], [], "-", color=GREY, label="really changed")
    ax.set_ylim(bottom=0)
    ax.set_xticks(sorted({row["generation"] for row in rows}))
    ax.set_xlabel("generation")
    ax.set_ylabel("tokens (%)")
    ax.set_title("What the edits did")
    ax.legend()


def _learning(ax: Any, data: dict[str, Any]) -> None:
    last = max(curve["generation"] for curve in data["learning"])
    for curve in data["learning"]:
        if curve["seed"] != data["learning"][0]["seed"] or curve["generation"] not in (0, last):
            continue
        steps, loss = np.asarray(curve["loss"]).T
        window = max(1, len(loss) // 20)
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        human = curve["rule"] == "human"
        colour = GREY if human else _colour(curve["rule"])
        ax.plot(steps[window - 1 :], smooth, color=colour, linewidth=1)
    ax.set_xlabel("update")
    ax.set_ylabel("training loss (nats)")
    ax.set_title(f"Training at generation {last}; grey: human text")
