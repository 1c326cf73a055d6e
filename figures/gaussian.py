"""Gaussian fitting: trace and determinant of the covariance, error of the mean, and the single Gaussian."""

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, band, figure

NEEDS = ("toys",)
CAPTION = (
    "Gaussians refitted to their own samples (bands: two standard errors, the exact one for the skewed trace under "
    "replace; black dashes: exact expectations). "
    "Replacement loses the covariance; accumulation loses a share that is small, of order 1/n, and levels off. "
    "The typical (median) variance of a single Gaussian falls twice as fast as its mean, at the digamma rate."
)
DIMENSION_COLOURS = {1: BLUE, 3: ORANGE, 10: GREEN, 31: PURPLE, 100: GREY}


def _theory(ax, x, y, label=None) -> None:
    ax.plot(x, y, color=BLACK, linewidth=0.8, linestyle=(0, (4, 2)), label=label)


def draw(results: dict[str, dict]) -> Figure:
    """Draws the figure from the result file of the step `toys`."""
    data = results["toys"]["data"]
    fig = figure("double", 4.6)
    axes = fig.subplots(2, 2)
    rows = data["gaussian"]
    x = np.arange(1, len(rows[0]["trace"]["mean"]) + 1)

    ax = axes[0, 0]
    for row in (r for r in rows if r["d"] == 3):
        error = row["trace"].get("theory_se", row["trace"]["se"])
        band(ax, x, row["trace"]["mean"], error, color=COLOURS[row["rule"]], label=row["rule"])
        _theory(ax, x, row["trace"]["theory"], "exact expectation" if row["rule"] == "replace" else None)
    ax.set(xlabel="generation", ylabel="trace ratio", title="Trace of the covariance, d = 3, n = 100", ylim=(0, 1.1))
    ax.legend(loc="lower left")

    ax = axes[0, 1]
    for row in (r for r in rows if r["rule"] == "replace"):
        colour = DIMENSION_COLOURS.get(row["d"], GREY)
        label = f"d = {row['d']}, n = {row['n']}"
        band(ax, x, row["log_det"]["mean"], row["log_det"]["se"], color=colour, label=label)
        _theory(ax, x, row["log_det"]["theory"])
    ax.set_yscale("symlog", linthresh=0.1)
    ax.set(xlabel="generation", ylabel="mean log det", title="Log determinant, replace")
    ax.legend(loc="upper right", ncol=2)

    ax = axes[1, 0]
    for row in (r for r in rows if r["d"] == 10):
        band(ax, x, row["mean_error"]["mean"], row["mean_error"]["se"], color=COLOURS[row["rule"]], label=row["rule"])
        _theory(ax, x, row["mean_error"]["theory"])
    ax.set_yscale("log")
    ax.set(
        xlabel="generation",
        ylabel=r"squared error of the mean / $\sigma^2$",
        title="Error of the mean, d = 10, n = 100",
    )
    ax.legend(loc="center right")

    ax = axes[1, 1]
    for row, colour in zip(data["single_gaussian"], (BLUE, ORANGE, GREEN, PURPLE), strict=True):
        steps = np.arange(1, len(row["median_variance"]) + 1)
        ax.plot(steps, row["median_variance"], color=colour, label=f"n = {row['n']}")
        _theory(ax, steps, np.exp(row["log_variance"]["theory"]))
        ax.plot(steps, row["variance"]["theory"], color=colour, linewidth=0.8, linestyle=":")
    ax.set_yscale("log")
    ax.set(
        xlabel="generation", ylabel="variance", ylim=(1e-5, 2),
        title="One Gaussian, replace: median, mean (dots)",
    )  # fmt: skip
    ax.legend(loc="lower left")
    return fig
