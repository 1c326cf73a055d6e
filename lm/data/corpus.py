"""A tokenised corpus: one array of ids with document boundaries, in memory or mapped from token files.

A folder of token files holds tokens.npy, starts.npy and sizes.npy (memory-mapped when read), documents.parquet
(names, read a row group at a time) and about.json (notes and the checksum). It is written beside and renamed,
so it is there whole or not at all. Neither writing nor reading needs memory that grows with the corpus.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import mmap
import pathlib
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.replacing import Beside, replaceable
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError

NAMES_GROUP = 16384  # documents in a row group of documents.parquet: what one look-up of a name reads
BLOCK = 1 << 20  # entries of an array that are hashed or copied at a time
COLUMNS = ("ids", "works", "domains")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents as token ids, without end-of-text ids.

    Attributes:
        tokens: ids of all documents, one after the other, shape (M,), uint16 or uint32, perhaps memory-mapped.
        starts: document i is tokens[starts[i] : starts[i + 1]], shape (n + 1,), int64.
        ids: name of each document; it keys the document's randomness.
        works: name of the work that each document is a part of: the clusters of standard errors.
        domains: name of each document's source.
        sizes: UTF-8 bytes of each document, shape (n,), int64.
    """

    tokens: np.ndarray
    starts: np.ndarray
    ids: Sequence[str]
    works: Sequence[str]
    domains: Sequence[str]
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
        """Return the corpus of these documents, in this order, in memory."""
        chosen = [int(number) for number in numbers]
        parts = [self.document(number) for number in chosen]
        return Corpus(
            np.concatenate(parts) if parts else np.asarray(self.tokens[:0]),
            _starts([len(part) for part in parts]),
            tuple(self.ids[number] for number in chosen),
            tuple(self.works[number] for number in chosen),
            tuple(self.domains[number] for number in chosen),
            np.asarray(self.sizes[chosen]),
        )

    def with_tokens(self, tokens: np.ndarray, tokenizer: Tokenizer) -> "Corpus":
        """Return the same documents with other ids in the same places."""
        changed = dataclasses.replace(self, tokens=tokens)
        sizes = [len(tokenizer.decode(changed.document(number))) for number in range(len(self))]
        return dataclasses.replace(changed, sizes=np.asarray(sizes, np.int64))

    def release(self) -> None:
        """Give back the memory of pages that were read from mapped files; they are read again on use."""
        for array in (self.tokens, self.starts, self.sizes):
            if isinstance(array.base, mmap.mmap):
                array.base.madvise(mmap.MADV_DONTNEED)


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def token_type(size: int) -> type[np.unsignedinteger]:
    """Return the type that holds the ids of a tokenizer of `size` ids."""
    return np.uint16 if size <= 1 << 16 else np.uint32


def join(corpora: Sequence[Corpus]) -> Corpus:
    """Return the documents of several corpora, one corpus after the other, in memory."""
    return Corpus(
        np.concatenate([corpus.tokens for corpus in corpora]),
        _starts(np.concatenate([corpus.lengths for corpus in corpora])),
        tuple(itertools.chain.from_iterable(corpus.ids for corpus in corpora)),
        tuple(itertools.chain.from_iterable(corpus.works for corpus in corpora)),
        tuple(itertools.chain.from_iterable(corpus.domains for corpus in corpora)),
        np.concatenate([corpus.sizes for corpus in corpora]),
    )


def from_tokens(documents: Sequence[np.ndarray], prefix: str, tokenizer: Tokenizer) -> Corpus:
    """Return a corpus of generated documents, each its own work, of the domain `prefix`, in memory."""
    ids = tuple(f"{prefix}/{number}" for number in range(len(documents)))
    return Corpus(
        np.concatenate([*documents, np.empty(0, np.int64)]).astype(token_type(tokenizer.size)),
        _starts([len(document) for document in documents]),
        ids,
        ids,
        (prefix,) * len(ids),
        np.asarray([len(tokenizer.decode(document)) for document in documents], np.int64),
    )


