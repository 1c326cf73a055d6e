"""Folders of token files are made beside their place and renamed; what is replaced, and what is cleared away."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
import time

FILES = ("about.json", "documents.parquet", "sizes.npy", "starts.npy", "tokens.npy")
SET_ASIDE = "set-aside.jsonl"  # the list of records that could not be used
MORE = ("tokenizer.json", SET_ASIDE)  # may be with them
NOTES = ("documents", "sha256", "tokens", "vocabulary")  # in every about.json
SECONDS = 60  # a folder so young may not have its lock yet
NEW, OLD = "new", "old"  # in the folder beside: what is being made, what it replaces


def replaceable(folder: pathlib.Path) -> bool:
    """Return whether a folder is empty or holds token files and nothing else, so that nothing of the user's is lost."""
    if not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    names = {entry.name for entry in entries}
    if not all(entry.is_file() for entry in entries) or not names <= {*FILES, *MORE}:
        return False
    return not names or names >= set(FILES) or _has_notes(folder / "about.json")


def _has_notes(about: pathlib.Path) -> bool:
    try:
        notes = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(notes, dict) and notes.keys() >= set(NOTES)


class Beside:
    """A folder beside another, in which that is made; its lock says that the process that makes it is alive."""

    def __init__(self, target: pathlib.Path):
        """Make it, and remove those that killed processes left for the same target; raises OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{_literal(target.name)}-????????"):
            _remove_stale(left)
        self._path = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        self._lock = os.open(self._path, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: then nothing is taken for stale either
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._target, self.folder = target, self._path / NEW

    def put(self) -> None:
        """Move the folder that was made to its place; raises OSError."""
        if self._target.exists():
            self._target.rename(self._path / OLD)
        self.folder.rename(self._target)

    def remove(self) -> None:
        """Remove what is left of it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def _literal(name: str) -> str:
    """Return a pattern that only this name matches."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _remove_stale(left: pathlib.Path) -> None:
    """Remove a folder that a killed process left: nobody holds its lock, and only token files are in it."""
    with contextlib.suppress(OSError):
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            inside = [entry.name for entry in left.iterdir()]
            # With both, the process was killed while it exchanged them, and the old one is the only whole one.
            is_one = inside in ([], [NEW], [OLD])
            files = {entry.name for folder in inside for entry in (left / folder).iterdir()}
            if is_one and files <= {*FILES, *MORE} and time.time() - left.stat().st_mtime > SECONDS:
                shutil.rmtree(left)
        finally:
            os.close(lock)
