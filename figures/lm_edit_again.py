"""Editing again and again with a real prior: the committed run, beside the paper's table 15."""

from typing import Any

from matplotlib.figure import Figure

from figures.editing_generations import picture

NEEDS: tuple[str, ...] = ("lm_edit_again",)
CAPTION = (
    "Editing the edited text again with SmolLM2-135M-Instruct as a fixed prior, settings of the paper and of its "
    "released code; committed run. Bars: two standard errors over documents."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the committed run's generations."""
    return picture(results["lm_edit_again"]["data"]["committed"]["result"])
