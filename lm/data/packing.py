"""From documents to the fixed shapes that a model takes: a packed stream to train on, windows to score."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np

from lm.data.corpus import Corpus
from lm.errors import InputError

GROUP = 65536  # consecutive documents of an order whose places are in memory together
MOST_SPANS = 64  # documents read between two releases of mapped pages: one read maps up to 64 KiB


class Order:
    """A random order of the numbers below n, any of them found without the others: a keyed Feistel network.

    A network of balanced halves permutes the numbers below the next power of four; a number that leads to n or
    above is sent through again until it does not (Black and Rogaway 2002, "Ciphers with arbitrary finite
    domains").
    """

    _ROUNDS = 6

    def __init__(self, n: int, key: str):
        """Choose the order that belongs to a key.

        Args:
            n: how many numbers.
            key: any text.
        """
        self._n = n
        self._half = np.uint64(max(2, ((n - 1).bit_length() + 1) // 2))
        content = hashlib.blake2b(key.encode(), digest_size=8 * self._ROUNDS).digest()
        self._keys = np.frombuffer(content, "<u8").astype(np.uint64)

    def __call__(self, rank: np.ndarray) -> np.ndarray:
        """Return the numbers at some ranks, int64, shape as given."""
        number = self._once(rank.astype(np.uint64))
        while (outside := number >= self._n).any():
            number[outside] = self._once(number[outside])
        return number.astype(np.int64)

    def _once(self, number: np.ndarray) -> np.ndarray:
        mask = np.uint64((1 << int(self._half)) - 1)
        left, right = number >> self._half, number & mask
        for key in self._keys:
            # The finaliser of splitmix64 (Steele et al. 2014): every output bit depends on every input bit.
            mixed = right + key
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
        return (left << self._half) | right


class Stream:
    """An endless stream of ids: the documents in a random order, then in another, an end-of-text id before each.

    Any stretch of it is found without what comes before, in memory that does not grow with the corpus.

    Attributes:
        epoch: ids of one pass over the documents, end-of-text ids included.
    """

    def __init__(self, corpus: Corpus, end: int, key: str):
        """Choose the stream that belongs to a key.

        Args:
            corpus: documents.
            end: end-of-text id.
            key: of the orders.

        Raises:
            InputError: an empty corpus.
        """
        if not len(corpus.tokens):
            raise InputError("the training corpus has no tokens; give documents with text")
        self._corpus, self._end, self._key = corpus, end, key
        self._groups = -(-len(corpus) // GROUP)
        self.epoch = len(corpus.tokens) + len(corpus)
        self._spans = 0
        # Two of each: a stretch may cross from one to the next.
        self._order = functools.lru_cache(maxsize=2)(self._order_of)
        self._group = functools.lru_cache(maxsize=2)(self._group_of)

    def _order_of(self, epoch: int) -> tuple[Order, np.ndarray]:
        """Return the order of an epoch and where its groups start in it."""
        order = Order(len(self._corpus), f"{self._key}/{epoch}")
        totals = [int(self._places(order, group)[2][-1]) for group in range(self._groups)]
        return order, np.concatenate([[0], np.cumsum(totals)])

    def _places(self, order: Order, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return, for the documents of a group, the first token, the length and where they start in the group."""
        number = order(np.arange(group * GROUP, min((group + 1) * GROUP, len(self._corpus))))
        first, behind = self._corpus.starts[number], self._corpus.starts[number + 1]
        self._corpus.release()
        return first, behind - first, np.concatenate([[0], np.cumsum(behind - first + 1)])

    def _group_of(self, epoch: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._places(self._order(epoch)[0], group)

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `count` ids of the stream from position `start`, and the documents that they are of.

        Returns:
            ids: shape (count,), int32.
            segment: number of the document among those of the stretch, shape (count,), int32.
        """
        ids, segment = np.empty(count, np.int32), np.empty(count, np.int32)
        filled, seen = 0, -1
        while filled < count:
            epoch, place = divmod(start + filled, self.epoch)
            starts = self._order(epoch)[1]
            group = int(np.searchsorted(starts, place, side="right")) - 1
            first, length, offset = self._group(epoch, group)
            place -= int(starts[group])
            at = int(np.searchsorted(offset, place, side="right")) - 1
            while filled < count and at < len(first):
                skipped, origin = place - int(offset[at]), int(first[at])
                size = min(int(length[at]) + 1 - skipped, count - filled)
                # A stretch that starts inside a document has a part of it as its first segment.
                seen += 1
                segment[filled : filled + size] = seen
                text = filled if skipped else filled + 1
                if not skipped:
                    ids[filled] = self._end
                token = origin + max(skipped - 1, 0)
                ids[text : filled + size] = self._corpus.tokens[token : token + filled + size - text]
                filled, place, at = filled + size, place + size, at + 1
                self._spans += 1
        if self._spans >= MOST_SPANS:
            self._spans = 0
            self._corpus.release()
        return ids, segment

    def row(self, number: int, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a row of the packed stream: inputs, targets (the next ids) and segments, each (T,), int32.

        Row r has the positions r T to (r + 1) T as inputs and the next ones as targets, so every position but
        the first is a target once; a document that is longer goes on in the next row.
        """
        ids, segment = self.take(number * context, context + 1)
        return ids[:-1], ids[1:], segment[:-1]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of single documents in which every token is a scored target exactly once.

    Attributes:
        inputs: ids, shape (N, T), int32; end-of-text before a document's first token, padding after its last.
        targets: the next ids, shape (N, T), int32.
        place: position of each scored target in the corpus' `tokens`, -1 where a target is not scored, (N,
            T), int64.
    """

    inputs: np.ndarray
    targets: np.ndarray
    place: np.ndarray


def windows(corpus: Corpus, end: int, context: int, stride: int | None = None) -> Windows:
    """Cut each document into windows, all in memory; what `window_blocks` yields, as one block."""
    blocks = list(window_blocks(corpus, end, context, stride))
    if not blocks:
        nothing = np.empty((0, context), np.int32)
        return Windows(nothing, nothing, nothing.astype(np.int64))
    return Windows(*(np.concatenate([getattr(block, field.name) for block in blocks]) for field in _FIELDS))


_FIELDS = dataclasses.fields(Windows)


def window_blocks(
    corpus: Corpus, end: int, context: int, stride: int | None = None, rows: int = 4096
) -> Iterator[Windows]:
    """Cut each document into windows, in the order of the corpus.

    The first window of a document scores its first T tokens after an end-of-text id; each later one scores
    the next `stride` tokens, and the last one what is left, with as much context before as fits.

    Args:
        corpus: documents.
        end: end-of-text id, the context of a document's first token.
        context: T.
        stride: targets of a window after the first, in 1..T; T by default, the disjoint windows of Paloma
            (Magnusson et al. 2023, arXiv 2312.10523).
        rows: windows of a block at most; memory is in proportion to it, not to the corpus.

    Raises:
        InputError: a stride outside 1..T.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise InputError(f"a stride of {stride} does not fit a context of {context}; use 1 to {context}")
    for documents in range(0, len(corpus), GROUP):
        starts = np.asarray(corpus.starts[documents : documents + GROUP + 1])
        lengths = np.diff(starts)
        later = -(-np.maximum(lengths - context, 0) // stride)
        behind = np.cumsum(np.where(lengths > 0, 1 + later, 0))  # windows up to and with each document
        for block in range(0, int(behind[-1]), rows):
            window = np.arange(block, min(block + rows, int(behind[-1])))
            document = np.searchsorted(behind, window, side="right")
            rank = window - behind[document] + 1 + later[document]  # of the window in its document
            done = np.where(rank > 0, context + (rank - 1) * stride, 0)
            until = np.minimum(lengths[document], context + rank * stride)
            yield _cut(corpus, starts[document], lengths[document], done, until, end, context)
            corpus.release()


def _cut(
    corpus: Corpus,
    origin: np.ndarray,
    length: np.ndarray,
    done: np.ndarray,
    until: np.ndarray,
    end: int,
    context: int,
) -> Windows:
    """Return the windows that score the targets from `done` to `until` of documents at `origin`, each (N,)."""
    first = np.maximum(until - context, 0)  # the first target that the window holds
    target = first[:, None] + np.arange(context)
    held = target < until[:, None]
    place = origin[:, None] + np.minimum(target, length[:, None] - 1)
    targets = np.where(held, corpus.tokens[place], end).astype(np.int32)
    previous = np.where(target > 0, corpus.tokens[np.maximum(place - 1, 0)], end)
    inputs = np.where(held, previous, end).astype(np.int32)
    scored = held & (target >= done[:, None])
    return Windows(inputs, targets, np.where(scored, place, -1))
