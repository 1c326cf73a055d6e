"""Token probabilities and perplexity of a pretrained model by domain."""

from typing import Any

import matplotlib.figure
import numpy as np

from figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION, figure

NEEDS: tuple[str, ...] = ("lm_smollm2",)
CAPTION = (
    "SmolLM2-135M-Instruct, a real pretrained prior, on human text and on its own. Left: "
    "share of tokens by the probability that it gives them, to compare with the U-shape of the paper's table 6. "
    "Right: perplexity by domain (bars: two standard errors over works) and bits per byte."
)
COLOURS = (BLUE, ORANGE, GREEN, VERMILION)


def draw(results: dict[str, dict[str, Any]]) -> matplotlib.figure.Figure:
    """Draw the histogram and the perplexities."""
    tables = results["lm_smollm2"]["data"]["tables"]
    drawn = figure("double", 2.6)
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    scores = tables["smollm2-perplexity"]
    colours = dict(zip((row["domain"] for row in scores), COLOURS, strict=False))
    width = 0.1 / (len(scores) + 1)
    for number, (domain, colour) in enumerate(colours.items()):
        rows = [row for row in tables["smollm2-histogram"] if row["domain"] == domain]
        x = np.asarray([row["from"] for row in rows]) + (number + 1) * width
        left.bar(x, [100 * row["share"] for row in rows], width, color=colour, label=domain)
    left.set_axisbelow(True)
    left.set_xticks(np.linspace(0, 1, 11))
    left.set(xlabel="probability of the token", ylabel="tokens (%)", xlim=(0, 1))
    left.legend()
    for place, row in enumerate(reversed(scores)):
        error = 2 * (row["perplexity_error"] or 0.0)
        right.errorbar(row["perplexity"], place, xerr=error, fmt="o", color=colours[row["domain"]], capsize=2)
        right.annotate(
            f"{row['bits_per_byte']:.2f} bits/byte", (row["perplexity"], place), xytext=(0, 5),
            textcoords="offset points", fontsize=6.5, ha="center", color=GREY,
        )  # fmt: skip
    right.set_yticks(range(len(scores)), [row["domain"] for row in reversed(scores)])
    right.set(xlabel="perplexity", xlim=(0, None), ylim=(-0.5, len(scores) - 0.3))
    return drawn
