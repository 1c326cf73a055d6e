"""Checking an edit that was written: some documents are decided again, and every file is undone and compared."""

import hashlib
import heapq
import pathlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lm.data.readers import guarded, open_content, open_parquet
from lm.editing import edits, folder
from lm.editing.chunks import chunks
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder
from lm.editing.inputs import Task
from lm.editing.prior import Prior, decisions
from lm.editing.rebuild import check_done, undone
from lm.editing.redraw import selects
from lm.editing.run import about
from lm.editing.settings import Settings, settings_of
from lm.errors import InputError
from lm.model.config import Compute

SHOWN = 5  # differences that are told
ROWS = 4096  # of a table that are compared together
# The columns that must be the same to the bit.
DECIDED = ("record", "document", "index", "begin", "end", "old_token", "new_token", "at", "old", "new")
# Nats by which a probability may be another on another machine, where sums come in another order. Of SmolLM2, float32
# on a card and on a CPU are 1.6e-4 apart at most (8,627 tokens), bfloat16 and float32 .3 (7,391 tokens).
TOLERANCE: Mapping[Compute, float] = {"float32": 1e-3, "bfloat16": 1.0}


class Checked(NamedTuple):
    """What was found.

    Attributes:
        files: undone and compared with their inputs.
        documents: decided again.
        tokens: of these.
        edits: that these have according to the prior.
        differences: how many there are; none in a sound edit.
        told: sentences on the first ones.
    """

    files: int
    documents: int
    tokens: int
    edits: int
    differences: int
    told: list[str]


def verify(
    tasks: Sequence[Task],
    edited: pathlib.Path,
    prior: Prior,
    *,
    documents: int = 100,
    seed: int = 0,
    progress: Callable[[str], None] = lambda said: None,
) -> Checked:
    """Check an edit.

    Args:
        tasks: the originals.
        edited: folder of the edit.
        prior: that edited, with the context and the type of products of then.
        documents: to decide again, chosen at random.
        seed: of the choice.
        progress: told what is being done.

    Raises:
        InputError: the folder is no finished edit of these files, the prior is another one, or a file cannot be read.
    """
    settings, found = settings_of(edited)
    here = about(prior, settings)
    if found.get("format") != here["format"]:
        raise InputError(
            f"{edited} was written by another version, whose draws are others (format {found.get('format')} there and "
            f"{here['format']} here); edit the files again"
        )
    for name, said in (("prior", "prior"), ("tokenizer", "tokenizer"), ("context", "context"), ("compute", "products")):
        if found.get(name) != here[name]:
            raise InputError(f"{edited} was made with another {said} ({found.get(name)}); name that one")
    told: list[str] = []
    for task in tasks:
        check_done(edited, task)
        progress(f"undoing {task.name}")
        told += _undone(task, edited, settings)
        told += _unselected(task, folder.beside(edited, task.relative, folder.EDITS), settings.edit)
    progress("choosing documents")
    numbers = _chosen(tasks, settings, documents, seed)
    encoder = DocumentEncoder(prior.tokenizer)
    again = tokens = number = 0
    for task, chosen in zip(tasks, numbers, strict=True):
        if not chosen:
            continue
        table = _rows(folder.beside(edited, task.relative, folder.EDITS), chosen)
        for chunk in chunks(task, settings.reading, settings.chunk):
            items = [item for item in chunk.documents if item.number in chosen]
            if not items:
                continue
            progress(f"deciding again {again + len(items)} of {sum(map(len, numbers))} documents")
            read = encoder([item.text or b"" for item in items], [item.key for item in items])
            made = edits.edit(
                task.relative, items, read, decisions(prior, read, settings.edit), encoder.vocabulary
            ).table
            for item, document in zip(items, read, strict=True):
                wanted, kept = (one.filter(pc.field("record") == item.number) for one in (made, table))
                if wanted.select(DECIDED) != kept.select(DECIDED):
                    told.append(
                        f"{task.name}: document {item.key} (record {item.number}) has {kept.num_rows} edits in the "
                        f"table and {wanted.num_rows} by the prior, which are not the same"
                    )
                elif not all(_near(wanted[name], kept[name], prior.compute) for name in ("p_old", "p_new")):
                    told.append(
                        f"{task.name}: document {item.key} (record {item.number}) has other probabilities in the table "
                        "than by the prior"
                    )
                again, tokens, number = again + 1, tokens + len(document.tokens), number + wanted.num_rows
    return Checked(len(tasks), again, tokens, number, len(told), told[:SHOWN])


def _chosen(tasks: Sequence[Task], settings: Settings, number: int, seed: int) -> list[set[int]]:
    """Return the records to decide again of each file: those whose hashes are smallest over all files."""
    kept: list[tuple[int, int, int]] = []  # the largest hash on top
    for place, task in enumerate(tasks):
        for chunk in chunks(task, settings.reading, settings.chunk):
            for item in chunk.documents:
                name = f"{seed} {task.relative} {item.number}"
                order = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
                (heapq.heappush if len(kept) < number else heapq.heappushpop)(kept, (-order, place, item.number))
    chosen: list[set[int]] = [set() for _ in tasks]
    for _, place, record in kept:
        chosen[place].add(record)
    return chosen


