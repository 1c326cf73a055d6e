"""Parts of an output file, and how they become the file: the same bytes however often the work was interrupted.

A part of a compressed file is a whole gzip member or zstd frame without a time, so that parts one after the other
are a file. A part of a Parquet file is the rows that changed.
"""

import gzip
import pathlib
import shutil
from collections.abc import Iterable, Sequence

import zstandard

from lm.data.readers import COMPRESSIONS, format_of
from lm.editing.columns import decode_changes, encode_changes, rewrite
from lm.editing.records import Item
from lm.errors import InputError


def encode_part(name: str, items: Sequence[Item], raws: Sequence[bytes]) -> bytes:
    """Return a part of an output file.

    Args:
        name: relative, of the output, whose end says the format.
        items: stretches one after the other, those that pass included, those set aside not.
        raws: what stands for each in the output.
    """
    if format_of(pathlib.Path(name)) == "parquet":
        both = zip(items, raws, strict=True)
        return encode_changes((item.number, raw) for item, raw in both if raw != item.raw)
    return _compressed(name, b"".join(raws))


def _compressed(name: str, content: bytes) -> bytes:
    match COMPRESSIONS.get(pathlib.Path(name).suffix):
        case "gzip":
            return gzip.compress(content, 6, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)
        case _:
            return content


def join(original: pathlib.Path | None, name: str, field: str, parts: Iterable[pathlib.Path], to: pathlib.Path) -> None:
    """Write an output file from its parts, beside and renamed.

    Args:
        original: the input; of Parquet, all that did not change is copied from it. None for named and hub sources.
        name: relative, of the output, whose end says the format.
        field: column of the text, of Parquet.
        parts: files that hold `encode_part`'s bytes, all of the input, in order.
        to: file to write; its folder exists.

    Raises:
        InputError: the Parquet input is not the one that was edited.
    """
    beside = to.with_name(f".{to.name}.partial")
    if format_of(pathlib.Path(name)) == "parquet":
        if original is None:
            raise InputError(f"{name} cannot be Parquet without a Parquet file to copy; name a file")
        changes = decode_changes(parts)
        rewrite(original, field, changes, beside)
        if next(changes, None) is not None:
            raise InputError(f"{original} has fewer rows than were edited; give the same file")
    else:
        with beside.open("wb") as file:
            for part in parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, file, 1 << 20)
            if not file.tell():
                file.write(_compressed(name, b""))  # an empty file is no gzip file
    beside.replace(to)
