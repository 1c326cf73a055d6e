"""The user's own text as a stream of records, whatever the size: text files, JSONL, Parquet, named and hub sources.

A record that cannot be used is set aside with its file and line and the good ones are kept; a file that cannot
be read is an error. One record is in memory at a time (for Parquet, some rows).
"""

import dataclasses
import functools
import glob
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Concatenate, Literal, ParamSpec, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.decompress import Decompressed
from lm.data.splits import SPLITS, Split, digest, split_of
from lm.errors import InputError

LONGEST_LINE = 64 << 20  # bytes; a longer line is set aside instead of read
TOO_LONG = f"the line is longer than {LONGEST_LINE >> 20} MB"
ROWS = 256  # of a Parquet file, read together
ADVANCE = 256  # records between two reports of progress
BOM = b"\xef\xbb\xbf"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
FORMATS: dict[str, Literal["text", "jsonl", "parquet"]] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

Unit = Literal["file", "paragraph", "line"]

_Rest = ParamSpec("_Rest")
_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
        field: that holds the text, in JSONL, Parquet and hub data sets.
        unit: what one document of a text file is; paragraphs are parted by blank lines.
        domain: of the documents; a named source keeps its own.
        split: to read: "train", "validation" or "test" of a named source, or of files (see `read`), all by default; of
            a hub data set one that it has, "train" by default.
    """

    field: str = "text"
    unit: Unit = "file"
    domain: str = "text"
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """A document of the input.

    Attributes:
        id: the field "id" where there is one, else file:line; of a whole text file, the file.
        work: what it is a part of, for standard errors: the file, for paragraphs and lines of a text file; else all
            that has this id in the file.
        domain: name of the source.
        text: as in the input; a byte order mark at the start of a file is left out.
        file: as found.
        line: of its first byte, or row of a Parquet file, from 1.
        own_id: the field "id", None where there is none.
    """

    id: str
    work: str
    domain: str
    text: str
    file: str
    line: int
    own_id: str | None = None


@dataclasses.dataclass(frozen=True)
class Bad:
    """A record that cannot be used: where it is and why."""

    file: str
    line: int
    reason: str


def refuse(bad: Bad) -> None:
    """Raise InputError for a bad record: the strict way of setting aside."""
    raise InputError(f"{bad.file}:{bad.line}: {bad.reason}; mend the record, or read on without --strict")


class UnusableError(Exception):
    """Carries why a record cannot be used."""


@dataclasses.dataclass(frozen=True)
class Input:
    """Something to read.

    Attributes:
        name: as given or found: a path, source:NAME or hub:NAME.
        size: bytes, 0 where it is not known.
    """

    name: str
    size: int = 0


def location(path: pathlib.Path) -> pathlib.Path:
    """Return where a file lies, in one spelling; of a link its own place, not its target's."""
    return path.parent.resolve() / path.name


def find(inputs: Sequence[str], *, links: bool = False) -> list[Input]:
    """Return what the inputs name: files, those of folders and globs in sorted order, each once however it is spelled.

    Args:
        inputs: paths of files and folders, globs, source:NAME, hub:OWNER/NAME or hub:OWNER/NAME:CONFIGURATION.
        links: whether a link counts as a file of its own, and not as the one to which it leads.

    Raises:
        InputError: nothing is there, or a file of unknown format was named.
    """
    found: dict[str | pathlib.Path, Input] = {}
    for name in inputs:
        if name.startswith(("source:", "hub:")):
            found[name] = Input(name)
            continue
        for path in _paths(name):
            try:
                size = path.stat().st_size
                found.setdefault(location(path) if links else path.resolve(), Input(str(path), size))
            except OSError as error:  # such as a link to nothing, which a glob finds
                raise _unreadable(path, error) from error
    if not found:
        raise InputError("there is nothing to read; name files, folders or sources")
    return list(found.values())


