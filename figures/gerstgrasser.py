"""The grid of Gerstgrasser et al. (2024): d = 32, three sample sizes, five noise levels, 50 generations."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import COLOURS, figure

NEEDS = ("gerstgrasser",)
CAPTION = (
    "Test error by generation in the setting of Gerstgrasser et al. (d = 32; T samples; label-noise variance "
    "from 0.01 to 100). Colour: rule; bands of two standard errors of the literal simulation; black "
    "dots: n v and v times the sum of 1/i^2. Ridgeless errors are exactly proportional to the noise variance, so "
    "the five levels are one simulation, scaled."
)
_RULES = {
    "replace": "replace",
    "accumulate": "accumulate",
    "high-confidence": "edit confident rows, $a_1$ = 0.125",
}


def draw(results: dict[str, dict]) -> Figure:
    """Draws one panel per sample size, five bundles of curves each."""
    result = results["gerstgrasser"]
    variances = result["config"]["noise_variance"]
    chart = figure("double", 3.6)
    sizes = result["config"]["T"]
    axes = chart.subplots(1, len(sizes), sharey=True)
    for ax, T in zip(axes, sizes, strict=True):
        for curve in result["data"]["curves"]:
            if curve["T"] != T:
                continue
            error, se = np.asarray(curve["error"]), np.asarray(curve["standard_error"])
            n = np.arange(1, error.size + 1)
            for variance in variances:
                scale = variance * curve["v"]
                colour = COLOURS[curve["rule"]]
                ax.plot(n, scale * error, color=colour)
                ax.fill_between(
                    n, scale * (error - 2 * se), scale * (error + 2 * se), color=colour, alpha=0.3, linewidth=0
                )
                if curve["theory"]:
                    ax.plot(n[::7], scale * np.asarray(curve["theory"])[::7], "k.", markersize=2.5)
        kept = next(
            curve for curve in result["data"]["curves"] if curve["T"] == T and curve["rule"] == "high-confidence"
        )
        for variance in variances:
            ax.annotate(
                rf"$\sigma^2$={variance:g}", (50, variance * kept["v"] * kept["error"][-1]), xytext=(3, 0),
                va="center", textcoords="offset points", fontsize=6,
            )  # fmt: skip
        ax.set_title(f"T = {T}")
        ax.set_xlabel("generation")
        ax.set_xlim(0, 68)
        ax.set_xticks([1, 10, 20, 30, 40, 50])
        ax.set_yscale("log")
    axes[0].set_ylabel(r"test error $\|w_n - w^*\|^2$ (units of $y^2$)")
    handles = [Line2D([], [], color=COLOURS[name], label=label) for name, label in _RULES.items()]
    handles.append(Line2D([], [], color="k", marker=".", linestyle="none", label="theory"))
    chart.legend(handles=handles, loc="outside lower center", ncols=4)
    return chart
