"""Documents cut into windows, and windows into blocks of few shapes.

The length of the row in which a window lies follows from the window alone, so that what is computed for it does not
depend on what else there is. Where the device attends to the windows of a row as to each alone (`lm.model.packed`), a
row holds several; elsewhere one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lm.editing.documents import TokenizedDocument
from lm.evaluation.windows import pack_counted
from lm.model.packed import PADDING

SHORTEST, LONGEST = 32, 2**19  # rows
STEP = 8  # row lengths are multiples of it


class Block(NamedTuple):
    """Windows in B rows of T positions; what holds nothing has end-of-text ids.

    Attributes:
        inputs: ids, int32, (B, T): end-of-text before a document's first token.
        targets: the next ids, int32, (B, T).
        editable: whether a target may be changed, bool, (B, T).
        document: number of each target's document, int32, (B, T).
        position: of each target in its document, int32, (B, T).
        scored: whether a target is this window's to score, bool, (B, T).
        segments: number of the window in its row, int32, (B, T), `PADDING` where nothing is; None: one window a row.
        most: windows of a row; None: one.
    """

    inputs: np.ndarray
    targets: np.ndarray
    editable: np.ndarray
    document: np.ndarray
    position: np.ndarray
    scored: np.ndarray
    segments: np.ndarray | None
    most: int | None


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
    held = later * stride
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
    parts: int | None = 8,
) -> Iterator[Block]:
    """Cut documents into windows and yield them in blocks of devices * max(1, positions // T) rows of T positions.

    The shape follows from T alone: products of another number of rows may take their sums in another order.

    Args:
        documents: empty ones have no windows.
        end: end-of-text id, what a document's first token follows.
        context: longest window, in tokens.
        positions: of a block on each device; a longer row is a block of its own.
        devices: which share the rows of a block.
        parts: see `row_lengths`; None: several windows a row, as `lm.evaluation.windows.pack_counted` puts them.
    """
    windows = spans(np.asarray([len(one.tokens) for one in documents], np.int64), context)
    sizes = windows[:, 3] - windows[:, 1]
    if parts is None:
        for T, most, rows in pack_counted(sizes):
            B = devices * max(1, positions // T)
            for first in range(0, len(rows), B):
                yield _block(documents, end, windows, rows[first : first + B], (B, T), most)
        return
    lengths = row_lengths(sizes, context, parts)
    # The longest first: what is computed side by side then ends together.
    for T in np.unique(lengths)[::-1].tolist():
        rows, B = np.flatnonzero(lengths == T)[:, None].tolist(), devices * max(1, positions // T)
        for first in range(0, len(rows), B):
            yield _block(documents, end, windows, rows[first : first + B], (B, T), None)


def _block(
    documents: Sequence[TokenizedDocument],
    end: int,
    windows: np.ndarray,
    rows: Sequence[Sequence[int]],
    shape: tuple[int, int],
    most: int | None,
) -> Block:
    inputs, targets = np.full(shape, end, np.int32), np.full(shape, end, np.int32)
    editable, scored = np.zeros(shape, bool), np.zeros(shape, bool)
    number, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments = None if most is None else np.full(shape, PADDING, np.int32)
    for b, row in enumerate(rows):
        at = 0
        for segment, window in enumerate(row):
            document, held, first, behind = windows[window].tolist()
            to, tokens = slice(at, at + behind - held), documents[document].tokens
            targets[b, to], editable[b, to] = tokens[held:behind], documents[document].editable[held:behind]
            begin = 1 if held == 0 else 0
            inputs[b, at + begin : to.stop] = tokens[held - 1 + begin : behind - 1]
            number[b, to], position[b, to] = document, np.arange(held, behind)
            scored[b, at + first - held : to.stop] = True
            if segments is not None:
                segments[b, to] = segment
            at = to.stop
    return Block(inputs, targets, editable, number, position, scored, segments, most)
