"""What an edit did: probabilities before and after, edit rates by domain, the most frequent substitutions."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, COLOURS, GREY, ORANGE, figure

# Share of tokens in each tenth of [0, 1], per cent: table 6 of Zhu et al., as in paper/data/paper-tables.csv.
TABLE_6 = (34.7, 8.1, 5.4, 4.4, 3.8, 3.6, 3.7, 4.0, 5.2, 27.1)
MOST_DOMAINS = 12
MOST_SUBSTITUTIONS = 15
_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def label(text: str, longest: int = 14) -> str:
    """Return text that every font has: spaces visible, what is not Latin by its number, cut if it is long."""
    made = ""
    for character in text:
        if character in _SIGNS:
            made += _SIGNS[character]
        elif ord(character) < 0x250 and unicodedata.category(character)[0] != "C":
            made += character
        else:
            made += f"<{ord(character):x}>"
    return made if len(made) <= longest else f"{made[: longest - 1]}…"


def picture(summary: Mapping[str, Any]) -> Figure:
    """Draw what `lm.editing.statistics.summary` returned.

    Left: tokens of the sampled documents by probability before and after the edit, the thresholds (dotted) and the
    paper's table 6, another corpus and prior (crosses). Middle: selected tokens and the effective edit rate, tokens
    that end up different, by domain; bars are two standard errors over documents. Right: the most frequent
    substitutions.
    """
    drawn = figure("double", 3.0)
    left, middle, right = drawn.subplots(1, 3, width_ratios=(4, 4, 3))
    _probabilities(left, summary)
    _rates(middle, summary)
    _substitutions(right, summary)
    return drawn


def _probabilities(ax: Axes, summary: Mapping[str, Any]) -> None:
    found = summary["sample"]["total"]
    for name, colour in (("before", BLUE), ("after", ORANGE)):
        counts = np.asarray(found["probability"][name]["histogram"], float)
        edges = np.linspace(0, 1, len(counts) + 1)
        if counts.sum():
            # Density, so that bins of any width compare.
            ax.stairs(counts / counts.sum() * len(counts), edges, color=colour, label=name, linewidth=1)
    middles = np.arange(0.05, 1, 0.1)
    ax.plot(middles, np.asarray(TABLE_6) / 10, "x", color=GREY, markersize=4, label="Zhu et al., table 6")
    config = summary["config"]
    for threshold in {config["threshold"], *([config["upper"]] if config["select"] == "band" else [])}:
        ax.axvline(threshold, color=BLACK, linestyle=":", linewidth=0.8)
    if config["delete_below"]:
        ax.axvline(config["delete_below"], color=BLACK, linestyle=":", linewidth=0.8)
    ax.set(yscale="log", xlim=(-0.01, 1.01), xlabel="probability of a token", ylabel="density of tokens")
    ax.set_title(f"sample: {found['tokens']:,} tokens, {found['documents']:,} documents")
    ax.legend(loc="upper center")


def _rates(ax: Axes, summary: Mapping[str, Any]) -> None:
    rows = sorted(summary["domains"].items(), key=lambda item: (-item[1]["tokens"], item[0]))[:MOST_DOMAINS]
    rows.append(("all", summary["total"]))
    lowest = np.inf
    for name, marker, colour, title in (
        ("selected_share", "s", GREY, "selected"),
        ("effective_edit_rate", "o", COLOURS["edit"], "changed"),
    ):
        values = np.asarray([100 * (row[name]["value"] or 0.0) for _, row in rows])
        errors = np.asarray([200 * (row[name]["standard_error"] or 0.0) for _, row in rows])
        places = np.arange(len(rows))[::-1]
        shown = values > 0  # a rate of 0 has no place on a logarithmic axis
        # An error as large as its value would reach to 0, which has none either.
        below = np.minimum(errors, 0.9 * values)
        ax.errorbar(
            values[shown], places[shown], xerr=(below[shown], errors[shown]), fmt=marker, color=colour, capsize=2,
            label=title,
        )  # fmt: skip
        lowest = min(lowest, *(values - below)[shown]) if shown.any() else lowest
    ax.set_yticks(range(len(rows)), [label(name, 20) for name, _ in reversed(rows)], parse_math=False)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    if np.isfinite(lowest):
        ax.set_xscale("log")
        ax.set_xlim(lowest / 2, 200)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2)
    ax.set_xlabel("tokens (%), ± 2 standard errors")


def _substitutions(ax: Axes, summary: Mapping[str, Any]) -> None:
    rows = summary["substitutions"]["rows"][:MOST_SUBSTITUTIONS]
    names = [f"{label(row['old'])} → {'∅' if row['new'] is None else label(row['new'])}" for row in rows]
    ax.barh(range(len(rows)), [row["count"] for row in reversed(rows)], color=COLOURS["edit"], height=0.7)
    ax.set_yticks(range(len(rows)), names[::-1], fontsize=6, parse_math=False)
    ax.set_xlabel("times")
    ax.grid(visible=False, axis="y")
    if not rows:
        ax.set_title("no token changed")
