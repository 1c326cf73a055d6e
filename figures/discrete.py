"""Discrete distributions: loss of diversity and the time until one outcome is left."""

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, SKY, band, figure

NEEDS = ("toys",)
CAPTION = (
    "A uniform law on 100 outcomes fitted to 100 of its own samples (bands: two standard errors of 100 seeds; "
    "dashes: exact), and the mean generation at which replacement leaves one outcome (bars: two standard errors; "
    "hollow: runs that were stopped at the cap and extrapolated by the expected remainder; short lines: diffusion "
    "formula, crosses: exact). For n = 10,000 there are two runs only, and for n = 100,000 the two were stopped so "
    "early that nearly all of their time is the remainder: no check of the formula there."
)


def draw(results: dict[str, dict]) -> Figure:
    """Draws the figure from the result file of the step `toys`."""
    data = results["toys"]["data"]
    fig = figure("double", 2.5)
    axes = fig.subplots(1, 3)
    dashes = {"color": BLACK, "linewidth": 0.8, "linestyle": (0, (4, 2))}
    for row in data["discrete"]:
        x = np.arange(1, len(row["entropy"]["mean"]) + 1)
        colour = COLOURS[row["rule"]]
        band(axes[0], x, row["heterozygosity"]["mean"], row["heterozygosity"]["se"], color=colour, label=row["rule"])
        axes[0].plot(x, row["heterozygosity"]["theory"], **dashes)
        band(axes[1], x, row["support"]["mean"], row["support"]["se"], color=colour, label=row["rule"])
        if "theory" in row["support"]:
            axes[1].plot(x, row["support"]["theory"], **dashes)
    axes[0].set(xlabel="generation", ylabel=r"heterozygosity $1 - \sum p_i^2$", ylim=(0, 1.05))
    axes[1].set(xlabel="generation", ylabel="outcomes left of 100", ylim=(0, 70))
    axes[0].legend(loc="lower left")

    ax = axes[2]
    rows = data["fixation"]
    kinds = sorted({row["outcomes"] for row in rows})
    for offset, (outcomes, colour) in enumerate(zip(kinds, (BLUE, ORANGE, GREEN, PURPLE, SKY), strict=True)):
        for row in (r for r in rows if r["outcomes"] == outcomes):
            shift = 1.25 ** (offset - 2)
            ax.errorbar(
                row["n"] * shift, row["mean"] / row["n"], 2 * row["se"] / row["n"], color=colour, marker="o",
                fillstyle="none" if row["extrapolated_share"] > 0 else "full", linewidth=1, linestyle="none",
                label=f"K = {outcomes:,}" if row["n"] == 10 else None,
            )  # fmt: skip
            ax.plot(
                row["n"] * shift * np.array([0.9, 1.1]), [row["diffusion"] / row["n"]] * 2, color=BLACK, linewidth=0.8
            )
            if row["exact"] is not None:
                ax.plot(row["n"] * shift, row["exact"] / row["n"], color=BLACK, marker="x", markersize=4)
    ax.set_xscale("log")
    ax.set(xlabel="samples n", ylabel="generations to one outcome / n", ylim=(0, 4.2))
    ax.legend(loc="upper left", ncol=2)
    return fig
