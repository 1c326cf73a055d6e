"""Error by generation of every rule, simulated, with theory."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.style import BLUE, COLOURS, figure

NEEDS = ("curves",)
CAPTION = (
    "Test error by generation, in units of the error v of one honest fit (T = 200, d = 10). Marks: literal "
    "simulation, bars of two standard errors; lines: exact theory (the two confidence rules have none, their "
    "marks are joined by dots). Most bars are smaller than the marks. Dashed: the paper's constant 2."
)

_LABELS = {
    "replace": "replace",
    "accumulate": "accumulate, same X",
    "accumulate, fresh X": "accumulate, fresh X",
    "accumulate-subsample": "accumulate-subsample",
    "fixed-real-share": "half of the labels stay real",
    "random": "edit: random rows, $a_1$ = 0.5, decay 0.9",
    "disjoint": "edit: disjoint blocks of 20 rows",
    "high-confidence": "edit: confident rows, $a_1$ = 0.125",
    "low-confidence": "edit: unconfident rows, $a_1$ = 0.125",
}
_PANELS = (
    (
        "Collapse and accumulation",
        ("replace", "accumulate-subsample", "fixed-real-share", "accumulate", "accumulate, fresh X"),
    ),
    ("Editing", ("random", "disjoint", "low-confidence", "high-confidence")),
)
_MARKS = "osD^v"


def draw(results: dict[str, dict]) -> Figure:
    """Draws two panels, other rules and editing rules, on logarithmic error axes."""
    curves = results["curves"]["data"]["curves"]
    chart = figure("double", 3.4)
    axes = chart.subplots(1, 2, sharey=True)
    for ax, (title, names) in zip(axes, _PANELS, strict=True):
        for name, mark in zip(names, _MARKS, strict=False):
            curve = curves[name]
            n = np.arange(1, len(curve["error"]) + 1)
            colour = "#004466" if name == "accumulate, fresh X" else COLOURS.get(name, BLUE)
            ax.errorbar(
                n, curve["error"], 2 * np.asarray(curve["standard_error"]), fmt=mark, color=colour,
                elinewidth=0.8, linestyle="none" if curve["theory"] else ":", linewidth=0.9, label=_LABELS[name],
            )  # fmt: skip
            if curve["theory"]:
                ax.plot(n, curve["theory"], color=colour, linewidth=1)
        ax.axhline(2, color="0.4", linestyle="--", linewidth=0.8)
        ax.annotate(
            "the paper's $2v$",
            (16.3, 2),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
            color="0.3",
        )
        ax.set_title(title)
        ax.set_xlabel("generation")
        ax.set_yscale("log", base=2)
        ax.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        ax.set_ylim(0.93, 24)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.legend(loc="upper left")
    axes[0].set_ylabel(r"test error / $v$")
    return chart
