"""Passages: consecutive whole paragraphs or sentences of a document, short enough for a small model's context."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator

from lm.data.sources import SHORTEST, Document

PASSAGE = 320  # characters: about 115 tokens of a 1,024-token vocabulary, so that most fit a context of 128


def passages(text: str, limit: int = PASSAGE) -> list[str]:
    """Cut a text into passages of whole paragraphs or, where a paragraph is longer, whole sentences.

    Lines of a paragraph are joined by spaces. A sentence longer than the limit stays whole.

    Args:
        text: of a document.
        limit: characters; only a single long sentence exceeds it.
    """
    pieces: list[tuple[str, str]] = []  # separator before the piece, piece
    for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text):
        joined = " ".join(paragraph.split())
        if len(joined) <= limit:
            pieces.append(("\n\n", joined))
        else:
            sentences = re.split(r"(?<=[.!?;]) (?=\S)", joined)
            pieces += [("\n\n" if not i else " ", sentence) for i, sentence in enumerate(sentences)]
    cut: list[str] = []
    for separator, piece in pieces:
        if not piece:
            continue
        if cut and len(cut[-1]) + len(separator) + len(piece) <= limit:
            cut[-1] += separator + piece
        else:
            cut.append(piece)
    return [passage for passage in cut if len(passage) >= SHORTEST]


def cut(documents: Iterable[Document], limit: int = PASSAGE) -> Iterator[Document]:
    """Yield the passages of documents, without those whose text equals an earlier one's.

    Args:
        documents: of any sources.
        limit: characters, as in `passages`.
    """
    seen: set[bytes] = set()
    for document in documents:
        for number, text in enumerate(passages(document.text, limit)):
            digest = hashlib.sha256(text.encode()).digest()
            if digest not in seen:
                seen.add(digest)
                yield dataclasses.replace(document, id=f"{document.id}/{number}", text=text)
