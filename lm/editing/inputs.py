"""What an edit reads, and the name under which it writes each of them below its output folder."""

import dataclasses
import glob
import pathlib
import re
from collections.abc import Sequence

from lm.data.readers import Input, find
from lm.errors import InputError

# What an edit writes beside its outputs in formats that it can read; a folder with them may be edited again.
BESIDE = (".edits.parquet", ".aside.jsonl")


@dataclasses.dataclass(frozen=True)
class Task:
    """One file or source to edit.

    Attributes:
        name: as found: a path, source:NAME or hub:NAME.
        relative: name of its output below the output folder, with / between the parts.
        domain: under which it is counted: the name of the folder that holds the file, or of the source.
        size: bytes on disk, 0 where it is not known.
    """

    name: str
    relative: str
    domain: str
    size: int = 0

    @property
    def path(self) -> pathlib.Path | None:
        """The file; None for sources."""
        return None if _is_source(self.name) else pathlib.Path(self.name)


def find_tasks(inputs: Sequence[str], out: pathlib.Path) -> list[Task]:
    """Return what the inputs name, each once, in their order; files of a folder or a glob in sorted order.

    Files of a folder keep their path below it, those of a glob their path below its part without wildcards, others
    their name. What an earlier edit wrote beside its outputs is left out of folders and globs.

    Args:
        inputs: as for `lm.data.readers.find`.
        out: folder of the outputs.

    Raises:
        InputError: what `find` raises; two inputs of one output; the output folder holds an input, or lies where the
            next run would read it.
    """
    tasks: dict[str, Task] = {}
    owners: dict[str, str] = {}
    place = out.resolve()
    for given in inputs:
        files, root = find([given]), _root(given)
        if root is not None and _recursive(given) and place.is_relative_to(root.resolve()):
            raise InputError(f"the output folder {out} lies inside the input {given}; choose one outside")
        for found in files:
            if root is not None and found.name.endswith(BESIDE):
                continue
            task = _task(found, root)
            identity = task.name if task.path is None else str(task.path.resolve())
            if identity in tasks:
                continue
            if task.path is not None and task.path.resolve().is_relative_to(place):
                raise InputError(f"the input {task.name} lies in the output folder {out}; choose another folder")
            for name in (task.relative, *(task.relative + ending for ending in BESIDE)):
                if name in owners:
                    raise InputError(
                        f"{owners[name]} and {task.name} would both be written to {out / name}; "
                        "give the folder that holds both, or edit them into two folders"
                    )
                owners[name] = task.name
            tasks[identity] = task
    if not tasks:
        raise InputError("there is nothing to edit; name files, folders or sources")
    return list(tasks.values())


def shard_of(tasks: Sequence[Task], index: int, count: int) -> list[Task]:
    """Return the part of the files that host `index` of `count` edits: every count-th, from number `index` on.

    Raises:
        InputError: no such part.
    """
    if not 0 <= index < count:
        raise InputError(f"there is no shard {index} of {count}; they are numbered from 0")
    return list(tasks[index::count])


def _is_source(name: str) -> bool:
    return name.startswith(("source:", "hub:"))


def _recursive(given: str) -> bool:
    return pathlib.Path(given).is_dir() or "**" in given


def _root(given: str) -> pathlib.Path | None:
    """Return the folder below which files keep their paths; None for a single file and for sources."""
    path = pathlib.Path(given)
    if _is_source(given) or path.is_file():
        return None
    if path.is_dir():
        return path
    fixed = pathlib.Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _task(found: Input, root: pathlib.Path | None) -> Task:
    if _is_source(found.name):
        _, _, name = found.name.partition(":")
        # OWNER/NAME:CONFIGURATION of the hub; no part can lead out of the output folder.
        parts = [re.sub(r"[^\w.-]", "-", part).lstrip(".") or "-" for part in re.split("[/:]", name)]
        return Task(found.name, "/".join(parts) + ".jsonl.zst", name, found.size)
    path = pathlib.Path(found.name)
    below = pathlib.Path(path.name) if root is None else path.relative_to(root)
    if ".." in below.parts:  # a pattern such as a/*/../b: the output must not leave its folder
        below = pathlib.Path(path.name)
    return Task(found.name, below.as_posix(), path.resolve().parent.name or "text", found.size)
