"""Records that were set aside, as JSON lines: where each was, why, and its bytes, so that nothing is lost.

A line that is too long has no bytes there: it stays in the output.
"""

import base64
import json
import pathlib
from collections.abc import Iterator

from lm.editing.records import Aside
from lm.errors import InputError


def line_of(file: str, aside: Aside) -> bytes:
    """Return the line that keeps a record: its bytes as text where they are UTF-8, else as base64.

    Args:
        file: relative name of the output, for the reader.
        aside: the record.
    """
    try:
        content = {"text": aside.raw.decode()}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(aside.raw).decode()}
    row = {"file": file, "line": aside.number, "reason": aside.reason, **content}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def read_asides(path: pathlib.Path) -> Iterator[Aside]:
    """Return an iterator over the records of such a file; over none where there is no file.

    Raises:
        InputError: a line is not of that form.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                raw = row["text"].encode() if "text" in row else base64.b64decode(row["base64"], validate=True)
                yield Aside(int(row["line"]), str(row["reason"]), raw)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise InputError(f"{path}:{number}: no record set aside by an edit; restore the file") from error
