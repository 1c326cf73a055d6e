"""What the figures of the experiments share: arms of a committed result, and the live cells on top of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from figures.style import BLACK

Row = dict[str, Any]
LIVE = "made in this run"
BARS, SEEDS = 1.8, 1.9  # drawn in this order, then the means: a mean is never hidden by its seeds


def last_arms(data: Mapping[str, Any], domain: str) -> list[Row]:
    """Return the arms of a domain at the end of training, in the order of the result."""
    rows = data["tables"]["arms"]
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["domain"] == domain and row["step"] == last]


def last_cells(data: Mapping[str, Any] | None, domain: str) -> list[Row]:
    """Return each model's row of a domain at the end of training; none where there is no result."""
    rows = data["tables"]["perplexity"] if data else []
    last = max((row["step"] for row in rows), default=0)
    return [row for row in rows if row["domain"] == domain and row["step"] == last]


def bars(ax: Axes, x: Sequence[float], rows: Sequence[Row], **line: Any) -> None:
    """Draw the mean change with 95 % half-widths over seeds; an arm of one seed has no bar."""
    half = [row["change_half_width"] or 0.0 for row in rows]
    _, caps, lines = ax.errorbar(x, [row["change"] for row in rows], half, elinewidth=0.8, capsize=1.5, **line)
    for part in (*caps, *lines):
        part.set_zorder(BARS)


def dots(ax: Axes, x: Callable[[Row], float], rows: Sequence[Row], colour: Callable[[Row], str]) -> None:
    """Draw single seeds."""
    for row in rows:
        ax.plot(
            x(row),
            row["change"],
            ".",
            color=colour(row),
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=SEEDS,
        )


def live_marks(ax: Axes, x: Callable[[Row], float], rows: Sequence[Row]) -> None:
    """Draw the models of this run as open circles."""
    if rows:
        ax.plot([x(row) for row in rows], [row["change"] for row in rows], "o", markerfacecolor="none",
                markeredgecolor=BLACK, markersize=5, markeredgewidth=0.7, label=LIVE)  # fmt: skip


def mean_by(rows: Sequence[Row], keys: Sequence[str], value: str) -> dict[tuple[Any, ...], float]:
    """Return means over seeds of a column, by the given columns."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row[value])
    return {key: float(np.mean(values)) for key, values in found.items()}
