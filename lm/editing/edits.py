"""The table of edits: one row a changed token, from which the edited corpus and the original give each other."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.readers import guarded, open_parquet
from lm.editing.decide import Decisions
from lm.editing.documents import TokenizedDocument, Vocabulary, joined
from lm.editing.records import Aside, Item
from lm.editing.splice import places, spelt, splice
from lm.errors import InputError

ROWS = 1 << 14  # of a table, read together
SCHEMA = pa.schema(
    [
        ("file", pa.string()),  # relative name of the output
        ("record", pa.int64()),  # line or row of the document's first byte in the input, from 1
        ("document", pa.string()),  # key of its randomness
        ("index", pa.int32()),  # of the token in the document
        ("begin", pa.int64()),  # of the token in the document's text, bytes
        ("end", pa.int64()),
        ("old_token", pa.int32()),
        ("new_token", pa.int32()),  # DELETED where there is none
        ("p_old", pa.float32()),  # under the prior, given the original text before
        ("p_new", pa.float32()),
        ("at", pa.int64()),  # place in the record's raw bytes, before the edits
        ("old", pa.binary()),  # raw bytes that were replaced: of JSON, escaped as they are in the line
        ("new", pa.binary()),  # what replaced them
    ]
)
DELETED = -1


class Edited(NamedTuple):
    """Some documents after their edits.

    Attributes:
        raws: what stands in the output for each item's `raw`.
        table: the edits, of `SCHEMA`, in the items' order.
    """

    raws: list[bytes]
    table: pa.Table


class RecordEdits(NamedTuple):
    """The edits of one record, in the order of their places.

    Attributes:
        file: relative name of the output.
        record: number of the record.
        at: place of each edit in the record's raw bytes before them.
        old: bytes that each replaced.
        new: what each replaced them by.
    """

    file: str
    record: int
    at: list[int]
    old: list[bytes]
    new: list[bytes]


def edit(
    name: str,
    items: Sequence[Item],
    documents: Sequence[TokenizedDocument],
    decisions: Sequence[Decisions],
    vocabulary: Vocabulary,
) -> Edited:
    """Carry out the decisions on some documents.

    Args:
        name: relative, of the output.
        items: with a text (not those that pass).
        documents: of the items' texts.
        decisions: of the prior for them.
        vocabulary: of the prior's tokenizer.

    Raises:
        ValueError: a decision changes a token that is not editable.
    """
    if not documents:
        return Edited([], SCHEMA.empty_table())
    token, deleted = (joined([getattr(one, name) for one in decisions]) for name in ("token", "deleted"))
    tokens, editable = (joined([getattr(one, name) for one in documents]) for name in ("tokens", "editable"))
    changed = np.flatnonzero(deleted | (token != tokens))
    starts = np.cumsum([0, *(len(one.tokens) for one in documents)])
    borders = np.searchsorted(changed, starts)  # of each document's, among all that changed
    owner = np.repeat(np.arange(len(documents)), np.diff(borders))
    if not editable[changed].all():
        number = items[owner[np.argmin(editable[changed])]].number
        raise ValueError(f"record {number}: a decision changes a token that is not editable")
    new_token = np.where(deleted[changed], DELETED, token[changed]).astype(np.int32)
    contents = [b"" if one == DELETED else vocabulary.bytes[one] for one in new_token.tolist()]
    index = changed - starts[owner]
    raws = [item.raw for item in items]
    spans, p_old, p_new = np.zeros((len(index), 2), np.int64), *np.zeros((2, len(index)), np.float32)
    at, old, new = [], [], []
    for number, (first, behind) in enumerate(itertools.pairwise(borders.tolist())):
        if first == behind:
            continue
        item, made, those = items[number], decisions[number], slice(first, behind)
        spans[those] = documents[number].spans[index[those]]
        p_old[those], p_new[those] = made.probability[index[those]], made.new_probability[index[those]]
        begins, ends = places(item, spans[those]).T.tolist()
        news = spelt(item, contents[those])
        raws[number] = splice(item.raw, begins, ends, news)
        at += begins
        old += [item.raw[begin:end] for begin, end in zip(begins, ends, strict=True)]
        new += news
    numbers, keys = pa.array([item.number for item in items], pa.int64()), pa.array([item.key for item in items])
    columns = [
        pa.repeat(name, len(index)),
        numbers.take(pa.array(owner)),
        keys.take(pa.array(owner)),
        pa.array(index, pa.int32()),
        pa.array(spans[:, 0]),
        pa.array(spans[:, 1]),
        pa.array(tokens[changed]),
        pa.array(new_token),
        pa.array(p_old),
        pa.array(p_new),
        pa.array(at, pa.int64()),
        pa.array(old, pa.binary()),
        pa.array(new, pa.binary()),
    ]
    return Edited(raws, pa.table(columns, schema=SCHEMA))


def write_table(table: pa.Table, to: pathlib.Path) -> None:
    """Write a table of edits as Parquet."""
    pq.write_table(table, to, compression="zstd")


def join_tables(parts: Iterable[pathlib.Path], to: pathlib.Path) -> None:
    """Write one table, as Parquet, of tables in their order; some rows are in memory at a time.

    Args:
        parts: files of `write_table`.
        to: file to write, beside and renamed.
    """
    beside = to.with_name(f".{to.name}.partial")
    with pq.ParquetWriter(beside, SCHEMA, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(ROWS, use_threads=False):
                    held.append(batch)
                    if sum(one.num_rows for one in held) >= ROWS:
                        writer.write_table(pa.Table.from_batches(held, SCHEMA))
                        held = []
        if held:
            writer.write_table(pa.Table.from_batches(held, SCHEMA))
    beside.replace(to)


def read_edits(path: pathlib.Path) -> Iterator[RecordEdits]:
    """Return an iterator over a table's edits by record, in its order.

    Raises:
        InputError: the file is no such table, or its edits are not in the order of the file.
    """
    last = 0
    for (file, record), rows in itertools.groupby(_rows(path), lambda row: row[:2]):
        _, _, at, old, new = zip(*rows, strict=True)
        ends = [0, *(begin + len(bytes_) for begin, bytes_ in zip(at, old, strict=True))]
        if record <= last or any(begin < end for begin, end in zip(at, ends, strict=False)):
            raise InputError(f"{path} has the edits of record {record} in a wrong order; restore the table of edits")
        last = record
        yield RecordEdits(file, record, list(at), list(old), list(new))


def _rows(path: pathlib.Path) -> Iterator[tuple[Any, ...]]:
    for batch in batches(path, RecordEdits._fields):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@guarded
def batches(path: pathlib.Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.RecordBatch]:
    """Return an iterator over the rows of a table of edits, some at a time.

    Args:
        path: of the table.
        columns: of `SCHEMA`, that are read.

    Raises:
        InputError: the file cannot be read, is no such table, or lacks values.
    """
    with open_parquet(path) as table:
        if table.schema_arrow != SCHEMA:
            raise InputError(f"{path} is no table of edits; give the file that ends in .edits.parquet")
        for batch in table.iter_batches(ROWS, columns=[*columns], use_threads=False):
            if any(column.null_count for column in batch.columns):
                raise InputError(f"{path} lacks values; restore the table of edits")
            yield batch


def apply(raw: bytes, edits: RecordEdits) -> bytes:
    """Return a record's raw bytes after its edits; raises InputError where they are not the bytes that were edited."""
    ends = [at + len(old) for at, old in zip(edits.at, edits.old, strict=True)]
    return _replaced(raw, edits.at, ends, edits.old, edits.new, edits, "edited")


