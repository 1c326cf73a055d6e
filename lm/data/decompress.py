"""Content of compressed files, in bounded memory; a file that is cut off or damaged ends in an error."""

import gzip
import io
import pathlib
import zlib

import pyarrow as pa

from lm.errors import InputError


class Decompressed(io.RawIOBase):
    """What a .gz or .zst file holds."""

    def __init__(self, path: pathlib.Path, file: pa.NativeFile):
        """Begin.

        Args:
            path: of the file, for messages; its end says the kind.
            file: it, open.
        """
        self._path = path
        # Arrow refuses the zeros with which some writers fill up gzip files; zstandard's streams end without an error
        # where a file is cut off.
        self._content = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else pa.CompressedInputStream(file, "zstd")

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] (any buffer)
        """Read up to a buffer's bytes; return how many, 0 at the end.

        Raises:
            OSError, EOFError: the file is damaged, or cut off.
            InputError: it needs too much memory.
        """
        try:
            return self._content.readinto(buffer)
        except zlib.error as error:
            raise OSError(str(error)) from error
        except OSError as error:
            if "too much memory" not in str(error):
                raise
            raise InputError(
                f"{self._path} was compressed by zstd --long, and needs over 128 MB of memory to be read; write it "
                f"again without (zstd -d --long=31 -c {self._path.name} | zstd > NEW.zst) and name the new file"
            ) from error

    def close(self) -> None:
        """Close the stream, not the file."""
        self._content.close()
        super().close()
