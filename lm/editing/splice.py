"""Bytes of a record replaced at the places of its text's tokens, and nothing else."""

import functools
import json
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm.editing.records import Item

_SPACE = re.compile(r"\ufeff?[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_int=str)  # only places are wanted, and Python makes no integer of 4,301 digits
_DIGIT = np.array([int(chr(byte), 16) if chr(byte) in string.hexdigits else 0 for byte in range(256)])


def splice(raw: bytes, begins: Sequence[int], ends: Sequence[int], news: Sequence[bytes]) -> bytes:
    """Return bytes with some stretches of them replaced.

    Args:
        raw: before.
        begins: first byte of each stretch, which do not overlap and ascend.
        ends: byte behind the last of each.
        news: what replaces each.
    """
    pieces, done = [], 0
    for begin, end, new in zip(begins, ends, news, strict=True):
        pieces += (raw[done:begin], new)
        done = end
    return b"".join([*pieces, raw[done:]])


def places(item: Item, offsets: np.ndarray) -> np.ndarray:
    """Return where characters of a document's text stand in its raw bytes, int64, of the shape of `offsets`.

    Args:
        item: with a text.
        offsets: in bytes of the text, of beginnings of characters or of the text's end.
    """
    if item.field is None:
        return offsets + item.begin
    begin, end = _literal(item.raw, item.field)
    return begin + _in_literal(item.raw[begin:end], offsets)


def spelt(item: Item, texts: Sequence[bytes]) -> list[bytes]:
    """Return how texts are spelt in an item's raw bytes: for JSON escaped, to ASCII where the line is all ASCII."""
    if item.field is None:
        return list(texts)
    ascii_only = item.raw.isascii()
    return [_escaped(text, ascii_only) for text in texts]


@functools.lru_cache(1 << 16)  # the same tokens come again and again
def _escaped(text: bytes, ascii_only: bool) -> bytes:
    return json.dumps(text.decode(), ensure_ascii=ascii_only)[1:-1].encode()


def _literal(raw: bytes, field: str) -> tuple[int, int]:
    """Return first byte, and that behind the last, of the characters between the quotes of a field's string.

    Args:
        raw: a line that is a JSON object, perhaps after a byte order mark.
        field: of which the last occurrence counts, as it does for json.loads.
    """
    line = raw.decode()
    at = _skip(line, _skip(line, 0) + 1)  # behind the brace
    begin = end = 0
    while line[at] != "}":
        name, at = _DECODER.raw_decode(line, at)
        value = _skip(line, _skip(line, at) + 1)  # behind the colon
        _, at = _DECODER.raw_decode(line, value)
        if name == field:
            begin, end = value + 1, at - 1
        at = _skip(line, at)
        if line[at] == ",":
            at = _skip(line, at + 1)
    if raw.isascii():
        return begin, end
    before = len(line[:begin].encode())
    return before, before + len(line[begin:end].encode())


def _skip(line: str, at: int) -> int:
    found = _SPACE.match(line, at)
    return found.end() if found else at


class _Escapes(NamedTuple):
    """The escapes of a JSON string, E of them; a surrogate pair is one.

    Attributes:
        begin: of each in the string, int64, shape (E,).
        spelt: bytes of each in the string, int64, shape (E,).
        meant: bytes of the character that each stands for, int64, shape (E,).
    """

    begin: np.ndarray
    spelt: np.ndarray
    meant: np.ndarray


def _escapes(literal: bytes) -> _Escapes:
    content = np.frombuffer(literal, np.uint8)
    slash = np.flatnonzero(content == ord("\\"))
    begin = slash
    if b"\\\\" in literal:  # in a run of backslashes every second one begins an escape
        number = np.arange(len(slash))
        run = np.maximum.accumulate(np.where(np.diff(slash, prepend=-2) > 1, number, 0))
        begin = slash[(number - run) % 2 == 0]
    if b"\\u" not in literal:
        return _Escapes(begin, np.full(len(begin), 2), np.ones(len(begin), np.int64))
    by_number = content[begin + 1] == ord("u")
    digits = _DIGIT[content[begin[by_number, None] + np.arange(2, 6)]]
    unit = np.zeros(len(begin), np.int64)
    unit[by_number] = digits @ np.array([4096, 256, 16, 1])
    size = np.where(by_number, 6, 2)
    meant = 1 + (unit >= 0x80) + (unit >= 0x800)
    first, second = (unit >= 0xD800) & (unit < 0xDC00), (unit >= 0xDC00) & (unit < 0xE000)
    size, meant = np.where(first, 12, size), np.where(first, 4, meant)
    return _Escapes(begin[~second], size[~second], meant[~second])


def _in_literal(literal: bytes, offsets: np.ndarray) -> np.ndarray:
    """Return where characters of a text stand in the JSON string that spells it, int64."""
    if b"\\" not in literal:
        return offsets.astype(np.int64)
    begin, size, meant = _escapes(literal)
    longer = np.concatenate([[0], np.cumsum(size - meant)])  # by how much, before each escape
    behind = begin - longer[:-1] + meant  # each escape, in the text
    return offsets + longer[np.searchsorted(behind, offsets, side="right")]
