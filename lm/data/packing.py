"""From documents to the fixed shapes that a model takes: a packed stream to train on, windows to score."""

import functools
import hashlib

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
