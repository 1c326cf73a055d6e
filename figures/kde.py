"""Kernel density estimates fitted to their own samples."""

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, GREEN, ORANGE, band, figure

NEEDS = ("toys",)
CAPTION = (
    "Kernel density estimates resampled for 100 generations, n = 100 (bands: two standard errors of 100 seeds; "
    "black dashes: exact expectation at this n above, the limit of many samples below). Replacement adds h^2 each "
    "time; accumulation widens without bound too, but only like h^2 log g."
)
BANDWIDTH_COLOURS = (BLUE, ORANGE, GREEN)


def draw(results: dict[str, dict]) -> Figure:
    """Draws the figure from the result file of the step `toys`."""
    rows = results["toys"]["data"]["kde"]
    fig = figure("double", 4.2)
    axes = fig.subplots(2, 2, sharex=True, sharey="row")
    colours = dict(zip(sorted({row["bandwidth"] for row in rows}), BANDWIDTH_COLOURS, strict=True))
    for column, rule in enumerate(("replace", "accumulate")):
        for row in (r for r in rows if r["rule"] == rule):
            x = np.arange(1, len(row["variance"]["mean"]) + 1)
            colour, label = colours[row["bandwidth"]], f"h = {row['bandwidth']:g}"
            band(axes[0, column], x, row["variance"]["mean"], row["variance"]["se"], color=colour, label=label)
            band(
                axes[1, column], x, row["cross_entropy"]["mean"], row["cross_entropy"]["se"], color=colour, label=label
            )
            dashes = {"color": BLACK, "linewidth": 0.8, "linestyle": (0, (4, 2))}
            axes[0, column].plot(x, row["variance"]["theory"], **dashes)
            axes[1, column].plot(x, row["cross_entropy_infinite_n"], **dashes)
        axes[0, column].set_yscale("log")
        axes[1, column].set_yscale("log")
        axes[0, column].set_title(rule)
        axes[1, column].set_xlabel("generation")
    axes[0, 0].set_ylabel("variance of the estimate")
    axes[1, 0].set_ylabel("cross-entropy on real data, nats")
    axes[1, 0].set_yticks([1.5, 2, 3, 5, 10], ["1.5", "2", "3", "5", "10"])
    axes[1, 0].minorticks_off()
    axes[0, 0].legend(loc="upper left")
    return fig
