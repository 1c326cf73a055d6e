"""A Parquet file again with other texts in some rows: all else, its order, schema and most settings stay."""

import io
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lm.data.readers import ROWS, open_parquet
from lm.editing.records import text_type

LARGEST_GROUP = 64 << 20  # bytes in memory; larger row groups become several
_CHANGES = pa.schema([("row", pa.int64()), ("text", pa.large_binary())])

Change = tuple[int, bytes]  # number of a row, from 1, and its text


def encode_changes(changes: Iterable[Change]) -> bytes:
    """Return changes as the bytes of a Parquet file."""
    rows, texts = zip(*found, strict=True) if (found := list(changes)) else ((), ())
    file = io.BytesIO()
    pq.write_table(pa.table([pa.array(rows, pa.int64()), pa.array(texts, pa.large_binary())], schema=_CHANGES), file)
    return file.getvalue()


def decode_changes(parts: Iterable[pathlib.Path]) -> Iterator[Change]:
    """Yield the changes in some files of `encode_changes`, in their order."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(ROWS, use_threads=False):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def rewrite(original: pathlib.Path, field: str, changes: Iterable[Change], to: pathlib.Path) -> int:
    """Write a Parquet file with some texts replaced.

    Codecs, version, metadata, columns and row groups stay (but larger ones than `LARGEST_GROUP` become several), and
    which columns are stored with dictionaries, and the columns that the rows are sorted by, if all row groups name the
    same, up to that of the text. What else its writer was told is not kept: encodings without dictionaries, levels of
    compression, sizes of pages, Bloom filters. A dictionary of texts with indices of 8 or 16 bits gets 32: it may have
    more entries than they number.

    Args:
        original: the file.
        field: column of the text.
        changes: in the order of the rows.
        to: file to write, which the caller renames.

    Returns:
        The number of changes that were made: fewer than all where the original has no such rows.
    """
    coming, made, row = iter(changes), 0, 0
    waiting = next(coming, None)
    with open_parquet(original) as file:
        schema = _schema(file, original, field)
        with pq.ParquetWriter(to, schema, **_settings(file, field)) as writer:
            for group in range(file.num_row_groups):
                held: list[pa.RecordBatch] = []
                size = 0
                for batch in file.iter_batches(ROWS, row_groups=[group], use_threads=False):
                    new: dict[int, bytes] = {}
                    while waiting and waiting[0] <= row + batch.num_rows:
                        new[waiting[0] - row - 1] = waiting[1]
                        waiting = next(coming, None)
                    row, made = row + batch.num_rows, made + len(new)
                    held.append(_replaced(batch, schema, field, new))
                    size += held[-1].nbytes
                    if size >= LARGEST_GROUP:
                        writer.write_table(pa.Table.from_batches(held, schema))
                        held, size = [], 0
                if held:
                    writer.write_table(pa.Table.from_batches(held, schema))
    return made


def _schema(file: pq.ParquetFile, path: pathlib.Path, field: str) -> pa.Schema:
    schema = file.schema_arrow
    kind = text_type(path, schema, field)
    if pa.types.is_dictionary(kind):
        place = schema.get_field_index(field)
        wider = pa.dictionary(pa.int32(), kind.value_type, kind.ordered)
        schema = schema.set(place, schema.field(place).with_type(wider))
    return schema


def _settings(file: pq.ParquetFile, field: str) -> dict[str, Any]:
    """Return the arguments of a writer that writes as a file was written."""
    about = file.metadata
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = [group.column(place) for group in groups[:1] for place in range(group.num_columns)]
    coded = {place for group in groups for place in range(len(columns)) if group.column(place).has_dictionary_page}
    return {
        "compression": {column.path_in_schema: _codec(column.compression) for column in columns} or "snappy",
        "use_dictionary": [columns[place].path_in_schema for place in sorted(coded)] if groups else True,
        "sorting_columns": _sorting(groups, columns, field),
        "version": about.format_version if about.format_version in ("1.0", "2.4", "2.6") else "2.6",
        "use_deprecated_int96_timestamps": any(column.physical_type == "INT96" for column in columns),
        "use_compliant_nested_type": False,  # the names inside lists stay as they were read
        "store_schema": b"ARROW:schema" in (about.metadata or {}),
    }


def _sorting(
    groups: Sequence[pq.RowGroupMetaData], columns: Sequence[pq.ColumnChunkMetaData], field: str
) -> list[pq.SortingColumn] | None:
    """Return by what the rows stay sorted: the order of what comes after the text, among equal texts, is gone."""
    named = {group.sorting_columns for group in groups}
    if len(named) != 1:
        return None
    kept = itertools.takewhile(lambda one: columns[one.column_index].path_in_schema != field, named.pop())
    return list(kept) or None


def _codec(name: str) -> str:
    return "NONE" if name == "UNCOMPRESSED" else name


def _replaced(batch: pa.RecordBatch, schema: pa.Schema, field: str, new: dict[int, bytes]) -> pa.RecordBatch:
    place = schema.get_field_index(field)
    column, kind = batch.column(place), schema.field(place).type
    if not new and column.type == kind:
        return batch
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    changed = np.zeros(len(batch), bool)
    changed[list(new)] = True
    # Bytes, because a file may hold text that is not UTF-8.
    values = values.cast(pa.large_binary())
    arguments = [values, pa.array(changed), pa.array(new.values(), pa.large_binary())]
    values = pc.call_function("replace_with_mask", arguments)
    if pa.types.is_dictionary(kind):
        coded = values.dictionary_encode()
        entries = _cast(coded.dictionary, kind.value_type)
        column = pa.DictionaryArray.from_arrays(coded.indices, entries, ordered=kind.ordered)
    else:
        column = _cast(values, kind)
    return batch.set_column(place, schema.field(place), column)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return pc.cast(values, options=pc.CastOptions(target_type=kind, allow_invalid_utf8=True))
