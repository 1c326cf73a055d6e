"""Documents as tokens whose bytes are known: a token is only ever replaced where its bytes are its alone."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tokenizers

from lm.data.encoding import Encoder
from lm.data.readers import Unit
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError

# Characters that are encoded together; a longer text is cut where every separable tokenizer cuts and looks no further.
SLICE = 1 << 20
_CUT = re.compile(r"(?<=[A-Za-z0-9])(?=[ \n])")
_INVALID = re.compile("([\udc80-\udcff]+)")  # bytes that are not UTF-8, as Python's surrogateescape spells them


@dataclasses.dataclass(frozen=True)
class TokenizedDocument:
    """A document as M tokens.

    Attributes:
        key: keys the randomness.
        tokens: ids, int32, shape (M,).
        spans: first byte and the one behind the last of each token in `text`, int64, shape (M, 2). Where a token is
            editable these bytes are the token's, no other token has a part of them, and they are whole characters.
        editable: whether a token may be changed, bool, shape (M,); the first one never.
        text: the bytes.
    """

    key: str
    tokens: np.ndarray
    spans: np.ndarray
    editable: np.ndarray
    text: bytes


def joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return columns over the tokens of some documents, one after the other; of one document itself, not a copy."""
    return np.asarray(columns[0]) if len(columns) == 1 else np.concatenate(columns)


class Vocabulary:
    """Bytes of each token."""

    def __init__(self, tokenizer: Tokenizer):
        """Read them from a tokenizer; special tokens have none."""
        self.bytes = tokenizer.bytes
        """By id."""
        self.widths = np.array([len(content) for content in self.bytes], np.int64)
        """Number of bytes of each token, int64."""
        self._column = pa.array(self.bytes, pa.large_binary())

    def text_of(self, tokens: np.ndarray) -> bytes:
        """Return the bytes of some tokens, one after the other."""
        content = self._column.take(pa.array(tokens)).buffers()[2]
        return content.to_pybytes()[: self.widths[tokens].sum()] if content else b""

    def of_bytes(self) -> np.ndarray:
        """Return the id of each byte's token, int32, shape (256,); -1 for a byte that has none."""
        ids = np.full(256, -1, np.int32)
        for number in reversed(np.flatnonzero(self.widths == 1)):  # of several the first
            ids[self.bytes[number][0]] = number
        return ids


class _Piece(NamedTuple):
    """Some bytes as tokens: attributes of `TokenizedDocument`, the spans from the piece's first byte, int32."""

    tokens: np.ndarray
    spans: np.ndarray
    editable: np.ndarray
    size: int


class DocumentEncoder:
    """Turns texts into documents. Every text has one, and nothing of a text is lost.

    A text that the tokenizer changes (most published ones compose characters, NFC) is encoded as the tokenizer does
    it; its tokens are editable where they stand for just the bytes they came from. In a text that is not UTF-8, the
    valid stretches are encoded one by one and every other byte is its byte token, which is not editable (a tokenizer
    without one has no token there).
    """

    def __init__(self, tokenizer: Tokenizer):
        """Start; one is to be kept and used again, because it learns."""
        self.vocabulary = Vocabulary(tokenizer)
        """Bytes of the tokens."""
        self._tokenizer, self._encoder = tokenizer, Encoder(tokenizer)
        self._bytes = self.vocabulary.of_bytes()

    def __call__(self, texts: Sequence[bytes], keys: Sequence[str]) -> list[TokenizedDocument]:
        """Return the documents of some texts.

        Args:
            texts: any bytes.
            keys: of the documents.
        """
        cut = [list(self._cut(text)) for text in texts]
        pieces = self._pieces([stretch for stretches in cut for stretch in stretches])
        return [
            _document(key, text, [next(pieces) for _ in stretches])
            for key, text, stretches in zip(keys, texts, cut, strict=True)
        ]

    def _cut(self, text: bytes) -> Iterator[str | bytes]:
        """Yield the stretches of a text that are encoded each by itself: text as str, other bytes as bytes."""
        try:
            stretches = [text.decode()]
        except UnicodeDecodeError:
            stretches = _INVALID.split(text.decode(errors="surrogateescape"))
        for stretch in stretches:
            if _INVALID.match(stretch):
                yield stretch.encode(errors="surrogateescape")
            elif stretch:
                yield from _slices(stretch) if self._tokenizer.separable else [stretch]

    def _pieces(self, stretches: Iterable[str | bytes]) -> Iterator[_Piece]:
        """Yield the pieces of some stretches; about `SLICE` characters are encoded together."""
        held: list[str] = []
        size = 0
        for stretch in stretches:
            if isinstance(stretch, str) and size < SLICE:
                held.append(stretch)
                size += len(stretch)
                continue
            yield from self._encoded(held)
            held, size = [], 0
            if isinstance(stretch, str):
                held, size = [stretch], len(stretch)
            else:
                yield self._of_bytes(stretch)
        yield from self._encoded(held)

    def _of_bytes(self, content: bytes) -> _Piece:
        tokens = self._bytes[np.frombuffer(content, np.uint8)]
        known = np.flatnonzero(tokens >= 0)
        return _Piece(
            tokens[known], np.stack([known, known + 1], 1).astype(np.int32), np.zeros(len(known), bool), len(content)
        )

    def _encoded(self, texts: Sequence[str]) -> list[_Piece]:
        if not texts:
            return []
        names = [""] * len(texts)  # for messages, of which none is shown
        try:
            tokens, lengths, sizes = self._encoder(texts, names)
        except InputError:
            tokens, lengths, sizes = np.zeros(0, np.int32), [], []
        tokens = tokens.astype(np.int32)
        content = "".join(texts).encode()
        widths = self.vocabulary.widths[tokens]
        owner = np.repeat(np.arange(len(lengths)), lengths)
        exact = np.array_equal(np.bincount(owner, widths, len(texts)).astype(np.int64), sizes)
        if not exact or self.vocabulary.text_of(tokens) != content:
            if len(texts) == 1:
                return [self._by_offsets(texts[0])]
            return [piece for text in texts for piece in self._encoded([text])]
        ends = np.cumsum(widths)
        begins = ends - widths
        starts = _character_starts(content)
        editable = starts[begins] & starts[ends]
        before = np.cumsum(sizes) - sizes
        spans = (np.stack([begins, ends], 1) - before[owner][:, None]).astype(np.int32)
        bounds = np.cumsum(lengths)[:-1]
        parts = (np.split(array, bounds) for array in (tokens, spans, editable))
        return list(map(_Piece, *parts, sizes))

    @functools.cached_property
    def _library(self) -> tokenizers.Tokenizer:
        library = tokenizers.Tokenizer.from_str(self._tokenizer.to_json())
        library.encode_special_tokens = True  # as text, that is
        library.post_processor = None  # pyright: ignore[reportAttributeAccessIssue] (it would trim offsets)
        return library

    def _by_offsets(self, text: str) -> _Piece:
        """Return the tokens of a text that the tokenizer changes, by the offsets that the library gives."""
        encoding = self._library.encode(text, add_special_tokens=False)
        tokens = np.array(encoding.ids, np.int32)
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        bytes_before = np.concatenate([[0], np.cumsum(1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000))])
        spans = bytes_before[np.array(encoding.offsets, np.int64).reshape(-1, 2)]
        content = text.encode()
        editable = self._same(tokens, spans, content) & _alone(spans)
        return _Piece(tokens, spans, editable, len(content))

    def _same(self, tokens: np.ndarray, spans: np.ndarray, content: bytes) -> np.ndarray:
        """Return for each token whether the bytes of its span are the token's, bool, shape (M,)."""
        bytes_of = self.vocabulary.bytes
        return np.array(
            [
                begin < end and content[begin:end] == bytes_of[number]
                for number, (begin, end) in zip(tokens.tolist(), spans.tolist(), strict=True)
            ],
            bool,
        )


