"""The paper's bound against the process under the proof's own assumption."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.style import BLACK, COLOURS, figure

NEEDS = ("paper_bound",)
CAPTION = (
    "Left: ten disjoint blocks of 20 rows, so that no row is edited twice, the assumption of the paper's proof "
    "(eq. 16); the error passes the paper's 2v. Right: random rows with geometrically decaying counts "
    "(a_1 = 0.5, ratio 0.9), the second part of Theorem 2. Marks: literal simulation, bars of two standard errors; "
    "lines: exact engine; grey: the paper's eq. 36. T = 200, d = 10."
)


def draw(results: dict[str, dict]) -> Figure:
    """Draws the two schedules side by side."""
    data = results["paper_bound"]["data"]
    chart = figure("double", 2.8)
    left, right = chart.subplots(1, 2)
    _panel(left, data["disjoint"], "disjoint", "Disjoint blocks (eq. 16 holds)")
    left.axhline(data["disjoint"]["continuum"], color=BLACK, linestyle=":", linewidth=0.9)
    left.annotate(
        r"$2e - 1$: all rows in small blocks, $T/d \to \infty$", (1, data["disjoint"]["continuum"]),
        xytext=(2, -3), textcoords="offset points", va="top", fontsize=7,
    )  # fmt: skip
    left.set_ylim(0.8, 4.7)
    left.legend(loc="upper left", bbox_to_anchor=(0, 0.9))
    _panel(right, data["random"], "random", "Random rows, decaying counts")
    right.set_ylim(0.5, None)
    right.legend(loc="upper left")
    left.set_ylabel(r"test error / $v$")
    return chart


def _panel(ax: Axes, part: dict, name: str, title: str) -> None:
    n = np.arange(1, len(part["error"]) + 1)
    ax.errorbar(
        n, part["error"], 2 * np.asarray(part["standard_error"]), fmt="o", color=COLOURS[name], elinewidth=1,
        label="literal simulation",
    )  # fmt: skip
    ax.plot(n, part["theory"], color=COLOURS[name], label="exact engine")
    ax.plot(n, part["paper"], color=COLOURS["paper"], linestyle="-.", label="the paper's eq. 36")
    ax.axhline(2, color=BLACK, linestyle="--", linewidth=1, label=r"the paper's bound, $2v$")
    ax.set_title(title)
    ax.set_xlabel("generation")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
