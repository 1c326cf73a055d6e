"""Curves of one training run: loss, learning rate and gradient norm by tokens."""

from typing import Any

import matplotlib.figure
import numpy as np

from figures.style import BLUE, GREEN, ORANGE, figure

NEEDS: tuple[str, ...] = ("lm_train",)
CAPTION = (
    "One training run on a mixture of two sources with exact shares: loss of each batch before its update (thin) and "
    "its mean over the last 25 updates, learning rate (warm-up, stable, decay) and gradient norm before clipping."
)
WINDOW = 25  # updates


def draw(results: dict[str, dict[str, Any]]) -> matplotlib.figure.Figure:
    """Draw one panel each for loss, learning rate and gradient norm."""
    curve = results["lm_train"]["data"]["curve"]
    values = {key: np.asarray([row[key] for row in curve]) for key in curve[0]}
    tokens = values["tokens"] / 1e6
    drawn = figure("double", 2.4)
    loss, rate, norm = drawn.subplots(1, 3)
    loss.plot(tokens, values["loss"], color=BLUE, linewidth=0.4, alpha=0.5)
    mean = np.convolve(values["loss"], np.ones(WINDOW) / WINDOW, mode="valid")
    loss.plot(tokens[WINDOW - 1 :], mean, color=BLUE)
    loss.set_ylabel("loss (nats per token)")
    rate.plot(tokens, values["learning_rate"], color=GREEN)
    rate.set_ylabel("learning rate")
    norm.semilogy(tokens, values["gradient_norm"], color=ORANGE, linewidth=0.6)
    norm.set_ylabel("gradient norm")
    for ax in (loss, rate, norm):
        ax.set_xlabel("tokens (millions)")
    return drawn
