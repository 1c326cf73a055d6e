"""Figure: the one-edit law."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.style import COLOURS, PURPLE, figure

NEEDS: tuple[str, ...] = ("one_edit",)
CAPTION = (
    "One edit. Left: error against the edited share at T = 100, d = 10; lines are the law "
    "1 + a + (1-d/T) k (1-k), k = E Z^2 1{edited}, points the fit-test Monte Carlo (two standard errors are smaller "
    "than the markers). The paper's 1 + a is right only where k (1 - k) is near 0: for few, confident rows, which "
    "carry little residual, and where the edited rows carry nearly all of it. Right: exact finite-T value minus the "
    "law, times T, at T/d = 10 and a = 0.5: it is flat, so the correction is of order 1/T."
)
MARKS = {"high-confidence": "o", "low-confidence": "s", "random": "^"}
NAMES = {"high-confidence": "high confidence", "low-confidence": "low confidence", "random": "random"}


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the law with measured points and the finite-T correction."""
    data = results["one_edit"]["data"]
    fig = figure("double", 2.6)
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    shares = np.asarray(data["shares"])
    left.plot(shares, 1 + shares, color=COLOURS["paper"], linestyle="--", label="paper, 1 + a")
    for rule in ("random", "low-confidence", "high-confidence"):
        left.plot(shares, data["limit"][rule], color=COLOURS[rule], label=NAMES[rule])
        rows = [row for row in data["tables"]["measured"] if row["rule"] == rule]
        left.errorbar(
            [row["share"] for row in rows],
            [row["error"] for row in rows],
            [2 * row["standard_error"] for row in rows],
            color=COLOURS[rule],
            linestyle="none",
            marker=MARKS[rule],
            markerfacecolor="white",
        )
    left.plot(shares, data["limit"]["one-sided"], color=PURPLE, linestyle=":", label="one-sided (lowest residuals)")
    left.set(
        xlabel="edited share a", ylabel="error after one edit / v", xlim=(0, 1), ylim=(1, 2.2),
        title=f"T = {data['T']}, d = {data['d']}",
    )  # fmt: skip
    left.legend(loc="lower right")
    for rule in ("low-confidence", "high-confidence"):
        rows = [row for row in data["tables"]["finite"] if row["rule"] == rule]
        right.plot(
            [row["T"] for row in rows],
            [row["gap_times_T"] for row in rows],
            color=COLOURS[rule],
            marker=MARKS[rule],
            label=NAMES[rule],
        )
    right.axhline(0, color="0.4", linewidth=0.8)
    right.set(xscale="log", xlabel="samples T", ylabel="T x (exact - law), units of v", ylim=(-0.7, 0.7))
    right.set_title("finite-T correction, T/d = 10")
    right.legend(loc="center right")
    return fig
