"""A tokenised corpus: one array of ids with document boundaries, in memory or mapped from token files."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.errors import InputError
from lm.sources import Document
from lm.tokens import Vocabulary


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents as token ids, without end-of-text ids.

    Attributes:
        tokens: ids of all documents, one after the other, shape (M,), uint16 or int32, perhaps memory-mapped.
        starts: document i is tokens[starts[i] : starts[i + 1]], shape (n + 1,), int64.
        ids: name of each document; it keys the document's randomness.
        works: name of the work that each document is a part of: the clusters of standard errors.
        domains: name of each document's source.
        sizes: UTF-8 bytes of each document, shape (n,), int64.
    """

    tokens: np.ndarray
    starts: np.ndarray
    ids: tuple[str, ...]
    works: tuple[str, ...]
    domains: tuple[str, ...]
    sizes: np.ndarray

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.ids)

    def document(self, number: int) -> np.ndarray:
        """Return the ids of one document."""
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, shape (n,), int64."""
        return np.diff(self.starts)

    def select(self, numbers: Sequence[int] | np.ndarray) -> "Corpus":
        """Return the corpus of these documents, in this order."""
        chosen = [int(number) for number in numbers]
        parts = [self.document(number) for number in chosen]
        return Corpus(
            np.concatenate(parts) if parts else self.tokens[:0],
            np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
            tuple(self.ids[number] for number in chosen),
            tuple(self.works[number] for number in chosen),
            tuple(self.domains[number] for number in chosen),
            self.sizes[chosen],
        )

    def with_tokens(self, tokens: np.ndarray, vocabulary: Vocabulary) -> "Corpus":
        """Return the same documents with other ids in the same places."""
        changed = dataclasses.replace(self, tokens=tokens)
        sizes = [len(vocabulary.decode(changed.document(number))) for number in range(len(self))]
        return dataclasses.replace(changed, sizes=np.asarray(sizes, np.int64))


def join(corpora: Sequence[Corpus]) -> Corpus:
    """Return the documents of several corpora, one corpus after the other."""
    tokens = np.concatenate([corpus.tokens for corpus in corpora])
    lengths = np.concatenate([corpus.lengths for corpus in corpora])
    return Corpus(
        tokens,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        tuple(name for corpus in corpora for name in corpus.ids),
        tuple(name for corpus in corpora for name in corpus.works),
        tuple(name for corpus in corpora for name in corpus.domains),
        np.concatenate([corpus.sizes for corpus in corpora]),
    )


def from_tokens(documents: Sequence[np.ndarray], prefix: str, vocabulary: Vocabulary) -> Corpus:
    """Return a corpus of generated documents, each its own work, of the domain `prefix`."""
    ids = tuple(f"{prefix}/{number}" for number in range(len(documents)))
    lengths = [len(document) for document in documents]
    return Corpus(
        np.concatenate(documents).astype(np.uint16),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids,
        ids,
        (prefix,) * len(ids),
        np.asarray([len(vocabulary.decode(document)) for document in documents], np.int64),
    )


def tokenize(documents: Sequence[Document], vocabulary: Vocabulary) -> Corpus:
    """Return the corpus of some documents.

    Raises:
        InputError: a document that does not come back from its ids byte for byte.
    """
    encoded = vocabulary.encode([document.text for document in documents])
    for document, ids in zip(documents, encoded, strict=True):
        if vocabulary.decode(ids) != document.text.encode():
            raise InputError(f"the tokenizer does not give back the bytes of {document.id}; use a byte-level one")
    lengths = [len(ids) for ids in encoded]
    return Corpus(
        np.asarray([number for ids in encoded for number in ids], np.uint16 if vocabulary.size <= 65536 else np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        tuple(document.id for document in documents),
        tuple(document.work for document in documents),
        tuple(document.domain for document in documents),
        np.asarray([len(document.text.encode()) for document in documents], np.int64),
    )


def digest(corpus: Corpus) -> str:
    """Return a SHA-256 of everything in the corpus, hexadecimal."""
    state = hashlib.sha256()
    for array in (corpus.tokens, corpus.starts, corpus.sizes):
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    state.update(json.dumps([corpus.ids, corpus.works, corpus.domains]).encode())
    return state.hexdigest()


def write(corpus: Corpus, folder: pathlib.Path, about: dict[str, Any]) -> None:
    """Write token files: tokens.npy, documents.npz, about.json; all of them or, after a kill, none.

    Args:
        corpus: to write.
        folder: to make; replaced if it exists.
        about: JSON-serialisable notes to keep beside: source, tokenizer.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        np.save(beside / "tokens.npy", corpus.tokens, allow_pickle=False)
        np.savez(
            beside / "documents.npz",
            starts=corpus.starts,
            sizes=corpus.sizes,
            ids=np.asarray(corpus.ids, np.str_),
            works=np.asarray(corpus.works, np.str_),
            domains=np.asarray(corpus.domains, np.str_),
        )
        notes = {**about, "documents": len(corpus), "tokens": len(corpus.tokens), "sha256": digest(corpus)}
        (beside / "about.json").write_text(json.dumps(notes, indent=1, sort_keys=True), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read(folder: pathlib.Path) -> tuple[Corpus, dict[str, Any]]:
    """Return the corpus in a folder of token files, its tokens memory-mapped, and the notes beside it.

    Raises:
        InputError: a file is missing, damaged, or of other content than its checksum says.
    """
    try:
        notes = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "documents.npz", allow_pickle=False) as arrays:
            names = {key: tuple(str(name) for name in arrays[key]) for key in ("ids", "works", "domains")}
            corpus = Corpus(tokens, arrays["starts"], **names, sizes=arrays["sizes"])
        intact = digest(corpus) == notes["sha256"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"the token files in {folder} cannot be read ({error}); remove them and try again") from error
    if not intact:
        raise InputError(f"the token files in {folder} are damaged (checksum differs); remove them and try again")
    return corpus, notes
