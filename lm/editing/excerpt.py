"""Short pieces of edited documents to read: edits in context, and documents cut around their edits."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lm.data.tokenizer import Tokenizer
from lm.editing.decide import Decisions
from lm.editing.documents import TokenizedDocument

CONTEXT = 60  # bytes before and after an edit of a table
AROUND = 160  # bytes kept before and after an edit of a document
LONGEST = 2400  # bytes of a document that are shown
NAME = 200  # characters of a document's key that are shown: keys are data


def order_of(key: str) -> int:
    """Return a number in [0, 2^64) by which documents are chosen: a hash of the key, so no order of files matters."""
    return int.from_bytes(hashlib.sha256(b"chosen\0" + key.encode()).digest()[:8], "big")


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return values scrambled one to one, uint64 (the finaliser of splitmix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _edit(document: TokenizedDocument, made: Decisions, index: int, tokenizer: Tokenizer) -> dict[str, Any]:
    begin, end = document.spans[index]
    deleted = bool(made.deleted[index])
    new = b"" if deleted else tokenizer.decode([int(made.token[index])])
    return {
        "old": _readable(document.text[begin:end]),
        "new": _readable(new),
        "deleted": deleted,
        "p_old": _number(made.probability[index]),
        "p_new": None if deleted else _number(made.new_probability[index]),
        "entropy": _number(made.entropy[index]),
    }


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _readable(content: bytes) -> str:
    return content.decode(errors="replace")


def examples(
    document: TokenizedDocument, made: Decisions, domain: str, tokenizer: Tokenizer, number: int
) -> Iterator[dict[str, Any]]:
    """Yield some of a document's edits with the text around them (the paper's table 12), chosen by hash.

    Args:
        document: original.
        made: with every probability and entropy.
        domain: of the document.
        tokenizer: of the prior.
        number: at most so many.
    """
    changed = np.flatnonzero(made.changed(document.tokens))
    order = _mixed(changed.astype(np.uint64) ^ np.uint64(order_of(document.key)))
    for place in np.argsort(order, kind="stable")[:number]:
        index = int(changed[place])
        begin, end = (int(border) for border in document.spans[index])
        yield {
            "order": int(order[place]),
            "domain": domain,
            "document": document.key[:NAME],
            "index": index,
            "before": _readable(_last_words(document.text[max(0, begin - CONTEXT) : begin], begin <= CONTEXT)),
            **_edit(document, made, index, tokenizer),
            "after": _readable(_first_words(document.text[end : end + CONTEXT], end + CONTEXT >= len(document.text))),
        }


def _last_words(text: bytes, whole: bool) -> bytes:
    """Return a text without the word, or the character, that was cut at its beginning."""
    if whole:
        return text
    _, space, words = text.partition(b" ")
    return words if space else _without_half(text)


def _first_words(text: bytes, whole: bool) -> bytes:
    """Return a text without the word, or the character, that was cut at its end."""
    if whole:
        return text
    words, space, _ = text.rpartition(b" ")
    return words if space else _without_half(text)


def _without_half(text: bytes) -> bytes:
    return text.decode(errors="ignore").encode()


def shown(document: TokenizedDocument, made: Decisions, domain: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a document to read side by side, cut around its edits if it is long.

    Args:
        document: original.
        made: with every probability and entropy.
        domain: of the document.
        tokenizer: of the prior.

    Returns:
        Its "segments" in order are {"text"}, {"old", "new", "deleted", "p_old", "p_new", "entropy"}, or
        {"cut"}: so many bytes are left out. The rest says which document it is.
    """
    changed = made.changed(document.tokens)
    size = len(document.text)
    segments: list[dict[str, Any]] = []
    at = kept = edits = 0  # bytes done, bytes shown
    places = np.flatnonzero(changed)
    for number, index in enumerate(places):
        begin, end = (int(border) for border in document.spans[index])
        if size > LONGEST and kept + min(begin - at, 2 * AROUND) + end - begin > LONGEST:
            break
        # Text is kept up to AROUND behind the edit before and from AROUND before this one.
        behind = at if number == 0 else min(begin, _border(document.text, at + AROUND))
        again = max(behind, _border(document.text, begin - AROUND))
        if size <= LONGEST or again - behind < AROUND:
            behind = again = begin
        segments += _text(document.text, at, behind) + _cut(again - behind) + _text(document.text, again, begin)
        kept += behind - at + begin - again + end - begin
        segments.append(_edit(document, made, int(index), tokenizer))
        at, edits = end, edits + 1
    behind = size if size <= LONGEST else _border(document.text, at + (AROUND if edits else LONGEST))
    segments += _text(document.text, at, behind) + _cut(size - behind)
    return {
        "order": order_of(document.key),
        "document": document.key[:NAME],
        "domain": domain,
        "bytes": size,
        "tokens": len(document.tokens),
        "changed": len(places),
        "changed_shown": edits,
        "segments": segments,
    }


def _border(text: bytes, at: int) -> int:
    """Return the first place from `at` on where a UTF-8 character begins, looking no further than one is long."""
    at = min(max(at, 0), len(text))
    return next((place for place in range(at, min(at + 4, len(text))) if text[place] & 0xC0 != 0x80), at)


def _text(text: bytes, begin: int, end: int) -> list[dict[str, Any]]:
    return [{"text": _readable(text[begin:end])}] if end > begin else []


def _cut(size: int) -> list[dict[str, Any]]:
    return [{"cut": size}] if size > 0 else []