def _slices(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > SLICE and (found := _CUT.search(text, begin + SLICE)):
        yield text[begin : found.start()]
        begin = found.start()
    yield text[begin:]


def _character_starts(content: bytes) -> np.ndarray:
    """Return whether a character of a UTF-8 text begins at each byte, and True for its end, shape (bytes + 1,)."""
    return np.append((np.frombuffer(content, np.uint8) & 0xC0) != 0x80, True)


def _alone(spans: np.ndarray) -> np.ndarray:
    """Return for each span whether no other one has a part of it, bool, shape (M,)."""
    before = np.maximum.accumulate(spans[:, 1])[:-1]
    after = np.minimum.accumulate(spans[::-1, 0])[::-1][1:]
    alone = np.ones(len(spans), bool)
    alone[1:] &= spans[1:, 0] >= before
    alone[:-1] &= spans[:-1, 1] <= after
    return alone


def _document(key: str, text: bytes, pieces: Sequence[_Piece]) -> TokenizedDocument:
    M = sum(len(piece.tokens) for piece in pieces)
    tokens, spans, editable = np.empty(M, np.int32), np.empty((M, 2), np.int64), np.empty(M, bool)
    done = size = 0
    for piece in pieces:
        place = slice(done, done + len(piece.tokens))
        tokens[place], spans[place], editable[place] = piece.tokens, piece.spans, piece.editable
        spans[place] += size
        done, size = place.stop, size + piece.size
    editable[:1] = False
    return TokenizedDocument(key, tokens, spans, editable, text)


def drawable(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """Return which ids an edit may draw, bool, shape (V,): those that stand for whole characters.

    So text that was UTF-8 stays UTF-8. Special tokens stand for no text and are not drawn.

    Args:
        tokenizer: of the prior.
        vocabulary: V, rows of the prior's embedding; those beyond the tokenizer's ids are padding.
    """
    whole = list(map(_whole, tokenizer.bytes))
    return np.pad(np.array(whole, bool), (0, vocabulary - tokenizer.size))


def inside(tokenizer: Tokenizer, vocabulary: int, unit: Unit) -> np.ndarray:
    """Return which ids may stand inside a unit of text without cutting it into two, bool, shape (V,).

    Args:
        tokenizer: of the prior.
        vocabulary: V, as of `drawable`.
        unit: in a line those without a line break; in a paragraph those without one that do not leave a line blank,
            as nothing but white space may.
    """
    match unit:
        case "file":
            kept = [True] * tokenizer.size
        case "line":
            kept = [not {10, 13} & set(content) for content in tokenizer.bytes]
        case "paragraph":
            kept = [b"\n" not in content and bool(content.strip()) for content in tokenizer.bytes]
    return np.pad(np.array(kept, bool), (0, vocabulary - tokenizer.size))


def _whole(content: bytes) -> bool:
    try:
        return bool(content.decode())
    except UnicodeDecodeError:
        return False
