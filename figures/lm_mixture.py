"""Models trained on mixtures of human and synthetic text."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lm_arms import bars, dots, last_arms, last_cells, live_marks
from figures.style import BLUE, GREY, ORANGE, SKY, VERMILION, figure

NEEDS: tuple[str, ...] = ("lm_experiments",)
CAPTION = (
    "Training on human and synthetic text, equal numbers of tokens, small decoders, 3 seeds. Changes are of held-out "
    "loss (nats a token) against the human-only model of the same seed; bars: 95 % intervals over seeds; dots: seeds; "
    "open circles: made in this run, the rest committed. (a) Mean over 13 human domains against the share of "
    "synthetic text, that of SmolLM2-135M-Instruct or of the human-only model itself; thin: over the 4 that the "
    "human-only model was trained on and the 9 held out; grey: the paper's GPT-2 124M, mean change of log-perplexity "
    "(table 1: 22 domains; table 17: 5 corpora, 5 epochs). (b) Each domain at 100 % of SmolLM2's text. "
    "(c) Training loss of each share of SmolLM2's text, mean over seeds. (d) Loss on SmolLM2's text."
)
COLOURS = (BLUE, ORANGE)
GROUPS = {"trained": (0, (5, 2)), "held-out": (0, (1, 1.5))}
PAPER_MODEL = "124M"  # of tables 1, 13 and 17, as in paper/data/paper-tables.csv
PAPER_MARKERS = "xv"
SHADES = ("#000000", "#084594", "#2171B5", "#6BAED6", "#E69F00")


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw four panels."""
    result = results["lm_experiments"]["data"]
    data, live = result["committed"]["mixture"]["data"], result["live"].get("mixture")
    external = next(row["synthetic"] for row in data["tables"]["cells"] if row["synthetic"] != "self")
    chart = figure("double", 5.6)
    axes = chart.subplots(2, 2)
    _shares(axes[0, 0], data, live, external, "human")
    _groups(axes[0, 0], data, external)
    for (label, points), marker in zip(result["paper"].items(), PAPER_MARKERS, strict=False):
        axes[0, 0].plot(*np.asarray(points).T, color=GREY, marker=marker, label=f"{label}, {PAPER_MODEL}")
    axes[0, 0].set_title("(a) human text")
    axes[0, 0].legend()
    _domains(axes[0, 1], data, f"{external} 100 %")
    _loss(axes[1, 0], data, external)
    _shares(axes[1, 1], data, live, external, external)
    axes[1, 1].set_title("(d) text of SmolLM2")
    axes[1, 1].legend()
    return chart


def _shares(ax: Axes, data: dict[str, Any], live: dict[str, Any] | None, external: str, domain: str) -> None:
    arms, cells = last_arms(data, domain), last_cells(data, domain)
    for source, colour in zip((external, "self"), COLOURS, strict=True):
        mine = [row for row in arms if row["synthetic"] == source]
        label = "synthetic: SmolLM2" if source == external else "synthetic: the model's own"
        bars(ax, [row["share"] for row in mine], mine, color=colour, marker="o", label=label)
        dots(
            ax,
            lambda row: row["share"],
            [row for row in cells if row["synthetic"] == source],
            lambda _, colour=colour: colour,
        )
    live_marks(ax, lambda row: row["share"], last_cells(live, domain))
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xticks(sorted({row["share"] for row in arms}))
    ax.set_xlabel("synthetic share (%)")
    ax.set_ylabel("change of loss (nats)")


def _groups(ax: Axes, data: dict[str, Any], external: str) -> None:
    """Draw the means over the trained and over the held-out domains as thin lines."""
    for domain, dashes in GROUPS.items():
        for source, colour in zip((external, "self"), COLOURS, strict=True):
            mine = [row for row in last_arms(data, domain) if row["synthetic"] == source]
            x, y = [row["share"] for row in mine], [row["change"] for row in mine]
            ax.plot(x, y, color=colour, linestyle=dashes, linewidth=0.8)
        ax.plot([], [], color=GREY, linestyle=dashes, linewidth=0.8, label=f"{domain} domains only")


def _domains(ax: Axes, data: dict[str, Any], arm: str) -> None:
    rows = data["tables"]["arms"]
    last = max(row["step"] for row in rows)
    mine = [row for row in rows if row["arm"] == arm and row["step"] == last and row["kind"] != "average"]
    mine.sort(key=lambda row: row["change"])
    colours = {"trained": VERMILION, "held-out": SKY, "synthetic": ORANGE}
    labels = {"trained": "trained on", "held-out": "held out", "synthetic": "synthetic"}
    for kind, colour in colours.items():
        places = [number for number, row in enumerate(mine) if row["kind"] == kind]
        chosen = [mine[number] for number in places]
        half = [row["change_half_width"] or 0.0 for row in chosen]
        ax.errorbar(
            [row["change"] for row in chosen], places, xerr=half, fmt="o", color=colour, elinewidth=0.8,
            label=labels[kind],
        )  # fmt: skip
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(range(len(mine)), [row["domain"] for row in mine], fontsize=6.5)
    ax.set_xlabel("change of loss at 100 % (nats)")
    ax.set_title("(b) by domain")
    ax.legend(loc="upper left")


def _loss(ax: Axes, data: dict[str, Any], external: str) -> None:
    curves = [one for one in data["loss"] if one["synthetic"] == external]
    for share, colour in zip(sorted({one["share"] for one in curves}), SHADES, strict=False):
        mine = [np.asarray(one["loss"]) for one in curves if one["share"] == share]
        ax.plot(mine[0][:, 0], np.mean([one[:, 1] for one in mine], axis=0), color=colour, label=f"{share} %")
    ax.set_xlabel("update")
    ax.set_ylabel("training loss (nats)")
    ax.set_title("(c) training loss")
    ax.legend(title="synthetic share")
