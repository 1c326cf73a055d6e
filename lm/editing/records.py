"""The stretches of an input in their order, byte for byte: what is edited, what passes, what is set aside."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from lm.data.readers import (
    BOM,
    LONGEST_LINE,
    ROWS,
    TOO_LONG,
    Advance,
    Input,
    Reading,
    UnusableError,
    as_text,
    format_of,
    guarded,
    hub_rows,
    known_split,
    object_of,
    open_content,
    open_parquet,
    own_id,
    text_values,
    wanted_columns,
)
from lm.errors import InputError

STAYS = f"{TOO_LONG} and stays as it is"
NO_ID = "sha256:"  # how the key of a text begins that has no id
TRIED = 100  # records that must have the field of the text, one of them at least


@dataclasses.dataclass(frozen=True)
class Item:
    """A stretch of the input: a document, or bytes between documents that pass as they are.

    Attributes:
        number: line or row of its first byte, from 1; no other document of the file has it.
        raw: its bytes in the file (uncompressed), line end included; of Parquet, the text's. The `raw`s of a text
            or JSONL file, those of `Aside`s included, are the file.
        text: of the document; None where the bytes pass (blank lines, a null, a line that is too long).
        key: of the document's randomness: its own id where it has one, else "sha256:" and 16 hex digits of its text's.
        domain: of the document.
        begin: of the text in `raw` where `field` is None: then raw[begin : begin + len(text)] is the text.
        field: whose string is the text where `raw` is a JSON object; else None.
    """

    number: int
    raw: bytes
    text: bytes | None = None
    key: str = ""
    domain: str = ""
    begin: int = 0
    field: str | None = None


@dataclasses.dataclass(frozen=True)
class Aside:
    """A damaged record, which is not in the output, or a line that is too long, which is.

    Attributes:
        number: of its line, from 1.
        reason: why it cannot be used.
        raw: its bytes; empty for a line over `lm.data.readers.LONGEST_LINE`, which passes after it, in pieces.
    """

    number: int
    reason: str
    raw: bytes


def records(given: Input, reading: Reading, advance: Callable[[int], None] = lambda _: None) -> Iterator[Item | Aside]:
    """Return an iterator over an input's stretches, in its order; one (of Parquet, some rows) is in memory at a time.

    Named and hub sources come as the lines of the JSONL that is written for them.

    Args:
        given: one of `lm.data.readers.find`.
        reading: how; `split` only for named and hub sources, because files are kept whole.
        advance: told before each stretch how many bytes of the file (as it is on disk) were read since the last time.

    Raises:
        InputError: the file is missing, truncated, of another format or, as one document, too long; it has no such
            column of text; a split of a file; what `lm.data.sources.load` and `lm.data.readers.hub_rows` raise.
    """
    if given.name.startswith("source:"):
        return _named(given.name.removeprefix("source:"), reading)
    if given.name.startswith("hub:"):
        return _hub(given.name.removeprefix("hub:"), reading)
    if reading.split is not None:
        raise InputError(f"{given.name} is edited whole, not by split; leave the split out")
    path = pathlib.Path(given.name)
    make = {"text": _text, "jsonl": _jsonl, "parquet": _parquet}[format_of(path) or "text"]
    return make(path, reading, advance)


def check_field(given: Input, reading: Reading) -> bool:
    """Refuse an input whose first records all lack the field that is to hold the text: another one was meant.

    Returns whether there is any record.

    Args:
        given: as of `records`.
        reading: as of `records`.

    Raises:
        InputError: that; and what `records` raises.
    """
    filled = (one for one in records(given, reading) if isinstance(one, Aside) or one.text is not None)
    first = list(itertools.islice(filled, TRIED))
    rows = [row for row in map(_row, first) if row is not None and reading.field not in row]
    if rows and len(rows) == len(first):
        raise InputError(
            f"the records of {given.name} have no field {reading.field!r}; they have {', '.join(rows[0]) or 'none'}: "
            "name the field of the text"
        )
    return bool(first)


def _row(one: Item | Aside) -> dict[str, Any] | None:
    """Return the object that a damaged record spells nevertheless."""
    try:
        return object_of(one.raw.removeprefix(BOM)) if isinstance(one, Aside) else None
    except UnusableError:
        return None


def text_key(text: bytes) -> str:
    """Return the key of a text that has no id."""
    return NO_ID + hashlib.sha256(text).hexdigest()[:16]


def _lines(content: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number and bytes of each line, line end included, and whether it is whole: too long ones come in pieces."""
    number = 0
    while line := content.readline(LONGEST_LINE + 1):
        number += 1
        whole = len(line) <= LONGEST_LINE
        yield number, line, whole
        while not whole and not line.endswith(b"\n") and (line := content.readline(1 << 20)):
            yield number, line, False


@guarded
def _jsonl(path: pathlib.Path, reading: Reading, advance: Callable[[int], None]) -> Iterator[Item | Aside]:
    file, content = open_content(path)
    with file, content:
        tell, told = Advance(file, advance), 0
        for number, raw, whole in _lines(content):
            tell(now=True)  # a chunk may end here
            if whole:
                yield _line(number, raw, reading)
                continue
            if number > told:
                told = number
                yield Aside(number, STAYS, b"")
            yield Item(number, raw)
        tell(now=True)


