"""The folder that an edit writes: what it was made with, the parts of unfinished files, and finished files.

Everything is written beside its place and renamed, so that a kill leaves the old or the new. Processes with other
files of the same run may write the same folder; a lock keeps two from the same file.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.fetch import sha256_of
from lm.editing import output
from lm.editing.aside import line_of, read_asides
from lm.editing.chunks import Chunk
from lm.editing.config import EditConfig
from lm.editing.edits import join_tables, write_table
from lm.editing.inputs import RUN, Task
from lm.editing.records import Aside
from lm.editing.statistics import Statistics
from lm.errors import InputError

PARTS = ".parts"
# In run.json, what may differ: how the prior was named, and the kind of device that began.
NAME, DEVICE = "prior_name", "device"
LOCK = "lock"  # of a file's parts, among them
NEW = ".new"  # below PARTS: files before they are renamed into their places
EDITS, STATISTICS, ASIDE, DONE = ".edits.parquet", ".stats.json", ".aside.jsonl", ".done"


@contextlib.contextmanager
def writing(out: pathlib.Path) -> Iterator[None]:
    """Turn what a full or forbidden disk raises into one sentence; raises InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or out} cannot be written ({error.strerror or error}); free space or choose another "
            "--out, and the same command goes on where it was"
        ) from error


def beside(out: pathlib.Path, relative: str, ending: str = "") -> pathlib.Path:
    """Return the path of an output, or of what stands beside it."""
    return out / f"{relative}{ending}"


def is_done(out: pathlib.Path, relative: str) -> bool:
    """Return whether an output is finished."""
    return beside(out, relative, DONE).exists()


def finished(out: pathlib.Path) -> list[str]:
    """Return the relative names of all finished outputs of a folder that still have their statistics, sorted."""
    found = (path.relative_to(out) for path in out.rglob(f"*{DONE}"))
    names = (path.as_posix().removesuffix(DONE) for path in found if path.parts[0] != PARTS)
    return sorted(name for name in names if beside(out, name, STATISTICS).exists())


