"""Ids of much text as arrays: each distinct piece is encoded once, each document comes back byte for byte."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm.data.corpus import token_type
from lm.data.tokenizer import PIECE, Tokenizer
from lm.errors import InputError

MOST_KEPT = 300_000  # pieces: about 60 MB
LONGEST_KEPT = 40  # characters; longer pieces hardly ever come again
# Pieces that are encoded as one text, and what is put before each: `PIECE` cuts on both sides of it.
_JOINABLE, _BETWEEN = re.compile(r"[ \n!,.:;?](?s:.*)\S"), " a"


class Encoded(NamedTuple):
    """Ids of some texts.

    Attributes:
        tokens: of all texts, one after the other, shape (m,), uint16 or uint32.
        lengths: tokens of each text.
        sizes: UTF-8 bytes of each text.
    """

    tokens: np.ndarray
    lengths: list[int]
    sizes: list[int]


class Encoder:
    """Encodes texts as `Tokenizer.encode` does, several times as fast where text is much.

    Words repeat, so a table from pieces to ids replaces most of the work, and no list of numbers is made. That the
    ids of a piece decode to the piece is checked when it enters the table, so every text is known to come back.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Start with an empty table."""
        self._tokenizer, self._kind = tokenizer, np.dtype(token_type(tokenizer.size))
        self._table: dict[str, bytes] = {}
        self._width = np.array([len(tokenizer.decode([number])) for number in range(tokenizer.size)])

    def __call__(self, texts: Sequence[str], names: Sequence[str]) -> Encoded:
        """Return the ids of some texts.

        Args:
            texts: to encode.
            names: of the texts, for the message of an error.

        Raises:
            InputError: a text that does not come back from its ids byte for byte.
        """
        sizes = [len(text.encode()) for text in texts]
        if self._tokenizer.separable:
            content, lengths = self._by_pieces(texts, names)
            return Encoded(np.frombuffer(content, self._kind), lengths, sizes)
        encoded = self._tokenizer.encode_whole(texts)
        for name, text, ids in zip(names, texts, encoded, strict=True):
            if self._tokenizer.decode(ids) != text.encode():
                raise _lossy(name)
        lengths = [len(ids) for ids in encoded]
        return Encoded(np.fromiter(itertools.chain.from_iterable(encoded), self._kind, sum(lengths)), lengths, sizes)

    def _by_pieces(self, texts: Sequence[str], names: Sequence[str]) -> tuple[bytes, list[int]]:
        cut = [PIECE.findall(text) for text in texts]
        if len(self._table) > MOST_KEPT:
            self._table = {}
        new = list(set(itertools.chain.from_iterable(cut)).difference(self._table))
        lossy = self._learn(new)
        for piece in lossy:  # a later call must find them lossy again
            del self._table[piece]
        for name, text, pieces in zip(names, texts, cut, strict=True):
            if sum(map(len, pieces)) != len(text) or not lossy.isdisjoint(pieces):
                raise _lossy(name)
        parts = [b"".join(map(self._table.__getitem__, pieces)) for pieces in cut]
        for piece in new:
            if len(piece) > LONGEST_KEPT:
                del self._table[piece]
        return b"".join(parts), [len(part) // self._kind.itemsize for part in parts]

    def _learn(self, pieces: Sequence[str]) -> set[str]:
        """Put pieces into the table; return those that do not come back from their ids."""
        # One long text is encoded several times as fast as many short ones.
        joined = list(filter(_JOINABLE.fullmatch, pieces))
        others = list(itertools.filterfalse(_JOINABLE.fullmatch, pieces))
        if not self._learn_joined(joined):
            others += joined
        encoded = self._tokenizer.encode_whole(others)
        self._table.update(
            (piece, np.array(ids, self._kind).tobytes()) for piece, ids in zip(others, encoded, strict=True)
        )
        return {
            piece
            for piece, ids in zip(others, encoded, strict=True)
            if self._tokenizer.decode(ids) != piece.encode(errors="replace")
        }

    def _learn_joined(self, pieces: Sequence[str]) -> bool:
        """Put pieces into the table, encoded as one text; return whether they come back from their ids."""
        text = "".join(f"{_BETWEEN}{piece}" for piece in pieces)
        (ids,) = self._tokenizer.encode_whole([text])
        if self._tokenizer.decode(ids) != text.encode():
            return False
        ids = np.array(ids, self._kind)
        widths = np.array([(len(_BETWEEN), len(piece.encode())) for piece in pieces], np.int64).reshape(-1)
        ends, wanted = np.cumsum(self._width[ids]), np.cumsum(widths)
        places = np.searchsorted(ends, wanted)
        if not np.array_equal(ends[places], wanted):
            return False
        content, bounds = ids.tobytes(), ((places + 1) * self._kind.itemsize).tolist()
        self._table.update(
            (piece, content[first:behind])
            for piece, first, behind in zip(pieces, bounds[::2], bounds[1::2], strict=True)
        )
        return True


def _lossy(name: str) -> InputError:
    return InputError(f"the tokenizer does not give back the bytes of {name}; use one that does not normalise")
