"""Where parameters and batches live on a mesh of devices: data, fsdp and tensor parallelism.

"data" holds copies of the model, each with its share of the batch; "fsdp" shares the batch too and cuts every
matrix along the width of the residual stream (ZeRO-3, Rajbhandari et al. 2020); "tensor" cuts heads, hidden
units and vocabulary (Shoeybi et al. 2019). The compiler derives the communication.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.parameters import Axis, Parameter, parameters

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
BATCH = (DATA, FSDP)  # the mesh axes over which rows of a batch are shared out
# What counts whole heads is cut between heads only, never inside one.
RULES: dict[Axis, str] = {
    "width": FSDP,
    "vocabulary": TENSOR,
    "heads": TENSOR,
    "kv_heads": TENSOR,
    "hidden": TENSOR,
}


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with the axes data, fsdp, tensor.

    Args:
        data: size of the axis.
        fsdp: size of the axis.
        tensor: size of the axis.
        devices: to use; the first data * fsdp * tensor of all by default.

    Raises:
        InputError: fewer devices than the mesh needs, none of some process, or a size below 1.
    """
    sizes = (data, fsdp, tensor)
    if min(sizes) < 1:
        raise InputError(f"a mesh of {data} x {fsdp} x {tensor} is impossible; every axis must be at least 1")
    found, needed = list(devices or jax.devices()), math.prod(sizes)
    if len(found) < needed:
        raise InputError(
            f"a mesh of data {data} x fsdp {fsdp} x tensor {tensor} needs {needed} devices and there are "
            f"{len(found)}; lower an axis or start more processes"
        )
    chosen = found[:needed]
    if idle := {device.process_index for device in found} - {device.process_index for device in chosen}:
        # It would have no rows to make, and the others would wait for it for ever.
        raise InputError(
            f"the mesh uses {needed} of {len(found)} devices and none of process {min(idle)}; choose --data, --fsdp "
            f"and --tensor whose product is {len(found)}, or start fewer processes"
        )
    return Mesh(np.asarray(chosen).reshape(sizes), (DATA, FSDP, TENSOR), axis_types=(AxisType.Auto,) * 3)


def _specification(one: Parameter, config: ModelConfig, mesh: Mesh) -> P:
    units = {"heads": config.heads, "kv_heads": config.kv_heads}
    cut, vector = [], len([axis for axis in one.axes if axis != "layer"]) == 1  # norms and biases stay whole
    for axis, size in zip(one.axes, one.shape, strict=True):
        name = None if vector else RULES.get(axis)
        # What does not divide evenly stays whole on that axis.
        cut.append(name if name and units.get(axis, size) % mesh.shape[name] == 0 else None)
    return P(*cut)


def shardings(config: ModelConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """Return where each parameter lives, by name."""
    return {name: NamedSharding(mesh, _specification(one, config, mesh)) for name, one in parameters(config).items()}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return where arrays with rows of a batch in front live."""
    return NamedSharding(mesh, P(BATCH))


def batch_shares(mesh: Mesh | AbstractMesh) -> int:
    """Return into how many shares the rows of a batch are cut."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def stream_sharding(mesh: Mesh) -> NamedSharding | None:
    """Return how the residual stream (N, D) of a decoder lies: its positions shared out, its width whole.

    Left to itself, the compiler cuts the width, as the matrices are cut, and sends the positions of all devices to
    each. None on a single device.
    """
    return batch_sharding(mesh) if mesh.size > 1 else None


def for_rows(stream: NamedSharding | None, rows: int) -> NamedSharding | None:
    """Return how the stream of so many rows lies; None, as the compiler likes, if they cannot be shared out evenly."""
    return stream if stream is not None and rows % batch_shares(stream.mesh) == 0 else None


def placed(x_NxD: jax.Array, stream: NamedSharding | None) -> jax.Array:
    """Return a residual stream, lying as it should."""
    return x_NxD if stream is None else jax.lax.with_sharding_constraint(x_NxD, stream)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, P())
