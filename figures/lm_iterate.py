"""Generations of language models beside generations of regressions."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lm_arms import bars, dots, last_arms, last_cells, live_marks, mean_by
from figures.style import COLOURS, GREY, figure

NEEDS: tuple[str, ...] = ("lm_experiments", "curves")
CAPTION = (
    "(a) Generations of small decoders, 3 seeds: change of held-out loss (nats a token, mean over 13 human domains) "
    "against generation 0, trained on human text; bars: 95 % intervals over seeds; dots: seeds; open circles: made in "
    "this run, the rest committed. (b) The same rules in linear regression (T = 200, d = 10, literal simulation): "
    "test error in units of one honest fit's. Edits redraw the 12.5 % most confident tokens, or the eighth of the rows "
    "with the smallest residuals, in each generation, the random control as many changed tokens or rows. (c, d) Of the "
    "training text, means over seeds: share of the human text's once-seen trigrams that it still has; distinct "
    "trigrams over all (accumulate's text grows, so that its values do not compare). (e) Of the text to be edited: "
    "tokens selected, tokens really changed (the same number in both rules), and tokens to which the editing model "
    "gives a probability of at least .9 (from where no mark is, none); means over seeds, logarithmic axis."
)
LABELS = {
    "replace": "replace",
    "accumulate": "accumulate",
    "accumulate-subsample": "accumulate-subsample",
    "fixed-real-share": "half stays human",
    "edit": "edit, confident",
    "edit-random": "edit, random",
}
MARKERS = dict(zip(LABELS, "vsD^oP", strict=True))
TEXT = {"tail_coverage": "rare trigrams kept", "distinct_trigram_share": "distinct trigrams"}
EDITS = {"selected_share": ("selected", "--"), "effective_rate": ("changed", "-"), "share_above_0.9": ("P ≥ .9", ":")}
TWINS = {"edit": "high-confidence, by rank", "edit-random": "random, constant share"}


def _colour(rule: str) -> str:
    return COLOURS["random" if rule == "edit-random" else rule]


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw losses beside errors, and below them the texts and the edits."""
    result = results["lm_experiments"]["data"]
    data, live = result["committed"]["iterate"]["data"], result["live"].get("iterate")
    chart = figure("double", 5.4)
    axes = chart.subplot_mosaic("aaabbb;ccddee", height_ratios=(4, 3))
    _losses(axes["a"], data, live)
    last = max(row["generation"] for row in data["tables"]["cells"])
    _regression(axes["b"], results["curves"]["data"]["curves"], last)
    for panel, (name, title) in zip("cd", TEXT.items(), strict=True):
        _text(axes[panel], data, name)
        axes[panel].set_title(f"({panel}) {title}")
    _edits(axes["e"], data)
    for ax in axes.values():
        ax.set_xlabel("generation")
        ax.set_xticks(range(last + 1))
    lines, labels = axes["a"].get_legend_handles_labels()
    chart.legend(lines, labels, loc="outside upper center", ncols=4)
    return chart


def _losses(ax: Axes, data: dict[str, Any], live: dict[str, Any] | None) -> None:
    arms, cells = last_arms(data, "human"), last_cells(data, "human")
    start = [row for row in arms if row["rule"] == "human"]
    # Beside one another, so that bars can be told apart.
    beside = dict(zip(LABELS, np.linspace(-0.15, 0.15, len(LABELS)), strict=True))
    for rule, label in LABELS.items():
        mine = start + [row for row in arms if row["rule"] == rule]
        x = [row["generation"] + beside.get(row["rule"], 0.0) for row in mine]
        bars(ax, x, mine, color=_colour(rule), marker=MARKERS[rule], label=label)
    generated = [row for row in cells if row["rule"] != "human"]
    dots(ax, lambda row: row["generation"] + beside[row["rule"]], generated, lambda row: _colour(row["rule"]))
    live_marks(ax, lambda row: row["generation"] + beside.get(row["rule"], 0.0), last_cells(live, "human"))
    ax.set_ylabel("change of loss (nats)")
    ax.set_title("(a) language models")


def _regression(ax: Axes, curves: dict[str, Any], last: int) -> None:
    for rule in LABELS:
        curve = curves[TWINS.get(rule, rule)]
        error, spread = (np.asarray(curve[name][: last + 1]) for name in ("error", "standard_error"))
        ax.errorbar(range(len(error)), error, 2 * spread, color=_colour(rule), marker=MARKERS[rule], elinewidth=0.8)
    ax.set_yscale("log", base=2)
    ax.set_yticks([1, 2, 4, 6], ["1", "2", "4", "6"])
    ax.set_ylabel("test error / v")
    ax.set_title("(b) linear regression")
    told = "edits: 12.5 % of the rows each time,\nthe smallest residuals or at random"
    ax.text(0.03, 0.97, told, transform=ax.transAxes, va="top", fontsize="small", color=GREY)


def _text(ax: Axes, data: dict[str, Any], name: str) -> None:
    found = mean_by(data["tables"]["cells"], ("rule", "generation"), name)
    for rule in LABELS:
        points = [(0, found["human", 0]), *((g, value) for (one, g), value in found.items() if one == rule)]
        ax.plot(*np.asarray(sorted(points)).T, color=_colour(rule), marker=MARKERS[rule])
    ax.set_ylabel("share")


def _edits(ax: Axes, data: dict[str, Any]) -> None:
    for name, (_, style) in EDITS.items():
        found = mean_by(data["tables"]["edits"], ("rule", "generation"), name)
        # Random edits wide and first: where both rules have the same value, both are seen.
        for rule, width in (("edit-random", 2.2), ("edit", 1.1)):
            # A logarithmic axis has no place for none.
            mine = {generation: 100 * value for (one, generation), value in found.items() if one == rule and value}
            points = sorted(mine.items())
            ax.plot(*np.asarray(points).T, style, color=_colour(rule), marker=MARKERS[rule], linewidth=width)
    for label, style in EDITS.values():
        ax.plot([], [], style, color=GREY, label=label)
    ax.set_yscale("log")
    ax.set_ylabel("tokens (%)")
    ax.set_title("(e) what the edits did")
    ax.legend(loc="center left", bbox_to_anchor=(0, 0.62))