class _Digest:
    """SHA-256 of a corpus that is seen in pieces, whatever the pieces."""

    def __init__(self) -> None:
        self._arrays = {name: hashlib.sha256() for name in ("tokens", "lengths", "sizes")}
        self._names = {name: hashlib.sha256() for name in COLUMNS}

    def add(self, tokens: np.ndarray, lengths: np.ndarray, sizes: np.ndarray) -> None:
        # Of one byte width, so that a corpus has one digest however its ids are stored.
        for name, array, kind in (("tokens", tokens, "<u4"), ("lengths", lengths, "<i8"), ("sizes", sizes, "<i8")):
            self._arrays[name].update(np.ascontiguousarray(array, kind).data)

    def add_names(self, **columns: Iterable[str]) -> None:
        for name, column in columns.items():
            self._names[name].update("".join(f"{json.dumps(entry)}\n" for entry in column).encode())

    def hexdigest(self) -> str:
        parts = {name: state.hexdigest() for name, state in (self._arrays | self._names).items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest(corpus: Corpus) -> str:
    """Return a SHA-256 of everything in the corpus, hexadecimal; one pass, in blocks."""
    state = _Digest()
    nothing = np.empty(0, np.int64)
    for first in range(0, len(corpus.tokens), BLOCK):
        state.add(corpus.tokens[first : first + BLOCK], nothing, nothing)
        corpus.release()
    for first in range(0, len(corpus), BLOCK):
        starts = corpus.starts[first : first + BLOCK + 1]
        state.add(nothing, np.diff(starts), corpus.sizes[first : first + BLOCK])
        corpus.release()
    for name in COLUMNS:
        column = iter(getattr(corpus, name))
        while names := list(itertools.islice(column, NAMES_GROUP)):
            state.add_names(**{name: names})
    return state.hexdigest()


class _Npy:
    """A one-dimensional .npy file that grows; its header has room for a longer shape."""

    def __init__(self, path: pathlib.Path, kind: np.dtype):
        self._file, self._kind, self._length = path.open("wb"), kind, 0
        self._header()

    def _header(self) -> None:
        self._file.seek(0)
        about = {"descr": np.lib.format.dtype_to_descr(self._kind), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, about)

    def append(self, array: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(array, self._kind).data)
        self._length += len(array)

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._header()
            finally:
                self._file.close()


_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


class Writer:
    """Writes token files from batches of documents; a context manager.

    The folder appears, or is replaced, when the context ends without an exception; else nothing is left.

    Attributes:
        folder: where the files are until then; more files may be put there.
        about: notes that are written at the end.
        documents: number written so far.
        tokens: number written so far.
    """

    def __init__(self, folder: pathlib.Path, size: int, about: dict[str, Any]):
        """Start writing.

        Args:
            folder: to make; replaced if it exists.
            size: number of ids of the tokenizer.
            about: JSON-serialisable notes to keep beside: source, tokenizer; the writer's own copy may be added to.

        Raises:
            InputError: the folder cannot be made or written, or is there with anything but token files.
        """
        self._target, self.about = folder, dict(about)
        try:
            if folder.exists() and not replaceable(folder):
                raise InputError(f"{folder} is there and holds more than token files; name another folder")
            self._beside = Beside(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self.folder = self._beside.folder
        self.documents = self.tokens = 0
        self._size, self._digest, self._names = size, _Digest(), {name: list[str]() for name in COLUMNS}
        kinds = {"tokens": token_type(size), "starts": np.int64, "sizes": np.int64}
        try:
            self.folder.mkdir()
            self._table = pq.ParquetWriter(self.folder / "documents.parquet", _SCHEMA, compression="zstd")
            self._arrays = {name: _Npy(self.folder / f"{name}.npy", np.dtype(kind)) for name, kind in kinds.items()}
        except OSError as error:
            self._beside.remove()
            raise _unwritable(folder, error) from error
        self._arrays["starts"].append(np.zeros(1, np.int64))

    def append(
        self,
        tokens: np.ndarray,
        lengths: Sequence[int] | np.ndarray,
        ids: Sequence[str],
        works: Sequence[str],
        domains: Sequence[str],
        sizes: Sequence[int] | np.ndarray,
    ) -> None:
        """Add documents.

        Args:
            tokens: ids of the documents, one after the other, shape (m,), any integer type.
            lengths: of each, in tokens, shape (k,).
            ids: of each.
            works: of each.
            domains: of each.
            sizes: of each, in UTF-8 bytes, shape (k,).

        Raises:
            InputError: lengths that do not add up, ids outside the tokenizer, a full disk.
        """
        lengths, sizes = np.asarray(lengths, np.int64), np.asarray(sizes, np.int64)
        counts = {len(lengths), len(sizes), len(ids), len(works), len(domains)}
        if len(counts) != 1 or lengths.sum() != len(tokens):
            raise InputError(f"{len(tokens)} tokens and their documents' lengths do not fit; give all of both")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._size:
            raise InputError(f"token ids must be from 0 to {self._size - 1}; use the tokenizer that made them")
        try:
            self._arrays["tokens"].append(tokens)
            self._arrays["starts"].append(self.tokens + np.cumsum(lengths))
            self._arrays["sizes"].append(sizes)
            for name, column in zip(COLUMNS, (ids, works, domains), strict=True):
                self._names[name] += column
            while len(self._names["ids"]) >= NAMES_GROUP:
                self._write_names()
        except OSError as error:
            raise _unwritable(self._target, error) from error
        self._digest.add(tokens, lengths, sizes)
        self._digest.add_names(ids=ids, works=works, domains=domains)
        self.documents += len(ids)
        self.tokens += len(tokens)

    def _write_names(self) -> None:
        group = {name: column[:NAMES_GROUP] for name, column in self._names.items()}
        self._names = {name: column[NAMES_GROUP:] for name, column in self._names.items()}
        self._table.write_table(pa.table(group, _SCHEMA), row_group_size=NAMES_GROUP)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as error:
            raise _unwritable(self._target, error) from error
        finally:
            for part in (*self._arrays.values(), self._table):
                with contextlib.suppress(OSError):  # of a disk that is full; the first error was told
                    part.close()
            self._beside.remove()

    def _finish(self) -> None:
        if self._names["ids"]:
            self._write_names()
        for array in self._arrays.values():
            array.close()
        self._table.close()
        counts = {"documents": self.documents, "tokens": self.tokens, "vocabulary": self._size}
        notes = {**self.about, **counts, "sha256": self._digest.hexdigest()}
        (self.folder / "about.json").write_text(json.dumps(notes, indent=1, sort_keys=True), encoding="utf-8")
        self._beside.put()


def _unwritable(folder: pathlib.Path, error: OSError) -> InputError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "a file is where a folder must be" if in_the_way else error.strerror or error
    remedy = "make room there" if is_full else "choose another folder"
    return InputError(f"the token files in {folder} cannot be written ({reason}); {remedy}")


def write(corpus: Corpus, folder: pathlib.Path, about: dict[str, Any], *, size: int | None = None) -> None:
    """Write a corpus as token files.

    Args:
        corpus: to write.
        folder: to make; replaced if it exists.
        about: JSON-serialisable notes to keep beside: source, tokenizer.
        size: number of ids of the tokenizer; by default all that the corpus' type can hold.

    Raises:
        InputError: what `Writer` raises.
    """
    size = int(np.iinfo(corpus.tokens.dtype).max) + 1 if size is None else size
    with Writer(folder, size, about) as writer:
        for first in range(0, len(corpus), NAMES_GROUP):
            chosen = slice(first, min(first + NAMES_GROUP, len(corpus)))
            starts = corpus.starts[chosen.start : chosen.stop + 1]
            writer.append(
                corpus.tokens[starts[0] : starts[-1]],
                np.diff(starts),
                *(list(getattr(corpus, name)[chosen]) for name in COLUMNS),
                sizes=corpus.sizes[chosen],
            )
            corpus.release()


class _Table:
    """Names of documents in a Parquet file; one row group at a time is in memory."""

    def __init__(self, path: pathlib.Path):
        self._file = pq.ParquetFile(path)
        if self._file.schema_arrow.names != list(COLUMNS):
            raise ValueError(f"{path.name} has columns {self._file.schema_arrow.names}")
        self.length: int = self._file.metadata.num_rows
        self.group = functools.lru_cache(maxsize=2)(self._group)

    def _group(self, number: int) -> dict[str, list[str]]:
        return self._file.read_row_group(number, use_threads=False).to_pydict()


class Names(Sequence[str]):
    """One column of names, read as they are asked for."""

    def __init__(self, table: _Table, column: str):
        self._table, self._column = table, column

    def __len__(self) -> int:
        return self._table.length

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[str, ...]: ...

    def __getitem__(self, number: int | slice) -> str | tuple[str, ...]:
        if isinstance(number, slice):
            return tuple(self[place] for place in range(*number.indices(len(self))))
        place = range(len(self))[number]
        return self._table.group(place // NAMES_GROUP)[self._column][place % NAMES_GROUP]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), NAMES_GROUP):
            yield from self._table.group(first // NAMES_GROUP)[self._column]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]


# What damaged files make json, numpy (whose headers are Python) and Arrow raise.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, pa.ArrowException)
_DAMAGE += (SyntaxError, tokenize.TokenError)


def read(folder: pathlib.Path, *, verify: bool = True) -> tuple[Corpus, dict[str, Any]]:
    """Return the corpus in a folder of token files and the notes beside it.

    Args:
        folder: that `Writer` or `write` made.
        verify: compare the checksum, which reads every file once.

    Raises:
        InputError: a file is missing, damaged, or of other content than its checksum says.
    """
    try:
        notes = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("tokens", "starts", "sizes")
        }
        table = _Table(folder / "documents.parquet")
        names = [Names(table, name) for name in COLUMNS]
        corpus = Corpus(arrays["tokens"], arrays["starts"], *names, sizes=arrays["sizes"])
        shapes = (arrays["tokens"].shape, arrays["starts"].shape, arrays["sizes"].shape, table.length)
        count, tokens = notes["documents"], notes["tokens"]
        intact = shapes == ((tokens,), (count + 1,), (count,), count)
        intact = intact and (not verify or digest(corpus) == notes["sha256"])
    except _DAMAGE as error:
        raise InputError(f"the token files in {folder} cannot be read ({error}); remove them and try again") from error
    if not intact:
        raise InputError(f"the token files in {folder} are damaged (checksum differs); remove them and try again")
    return corpus, notes
