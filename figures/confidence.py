"""Figure: confidence editing over generations."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, COLOURS, GREY, ORANGE, VERMILION, band, figure

NEEDS: tuple[str, ...] = ("confidence",)
CAPTION = (
    "Confidence editing over generations (T = 200, d = 10; bands are two standard errors). Left: with half of the rows "
    "edited first, confidence editing levels off; random editing of the same shares ends far higher, and random "
    "editing of a constant share collapses. Middle: the edited share falls by itself, by about its first value a_1 a "
    "generation while T/d is large (dotted: a_1^k) and slower at T/d = 20. Right: error after twelve fits against "
    "sqrt(d/T) at a_1 = 0.5, with the parabola's value at 0 and the state evolution's (star), which it must meet."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the three panels."""
    data = results["confidence"]["data"]
    fig = figure("double", 2.7)
    left, middle, right = fig.subplots(1, 3)
    half = next(entry for entry in data["curves"] if entry["share"] == 0.5)
    for rule, label, style in (
        ("random", "random, share 0.5", "-"),
        ("random-same-shares", "random, falling share", "--"),
        ("low-confidence", "low confidence", "-"),
        ("high-confidence", "high confidence", "-"),
    ):
        curve = half[rule]
        shown = curve["error"][:25]
        band(
            left, np.arange(1, len(shown) + 1), shown, curve["standard_error"][:25],
            color=COLOURS[rule.removesuffix("-same-shares")], linestyle=style, label=label,
        )  # fmt: skip
    limit = next(row for row in data["limits"] if row["rule"] == "high-confidence" and row["share"] == 0.5)
    left.plot(np.arange(1, 26), limit["error"][:25], color=BLACK, linestyle=":", label="high conf., $T/d \\to \\infty$")
    left.axhline(2, color=GREY, linewidth=0.8)
    left.text(25, 2.03, "paper's bound", ha="right", va="bottom", fontsize=6.5, color="0.35")
    left.set(ylim=(1, 5.4), xlabel="generation", ylabel="error / v", title="first edited share 0.5")
    left.legend(loc="upper right", fontsize=6)

    for entry, colour in zip(data["curves"], (BLUE, ORANGE, VERMILION), strict=True):
        share = np.asarray(entry["high-confidence"]["share"])
        se = np.asarray(entry["high-confidence"]["share_standard_error"])
        shown = int(np.argmax(share < 2e-4)) or len(share)
        steps = np.arange(1, shown + 1)
        band(middle, steps, share[:shown], se[:shown], color=colour, label=f"$a_1$ = {entry['share']}")
        ideal = entry["share"] ** steps
        middle.plot(steps[ideal > 2e-4], ideal[ideal > 2e-4], color=colour, linestyle=":", linewidth=1)
    middle.set(yscale="log", ylim=(2e-4, 1), xlabel="edit", ylabel="edited share", title="high confidence")
    middle.legend(loc="upper right")

    last = max(row["generation"] for row in data["tables"]["approach"])
    rows = [row for row in data["tables"]["approach"] if row["generation"] == last]
    fit = next(row for row in data["tables"]["extrapolation"] if row["generation"] == last)
    x = np.sqrt([1 / row["ratio"] for row in rows])
    right.errorbar(
        x, [row["error"] for row in rows], [2 * row["standard_error"] for row in rows], color=COLOURS["edit"],
        marker="o", linestyle="none", label=f"d = {data['approach_d']}",
    )  # fmt: skip
    right.errorbar(
        [0.0], [fit["extrapolated"]], [2 * fit["standard_error"]], color=ORANGE, marker="s", linestyle="none",
        label="extrapolated",
    )  # fmt: skip
    right.plot([0.0], [fit["state_evolution"]], color=BLACK, marker="*", markersize=8, linestyle="none",
               label="state evolution")  # fmt: skip
    right.set(
        xlabel="$\\sqrt{d/T}$", ylabel=f"error / v, generation {last}", title="approach to the limit",
        xlim=(-0.02, 0.34),
    )  # fmt: skip
    right.legend(loc="upper left")
    return fig
