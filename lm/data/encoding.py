"""Ids of much text as arrays: each distinct piece is encoded once, each document comes back byte for byte."""

import collections
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lm.data.corpus import token_type
from lm.data.tokenizer import PIECE, Tokenizer
from lm.errors import InputError

MOST_KEPT = 300_000  # words, and as many parts, of 8 ids on average: about 60 MB each

# What only Python takes for whitespace (\x1c to \x1f) is none for the tokenizers.
_SPACE, _OTHER = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
# GPT-2's pattern cuts before all whitespace and looks at nothing beyond.
_WORD = re.compile(rf"{_SPACE}*+{_OTHER}++|{_SPACE}++")
# A part of a word is what GPT-2's pattern finds there if only ASCII and the dashes, quotation marks and bullets of
# Unicode decide about it (which are punctuation in every version), else the rest of the word. Several spaces are left
# with a digit that follows, as all of them stay together where digits are cut off first.
_MARKS = r"!-/:-@\[-`{-~\u2010-\u2027"
_SURE = rf"(?![^A-Za-z0-9{_MARKS}])"
_PART = re.compile(
    rf" ?[A-Za-z]++{_SURE}|'(?:[stmd]|re|ve|ll)| ?(?:[0-9]++|[{_MARKS}]++){_SURE}"
    rf"|{_SPACE}+(?={_SPACE}[A-Za-z{_MARKS}])|[^\S \x1c-\x1f](?=[A-Za-z0-9{_MARKS}])"
    rf"|{_SPACE}*+{_OTHER}++|{_SPACE}++"
)
# Pieces that can follow each other in one text without a change of their ids: those that begin with a lone space; and,
# with a text before each at whose both ends the tokenizer cuts, those that a second pattern matches.
_SPACED = re.compile(r" (?=\S)(?s:.*)\S")
_LIKE_GPT2 = re.compile(rf"{_OTHER}++"), "\n"
_ANY = re.compile(r"[\s!-&(-/:-@\[-`{-~](?s:.*)\S"), " a"


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


