"""What finished corpora and models keep in their folders: written beside and renamed, read with its damage told."""

import io
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.errors import InputError

DONE = "done.json"  # the last file of a node: what it says of itself
ARRAYS = "arrays.npz"


def save_arrays(path: pathlib.Path, arrays: dict[str, Any], *, compressed: bool = False) -> None:
    """Write arrays to an .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    beside.replace(path)


def load_arrays(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return arrays of an .npz file by name; raises InputError if one is lost or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Read to its end, where the checksum is, which NumPy does not do for an array that seems shorter.
            members = {name: io.BytesIO(archive.read(f"{name}.npy")) for name in names}
        return {name: np.load(member, allow_pickle=False) for name, member in members.items()}
    except Exception as error:  # whatever a damaged file makes zipfile, zlib or NumPy raise means the same
        raise damaged(path) from error


def save_notes(folder: pathlib.Path, notes: dict[str, Any]) -> None:
    """Write what a node says of itself."""
    beside = folder / f".{DONE}"
    beside.write_text(json.dumps(notes, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    beside.replace(folder / DONE)


def load_notes(folder: pathlib.Path) -> dict[str, Any]:
    """Return what a node says of itself; raises InputError if that is lost or damaged."""
    path = folder / DONE
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path) from error
    if not isinstance(notes, dict):
        raise damaged(path)
    return notes


def damaged(path: pathlib.Path) -> InputError:
    """Return what to say of a file of a node that is lost or damaged."""
    return InputError(f"{path} is lost or damaged; remove {path.parent} and give the same command again")
