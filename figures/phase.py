"""Figure: the phase diagram of confidence editing."""

from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, band, figure

NEEDS: tuple[str, ...] = ("phase",)
CAPTION = (
    "Phase diagram of high-confidence editing, d = 20, after 60 fits. Left: error/v against the first edited share a_1 "
    "and T/d; white line: 2 v, the paper's constant (bar at the top: T/d to infinity, from the state evolution); "
    "hatched: still rising, or not shown to be level. Right: the same as curves; black: T/d to infinity. The constant "
    "2 holds only left of the line, and the less data a feature has, the smaller the safe share."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the map and its cuts."""
    data = results["phase"]["data"]
    shares, ratios = np.asarray(data["shares"], float), np.asarray(data["ratios"], float)
    grid = {(row["ratio"], row["share"]): row for row in data["tables"]["grid"]}

    def field(name: str) -> np.ndarray:
        return np.array([[grid[ratio, share][name] for share in data["shares"]] for ratio in data["ratios"]])

    final, status = field("final"), field("status")
    fig = figure("double", 2.9)
    left, right = fig.subplots(1, 2, width_ratios=(1.15, 1))
    mesh = left.pcolormesh(
        shares, ratios, final, norm=LogNorm(1, 64), cmap="cividis", shading="gouraud", rasterized=True
    )
    left.contour(shares, ratios, final, levels=[2.0], colors="white", linewidths=1.8)
    left.contourf(shares, ratios, (status != "level").astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    left.axvline(data["limit_share_at_2v"], ymin=0.93, color="white", linewidth=2.2)
    left.annotate(
        "$T/d \\to \\infty$", (data["limit_share_at_2v"], ratios[-1] * 0.86), color="white", fontsize=7, va="top",
        ha="left", xytext=(2, -6), textcoords="offset points",
    )  # fmt: skip
    left.text(0.43, 11, "2 v", color="white", fontsize=8, ha="right")
    left.set(yscale="log", xlabel="first edited share $a_1$", ylabel="samples per feature, T/d")
    left.set_yticks([2, 3, 5, 10, 20, 50, 100], ["2", "3", "5", "10", "20", "50", "100"])
    left.minorticks_off()
    left.grid(visible=False)
    bar = fig.colorbar(mesh, ax=left, label="error / v", ticks=[1, 2, 4, 8, 16, 32, 64])
    bar.ax.set_yticklabels(["1", "2", "4", "8", "16", "32", "64"])
    bar.ax.minorticks_off()

    for ratio, colour in zip((2, 3, 6, 20, 100), (VERMILION, ORANGE, SKY, GREEN, BLUE), strict=True):
        rows = [grid[ratio, share] for share in data["shares"]]
        band(
            right, shares, [row["final"] for row in rows], [row["standard_error"] for row in rows], color=colour,
            label=f"T/d = {ratio}",
        )  # fmt: skip
        moving = [row for row in rows if row["status"] != "level"]
        right.plot(
            [row["share"] for row in moving], [row["final"] for row in moving], linestyle="none", marker="^",
            markerfacecolor="white", color=colour,
        )  # fmt: skip
    right.plot(shares, data["limit"]["error"], color=BLACK, label="T/d $\\to \\infty$")
    right.plot([], [], linestyle="none", marker="^", markerfacecolor="white", color=GREY, label="not level yet")
    right.axhline(2, color=GREY, linewidth=0.8)
    right.set(yscale="log", ylim=(1, 70), xlabel="first edited share $a_1$", ylabel="error / v after 60 fits")
    right.set_yticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    right.minorticks_off()
    right.legend(loc="upper left")
    return fig
