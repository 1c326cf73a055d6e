"""Arrays of a training state on disk: safetensors, written beside and renamed, checked when read."""

import json
import pathlib
import tempfile
from typing import TypeVar

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lm.errors import InputError

State = TypeVar("State")


def _named(state: object) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def save(path: pathlib.Path, state: object, about: dict[str, str]) -> None:
    """Write the leaves of a pytree of arrays; a kill leaves the file that was there.

    Args:
        path: of the file.
        state: pytree of arrays.
        about: strings kept in the file: step, configuration.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not ascontiguousarray, which turns the optimiser's scalar counts into vectors.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _named(state).items()}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        beside = pathlib.Path(file.name)
    try:
        # One entry: safetensors writes several in a random order, and the same state must give the same bytes.
        save_file(arrays, beside, metadata={"about": json.dumps(about, sort_keys=True)})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: pathlib.Path, like: State) -> tuple[State, dict[str, str]]:
    """Read what `save` wrote.

    Args:
        path: of the file.
        like: pytree of the same structure, shapes and types; its values are not used.

    Raises:
        InputError: the file is missing or damaged, or holds another structure.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"the checkpoint {path} cannot be read ({error}); remove it to start again") from error
    wanted = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in _named(like).items()}
    if wanted != {name: (array.shape, array.dtype) for name, array in arrays.items()}:
        raise InputError(f"the checkpoint {path} belongs to another configuration; remove it to start again")
    leaves = [jax.numpy.asarray(arrays[name]) for name in wanted]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves), about