def undo(raw: bytes, edits: RecordEdits) -> bytes:
    """Return a record's raw bytes before its edits; raises InputError where they are not what the edits gave."""
    sizes = [len(new) - len(old) for old, new in zip(edits.old, edits.new, strict=True)]
    begins = [at + longer for at, longer in zip(edits.at, itertools.accumulate([0, *sizes]), strict=False)]
    ends = [begin + len(new) for begin, new in zip(begins, edits.new, strict=True)]
    return _replaced(raw, begins, ends, edits.new, edits.old, edits, "given by the edits")


def _replaced(
    raw: bytes,
    begins: Sequence[int],
    ends: Sequence[int],
    expected: Sequence[bytes],
    by: Sequence[bytes],
    edits: RecordEdits,
    what: str,
) -> bytes:
    for begin, end, content in zip(begins, ends, expected, strict=True):
        if raw[begin:end] != content:
            raise InputError(
                f"{edits.file}: record {edits.record} is not what was {what}, at byte {begin}; "
                "give the file that belongs to the table of edits"
            )
    return splice(raw, begins, ends, by)


def applied(
    name: str, stretches: Iterable[Item | Aside], edits: Iterable[RecordEdits]
) -> Iterator[tuple[Item | Aside, bytes]]:
    """Return an iterator over an original's stretches and the bytes that stand for each in the output.

    Args:
        name: of the original, for messages.
        stretches: of `lm.editing.records.records`.
        edits: of `read_edits` for that file.

    Raises:
        InputError: the file is not the one that was edited: other bytes at an edit, or a record is missing.
    """
    coming = iter(edits)
    waiting = next(coming, None)
    for stretch in stretches:
        if isinstance(stretch, Aside):
            yield stretch, b""
        elif waiting is None or stretch.text is None or stretch.number != waiting.record:
            yield stretch, stretch.raw
        else:
            yield stretch, apply(stretch.raw, waiting)
            waiting = next(coming, None)
    if waiting is not None:
        raise InputError(
            f"{name} has no document at record {waiting.record}, which was edited; "
            "give the file that belongs to the table of edits, and the same unit and field"
        )