def _line(number: int, raw: bytes, reading: Reading) -> Item | Aside:
    line = raw.removeprefix(BOM) if number == 1 else raw
    if not line.strip():
        return Item(number, raw)
    what = f"the field {reading.field!r}"
    try:
        row = _object(line)
        if reading.field in row and row[reading.field] is None:
            return Item(number, raw)
        text = as_text(row.get(reading.field), what).encode()
    except UnusableError as error:
        is_half = isinstance(error.__cause__, UnicodeEncodeError)
        return Aside(number, f"{what} spells half a surrogate pair, which is not UTF-8" if is_half else str(error), raw)
    return Item(number, raw, text, own_id(row) or text_key(text), reading.domain, field=reading.field)


def _object(line: bytes) -> dict[str, Any]:
    """Return the object that a line of JSON spells, however long its integers; raises UnusableError."""
    try:
        return object_of(line)
    except UnusableError:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(row := _DECODER.decode(line.decode()), dict):
                return row
        raise


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python converts 4,300 digits; which number it is does not matter, as only bytes are copied
        return float(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


@guarded
def _text(path: pathlib.Path, reading: Reading, advance: Callable[[int], None]) -> Iterator[Item | Aside]:
    file, content = open_content(path)
    with file, content:
        tell = Advance(file, advance)
        if reading.unit == "file":
            raw = content.read(LONGEST_LINE + 1)
            if len(raw) > LONGEST_LINE:
                raise InputError(
                    f"{path} is longer than {LONGEST_LINE >> 20} MB, too long for one document; "
                    "read it by paragraphs or lines"
                )
            yield _document(1, raw, reading)
        else:
            for stretch in _stretches(content, reading):
                tell(now=True)
                yield stretch
        tell(now=True)


def _stretches(content: BinaryIO, reading: Reading) -> Iterator[Item | Aside]:
    """Yield paragraphs, or lines, and what is between them."""
    held: list[bytes] = []
    first = size = told = 0
    for number, raw, whole in _lines(content):
        filled = whole and raw.strip()
        if held and not (filled and reading.unit == "paragraph" and size + len(raw) <= LONGEST_LINE):
            yield _document(first, b"".join(held), reading)
            held, size = [], 0
        if filled:
            first = first if held else number
            held.append(raw)
            size += len(raw)
            continue
        if not whole and number > told:
            told = number
            yield Aside(number, STAYS, b"")
        yield Item(number, raw)
    if held:
        yield _document(first, b"".join(held), reading)


def _document(number: int, raw: bytes, reading: Reading) -> Item:
    begin = len(BOM) if number == 1 and raw.startswith(BOM) else 0
    text = raw[begin:] if reading.unit == "file" else raw[begin:].rstrip(b"\r\n")
    return Item(number, raw, text, text_key(text), reading.domain, begin)


@guarded
def _parquet(path: pathlib.Path, reading: Reading, advance: Callable[[int], None]) -> Iterator[Item | Aside]:
    number = told = 0
    size = path.stat().st_size
    with open_parquet(path) as file:
        text_type(path, file.schema_arrow, reading.field)
        wanted = wanted_columns(path, file.schema_arrow.names, reading.field)
        for batch in file.iter_batches(ROWS, columns=wanted, use_threads=False):
            for values in zip(*(text_values(batch.column(name)) for name in wanted), strict=True):
                number += 1
                place = size * number // file.metadata.num_rows
                advance(place - told)
                told = place
                row = dict(zip(wanted, values, strict=True))
                yield _cell(number, row[reading.field], row, reading)


def _cell(number: int, text: bytes | None, row: Mapping[str, Any], reading: Reading) -> Item:
    if text is None:
        return Item(number, b"")
    return Item(number, text, text, own_id(row) or text_key(text), reading.domain)


def text_type(path: pathlib.Path, schema: pa.Schema, field: str) -> pa.DataType:
    """Return the type of a file's column of text; raises InputError for one that is missing or holds no text."""
    if schema.names.count(field) != 1:
        raise InputError(
            f"{path} has no column {field!r}, or several, among {', '.join(schema.names)}; name the column of the text"
        )
    found = schema.field(field).type
    kind = found.value_type if pa.types.is_dictionary(found) else found
    if not any(
        known(kind)
        for known in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    ):
        raise InputError(f"the column {field!r} of {path} holds {found}, no text; name the column of the text")
    return found


def _named(name: str, reading: Reading) -> Iterator[Item | Aside]:
    from lm.data import sources

    for number, found in enumerate(sources.load(name, known_split(reading)), 1):
        raw = (json.dumps(vars(found), ensure_ascii=False) + "\n").encode()
        yield Item(number, raw, found.text.encode(), found.id, found.domain, field="text")


def _hub(name: str, reading: Reading) -> Iterator[Item | Aside]:
    for number, row in enumerate(hub_rows(name, reading.split), 1):
        try:
            raw = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise InputError(
                f"row {number} of hub:{name} cannot be written as JSON ({error}); download and edit its Parquet files"
            ) from error
        yield _line(number, raw, reading)
