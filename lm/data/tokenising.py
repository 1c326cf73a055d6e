"""From documents to token files: in batches, on all cores, every document checked to come back byte for byte."""

import contextlib
import itertools
import multiprocessing
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import numpy as np

from lm.data.corpus import Corpus, Writer, read
from lm.data.encoding import Encoded, Encoder
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError

BATCH = 1 << 20  # characters that are encoded together


class TextDocument(Protocol):
    """What a corpus is made of: `lm.data.sources.Document` and `lm.data.readers.Record` are such documents."""

    @property
    def id(self) -> str:
        """Name; it keys the document's randomness."""
        ...

    @property
    def work(self) -> str:
        """Name of what the document is a part of."""
        ...

    @property
    def domain(self) -> str:
        """Name of the document's source."""
        ...

    @property
    def text(self) -> str:
        """The text itself."""
        ...


def from_documents(documents: Iterable[TextDocument], tokenizer: Tokenizer) -> Corpus:
    """Return the corpus of some documents, in memory; raises InputError as `Encoder` does."""
    chosen = list(documents)
    ids = tuple(document.id for document in chosen)
    tokens, lengths, sizes = Encoder(tokenizer)([document.text for document in chosen], ids)
    return Corpus(
        tokens,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids,
        tuple(document.work for document in chosen),
        tuple(document.domain for document in chosen),
        np.asarray(sizes, np.int64),
    )


def tokenize(
    documents: Iterable[TextDocument],
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    about: dict[str, Any],
    *,
    processes: int = 1,
) -> Corpus:
    """Write documents as token files and return them mapped.

    Args:
        documents: read once, a batch at a time.
        tokenizer: kept beside the tokens.
        folder: to make; replaced if it exists.
        about: JSON-serialisable notes to keep beside, such as the source.
        processes: that encode.

    Raises:
        InputError: what `Writer`, `append` and the iterable raise.
    """
    with Writer(folder, tokenizer.size, about) as writer:
        append(documents, tokenizer, writer, processes=processes)
    return read(folder, verify=False)[0]


def append(documents: Iterable[TextDocument], tokenizer: Tokenizer, writer: Writer, *, processes: int = 1) -> None:
    """Add documents to token files, the tokenizer as tokenizer.json and its hash as a note.

    Args:
        documents: read once, a batch at a time.
        tokenizer: of the writer's size.
        writer: of the token files.
        processes: that encode; the text of two batches for each is in memory.

    Raises:
        InputError: a document that does not come back from its ids, no documents, a process that was killed, what the
            iterable raises.
    """
    try:
        for batch, (tokens, lengths, sizes) in _encoded(_batches(documents), tokenizer, processes):
            ids, works, domains = ([getattr(one, name) for one in batch] for name in ("id", "work", "domain"))
            writer.append(tokens, lengths, ids, works, domains, sizes)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that encodes was killed, perhaps for want of memory; free some and run it again "
            "(toedit tokenize --processes 1 needs the least)"
        ) from error
    if not writer.documents:
        raise InputError("there is no document with text in the inputs; name others")
    writer.about["tokenizer_sha256"] = tokenizer.sha256
    (writer.folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")


def _batches(documents: Iterable[TextDocument]) -> Iterator[list[TextDocument]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(
    batches: Iterable[list[TextDocument]], tokenizer: Tokenizer, processes: int
) -> Iterator[tuple[list[TextDocument], Encoded]]:
    """Return each batch with its ids, in order."""

    def asked(batch: list[TextDocument]) -> tuple[list[str], list[str]]:
        return [document.text for document in batch], [document.id for document in batch]

    batches = iter(batches)
    # A single batch is encoded faster than processes start.
    first = list(itertools.islice(batches, 2))
    batches = itertools.chain(first, batches)
    if processes < 2 or len(first) < 2:
        encoder = Encoder(tokenizer)
        for batch in batches:
            yield batch, encoder(*asked(batch))
        return
    # Spawned, because a fork of a process that runs JAX's threads can hang.
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(
            ProcessPoolExecutor(processes, context, _start, (tokenizer.to_json(), tokenizer.end_name))
        )
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        waiting: list[tuple[list[TextDocument], Future[Encoded]]] = []
        for batch in batches:
            waiting.append((batch, pool.submit(_encode_there, *asked(batch))))
            if len(waiting) >= 2 * processes:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


_encoder: Encoder  # of a worker process


def _start(tokenizer: str, end_name: str) -> None:
    global _encoder  # noqa: PLW0603 (a worker has no other place for what all its tasks share)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encoder = Encoder(Tokenizer.from_json(tokenizer, end_name=end_name))


def _encode_there(texts: list[str], names: list[str]) -> Encoded:
    return _encoder(texts, names)
