"""Documents cut into windows, and windows into blocks of few shapes, each window in a row of its own.

A row's length follows from its window alone, so that what is computed in it does not depend on what else there is.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lm.editing.documents import TokenizedDocument

SHORTEST, LONGEST = 32, 2**19  # rows
STEP = 8  # row lengths are multiples of it


class Block(NamedTuple):
    """B windows, one a row, T positions; rows behind the last window repeat it.

    Attributes:
        inputs: ids, int32, (B, T): end-of-text before a document's first token.
        targets: the next ids, int32, (B, T).
        editable: whether a target may be changed, bool, (B, T).
        document: number of each row's document, int64, (B,).
        begin: position in its document of each row's first target, int64, (B,).
        scored: where the row's own targets begin and end, int64, (B, 2); empty in rows that repeat another.
    """

    inputs: np.ndarray
    targets: np.ndarray
    editable: np.ndarray
    document: np.ndarray
    begin: np.ndarray
    scored: np.ndarray


def spans(lengths: np.ndarray, context: int) -> np.ndarray:
    """Return the windows of documents: document, first target held, first one scored, behind the last; (n, 4).

    A document's first window holds its first `context` targets, each later one half as many new ones behind as many
    of the window before, so that every token behind the first window sees at least half a window.

    Args:
        lengths: tokens of each document.
        context: longest window.
    """
    stride = max(1, context // 2)
    number = np.where(lengths > 0, 1 + -(-np.maximum(lengths - context, 0) // stride), 0)
    document = np.repeat(np.arange(len(lengths)), number)
    later = np.arange(len(document)) - np.repeat(np.cumsum(number) - number, number)
    behind = np.minimum(context + later * stride, lengths[document])
    scored = np.where(later > 0, context + (later - 1) * stride, 0)
    held = np.where(later > 0, np.maximum(context + later * stride - context, 0), 0)
    return np.stack([document, held, scored, behind], axis=1)


def row_lengths(sizes: np.ndarray, context: int, parts: int = 8) -> np.ndarray:
    """Return the length of each window's row: the least possible one that holds it, or the context.

    Args:
        sizes: tokens of each window.
        context: longest row.
        parts: possible lengths to a doubling, a power of 2: with 8, rows are padded by a sixteenth on average; fewer
            where rows are short, as all are multiples of `STEP`.
    """
    lengths, one = [], SHORTEST
    while one < min(context, LONGEST):
        lengths += range(one, 2 * one, max(STEP, one // parts))
        one *= 2
    found = np.asarray([*(one for one in lengths if one < context), context])
    return found[np.searchsorted(found, sizes)]


def blocks(
    documents: Sequence[TokenizedDocument],
    end: int,
    context: int,
    positions: int,
    devices: int = 1,
    parts: int = 8,
) -> Iterator[Block]:
    """Cut documents into windows and yield them in blocks of devices * max(1, positions // T) rows of T positions.

    The shape follows from T alone: products of another number of rows may take their sums in another order.

    Args:
        documents: empty ones have no windows.
        end: end-of-text id, what a document's first token follows.
        context: longest window, in tokens.
        positions: of a block on each device; a longer row is a block of its own.
        devices: which share the rows of a block.
        parts: see `row_lengths`.
    """
    windows = spans(np.asarray([len(one.tokens) for one in documents], np.int64), context)
    lengths = row_lengths(windows[:, 3] - windows[:, 1], context, parts)
    # The longest first: what is computed side by side then ends together.
    for T in np.unique(lengths)[::-1].tolist():
        chosen, B = windows[lengths == T], devices * max(1, positions // T)
        for first in range(0, len(chosen), B):
            yield _block(documents, end, chosen[first : first + B], (B, T))


def _block(documents: Sequence[TokenizedDocument], end: int, windows: np.ndarray, shape: tuple[int, int]) -> Block:
    inputs, targets = np.full(shape, end, np.int32), np.full(shape, end, np.int32)
    editable = np.zeros(shape, bool)
    row = np.minimum(np.arange(shape[0]), len(windows) - 1)
    for b, (document, held, _, behind) in enumerate(windows.tolist()):
        tokens = documents[document].tokens
        editable[b, : behind - held] = documents[document].editable[held:behind]
        targets[b, : behind - held] = tokens[held:behind]
        begin = 1 if held == 0 else 0
        inputs[b, begin : behind - held] = tokens[held - 1 + begin : behind - 1]
    scored = windows[row, 2:] - windows[row, 1:2]
    scored[len(windows) :] = 0
    return Block(inputs[row], targets[row], editable[row], windows[row, 0], windows[row, 1], scored)
