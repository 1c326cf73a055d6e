"""Edited files from their originals and the tables of edits, and the originals from the edited files: exact."""

import gzip
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from lm.data.fetch import sha256_of
from lm.data.readers import COMPRESSIONS, format_of
from lm.editing import folder, output
from lm.editing.aside import read_asides
from lm.editing.chunks import chunks
from lm.editing.edits import RecordEdits, applied, read_edits
from lm.editing.inputs import Task
from lm.editing.records import Item
from lm.editing.settings import settings_of
from lm.editing.undo import undo_file
from lm.errors import InputError


def check_done(edited: pathlib.Path, task: Task) -> None:
    """Raise InputError where the folder of an edit has no finished output of a file."""
    if not folder.is_done(edited, task.relative):
        raise InputError(f"{edited} has no finished edit of {task.relative}; name the files as they were for the edit")


def _check_table(edited: pathlib.Path, relative: str) -> dict[str, Any]:
    """Return what a file's statistics say of its edit; raises InputError where the table lacks edits or has more."""
    path, about = folder.beside(edited, relative, folder.EDITS), folder.beside(edited, relative, folder.STATISTICS)
    known, number = folder.read_json(about), folder.rows_of(path)
    if known.get("edits", number) != number:  # older folders do not say
        raise InputError(
            f"{path} has {number} edits and not the {known['edits']} of {about}; restore the table of edits"
        )
    return known


class EditsByPlace:
    """The edits of a file, handed out along the file; one record's are in memory at a time."""

    def __init__(self, table: pathlib.Path):
        """Begin to read; raises InputError for what is no table of edits."""
        self._table = table
        self._found = read_edits(table)
        self._next = next(self._found, None)

    def upto(self, record: int) -> Iterator[RecordEdits]:
        """Yield the edits of the next records, up to one."""
        while self._next is not None and self._next.record <= record:
            # Taken before it is handed out: who gets it may not come back for more.
            one, self._next = self._next, next(self._found, None)
            yield one

    def check_over(self, name: str) -> None:
        """Raise InputError where edits are left at the end of the file."""
        if self._next is not None:
            raise InputError(
                f"{name} ends before record {self._next.record}, which {self._table} edits; name the file as it was"
            )


def apply_file(
    task: Task, edited: pathlib.Path, out: pathlib.Path, progress: Callable[[int], None] = lambda size: None
) -> None:
    """Write an edited file from its original and its table of edits: the bytes that the edit wrote.

    Args:
        task: the original.
        edited: folder of the edit.
        out: folder to write.
        progress: told of the bytes of the original that are done.

    Raises:
        InputError: the original is not the one that was edited, or a file cannot be read or written.
    """
    settings, _ = settings_of(edited)
    check_done(edited, task)
    edits = EditsByPlace(folder.beside(edited, task.relative, folder.EDITS))
    if _check_table(edited, task.relative).get("input") != folder.input_of(task):
        raise InputError(
            f"{task.name} is not the file that was edited into {edited}, or has changed; bring that one back"
        )
    with folder.scratch(out, task.relative) as place:
        parts: list[pathlib.Path] = []
        for chunk in chunks(task, settings.reading, settings.chunk):
            upto = edits.upto(chunk.stretches[-1].number) if chunk.stretches else iter(())
            pairs = list(applied(task.name, chunk.stretches, upto))
            kept = [(item, raw) for item, raw in pairs if isinstance(item, Item)]
            parts.append(place / f"{chunk.number:06d}")
            parts[-1].write_bytes(
                output.encode_part(task.relative, [item for item, _ in kept], [raw for _, raw in kept])
            )
            progress(chunk.size)
        edits.check_over(task.name)
        output.join(task.path, task.relative, settings.field, parts, place / "joined")
        folder.place(place / "joined", folder.beside(out, task.relative))


def undo(
    task: Task, edited: pathlib.Path, out: pathlib.Path, progress: Callable[[int], None] = lambda size: None
) -> None:
    """Write the original of an edited file, compressed as its name says; its content is the original's to the byte.

    Args:
        task: the edited file.
        edited: folder of the edit, for the edits and what was set aside.
        out: folder to write.
        progress: told of the bytes of the edited file that are done.

    Raises:
        InputError: the file is not what the edits gave (where the input was compressed, or Parquet, a change outside
            the edits is not noticed), or a file cannot be read or written.
    """
    check_done(edited, task)
    with folder.scratch(out, task.relative) as place:
        content = place / "content"
        path = folder.beside(edited, task.relative) if task.path is None else task.path
        undone(task.relative, edited, path, content)
        made_from = _check_table(edited, task.relative).get("input")
        wanted = made_from.get("sha256") if isinstance(made_from, dict) else None
        if wanted and _is_plain(task.relative) and sha256_of(content) != wanted:
            raise InputError(
                f"{path} was changed after it was edited: without the edits it is not the file that was edited; "
                "restore it, or rebuild it with toedit apply"
            )
        folder.place(_compressed(content, task.relative), folder.beside(out, task.relative))
    progress(task.size)


def undone(relative: str, edited: pathlib.Path, path: pathlib.Path, to: pathlib.Path) -> None:
    """Write the content (uncompressed) that an edited file was made from.

    Args:
        relative: name of the file in the folder of its edit.
        edited: that folder.
        path: the edited file.
        to: file to write.

    Raises:
        InputError: the file is not what the edits gave, or a file cannot be read or written.
    """
    edits = read_edits(folder.beside(edited, relative, folder.EDITS))
    _check_table(edited, relative)
    asides = read_asides(folder.beside(edited, relative, folder.ASIDE))
    settings, _ = settings_of(edited)
    undo_file(path, edits, asides, to, settings.field)


def _is_plain(name: str) -> bool:
    """Return whether an original of this name comes back byte for byte: neither compressed nor Parquet."""
    path = pathlib.Path(name)
    return path.suffix not in COMPRESSIONS and format_of(path) != "parquet"


def _compressed(content: pathlib.Path, name: str) -> pathlib.Path:
    """Return a file of this content in the form that a name's end says."""
    to = content.with_name("compressed")
    if name.endswith(".gz"):
        # No name and no time in it: the same bytes every time.
        with content.open("rb") as plain, to.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as file:
            shutil.copyfileobj(plain, file, 1 << 20)
        return to
    if name.endswith(".zst"):
        with content.open("rb") as plain, to.open("wb") as file:
            zstandard.ZstdCompressor().copy_stream(plain, file, size=content.stat().st_size)
        return to
    return content
