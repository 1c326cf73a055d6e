"""One pass of a model over the windows of a corpus, in blocks of a fixed shape.

Every block has the same shape whatever the caller passes, so nothing recompiles, and a document's numbers do
not depend on how many others are scored with it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from lm.model import Decoder
from lm.packing import Windows

Array = jax.Array

ROWS = 32  # windows a block


def blocks(number: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows of each block, padded by repeating the last row, and how many of them are new."""
    for start in range(0, number, ROWS):
        rows = np.arange(start, start + ROWS)
        yield np.minimum(rows, number - 1), min(ROWS, number - start)


def split(model: Decoder) -> tuple[Any, Any]:
    """Return (graph, state): what a jitted function of a model takes instead of the model."""
    return nnx.split(model)


def over_windows(
    model: Decoder, windows: Windows, function: Callable[..., tuple[Array, ...]], *arrays: np.ndarray
) -> list[np.ndarray]:
    """Apply function(graph, state, inputs, targets, *rows of arrays) to all windows, block by block.

    Args:
        model: to pass, split.
        windows: N of them.
        function: jitted, graph static; returns arrays of shape (ROWS, ...).
        *arrays: more arguments, shape (N, ...).

    Returns:
        The function's results for all windows, shapes (N, ...).
    """
    graph, state = split(model)
    parts: list[list[np.ndarray]] = []
    for rows, new in blocks(len(windows.inputs)):
        result = function(graph, state, windows.inputs[rows], windows.targets[rows], *(a[rows] for a in arrays))
        parts.append([np.asarray(array)[:new] for array in result])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
