"""Mixtures and edited text at a larger size: models of 17 million parameters, trained on a GPU."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lm_arms import bars, dots, last_arms, last_cells
from figures.lm_edited import doses
from figures.style import BLUE, GREY, ORANGE, figure

NEEDS: tuple[str, ...] = ("lm_experiments",)
CAPTION = (
    "Models of 17 million parameters, 8 million tokens each, 3 seeds, trained on a GPU (committed): change of held-out "
    "loss (nats a token, mean over 16 human domains) against the human-only model of the same seed; bars: 95 % "
    "intervals over seeds; dots: seeds. (a) Against the share of synthetic text: answers of GPT-3.5, GPT-4 and PaLM 2 "
    "to problems of mathematics (source champ: another subject as well as another author), or text of the human-only "
    "model itself; thin: own text of the small models that make reproduce trains. Logarithmic. (b) Edited human text, "
    "as in the figure lm edited: by the share of tokens that really changed."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw both experiments."""
    result = results["lm_experiments"]["data"]
    larger = result["larger"]["committed"]
    chart = figure("double", 2.9)
    left, right = chart.subplots(1, 2)
    _shares(left, larger["mixture"]["data"], result["committed"]["mixture"]["data"])
    doses(right, larger["edited"]["data"], None, "human")
    right.set_title("(b) edited text")
    right.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")
    return chart


def _shares(ax: Axes, data: dict[str, Any], small: dict[str, Any]) -> None:
    external = next(row["synthetic"] for row in data["tables"]["cells"] if row["synthetic"] != "self")
    for source, colour, label in ((external, ORANGE, f"synthetic: {external}"), ("self", BLUE, "synthetic: own")):
        mine = _mixed(last_arms(data, "human"), source)
        bars(ax, [row["share"] for row in mine], mine, color=colour, marker="o", label=label)
        dots(ax, lambda row: row["share"], _mixed(last_cells(data, "human"), source), lambda _, colour=colour: colour)
    other = _mixed(last_arms(small, "human"), "self")
    ax.plot([row["share"] for row in other], [row["change"] for row in other], color=GREY, linewidth=0.8,
            label="small models' own")  # fmt: skip
    ax.set_yscale("log")
    ax.set_xticks([row["share"] for row in other])
    ax.set_xlabel("synthetic share (%)")
    ax.set_ylabel("change of loss (nats)")
    ax.set_title("(a) mixtures")
    ax.legend(loc="upper left")


def _mixed(rows: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Return the rows of a source with any synthetic text: without any the change is zero."""
    return [row for row in rows if row["synthetic"] == source and row["share"]]