class _Rows(NamedTuple):
    """Ids of some texts.

    Attributes:
        tokens: of all texts, one after the other, uint16 or uint32.
        lengths: tokens of each text.
        lossy: whether the ids of each text do not decode to it, bool.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    lossy: np.ndarray


class _Table:
    """Ids of texts by those of their pieces, each of which is encoded once."""

    def __init__(self, pattern: re.Pattern[str], kind: np.dtype, encode: Callable[[list[str]], _Rows]):
        """Start empty.

        Args:
            pattern: finds the pieces.
            kind: of the ids.
            encode: gives the ids of distinct pieces.
        """
        self._pattern, self._kind, self._encode = pattern, kind, encode
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[str, int] = collections.defaultdict(itertools.count().__next__)
        self._known = _Rows(np.zeros(0, self._kind), np.zeros(0, np.int64), np.zeros(0, bool))

    def __call__(self, texts: Iterable[str]) -> _Rows:
        """Return the ids of some texts."""
        if max(len(self._known.lengths), len(self._known.tokens) // 8) > MOST_KEPT:
            self._clear()
        counts: list[int] = []
        flat = itertools.chain.from_iterable(self._cut(texts, counts))
        numbers = np.fromiter(map(self._numbers.__getitem__, flat), np.int64)
        # Pieces have been numbered as they came, the new ones are the last.
        if unknown := len(self._numbers) - len(self._known.lengths):
            new = list(itertools.islice(reversed(self._numbers), unknown))[::-1]
            self._known = _Rows(*map(np.concatenate, zip(self._known, self._encode(new), strict=True)))
        tokens, lengths, lossy = self._known
        first, lengths, count = (np.cumsum(lengths) - lengths)[numbers], lengths[numbers], np.array(counts, np.int64)
        return _Rows(_runs(tokens, first, lengths), _sums(lengths, count), _sums(lossy[numbers], count) > 0)

    def _cut(self, texts: Iterable[str], counts: list[int]) -> Iterator[list[str]]:
        """Yield the pieces of each text and note their number; lists that live on would cost garbage collections."""
        for text in texts:
            pieces = self._pattern.findall(text)
            counts.append(len(pieces))
            yield pieces


class Encoder:
    """Encodes texts as `Tokenizer.encode` does, several times as fast where text is much.

    Words repeat, so a table from words to ids replaces most of the work, and no list of numbers is made. Words are
    spelled and marked in more ways than there are parts of words, so new words are looked up by parts in another table
    where the tokenizer cuts as GPT-2 does. That the ids of a part decode to the part is checked when it enters its
    table, so every text is known to come back.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Start with empty tables."""
        self._tokenizer, self._kind = tokenizer, np.dtype(token_type(tokenizer.size))
        self._width = np.array([len(content) for content in tokenizer.bytes])
        if tokenizer.like_gpt2:
            parts = _Table(_PART, self._kind, self._learn)
            self._table = _Table(_WORD, self._kind, parts)
        else:
            self._table = _Table(PIECE, self._kind, self._learn)

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
            tokens, lengths, lossy = self._table(texts)
            lossy |= _sums(self._width[tokens], lengths) != sizes
        else:
            tokens, lengths, lossy = self._each(texts)
        if lossy.any():
            name = names[int(np.argmax(lossy))]
            raise InputError(f"the tokenizer does not give back the bytes of {name}; use one that does not normalise")
        return Encoded(tokens, lengths.tolist(), sizes)

    def _each(self, texts: Sequence[str]) -> _Rows:
        """Return the ids of texts as the library gives them."""
        encoded = self._tokenizer.encode_whole(texts)
        lossy = [self._tokenizer.decode(ids) != text.encode() for text, ids in zip(texts, encoded, strict=True)]
        lengths = np.array([len(ids) for ids in encoded], np.int64)
        tokens = np.fromiter(itertools.chain.from_iterable(encoded), self._kind, lengths.sum())
        return _Rows(tokens, lengths, np.array(lossy, bool))

    def _learn(self, pieces: Sequence[str]) -> _Rows:
        """Return the ids of pieces, of most from one text: it is encoded several times as fast as many short ones."""
        pattern, before = _LIKE_GPT2 if self._tokenizer.like_gpt2 else _ANY
        spaced, others = ([one.fullmatch(piece) is not None for piece in pieces] for one in (_SPACED, pattern))
        joined = np.logical_or(spaced, others)
        befores = ("" if one else before for one in spaced)
        pairs = itertools.compress(zip(befores, pieces, strict=True), joined)
        strings = list(itertools.chain.from_iterable(pairs))
        text = "".join(strings)
        (ids,) = self._tokenizer.encode_whole([text])
        same = self._tokenizer.decode(ids) == text.encode()
        ids = np.array(ids, self._kind)
        ends = np.append(0, np.cumsum(self._width[ids]))
        wanted = np.cumsum([0, *(len(string.encode()) for string in strings)])
        places = np.searchsorted(ends, wanted)
        if not same or not np.array_equal(ends[places], wanted):
            return self._each(pieces)
        rows = self._each(list(itertools.compress(pieces, ~joined)))
        first, lengths, lossy = np.zeros((3, len(pieces)), np.int64)
        first[joined], lengths[joined] = places[1::2], np.diff(places)[1::2]
        first[~joined], lengths[~joined] = len(ids) + np.cumsum(rows.lengths) - rows.lengths, rows.lengths
        lossy[~joined] = rows.lossy
        return _Rows(_runs(np.concatenate([ids, rows.tokens]), first, lengths), lengths, lossy > 0)


def _runs(tokens: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return some runs of an array, one after the other."""
    return tokens[np.arange(lengths.sum()) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)]


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the sums of consecutive runs of an array, by the runs' lengths."""
    return np.diff(np.append(0, np.cumsum(values))[np.append(0, np.cumsum(counts))])
