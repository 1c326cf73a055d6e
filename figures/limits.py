"""Approach to the limits as T/d grows."""

import numpy as np
from matplotlib.figure import Figure

from figures.style import COLOURS, figure

NEEDS = ("limits",)
CAPTION = (
    "Error after the last edit against samples per feature (d = 10). Lines: exact at finite T; marks: literal "
    "simulation, bars of two standard errors; dashed: the limit as T/d grows; dotted: the paper's eq. 36."
)
_LABELS = {
    "disjoint": ("ten disjoint blocks of 0.1", 2.0),
    "random": ("one random edit of 0.5", 1.5),
    "high-confidence": ("one edit of the confident half", None),
}


def draw(results: dict[str, dict]) -> Figure:
    """Draws error against T/d for the three schedules."""
    data = results["limits"]["data"]
    chart = figure("single", 2.9)
    ax = chart.subplots()
    ratios = np.asarray(data["ratios"])
    for name, (label, paper) in _LABELS.items():
        curve = data["curves"][name]
        colour = COLOURS[name]
        ax.plot(ratios, curve["theory"], color=colour, label=label)
        ax.axhline(curve["limit"], color=colour, linestyle="--", linewidth=0.9)
        if paper is not None:
            ax.axhline(paper, color=colour, linestyle=":", linewidth=0.9)
        shown = [index for index, value in enumerate(curve["error"]) if value is not None]
        ax.errorbar(
            ratios[shown], [curve["error"][i] for i in shown], [2 * curve["standard_error"][i] for i in shown],
            fmt="o", color=colour, elinewidth=1,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(ratios, [str(ratio) for ratio in ratios])
    ax.minorticks_off()
    ax.set_xlabel("samples per feature, T/d")
    ax.set_ylabel(r"test error / $v$")
    ax.set_ylim(1.3, 4.6)
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.42))
    return chart