def _rows(path: pathlib.Path, records: Collection[int]) -> pa.Table:
    """Return the edits of some records; raises InputError for what is no table of edits."""
    tables = (pa.Table.from_batches([batch]) for batch in edits.batches(path))
    chosen = pc.field("record").isin(sorted(records))
    return pa.concat_tables([edits.SCHEMA.empty_table(), *(table.filter(chosen) for table in tables)])


def _near(one: pa.ChunkedArray, other: pa.ChunkedArray, compute: Compute) -> bool:
    """Return whether two columns of probabilities are the same within the tolerance; NaN where both have none."""
    mine, theirs = (np.maximum(column.to_numpy(), np.finfo(np.float32).tiny) for column in (one, other))
    return np.allclose(np.log(mine), np.log(theirs), rtol=0, atol=TOLERANCE[compute], equal_nan=True)


def _unselected(task: Task, path: pathlib.Path, config: EditConfig) -> list[str]:
    """Return a sentence if edits have a probability at which nothing is changed; raises InputError as `_rows`."""
    wrong = 0
    for batch in edits.batches(path, ("new_token", "p_old")):
        token, p_old = (column.to_numpy() for column in batch.columns)
        below = p_old < config.numbers.delete_below
        wrong += int(np.sum(~np.where(token == edits.DELETED, below, selects(p_old, config.numbers, config.rule))))
    if not wrong:
        return []
    return [f"{task.name}: by their probabilities, {wrong} of its edits are not to be made by the settings"]


def _undone(task: Task, edited: pathlib.Path, settings: Settings) -> list[str]:
    """Undo a file; return a sentence if that does not give the input's bytes."""
    with tempfile.TemporaryDirectory(prefix="toedit-verify-") as scratch:
        path = pathlib.Path(scratch) / "undone"
        try:
            undone(task.relative, edited, folder.beside(edited, task.relative), path)
        except InputError as error:
            return [str(error)]
        if task.relative.endswith(".parquet"):
            same = all(_compared(pathlib.Path(task.name), path))
        else:
            with path.open("rb") as file:
                pieces = _content(task.path) if task.path else _lines(task, settings)
                same = all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)
        return [] if same else [f"{task.name}: undoing the edits of {task.relative} does not give its bytes"]


def _lines(task: Task, settings: Settings) -> Iterator[bytes]:
    """Yield the content of a source, in pieces."""
    for chunk in chunks(task, settings.reading, settings.chunk):
        yield from (one.raw for one in chunk.stretches)


@guarded
def _content(path: pathlib.Path) -> Iterator[bytes]:
    """Yield the content of a file, decompressed, in pieces."""
    file, content = open_content(path)
    with file, content:
        while piece := content.read(1 << 20):
            yield piece


@guarded
def _compared(one: pathlib.Path, other: pathlib.Path) -> Iterator[bool]:
    """Yield whether two Parquet files have the same schema, as many rows, and the same values in each of these."""
    with open_parquet(one) as first, open_parquet(other) as second:
        yield _kinds(first.schema_arrow) == _kinds(second.schema_arrow)
        yield first.metadata.num_rows == second.metadata.num_rows
        for mine, theirs in _aligned(first.iter_batches(ROWS), second.iter_batches(ROWS)):
            yield from map(_same, mine.columns, theirs.columns)


def _aligned(
    first: Iterator[pa.RecordBatch], second: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yield the same rows of two tables of as many rows: where their batches end depends on pages and row groups."""
    first, second = filter(len, first), filter(len, second)
    one = other = None
    while (one := one or next(first, None)) and (other := other or next(second, None)):
        rows = min(len(one), len(other))
        yield one.slice(0, rows), other.slice(0, rows)
        one, other = one.slice(rows), other.slice(rows)


def _kinds(schema: pa.Schema) -> list[tuple[str, str, bool]]:
    """Return name, type and whether it may be null of each column, without the width of a dictionary's indices."""
    return [(field.name, re.sub(r"indices=u?int\d+", "", str(field.type)), field.nullable) for field in schema]


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Return whether two arrays of the same kind hold the same values, to the bit."""
    kind = one.type
    if isinstance(one, pa.ExtensionArray) and isinstance(other, pa.ExtensionArray):
        return _same(one.storage, other.storage)
    if pa.types.is_dictionary(kind):
        return _same(one.dictionary_decode(), other.dictionary_decode())
    if pa.types.is_floating(kind):  # two NaNs are not equal, but their bits are
        bits = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width]
        return one.view(bits).equals(other.view(bits))
    if not pa.types.is_nested(kind):
        return one.equals(other)
    if not one.is_valid().equals(other.is_valid()):
        return False
    if pa.types.is_struct(kind):
        return all(_same(mine, theirs) for mine, theirs in zip(one.flatten(), other.flatten(), strict=True))
    if pa.types.is_map(kind):
        pairs = pa.list_(pa.struct([kind.key_field, kind.item_field]))
        return _same(one.cast(pairs), other.cast(pairs))
    mine, theirs = (pc.call_function("list_value_length", [array]) for array in (one, other))
    return mine.equals(theirs) and _same(one.flatten(), other.flatten())
