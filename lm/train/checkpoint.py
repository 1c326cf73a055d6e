"""Checkpoints of a training run: asynchronous, atomic, on any mesh; damaged ones are passed over.

A checkpoint holds the state of `lm.train.step` and a JSON note: what the run is (model, settings, data with its
checksum), the position of the data iterator, and how long the files of metrics were. Random keys need no more
than the seed in the note, since every draw is a function of it and of the row or step.
"""

import contextlib
import errno
import gc
import logging
import os
import pathlib
import re
import shutil
import sys
import time
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from lm.errors import InputError
from lm.train.step import State, checksums

STATE, NOTE = "state", "note"
READERS_SECONDS = 5.0  # at most, until what reads a damaged checkpoint is gone


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Tell nothing of what orbax leaves when it cannot read: the readers of other arrays, each with a traceback.

    They end as coroutines that nobody awaits, or in tensorstore's threads, which find the event loop closed.
    """
    hook = sys.unraisablehook

    def tell_others(unraisable: Any) -> None:
        is_late = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
        if not is_late and type(unraisable.object) is not types.CoroutineType:
            hook(unraisable)

    sys.unraisablehook = tell_others
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _let_readers_end() -> None:
    """Wait until they are gone: threads that still read hold them for a moment."""
    end = time.monotonic() + READERS_SECONDS
    gc.collect()
    while any(type(one) is types.CoroutineType for one in gc.get_objects()) and time.monotonic() < end:
        time.sleep(0.02)
        gc.collect()


class DamagedCheckpoint(UserWarning):
    """A checkpoint that cannot be read was passed over."""


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two nested JSON objects, as phrases."""
    phrases = []
    for key in sorted(found.keys() | wanted.keys()):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            phrases += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            phrases.append(f"{prefix}{key} {old} instead of {new}")
    return phrases


class Checkpoints:
    """The checkpoints in a folder.

    Saving returns when the state is copied; a thread writes it beside and renames it. An error of that thread
    is raised by the next call.
    """

    def __init__(self, folder: pathlib.Path, keep: int, run: Mapping[str, Any]):
        """Open a folder of checkpoints, or make it.

        Args:
            folder: for the checkpoints only.
            keep: how many stay, the latest.
            run: JSON object that a checkpoint must share to be gone on from.

        Raises:
            InputError: the folder cannot be made.
        """
        self.folder, self.run, self.last = folder, run, 0
        for name in ("absl", "asyncio"):
            # What goes wrong in a thread that writes is raised here, once; they would tell it in a hundred lines.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            )
        except OSError as error:
            raise InputError(
                f"cannot write checkpoints to {folder} ({error.strerror}); choose a folder that you may write to"
            ) from error

    def restore(self, state: State) -> tuple[State, dict[str, Any]] | None:
        """Return the state and the note of the last good checkpoint, None if the run has not saved any.

        Args:
            state: shapes, types and places of what to read; the places may be on another mesh than the
                checkpoint's.

        Raises:
            InputError: a checkpoint of another run, or checkpoints none of which can be read.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            with _quietly():
                try:
                    note = self._read(step, NOTE, ocp.args.JsonRestore())
                    if differences := _differences(note["run"], self.run):
                        raise InputError(
                            f"the checkpoint {self.folder / str(step)} belongs to another run "
                            f"({'; '.join(differences)}); use its settings, or another folder"
                        )
                    found = self._read(step, STATE, ocp.args.StandardRestore(state))
                    # Checkpoints from before the values were mixed do not say that they are.
                    if checksums(found, note.get("mixed", False)).tolist() != note["checksums"]:
                        raise ValueError("its arrays are not those that were saved")
                except InputError:
                    raise
                # Whatever a damaged file makes orbax, tensorstore or json raise means the same.
                except Exception as error:
                    reason = " ".join(str(error).split())[:200] or type(error).__name__
                else:
                    for damaged in [number for number in steps if number > step]:
                        self.manager.delete(damaged)  # they would be in the way when the run comes to their steps
                    self.last = step
                    return found, note
                _let_readers_end()
            warnings.warn(
                f"the checkpoint {self.folder / str(step)} is damaged ({reason}); it is passed over",
                DamagedCheckpoint,
                2,
            )
        if steps:
            raise InputError(f"no checkpoint in {self.folder} can be read; remove the folder to start again")
        return None

    def _read(self, step: int, item: str, args: Any) -> Any:
        return self.manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]

    def save(self, step: int, state: State, note: Mapping[str, Any]) -> None:
        """Begin to save the state after `step` updates, unless that is saved already.

        Raises:
            InputError: this or the previous checkpoint cannot be written.
        """
        if step == self.last:
            return
        shards = [shard for array in jax.tree.leaves(state) for shard in array.addressable_shards]
        needed = sum(shard.data.nbytes for shard in shards if shard.replica_id == 0)
        with _Writing(self):
            self.manager.wait_until_finished()
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        about = {**note, "run": self.run, "checksums": checksums(state).tolist(), "mixed": True}
        with _Writing(self):
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(about))
            self.manager.save(step, args=args, force=True)
        self.last = step

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until everything is written; raises InputError if it cannot be."""
        with _Writing(self):
            self.manager.wait_until_finished()
            self.manager.close()


class _Writing:
    """Turns what goes wrong on the disk into one sentence."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Tensorstore raises ValueError with the system's message in it.
        if not isinstance(error, OSError | ValueError):
            return
        good = self.checkpoints.manager.latest_step()
        kept = f"the last good one is of step {good}" if good is not None else "there is none yet"
        code = re.search(r"os_error_code='(\d+)'", str(error)) or re.search(r"\[Errno (\d+)\]", str(error))
        reason = os.strerror(int(code[1])) if code else " ".join(str(error).split())[:200]
        raise InputError(
            f"cannot write a checkpoint to {self.checkpoints.folder} ({reason}); free some space and start "
            f"again: {kept}"
        ) from error
