"""Documents cut into windows in which every token is scored once, packed into rows of few lengths.

A window holds tokens of one document: the first one the document's first tokens after an end-of-text id, each
later one the next `stride` tokens and as much context before them as fits. Windows are packed side by side into
rows of 256, 512, 1024, ... positions (the shortest left out where many windows would leave half of a row empty), and
rows of one length into blocks of one shape, so that a model is compiled once a length and computes on little padding,
whatever the documents' lengths. On some GPUs (`lm.model.packed`) a row holds few windows.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lm.data.corpus import Corpus
from lm.errors import InputError
from lm.model.packed import PADDING

SHORTEST = (256, 512, 1024)  # positions that the shortest rows of a corpus may have
ATTENTION = 1 / 2400  # time of a position's attention for each position of its row, in units of all else (SmolLM2)
STEP = 64  # between the lengths that rows of what is left over may have
LEAST, SHARED, PLACES = 32, (256, 2048), 7  # of `pack_counted`: the shortest rows, those of several windows, how many
POOL = 4096  # windows that are packed together: they bound the memory and, being many, fill the rows


class Block(NamedTuple):
    """Packed windows, arrays of shape (B, T).

    Attributes:
        inputs: ids, int32: end-of-text before a document's first token.
        targets: the next ids, int32.
        segments: number of the window in its row, int32, PADDING where nothing is.
        place: position of each scored target in the corpus' `tokens`, int64, -1 where a target is not scored.
        most: windows of a row; None: any number.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    place: np.ndarray
    most: int | None


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Windows of a corpus by number; each is computed when asked for."""

    starts: np.ndarray
    context: int
    stride: int
    until: np.ndarray  # (n,): windows of the documents up to and including each one

    @classmethod
    def of(cls, corpus: Corpus, context: int, stride: int) -> "_Windows":
        lengths = corpus.lengths
        later = -(-np.maximum(lengths - context, 0) // stride)
        return cls(corpus.starts, context, stride, np.cumsum(np.where(lengths > 0, 1 + later, 0)))

    def __len__(self) -> int:
        return int(self.until[-1]) if len(self.until) else 0

    def spans(self, first: int, last: int) -> np.ndarray:
        """Return the windows first..last - 1: document, first target held, first one scored, behind the last."""
        number = np.arange(first, min(last, len(self)))
        document = np.searchsorted(self.until, number, side="right")
        before = np.where(document > 0, self.until[document - 1], 0)
        later = number - before  # 0 for a document's first window
        length = self.starts[document + 1] - self.starts[document]
        behind = np.minimum(self.context + later * self.stride, length)
        scored = np.where(later > 0, self.context + (later - 1) * self.stride, 0)
        return np.stack([document, np.maximum(behind - self.context, 0), scored, behind], axis=1)


def row_length(tokens: int, shortest: int = SHORTEST[0]) -> int:
    """Return the least of shortest, 2 shortest, 4 shortest, ... that holds a window of so many tokens."""
    return shortest << max(0, -(-tokens // shortest) - 1).bit_length()


def pack(
    sizes: Sequence[int] | np.ndarray,
    length: int | None = None,
    shortest: int = SHORTEST[0],
    most: int | None = None,
) -> list[tuple[int, list[int]]]:
    """Put windows into rows, the longest first, each where it leaves the least room (best fit decreasing).

    Args:
        sizes: tokens of each window.
        length: of every row; by default a row is as long as its longest window needs.
        shortest: length that a row then has at least.
        most: windows of a row; by default any number.

    Returns:
        The length of each row and the numbers of its windows.
    """
    rows: list[tuple[int, list[int]]] = []
    room: list[tuple[int, int]] = []  # what is left and the row, sorted
    for number in np.argsort(-np.asarray(sizes), kind="stable"):
        size = int(sizes[number])
        found = bisect.bisect_left(room, (size, 0))
        if found < len(room):
            left, row = room.pop(found)
            rows[row][1].append(int(number))
        else:
            left, row = length or row_length(size, shortest), len(rows)
            rows.append((left, [int(number)]))
        if left > size and len(rows[row][1]) != most:
            bisect.insort(room, (left - size, row))
    return rows


def pack_counted(sizes: np.ndarray) -> Iterator[tuple[int, int, list[list[int]]]]:
    """Put windows into rows that hold few of them, where a place for one costs time even if it is empty.

    Up to seven share a row of 2048 or 256 positions if they are longer than an eighth of it: on an H200 the best of
    what was tried (scoring with SmolLM2's sizes 12 % faster than three windows a row of 512 or 128 and longer ones
    alone), as few lengths leave few blocks that are partly empty. Longer windows have a row each, whose length is one
    of four to a doubling, and so have those of up to 32 tokens, in rows of 32. A window's size alone decides about the
    row's length and the number of its places.

    Args:
        sizes: tokens of each window.

    Yields:
        The length of rows, how many windows one has at most, and the numbers of each row's windows.
    """
    sizes = np.asarray(sizes, np.int64)
    step = 2 ** np.maximum(np.frexp(sizes - 1.0)[1] - 3, 0)
    lengths = np.where(sizes > SHARED[-1], -(-sizes // step) * step, LEAST)
    for length in np.unique(lengths)[::-1].tolist():
        own = (lengths == length) & ((sizes > SHARED[-1]) | (sizes <= LEAST))
        if own.any():
            yield length, 1, np.flatnonzero(own)[:, None].tolist()
    for length in SHARED:
        number = np.flatnonzero((sizes > length // (PLACES + 1)) & (sizes <= length))
        if len(number):
            yield length, PLACES, [number[some].tolist() for _, some in pack(sizes[number], length, most=PLACES)]


def shortest_rows(sizes: np.ndarray) -> int:
    """Return which of `SHORTEST` lets windows of these sizes be computed in the least time."""
    return min(SHORTEST, key=lambda one: sum(row * (1 + ATTENTION * row) for row, _ in pack(sizes, shortest=one)))


def _fill(corpus: Corpus, end: int, shape: tuple[int, int], rows: list[np.ndarray], most: int | None = None) -> Block:
    """Return the block of some rows; each is the spans of its windows, shape (windows, 4)."""
    block = Block(
        np.full(shape, end, np.int32),
        np.full(shape, end, np.int32),
        np.full(shape, PADDING, np.int32),
        np.full(shape, -1, np.int64),
        most,
    )
    spans = np.concatenate(rows)
    row = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    within = np.concatenate([np.arange(len(one)) for one in rows])
    document, held, scored, behind = spans.T
    size = behind - held
    total = np.cumsum(size) - size  # tokens of the windows before, in all rows
    of_row = np.concatenate([[0], np.cumsum([(one[:, 3] - one[:, 1]).sum() for one in rows])[:-1]])
    begin = row * shape[1] + total - of_row[row]
    step = np.arange(size.sum()) - np.repeat(total, size)
    where = np.repeat(begin, size) + step
    target = np.repeat(held, size) + step
    place = np.repeat(corpus.starts[document], size) + target
    # The token before a document's first one belongs to another document, or is none.
    before = np.where(target > 0, corpus.tokens[np.maximum(place - 1, 0)], end)
    block.inputs.reshape(-1)[where] = before
    block.targets.reshape(-1)[where] = corpus.tokens[place]
    block.segments.reshape(-1)[where] = np.repeat(within, size)
    block.place.reshape(-1)[where] = np.where(target >= np.repeat(scored, size), place, -1)
    return block


def blocks(
    corpus: Corpus, end: int, context: int, positions: int, stride: int | None = None, *, counted: bool = False
) -> Iterator[Block]:
    """Cut a corpus into windows and yield them packed, in memory that does not grow with the corpus.

    Args:
        corpus: documents, perhaps memory-mapped; empty ones have no windows.
        end: end-of-text id, the context of a document's first token.
        context: longest window, in tokens.
        positions: of a block; a longer row is a block of its own.
        stride: targets of a window after a document's first, in 1..context; context by default, the disjoint
            windows of Paloma (Magnusson et al. 2023, arXiv 2312.10523).
        counted: give rows only as many windows as `pack_counted` does.

    Raises:
        InputError: a context below 1, or a stride outside 1..context.
    """
    stride = context if stride is None else stride
    if context < 1:
        raise InputError(f"a context of {context} tokens cannot hold a target; use at least 1")
    if not 1 <= stride <= context:
        raise InputError(f"a stride of {stride} does not fit a context of {context}; use 1 to {context}")
    windows = _Windows.of(corpus, context, stride)
    waiting: dict[tuple[int, int | None], list[np.ndarray]] = {}
    whole = False  # whether a whole block was made
    shortest = 0
    for first in range(0, len(windows), POOL):
        spans = windows.spans(first, first + POOL)
        sizes = spans[:, 3] - spans[:, 1]
        if counted:
            found = (((length, most), numbers) for length, most, rows in pack_counted(sizes) for numbers in rows)
        else:
            shortest = shortest or shortest_rows(sizes)  # the first windows decide, so that shapes stay few
            found = (((length, None), numbers) for length, numbers in pack(sizes, shortest=shortest))
        for (length, most), numbers in found:
            rows = waiting.setdefault((length, most), [])
            rows.append(spans[numbers])
            if len(rows) == max(1, positions // length):
                yield _fill(corpus, end, (len(rows), length), rows, most)
                waiting[length, most], whole = [], True
        corpus.release()
    left = {key: rows for key, rows in waiting.items() if rows}
    if counted:
        for (length, most), rows in left.items():
            yield _fill(corpus, end, (max(1, positions // length), length), rows, most)
    elif left:
        # What is left over goes into rows of one length, so that a small corpus has one shape to compile.
        spans = np.concatenate([row for rows in left.values() for row in rows])
        longest = max(length for length, _ in left) if whole else None
        length, packed = _fewest_blocks(spans[:, 3] - spans[:, 1], positions, longest)
        size = max(1, positions // length)
        for first in range(0, len(packed), size):
            yield _fill(corpus, end, (size, length), [spans[numbers] for numbers in packed[first : first + size]])


def _fewest_blocks(sizes: np.ndarray, positions: int, length: int | None) -> tuple[int, list[list[int]]]:
    """Return a row length for all of some windows, and the windows in each row.

    Args:
        sizes: tokens of each window.
        positions: of a block.
        length: of the rows; by default, of those up to twice the shortest possible, the one with the fewest positions.
    """
    shortest = -(-int(sizes.max()) // STEP) * STEP
    step = max(1, shortest // SHORTEST[0]) * STEP
    tried = []
    for one in (length,) if length is not None else range(shortest, 2 * shortest + 1, step):
        rows = [numbers for _, numbers in pack(sizes, one)]
        B = max(1, positions // one)
        tried.append((-(-len(rows) // B) * B * one, one, rows))
    return min(tried)[1:]