def write(out: pathlib.Path, path: pathlib.Path, content: bytes) -> None:
    """Write a file below the output folder that a kill or a power cut leaves whole or not there at all."""
    with _turn(out):
        new = _new(out, path.name)
        _write(new, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        new.replace(path)


@contextlib.contextmanager
def _turn(out: pathlib.Path) -> Iterator[None]:
    """Wait until no other process, on any host, writes or removes below `NEW`: what is there then, a kill left."""
    with (out / RUN).open("r+b") as lock:  # NFS locks only what is open for writing
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _new(out: pathlib.Path, name: str) -> pathlib.Path:
    """Return a path for a file that will be renamed; what a kill leaves there goes with the parts."""
    path = out / PARTS / NEW / f"{name}.{secrets.token_hex(8)}"  # a process id is not enough: several hosts write here
    _opened(path).close()
    return path


def _opened(path: pathlib.Path) -> IO[bytes]:
    """Open a file to append to it, in a folder that is made if need be: with it, nobody removes that as empty."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # removed by another process between the two
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return path.open("ab")
            except FileExistsError as error:
                # Removed between two steps of mkdir, which then takes it for a file; a file it may be, too.
                if not stat.S_ISDIR(pathlib.Path(error.filename).stat().st_mode):
                    raise


def _write(path: pathlib.Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: pathlib.Path) -> None:
    """Wait until a file is on the disk, so that no power cut leaves a name without its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def as_json(value: Any) -> bytes:
    """Return JSON as it is written here; raises ValueError for numbers that are not finite."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return the object that a file of an edit holds; raises InputError for what is none."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); name the output folder of an edit") from error
    return found


def begin(out: pathlib.Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Make the output folder with its run.json, or check that it belongs to the same run; return what that holds.

    Args:
        out: folder.
        about: what the outputs depend on, as JSON types; all but `NAME` and `DEVICE` must be the same.

    Raises:
        InputError: the folder belongs to another run or to something else, or cannot be written.
    """
    path = out / RUN
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(not entry.name.startswith(".") for entry in out.iterdir()):
                raise InputError(f"the folder {out} holds files and no {RUN} of an edit; choose an empty or a new one")
            new = _new(out, RUN)
            _write(new, as_json(about))
            # Another shard began at the same time, or even finished and cleared.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(new, path)
            new.unlink(missing_ok=True)
    found = read_json(path)
    there, here = (dict(leaves(one)) for one in (found, about))
    if there.get("format") != here.get("format"):
        raise InputError(
            f"the folder {out} was written by another version, whose draws or files are others (format "
            f"{there.get('format')} there and {here.get('format')} here); choose another --out to edit anew"
        )
    names = (there.keys() | here.keys()) - {NAME, DEVICE}
    differing = [name for name in sorted(names) if there.get(name) != here.get(name)]
    if differing:
        said = "; ".join(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in differing)
        raise InputError(f"the folder {out} holds another edit ({said}); choose another --out, or the same settings")
    return found


def seed_of(path: pathlib.Path) -> int | None:
    """Return the seed of the edit in whose folder a file lies, at any depth; None for other files."""
    for above in path.absolute().parents:
        if (above / RUN).is_file():
            with contextlib.suppress(ValueError, LookupError, TypeError):  # the run.json of something else
                return int(read_json(above / RUN)["settings"]["edit"]["seed"])
    return None


def input_of(task: Task) -> dict[str, Any]:
    """Return what tells an input from a changed one; raises InputError where it cannot be read."""
    if task.path is None:
        return {"name": task.name}
    try:
        return {"bytes": task.path.stat().st_size, "sha256": sha256_of(task.path)}
    except OSError as error:
        raise _unreadable(task, error) from error


def _unreadable(task: Task, error: OSError) -> InputError:
    return InputError(f"{task.name} cannot be read ({error.strerror or error}); bring the file back")


def leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects with their names, joined by dots."""
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from leaves(one, f"{before}{name}.")
        else:
            yield before + name, one


class Work:
    """One file while it is edited: the parts that are finished, and how they become its outputs."""

    def __init__(self, out: pathlib.Path, task: Task):
        """Name the folders; nothing is written."""
        self.task: Task = task
        """The file."""
        self.out: pathlib.Path = out
        """The output folder."""
        self.folder: pathlib.Path = out / PARTS / task.relative
        """Of the parts."""

    def open(self) -> None:
        """Take the file's lock, and note the input's hash or check that it is the one that the parts were made from.

        Raises:
            InputError: another process has the lock, or the input has changed since.
        """
        with writing(self.out):
            self._lock = _opened(self.folder / LOCK)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it when the process ends
        except OSError as error:
            raise InputError(
                f"another process is editing {self.task.name} into {self.out}; wait for it or give it a --shard"
            ) from error
        path = self.folder / "input.json"
        self._stamp, self._note = self._stamped(), input_of(self.task)
        if path.exists():
            if read_json(path) != self._note:
                raise self._changed()
            return
        with writing(self.out):
            write(self.out, path, as_json(self._note))

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def path(self, ending: str = "") -> pathlib.Path:
        """Return the path of the output, or of what stands beside it."""
        return beside(self.out, self.task.relative, ending)

    def is_done(self) -> bool:
        """Return whether the outputs are finished; what a kill left of the parts is removed then.

        Raises:
            InputError: the input is not what they were made from.
        """
        if not is_done(self.out, self.task.relative):
            return False
        lost = [self.path(ending) for ending in ("", EDITS, STATISTICS) if not self.path(ending).exists()]
        if lost:  # somebody removed them: they are made again
            self.path(DONE).unlink(missing_ok=True)
            return False
        made_from = read_json(self.path(STATISTICS)).get("input")
        if not self._is_older(made_from) and made_from != input_of(self.task):
            raise InputError(
                f"{self.task.name} has changed since it was edited into {self.out}; choose another --out, or remove "
                f"{self.path(DONE)} to edit it again"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def first_aside(self) -> Aside | None:
        """Return the first record that was set aside from a finished file; raises InputError as `read_asides`."""
        return next(read_asides(self.path(ASIDE)), None)

    def _is_older(self, made_from: Any) -> bool:
        """Return whether the input is as large as then and was last changed before its outputs were finished."""
        if self.task.path is None or not isinstance(made_from, dict):
            return False
        size, changed = self._stamped()
        return size == made_from.get("bytes") and changed < self.path(DONE).stat().st_mtime_ns

    def _stamped(self) -> tuple[int, int]:
        """Return size and time of the last change of the input; zeros for a source. Raises InputError."""
        if self.task.path is None:
            return 0, 0
        try:
            about = self.task.path.stat()
        except OSError as error:
            raise _unreadable(self.task, error) from error
        return about.st_size, about.st_mtime_ns

    def _changed(self) -> InputError:
        return InputError(
            f"{self.task.name} has changed since its edit began; restore it, or remove {self.folder} to begin again"
        )

    def part(self, number: int) -> pathlib.Path:
        """Return the folder of a part."""
        return self.folder / f"{number:06d}"

    def has(self, chunk: Chunk) -> bool:
        """Return whether a chunk's part is finished; raises InputError where it was made from another chunk."""
        path = self.part(chunk.number)
        if not path.is_dir():
            return False
        if read_json(path / "stats.json")["sha256"] != chunk.sha256:
            raise self._changed()
        return True

    def keep(self, chunk: Chunk, content: bytes, table: Any, statistics: Statistics) -> None:
        """Write a chunk's part.

        Args:
            chunk: edited.
            content: of `lm.editing.output.encode_part`.
            table: of its edits.
            statistics: of its documents.

        Raises:
            InputError: the disk cannot be written.
        """
        place = self.part(chunk.number)
        new = place.with_name(f".{place.name}")
        with writing(self.out):
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _write(new / "out", content)
            write_table(table, new / "edits.parquet")
            _sync(new / "edits.parquet")
            about = {"sha256": chunk.sha256, "asides": len(chunk.asides), "statistics": statistics.to_json()}
            _write(new / "stats.json", as_json(about))
            if chunk.asides:
                _write(new / "aside.jsonl", b"".join(line_of(self.task.relative, one) for one in chunk.asides))
            new.replace(place)

    def finish(self, parts: int, field: str, config: EditConfig) -> None:
        """Join the parts into the outputs, mark the file as done and remove the parts.

        Args:
            parts: number of them.
            field: column of the text, of Parquet.
            config: of the edit.

        Raises:
            InputError: the input has changed meanwhile, or the disk cannot be written.
        """
        if self._stamped() != self._stamp:
            raise self._changed()
        folders = [self.part(number) for number in range(parts)]
        joined = {ending: self.folder / f"joined{ending}" for ending in ("", EDITS, STATISTICS, ASIDE)}
        with writing(self.out):
            output.join(self.task.path, self.task.relative, field, (one / "out" for one in folders), joined[""])
            join_tables((one / "edits.parquet" for one in folders), joined[EDITS])
            statistics, asides = Statistics(config), 0
            with joined[ASIDE].open("wb") as file:
                for one in folders:
                    about = read_json(one / "stats.json")
                    statistics.merge(Statistics.from_json(about["statistics"]))
                    asides += about["asides"]
                    if about["asides"]:
                        file.write((one / "aside.jsonl").read_bytes())
            about = {
                "input": self._note,
                "asides": asides,
                "edits": rows_of(joined[EDITS]),
                "statistics": statistics.to_json(),
            }
            _write(joined[STATISTICS], as_json(about))
            for ending, path in joined.items():
                if ending == ASIDE and not asides:
                    self.path(ending).unlink(missing_ok=True)
                else:
                    place(path, self.path(ending))
            write(self.out, self.path(DONE), b"")
            shutil.rmtree(self.folder, ignore_errors=True)  # NFS keeps the open lock's folder, which `clear` removes


@contextlib.contextmanager
def scratch(out: pathlib.Path, relative: str) -> Iterator[pathlib.Path]:
    """Give an empty folder for the parts of one output and remove it at the end; raises InputError as `writing`."""
    folder = out / PARTS / relative
    with writing(out):
        shutil.rmtree(folder, ignore_errors=True)
        _opened(folder / LOCK).close()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(out)


def place(made: pathlib.Path, to: pathlib.Path) -> None:
    """Put a finished file into its place, in a folder that is made if need be."""
    _sync(made)
    to.parent.mkdir(parents=True, exist_ok=True)
    made.replace(to)


def clear(out: pathlib.Path) -> None:
    """Remove what is left of the parts once all files of a run are finished; other runs' parts stay."""
    with writing(out), _turn(out):
        shutil.rmtree(out / PARTS / NEW, ignore_errors=True)
        _remove_empty(out)


def _remove_empty(out: pathlib.Path) -> None:
    for folder, _, _ in os.walk(out / PARTS, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            pathlib.Path(folder).rmdir()


def rows_of(table: pathlib.Path) -> int:
    """Return the number of rows of a table of edits; raises InputError for what is no Parquet file."""
    try:
        return pq.read_metadata(table).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{table} cannot be read ({error}); restore the table of edits") from error


def statistics_of(out: pathlib.Path, relative: str) -> tuple[Statistics, int]:
    """Return the statistics of a finished file and how many records were set aside; raises InputError."""
    path = beside(out, relative, STATISTICS)
    about = read_json(path)
    try:
        return Statistics.from_json(about["statistics"]), int(about["asides"])
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no statistics of an edit; edit the file again") from error
