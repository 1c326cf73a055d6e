"""Editing files: chunk by chunk, so that memory is bounded and a killed run goes on inside a file.

The bytes of every output depend on its input, the prior and the settings only, never on what else was edited in the
run, in which order, on how many hosts or devices, or on how often it was interrupted.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax

from lm.data.readers import Bad, Input, format_of, refuse
from lm.data.repeated import RepeatedIds
from lm.editing import edits, folder, output
from lm.editing.chunks import Chunk, chunks
from lm.editing.documents import DocumentEncoder, TokenizedDocument
from lm.editing.editor import Edit, Editor, counts
from lm.editing.folder import Work
from lm.editing.inputs import Task, shard_of
from lm.editing.page import page
from lm.editing.prior import Prior
from lm.editing.records import NO_ID, check_field
from lm.editing.settings import Settings
from lm.editing.statistics import Statistics, summary
from lm.errors import InputError

FORMAT = 2  # of the output folder and of the draws
MOST = 64  # chunks that are edited together, when they are small
MANY_CHUNKS = 16  # whole ones that an accelerator edits together: few would leave most of its blocks partly empty


class Step(NamedTuple):
    """What was done since the last report.

    Attributes:
        name: of the file.
        size: bytes of the inputs (as they are on disk), fractions included.
        tokens: of the originals.
        selected: tokens.
        changed: tokens.
    """

    name: str
    size: float
    tokens: int = 0
    selected: int = 0
    changed: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What there is at the end of a run.

    Attributes:
        summary: of `lm.editing.statistics.summary`: of all finished files of the folder where those of all shards are
            among them, else of this shard's.
        asides: records that were set aside, of the same files.
        files: number of the same files.
        complete: whether the files of all shards are finished.
        repeated: documents that were read now and have the id of an earlier one, of very many at least.
    """

    summary: dict[str, Any]
    asides: int
    files: int
    complete: bool
    repeated: int


def about(prior: Prior, settings: Settings) -> dict[str, Any]:
    """Return the content of run.json: what the outputs depend on, and for information the kind of device."""
    return {
        "format": FORMAT,
        "version": version("toedit"),
        folder.NAME: prior.name,
        "prior": prior.sha256,
        "tokenizer": prior.tokenizer.sha256,
        "context": prior.context,
        "compute": prior.compute,
        folder.DEVICE: jax.devices()[0].device_kind,
        "settings": settings.to_json(),
    }


def run(
    tasks: Sequence[Task],
    out: pathlib.Path,
    prior: Prior,
    settings: Settings,
    *,
    shard: tuple[int, int] = (0, 1),
    strict: bool = False,
    progress: Callable[[Step], None] = lambda step: None,
    warn: Callable[[str], None] = lambda said: None,
) -> Outcome:
    """Edit files into a folder, going on where an earlier call was interrupted.

    Args:
        tasks: of `lm.editing.inputs.find_tasks`, those of all shards.
        out: folder to write: each output under its relative name, with .edits.parquet, .stats.json, .aside.jsonl (if a
            record was set aside) and .done beside it; and stats.json and edits.html once all files are finished.
        prior: that edits.
        settings: of the edit.
        shard: number of this host, and of hosts, each of which edits its part of the files.
        strict: refuse the first damaged record instead of setting it aside, or that was set aside by an earlier call.
        progress: told what was done.
        warn: told in a sentence if the run was begun on another kind of device.

    Raises:
        InputError: an input or the folder cannot be read, written or mixed with what is there; the first records of
            one have no such field; with `strict`, a damaged record.
    """
    mine = shard_of(tasks, *shard)
    for task in mine:  # before a folder says that this is its field
        if _has_field(task) and check_field(Input(task.name, task.size), settings.reading):
            break
    here = about(prior, settings)
    found = folder.begin(out, here)
    if found.get(folder.DEVICE) != here[folder.DEVICE] and not all(folder.is_done(out, task.relative) for task in mine):
        warn(
            f"{out} was begun on {found.get(folder.DEVICE)} and is continued on {here[folder.DEVICE]}, where a token "
            "whose probability is within rounding of the threshold may be decided otherwise"
        )
    repeated = RepeatedIds()
    _Run(out, prior, settings, strict, progress, repeated)(mine)
    complete = all(folder.is_done(out, task.relative) for task in tasks)
    chosen = [task.relative for task in (tasks if complete else mine)]
    if complete:  # an earlier run may have edited other files into the folder
        chosen = list(dict.fromkeys([*chosen, *folder.finished(out)]))
    statistics, asides = Statistics(settings.edit), 0
    for relative in chosen:
        more, aside = folder.statistics_of(out, relative)
        statistics.merge(more)
        asides += aside
    outcome = Outcome(summary(statistics, prior.tokenizer), asides, len(chosen), complete, repeated.count)
    if complete:
        _write_whole(out, outcome, found)
    return outcome


def _has_field(task: Task) -> bool:
    """Return whether the text is in a field that the user names."""
    return format_of(pathlib.Path(task.relative)) != "text" and not task.name.startswith("source:")


def _write_whole(out: pathlib.Path, outcome: Outcome, run: dict[str, Any]) -> None:
    """Write what tells of all files together; the last shard does, and two last ones write the same."""
    content = {"run": run, "files": outcome.files, "set_aside": outcome.asides, **outcome.summary}
    with folder.writing(out):
        folder.write(out, out / "stats.json", folder.as_json(content))
        folder.write(out, out / "edits.html", page(outcome.summary, run).encode())
        folder.clear(out)


