"""One style for every figure: legible in print, safe for colour-blind readers."""

from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), distinguishable under the common colour-vision deficiencies.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"

COLOURS = {
    "replace": VERMILION,
    "accumulate": BLUE,
    "accumulate-subsample": SKY,
    "fixed-real-share": PURPLE,
    "edit": GREEN,
    "random": ORANGE,
    "disjoint": PURPLE,
    "high-confidence": GREEN,
    "low-confidence": SKY,
    "theory": BLACK,
    "paper": GREY,
}

WIDTHS = {"single": 3.4, "double": 7.0}  # inches: one and two columns of a page

STYLE: Any = {  # matplotlib types the keys one by one
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK]),
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "figure.dpi": 120,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType, so that text in the PDF stays text
    "svg.hashsalt": "toedit",
}


def figure(width: Literal["single", "double"] = "single", height: float = 2.5) -> Figure:
    """Return an empty figure in the project's style.

    Args:
        width: "single" (3.4 inches) or "double" (7 inches).
        height: inches.
    """
    mpl.rcParams.update(STYLE)
    return Figure(figsize=(WIDTHS[width], height), layout="constrained")


def band(ax: Axes, x: Any, mean: Any, standard_error: Any, **line: Any) -> None:
    """Draw a line with a band of two standard errors to each side.

    Args:
        ax: the axes.
        x: shape (n,).
        mean: shape (n,).
        standard_error: shape (n,), in units of `mean`.
        **line: passed to `Axes.plot`; its colour is the band's as well.
    """
    mean, standard_error = np.asarray(mean, float), np.asarray(standard_error, float)
    (drawn,) = ax.plot(x, mean, **line)
    low, high = mean - 2 * standard_error, mean + 2 * standard_error
    ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.25, linewidth=0)
