"""What an edit of real text with a real prior did: the committed run."""

from typing import Any

from matplotlib.figure import Figure

from figures.editing import picture

NEEDS: tuple[str, ...] = ("lm_edit",)
CAPTION = (
    "Token-level editing of five domains with SmolLM2-135M-Instruct as the prior, settings of the released code "
    "(P > .99, 8 candidates, temperature 1.5); committed run, see the table for its size and the live sample. Edited "
    "passages stand side by side in edits.html."
)


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the committed run's statistics."""
    return picture(results["lm_edit"]["data"]["committed"]["summary"])
