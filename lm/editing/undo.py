"""The original of an output file, from its edits and what was set aside."""

import pathlib
from collections.abc import Iterable, Iterator

from lm.data.readers import Input, Reading, format_of, guarded, open_content
from lm.editing.columns import Change, rewrite
from lm.editing.edits import RecordEdits, undo
from lm.editing.records import Aside, records
from lm.errors import InputError

PIECE = 1 << 20  # bytes


def undo_file(
    output: pathlib.Path, edits: Iterable[RecordEdits], asides: Iterable[Aside], to: pathlib.Path, field: str = "text"
) -> None:
    """Write what an output file was made from: the content, uncompressed; of Parquet, the table.

    Nothing but the output and its edits is needed: where a record of text began is known from the lines before it,
    once their edits are undone.

    Args:
        output: text, JSONL (perhaps compressed) or Parquet.
        edits: of `lm.editing.edits.read_edits` for it.
        asides: of the file, in order; their lines come back.
        to: file to write, beside and renamed.
        field: column of the text, of Parquet.

    Raises:
        InputError: the file is not what the edits gave.
    """
    beside = to.with_name(f".{to.name}.partial")
    kind = format_of(output)
    if kind == "parquet":
        rewrite(output, field, _texts(output, edits, field), beside)
    else:
        with beside.open("wb") as file:
            # A line that is too long was told, without its bytes, but stayed.
            for piece in _content(output, edits, (one for one in asides if one.raw)):
                file.write(piece)
    beside.replace(to)


def _texts(output: pathlib.Path, edits: Iterable[RecordEdits], field: str) -> Iterator[Change]:
    rows = records(Input(str(output)), Reading(field=field))
    for record in edits:
        row = next((row for row in rows if row.number == record.record), None)
        if row is None:
            raise _unlike(output, record)
        yield record.record, undo(row.raw, record)


@guarded
def _content(path: pathlib.Path, edits: Iterable[RecordEdits], asides: Iterable[Aside]) -> Iterator[bytes]:
    file, content = open_content(path)
    coming = iter(asides)
    aside, number = next(coming, None), 1  # of the line, in the original, that the next byte belongs to

    def lines(goal: int | None) -> Iterator[bytes]:
        """Yield all up to where a line begins, or to the end."""
        nonlocal aside, number
        while goal is None or number < goal:
            if aside is not None and aside.number == number:
                yield aside.raw
                aside, number = next(coming, None), number + 1
                continue
            piece = content.readline(PIECE)
            if not piece:
                return
            yield piece
            number += piece.endswith(b"\n")

    with file, content:
        for record in edits:
            yield from lines(record.record)
            done = 0
            for at, old, new in zip(record.at, record.old, record.new, strict=True):
                same = content.read(at - done)
                if number < record.record or len(same) < at - done or content.read(len(new)) != new:
                    raise _unlike(path, record)
                yield same
                yield old
                number += same.count(b"\n") + old.count(b"\n")
                done = at + len(old)
        yield from lines(None)


def _unlike(path: pathlib.Path, record: RecordEdits) -> InputError:
    return InputError(
        f"{path} is not what the edits of record {record.record} gave; give the file that belongs to the table of edits"
    )
