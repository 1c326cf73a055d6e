"""Iterated editing: the confident share by generation, what the source predicts of it, and the drift of the text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, band, figure

TABLE_15 = (12.5, 11.76, 11.08)  # per cent of tokens, as in paper/data/paper-tables.csv
LINES = {1: "-", 2: "--", 3: "-.", 4: ":"}  # of n-grams
_COLOURS = (GREY, GREEN, PURPLE, BLUE, ORANGE)


def picture(data: Mapping[str, Any], *, table_15: bool = True) -> Figure:
    """Draw what `lm.editing.generations.iterate` returned.

    Left: the selected share in units of the source's; dashed: what the source's candidates predict if contexts did
    not change (bands: two standard errors over documents of the difference from it); squares: the paper's table 15.
    Middle: the fall of each generation (bars of two standard errors) beside the expected loss by redraws, exact given
    the prior: the rest are tokens whose context changed, and chance. Right: n-grams that the source did not have.

    Args:
        data: the result.
        table_15: whether to draw the paper's; of other settings than its own it says nothing.
    """
    drawn = figure("double", 2.9)
    left, middle, right = drawn.subplots(1, 3)
    colours = dict(zip(data["settings"], _COLOURS, strict=False))
    for name, colour in colours.items():
        rows = data["settings"][name]["generations"]
        _share(left, rows, colour, name)
        _drift(right, rows, colour, name)
    if table_15:
        paper = np.asarray(TABLE_15)
        left.plot(range(3), paper / paper[0], "s", color=BLACK, label="paper, table 15")
        middle.plot(range(2), 100 * (1 - paper[1:] / paper[:-1]), "s", color=BLACK)
    _parts(middle, data, colours)
    for n, line in LINES.items():
        right.plot([], [], line, color=BLACK, label=f"n = {n}")
    left.plot([], [], "--", color=BLACK, linewidth=1, label="predicted")
    left.set(xlabel="generation", ylabel="share above p / its start")
    left.legend(loc="lower left", fontsize=6)
    right.set(xlabel="generation", ylabel="n-grams not in the source (%)", ylim=(0, None))
    right.legend(loc="upper left", fontsize=6, ncols=2)
    for ax in (left, right):
        ax.set_xticks([row["generation"] for row in next(iter(data["settings"].values()))["generations"]])
    return drawn


def _column(rows: list[dict[str, Any]], *path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return values and standard errors of each row, float64; NaN where nothing was selected, 0 for unknown errors."""
    found = rows
    for name in path:
        found = [row[name] for row in found]
    return (
        np.asarray([row["value"] for row in found], float),
        np.asarray([row["standard_error"] or 0.0 for row in found], float),
    )


def _share(ax: Axes, rows: list[dict[str, Any]], colour: str, name: str) -> None:
    (share, _), (predicted, _) = _column(rows, "selected_share"), _column(rows, "predicted_share")
    # The error is that of the difference from the prediction, which has the documents' differences in it only once.
    _, error = _column(rows, "more_than_predicted")
    start = share[0] or 1.0
    x = np.arange(len(rows))
    band(ax, x, share / start, error / start, color=colour, marker="o", label=name)
    ax.plot(x, predicted / start, "--", color=colour, linewidth=1)


def _parts(ax: Axes, data: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Draw by how much the share falls, in per cent of it, and the parts of that."""
    width = 0.8 / max(len(colours), 1)
    for place, (name, colour) in enumerate(colours.items()):
        rows = [row for row in data["settings"][name]["generations"] if "edit" in row]
        ratio, error = _column(rows, "edit", "ratio")
        expected, _ = _column(rows, "edit", "expected_again")
        x = np.arange(len(rows)) + (place - (len(colours) - 1) / 2) * width
        loss = 100 * (1 - expected)
        ax.bar(x, loss, width, color=colour, alpha=0.45, label=f"{name}: expected loss")
        ax.errorbar(x, 100 * (1 - ratio), 200 * error, fmt="o", color=colour, capsize=2, label=f"{name}: measured")
    ax.axhline(0, color=VERMILION, linewidth=0.6)
    edits = max(len(entry["generations"]) - 1 for entry in data["settings"].values())
    ax.set_xticks(range(edits), [f"{g} to {g + 1}" for g in range(edits)])
    ax.set(xlabel="generations", ylabel="fall of the share (%)")
    ax.set_ylim(top=1.5 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper right", fontsize=6)


def _drift(ax: Axes, rows: list[dict[str, Any]], colour: str, name: str) -> None:
    later = rows[1:]
    x = np.arange(len(rows))
    for n, line in LINES.items():
        value, error = _column(later, "drift", f"new_{n}grams")
        title = name if n == 1 else None
        band(ax, x, 100 * np.append(0.0, value), 100 * np.append(0.0, error), color=colour, linestyle=line, label=title)
