"""Token toy: divergence from the source, share of confident tokens, effective edit rate."""

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, COLOURS, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, band, figure

NEEDS = ("tokens",)
CAPTION = (
    "Algorithm 1 on a Zipf-Markov source with a bigram model (bands: two standard errors over seeds). Left: "
    "divergence of the model from the source; the dotted arm changes under 0.1 % of the tokens and tests nothing. "
    "Middle: the share of tokens above p = 0.99, in units of its start, beside the paper's Table 15. Right: "
    "confident edits against random edits that change equally many tokens; dotted: the least increase that these seeds "
    "show with power .8."
)
ARMS = {
    "replace": (COLOURS["replace"], "-"),
    "accumulate": (COLOURS["accumulate"], "-"),
    "edit, p = 0.5": (ORANGE, "-"),
    "edit, p = 0.9": (PURPLE, "-"),
    "edit, released, first prior": (GREEN, "-"),
    "edit, paper, first prior": (GREY, ":"),
}
SHARES = {
    "edit, paper, first prior": ("T = 1, fixed prior", GREY),
    "edit, released, first prior": ("T = 1.5, fixed prior", GREEN),
    "edit, paper, own prior": ("T = 1, own prior", SKY),
    "edit, released, own prior": ("T = 1.5, own prior", PURPLE),
}
PAIRS = {
    "edit, released, first prior": ("random, rate of released, first prior", GREEN, "p > 0.99, T = 1.5"),
    "edit, p = 0.5": ("random, rate of p = 0.5", ORANGE, "p = 0.5, T = 1"),
}


def draw(results: dict[str, dict]) -> Figure:
    """Draws the figure from the result file of the step `tokens`."""
    data = results["tokens"]["data"]
    arms = data["arms"]
    fig = figure("double", 2.9)
    axes = fig.subplots(1, 3)
    x = np.arange(len(arms["replace"]["kl"]["mean"]))

    ax = axes[0]
    for name, (colour, line) in ARMS.items():
        arm = arms[name]
        band(ax, x, arm["kl"]["mean"], arm["kl"]["se"], color=colour, linestyle=line, label=name)
    ax.set(xlabel="generation", ylabel="KL(source || model), nats a token", ylim=(0, None))
    ax.legend(loc="upper left", fontsize=6)
    ax.set_ylim(0, 1.6 * ax.get_ylim()[1])

    ax = axes[1]
    for name, (label, colour) in SHARES.items():
        share = arms[name]["selected"]
        start = share["mean"][0]
        band(ax, x, np.array(share["mean"]) / start, np.array(share["se"]) / start, color=colour, label=label)
    table = np.cumprod([1.0, *data["table_15"]["paper"]])
    ax.plot(x[: len(table)], table, color=BLACK, marker="s", linestyle="none", label="Table 15 of the paper")
    ax.set(xlabel="generation", ylabel="share above 0.99 / its start", ylim=(0, 1.65))
    ax.legend(loc="upper right", fontsize=6)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])

    ax = axes[2]
    for name, (twin, colour, label) in PAIRS.items():
        for arm, line, kind in ((name, "-", "confident"), (twin, "--", "random")):
            change = arms[arm]["kl_change"]
            band(
                ax, x[1:], change["mean"][1:], change["se"][1:], color=colour, linestyle=line, label=f"{kind}: {label}"
            )
    least = data["source"]["minimal_detectable_kl"]
    ax.axhline(least, color=VERMILION, linewidth=0.8, linestyle=":")
    ax.text(x[-1], 0.9 * least, "seen with power .8", ha="right", va="top", color=VERMILION, fontsize=6)
    ax.set_yscale("log")
    ax.set(xlabel="generation", ylabel="increase of KL, nats a token")
    ax.legend(loc="upper left", fontsize=6)
    ax.set(ylim=(ax.get_ylim()[0], 30 * ax.get_ylim()[1]), xlim=(0.7, x[-1] + 0.3))
    for ax in axes:
        ax.set_xticks(x[::2])
    return fig
