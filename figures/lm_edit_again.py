"""Editing again and again with a real prior: the committed run, beside the paper's table 15."""

from typing import Any

from matplotlib.figure import Figure

from figures.editing_generations import picture

NEEDS: tuple[str, ...] = ("lm_edit_again",)
CAPTION = (
    "Editing the edited text again with SmolLM2-135M-Instruct as a fixed prior, settings of the paper and of its "
    "released code; committed run. Left: share of tokens above .99 in units of its start, and what the first pass "
    "predicts without crossings (dashed; band: two standard errors of the difference over documents); squares: the "
    "paper's table 15. Middle: bars, the exact expected loss of each edit; points, the measured fall. Right: new 1- to "
    "4-grams."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the committed run's generations."""
    return picture(results["lm_edit_again"]["data"]["committed"]["result"])