class _Read(NamedTuple):
    """A chunk that was read.

    Attributes:
        work: of its file.
        chunk: itself.
        documents: as tokens; None where the chunk's part is finished.
    """

    work: Work
    chunk: Chunk
    documents: list[TokenizedDocument] | None


class _Run:
    """Edits files one after the other; while a group of chunks is decided, the next is read and the last is kept."""

    def __init__(
        self,
        out: pathlib.Path,
        prior: Prior,
        settings: Settings,
        strict: bool,
        progress: Callable[[Step], None],
        repeated: RepeatedIds,
    ):
        self._out, self._prior, self._settings = out, prior, settings
        self._strict, self._progress, self._repeated = strict, progress, repeated
        self._group = settings.chunk * (1 if jax.default_backend() == "cpu" else MANY_CHUNKS)
        self._encoder = DocumentEncoder(prior.tokenizer)  # of the thread that reads
        self._editor = Editor(prior, settings.edit, settings.sample)
        self._open: set[Work] = set()

    def __call__(self, tasks: Iterable[Task]) -> None:
        ahead = _ahead(_groups(self._read(tasks), self._group))
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as keeper, contextlib.closing(ahead) as groups:
                kept: concurrent.futures.Future[None] | None = None
                for group in groups:
                    made = self._decide(group)
                    if kept is not None:
                        kept.result()
                    kept = keeper.submit(self._keep, group, made)
                if kept is not None:
                    kept.result()
        finally:
            for work in self._open:
                work.close()

    def _read(self, tasks: Iterable[Task]) -> Iterator[_Read]:
        """Yield the chunks of the files that are not finished."""
        for task in tasks:
            work = Work(self._out, task)
            if self._is_finished(work):
                yield _Read(work, Chunk(task, 0, [], size=task.size), None)
                continue
            if _has_field(task):
                check_field(Input(task.name, task.size), self._settings.reading)
            work.open()
            self._open.add(work)
            if self._is_finished(work):  # meanwhile, by another process
                continue
            for chunk in chunks(task, self._settings.reading, self._settings.chunk):
                if self._strict and chunk.asides:
                    refuse(Bad(task.name, chunk.asides[0].number, chunk.asides[0].reason))
                for item in chunk.documents:
                    if not item.key.startswith(NO_ID):
                        self._repeated.add(item.key)
                if work.has(chunk):
                    yield _Read(work, dataclasses.replace(chunk, stretches=[]), None)
                else:
                    items = chunk.documents
                    texts, keys = [item.text or b"" for item in items], [item.key for item in items]
                    yield _Read(work, chunk, self._encoder(texts, keys))

    def _is_finished(self, work: Work) -> bool:
        """Return whether a file is finished; raises InputError if strict and a record of it was set aside."""
        done = work.is_done()
        if done and self._strict and (aside := work.first_aside()):
            refuse(Bad(work.task.name, aside.number, aside.reason))
        return done

    def _decide(self, group: list[_Read]) -> list[Edit]:
        """Return the edits of the documents of a group of chunks."""
        documents = [document for one in group for document in one.documents or []]
        size, bytes_ = sum(one.chunk.size for one in group), sum(len(document.text) for document in documents)
        name, told = group[-1].chunk.task.name, 0.0
        made: list[Edit] = []
        for batch in self._editor(documents):
            made += batch
            share = sum(len(one.document.text) for one in batch) / max(bytes_, 1)
            told += share * size
            self._progress(Step(name, share * size, *counts(batch)))
        self._progress(Step(name, size - told))
        return made

    def _keep(self, group: list[_Read], made: list[Edit]) -> None:
        """Write the parts of a group of chunks, and finish the files that they end."""
        edited = iter(made)
        for one in group:
            if one.documents is not None:
                self._keep_part(one, list(itertools.islice(edited, len(one.documents))))
            if one.chunk.last:
                one.work.finish(one.chunk.number + 1, self._settings.field, self._settings.edit)
                self._open.discard(one.work)
                one.work.close()

    def _keep_part(self, read: _Read, made: list[Edit]) -> None:
        """Write the part of a chunk."""
        chunk, name = read.chunk, read.chunk.task.relative
        items = chunk.documents
        documents, decisions = [one.document for one in made], [one.decisions for one in made]
        done = edits.edit(name, items, documents, decisions, self._encoder.vocabulary)
        raws = iter(done.raws)
        content = output.encode_part(
            name, chunk.items, [item.raw if item.text is None else next(raws) for item in chunk.items]
        )
        statistics = Statistics(self._settings.edit)
        statistics.add(documents, decisions, [item.domain for item in items])
        for item, one in zip(items, made, strict=True):
            if one.after is not None:
                statistics.add_sampled(one.document, one.decisions, item.domain, one.after, self._prior.tokenizer)
        read.work.keep(chunk, content, done.table, statistics)


def _groups(found: Iterator[_Read], most: int) -> Iterator[list[_Read]]:
    """Yield chunks together until they have `most` bytes, at least as much as a whole chunk: files may be small."""
    group: list[_Read] = []
    size = 0
    try:
        for one in found:
            group.append(one)
            size += sum(len(stretch.raw) for stretch in one.chunk.stretches)
            if size >= most or len(group) >= MOST:
                yield group
                group, size = [], 0
    except InputError:
        yield group  # what was read before the damage is edited
        raise
    yield group


def _ahead(found: Iterator[list[_Read]]) -> Generator[list[_Read], None, None]:
    """Yield the same while a thread reads the next one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, found, None)
        while (one := future.result()) is not None:
            future = pool.submit(next, found, None)
            if one:
                yield one