def _paths(name: str) -> list[pathlib.Path]:
    path = pathlib.Path(name)
    try:
        if path.is_dir():
            inside = sorted(entry for entry in path.rglob("*") if entry.is_file() and _shown(entry, path))
            inside = [entry for entry in inside if format_of(entry)]
            if not inside:
                raise InputError(f"the folder {name} holds no file ending in {', '.join(FORMATS)}; name another")
            return inside
        found = [path] if path.exists() else sorted(map(pathlib.Path, glob.glob(name, recursive=True)))  # noqa: PTH207 (absolute patterns)
    except OSError as error:
        raise _unreadable(name, error) from error
    if not found:
        raise InputError(
            f"there is no file {name}; name a file, a folder, a glob, source:NAME (see toedit fetch --list) or hub:NAME"
        )
    for file in found:
        if not format_of(file):
            raise InputError(
                f"the format of {file} is not known; end its name in {', '.join(FORMATS)}, perhaps with .gz or .zst"
            )
    return found


def _unreadable(name: str | pathlib.Path, error: OSError) -> InputError:
    return InputError(f"{name} cannot be read ({error.strerror or error}); name another file")


def _shown(path: pathlib.Path, folder: pathlib.Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def format_of(path: pathlib.Path) -> Literal["text", "jsonl", "parquet"] | None:
    """Return the format that a file's name says; None for one that is not known."""
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    kind = FORMATS.get(name.suffix)
    return None if kind == "parquet" and name != path else kind


def read(
    given: Input,
    reading: Reading,
    aside: Callable[[Bad], None] = refuse,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Record]:
    """Return an iterator over the records of an input, in its order.

    A record of a file is in a split by the hash of its own id, so that all that have one id are together, whatever
    their files; where it has none, by the hash of its text (but for capitals and white space), wherever that is.

    Args:
        given: one of `find`'s.
        reading: how.
        aside: told of each bad record; by default the first one raises InputError.
        advance: told now and then how many bytes of the file (as it is on disk) were read since the last time.

    Raises:
        InputError: the file is missing, truncated or of another format; an unknown source; a package is missing.
    """
    if given.name.startswith("source:"):
        return _named(given.name.removeprefix("source:"), reading, aside)
    if given.name.startswith("hub:"):
        return _hub(given.name.removeprefix("hub:"), reading, aside)
    path = pathlib.Path(given.name)
    make = {"text": _text, "jsonl": _jsonl, "parquet": _parquet}[format_of(path) or "text"]
    records, split = make(path, reading, aside, advance), known_split(reading)
    return records if split is None else _of_split(records, split)


def _of_split(records: Iterator[Record], split: Split) -> Iterator[Record]:
    for record in records:
        if split_of(record.own_id or digest(record.text).hex()) == split:
            yield record


def known_split(reading: Reading) -> Split | None:
    """Return the split to read; raises InputError for one that named sources and files do not have."""
    if reading.split is None:
        return None
    for known in SPLITS:
        if reading.split == known:
            return known
    raise InputError(f"there is no split {reading.split!r}; choose one of {', '.join(SPLITS)}")


def as_text(content: object, what: str) -> str:
    """Return a text, perhaps empty; raises UnusableError."""
    if content is None:
        raise UnusableError(f"{what} is missing")
    if not isinstance(content, bytes | str):
        raise UnusableError(f"{what} is no text but of type {type(content).__name__}")
    try:
        if isinstance(content, bytes):
            return content.decode()
        content.encode()  # half a surrogate pair, which JSON can spell, has no UTF-8
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UnusableError(f"{what} is not UTF-8 ({error.reason} at {error.start})") from error
    return content


def _checked(content: object, what: str) -> str:
    """Return a text that can be used; raises UnusableError."""
    text = as_text(content, what)
    if not text:
        raise UnusableError(f"{what} is empty")
    return text


def own_id(row: Mapping[str, Any]) -> str | None:
    """Return the id that a row of fields has, as text that has a UTF-8."""
    given = row.get("id")
    if isinstance(given, bytes):
        given = given.decode(errors="backslashreplace")
    if not isinstance(given, str | int):
        return None
    return str(given).encode(errors="backslashreplace").decode() or None  # JSON can spell half a surrogate pair


def _record(row: dict[str, Any], reading: Reading, file: str, line: int) -> Record:
    """Return the record of a row of fields; raises UnusableError."""
    text = _checked(row.get(reading.field), f"the field {reading.field!r}")
    given, place = own_id(row), f"{file}:{line}"
    # Documents of two files are two works, though they may have one id.
    return Record(given or place, f"{file}#{given}" if given else place, reading.domain, text, file, line, given)


def open_content(path: pathlib.Path) -> tuple[pa.NativeFile, BinaryIO]:
    """Return a file as it is on disk, and its content: decompressed, buffered."""
    file = pa.OSFile(str(path))
    content = Decompressed(path, file) if path.suffix in COMPRESSIONS else file
    return file, io.BufferedReader(cast(io.RawIOBase, content), 1 << 20)


class Advance:
    """Tells how far a file was read since the last time."""

    def __init__(self, file: pa.NativeFile, advance: Callable[[int], None]):
        self._file, self._advance, self._told, self._calls = file, advance, 0, 0

    def __call__(self, *, now: bool = False) -> None:
        """Tell, every so many calls or now."""
        self._calls += 1
        if now or self._calls % ADVANCE == 0:
            place = self._file.tell()
            self._advance(place - self._told)
            self._told = place


def guarded(
    make: Callable[Concatenate[pathlib.Path, _Rest], Iterator[_Found]],
) -> Callable[Concatenate[pathlib.Path, _Rest], Iterator[_Found]]:
    """Return a reader that turns what a bad file raises into one sentence."""

    @functools.wraps(make)
    def guarded(path: pathlib.Path, *rest: _Rest.args, **others: _Rest.kwargs) -> Iterator[_Found]:
        try:
            yield from make(path, *rest, **others)
        except (OSError, EOFError, pa.ArrowException) as error:
            reason = (getattr(error, "strerror", None) or str(error)).split("\n", maxsplit=1)[0]
            raise InputError(f"{path} cannot be read ({reason}); mend or replace the file") from error

    return guarded


def _lines(content: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Return number and bytes of each line, the line end included; a line that is too long as b""."""
    number = 0
    while line := content.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = content.readline(1 << 20)
            line = b""
        yield number, line


def _emptied(path: pathlib.Path) -> Bad | None:
    """Return what is wrong with a compressed file of no bytes: no compressor leaves one, but a lost shard does."""
    is_empty = path.suffix in COMPRESSIONS and not path.stat().st_size
    return Bad(str(path), 1, "the file is empty") if is_empty else None


@guarded
def _jsonl(
    path: pathlib.Path, reading: Reading, aside: Callable[[Bad], None], advance: Callable[[int], None]
) -> Iterator[Record]:
    if bad := _emptied(path):
        aside(bad)
        return
    file, content = open_content(path)
    with file, content:
        tell, name = Advance(file, advance), str(path)
        for number, raw in _lines(content):
            tell()
            try:
                if not raw:
                    raise UnusableError(TOO_LONG)
                line = raw.removeprefix(BOM) if number == 1 else raw
                if not line.strip():
                    raise UnusableError("the line is blank")
                record = _record(object_of(line), reading, name, number)
            except UnusableError as error:
                aside(Bad(name, number, str(error)))
                continue
            yield record
        tell(now=True)


def object_of(line: bytes) -> dict[str, Any]:
    """Return the object that a line of JSON spells; raises UnusableError."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UnusableError(f"the line is not UTF-8 ({error.reason} at {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"the line is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UnusableError(f"the line is no JSON object but of type {type(row).__name__}")
    return row


@guarded
def _text(
    path: pathlib.Path, reading: Reading, aside: Callable[[Bad], None], advance: Callable[[int], None]
) -> Iterator[Record]:
    if bad := _emptied(path):
        aside(bad)
        return
    file, content = open_content(path)
    with file, content:
        tell, name = Advance(file, advance), str(path)
        for number, raw in _UNITS[reading.unit](content):
            tell()
            try:
                if not raw:
                    raise UnusableError("the file is empty" if reading.unit == "file" else TOO_LONG)
                text = raw.removeprefix(BOM) if number == 1 else raw
                if reading.unit != "file":
                    text = text.rstrip(b"\r\n")
                text = _checked(text, f"the {reading.unit}")
            except UnusableError as error:
                aside(Bad(name, number, str(error)))
                continue
            identity = name if reading.unit == "file" else f"{name}:{number}"
            yield Record(identity, name, reading.domain, text, name, number)
        tell(now=True)


def _whole(content: BinaryIO) -> Iterator[tuple[int, bytes]]:
    yield 1, content.read()


def _filled_lines(content: BinaryIO) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in _lines(content) if not line or line.strip())


def _paragraphs(content: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Return line and bytes of each stretch of lines that are not blank."""
    held: list[bytes] = []
    number = size = 0
    for place, line in _lines(content):
        if held and (not line.strip() or size + len(line) > LONGEST_LINE):
            yield number, b"".join(held)
            held, size = [], 0
        if not line:
            yield place, line
        elif line.strip():
            if not held:
                number = place
            held.append(line)
            size += len(line)
    if held:
        yield number, b"".join(held)


_UNITS: dict[Unit, Callable[[BinaryIO], Iterator[tuple[int, bytes]]]] = {
    "file": _whole,
    "paragraph": _paragraphs,
    "line": _filled_lines,
}


def open_parquet(path: pathlib.Path) -> pq.ParquetFile:
    """Return a Parquet file that is read a little at a time; else Arrow holds all bytes of a row group."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


@guarded
def _parquet(
    path: pathlib.Path, reading: Reading, aside: Callable[[Bad], None], advance: Callable[[int], None]
) -> Iterator[Record]:
    name, number = str(path), 0
    with open_parquet(path) as file:
        wanted = wanted_columns(path, file.schema_arrow.names, reading.field)
        if reading.field not in wanted:
            columns = ", ".join(file.schema_arrow.names)
            raise InputError(
                f"{path} has no column {reading.field!r} but {columns}; "
                "name the column of the text (toedit tokenize --field)"
            )
        told, size = 0, path.stat().st_size
        for batch in file.iter_batches(ROWS, columns=wanted, use_threads=False):
            for row in zip(*(text_values(batch.column(column)) for column in wanted), strict=True):
                number += 1
                try:
                    record = _record(dict(zip(wanted, row, strict=True)), reading, name, number)
                except UnusableError as error:
                    aside(Bad(name, number, str(error)))
                    continue
                yield record
            place = size * number // max(file.metadata.num_rows, 1)
            advance(place - told)
            told = place


def wanted_columns(path: pathlib.Path, names: Sequence[str], field: str) -> list[str]:
    """Return which of a Parquet file's columns are read: the text's and "id"; raises InputError for two of one name."""
    wanted = [name for name in dict.fromkeys((field, "id")) if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise InputError(f"{path} has several columns {name!r}; rename or remove all but one")
    return wanted


def text_values(column: pa.Array) -> list[Any]:
    """Return a column's values, text as bytes: files may hold text that is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if any(known(column.type) for known in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        column = column.cast(pa.large_binary())
    return column.to_pylist()


def _named(name: str, reading: Reading, aside: Callable[[Bad], None]) -> Iterator[Record]:
    from lm.data import sources

    for number, found in enumerate(sources.load(name, known_split(reading)), 1):
        try:
            _checked(found.text, "the text")
        except UnusableError as error:
            aside(Bad(f"source:{name}", number, str(error)))
            continue
        yield Record(found.id, found.work, found.domain, found.text, f"source:{name}", number)


def _hub(name: str, reading: Reading, aside: Callable[[Bad], None]) -> Iterator[Record]:
    for number, row in enumerate(hub_rows(name, reading.split), 1):
        try:
            record = _record(row, reading, f"hub:{name}", number)
        except UnusableError as error:
            aside(Bad(f"hub:{name}", number, str(error)))
            continue
        yield record


def hub_rows(name: str, split: str | None) -> Iterator[dict[str, Any]]:
    """Return an iterator over the rows of a hub data set.

    Args:
        name: OWNER/NAME or OWNER/NAME:CONFIGURATION.
        split: one that it has; "train" by default.

    Raises:
        InputError: the package is missing, or the data set cannot be read.
    """
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"hub:{name} needs the package datasets, which is not installed; install toedit[hub]"
        ) from error
    path, _, configuration = name.partition(":")
    try:
        yield from load_dataset(path, configuration or None, split=split or "train", streaming=True)
    except Exception as error:  # the package raises errors of many kinds
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> InputError:
    reason = str(error).split("\n", maxsplit=1)[0]
    return InputError(f"the data set hub:{name} cannot be read ({reason}); check its name, split and the network")
