"""Tensors of a checkpoint to parameters on their devices, one parameter at a time."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.decoder import Decoder, from_arrays
from lm.model.parameters import Parameter, is_matrix, parameters
from lm.model.sharding import shardings
from lm.weights.names import Place

Read = Callable[[str, int, int], np.ndarray]
BLOCK = 1 << 22  # numbers of a tensor read at once
ALIGNMENT = 64  # bytes


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Name the checkpoint in what is wrong with its values."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def stored_shapes(config: ModelConfig, places: Mapping[str, Place]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape that each tensor of a checkpoint must have for this configuration."""
    for name, one in parameters(config).items():
        place, shape = places[name], one.shape
        numbers = range(config.layers) if one.axes[0] == "layer" else [None]
        shape = shape[1:] if one.axes[0] == "layer" else shape
        if place.third is not None:
            shape = (*shape[:-1], 3 * shape[-1])
        for layer in numbers:
            yield place.name.format(layer=layer), shape[::-1] if place.transposed else shape


def check_shapes(
    what: str, wanted: Iterable[tuple[str, tuple[int, ...]]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a checkpoint whose tensors are not those of its configuration.

    Args:
        what: the checkpoint, for the message.
        wanted: names and shapes; not asked for those behind the first that is missing, of however many layers.
        found: shapes by name, without tensors that carry no parameter.

    Raises:
        InputError: a tensor is missing, of another shape, or unknown.
    """
    known = set()
    for name, shape in wanted:
        known.add(name)
        if name not in found:
            raise InputError(f"{what} lacks the tensor {name}; fetch it again, or correct its configuration")
        if found[name] != shape:
            raise InputError(
                f"the tensor {name} of {what} is {found[name]} and the configuration asks for {shape}; "
                "use the configuration that belongs to it"
            )
    for name in found:
        if name not in known:
            raise InputError(f"{what} has a tensor {name} that its configuration has no use for; correct it")


def place_all(
    config: ModelConfig, places: Mapping[str, Place], read: Read, mesh: Mesh | None, *, inference: bool = False
) -> Decoder:
    """Return a decoder with the parameters of a checkpoint, each device holding its share.

    The largest parameters come first, so that the copy in the making never adds to a nearly complete model.

    Args:
        config: of the model.
        places: of the parameters.
        read: returns rows start..stop of a tensor by name, as stored, any float type; the tensor's shape is that of
            `stored_shapes`.
        mesh: over which parameters are shared out; None is the first device.
        inference: see `lm.weights.load.load`.
    """
    table, stored = parameters(config), dict(stored_shapes(config, places))
    where = shardings(config, mesh) if mesh is not None else {}
    alone = SingleDeviceSharding(jax.devices()[0])
    arrays = {}
    for name in sorted(table, key=lambda name: -math.prod(table[name].shape)):
        dtype = _dtype(name, config, places[name], read) if inference else np.dtype(np.float32)
        arrays[name] = _placed(table[name], dtype, places[name], stored, read, where.get(name, alone))
    return from_arrays(config, arrays)


def _dtype(name: str, config: ModelConfig, place: Place, read: Read) -> np.dtype:
    """Return the narrowest type of a parameter with which every output has the same bits as with float32."""
    factors = jnp.dtype(config.compute)
    if name == "embedding":
        # Its rows are added up in float32, so it is never rounded, only left as it is stored.
        return factors if read(place.name, 0, 1).dtype == factors else np.dtype(np.float32)
    in_product = name == "unembedding" or (name.startswith("blocks.") and is_matrix(name, config))
    return factors if in_product else np.dtype(np.float32)


def _placed(
    one: Parameter,
    dtype: np.dtype,
    place: Place,
    stored: Mapping[str, tuple[int, ...]],
    read: Read,
    sharding: Sharding,
) -> jax.Array:
    bounds = {
        device: tuple(part.indices(size)[:2] for part, size in zip(index or (), one.shape, strict=True))
        for device, index in sharding.addressable_devices_indices_map(one.shape).items()
    }
    shares = {bound: _aligned([stop - start for start, stop in bound], dtype) for bound in set(bounds.values())}
    for layer in range(one.shape[0]) if one.axes[0] == "layer" else [None]:
        name = place.name.format(layer=layer)
        rows = stored[name][0]
        # A third is cut from whole tensors only.
        step = rows if place.third is not None else max(1, BLOCK * rows // math.prod(stored[name]))
        for start in range(0, rows, step):
            block = as_ours(read(name, start, min(start + step, rows)), place)
            for bound, share in shares.items():
                # Layers are never shared out: every share has a part of each.
                inner, target = (bound, share) if layer is None else (bound[1:], share[layer])
                _copy_rows(block, start, -1 if place.transposed else 0, inner, target)
    pieces = [jax.device_put(shares[bound], device) for device, bound in bounds.items()]
    array = jax.make_array_from_single_device_arrays(one.shape, sharding, pieces)
    return array.block_until_ready()  # before the next one takes memory


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Return an array that a CPU device takes as it is, without a copy."""
    size = dtype.itemsize * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy_rows(block: np.ndarray, start: int, axis: int, bound: Sequence[tuple[int, int]], target: np.ndarray) -> None:
    """Copy the part of a block that a share holds.

    Args:
        block: what begins at `start` of a parameter's axis, and is whole along the others.
        start: of the block.
        axis: first or last.
        bound: begin and end of the share along each axis.
        target: the share.
    """
    low, high = bound[axis]
    first, last = max(low, start), min(high, start + block.shape[axis])
    if first < last:
        source = [slice(*one) for one in bound]
        source[axis] = slice(first - start, last - start)
        into = [slice(None)] * block.ndim
        into[axis] = slice(first - low, last - low)
        target[tuple(into)] = block[tuple(source)]


def as_ours(tensor: np.ndarray, place: Place) -> np.ndarray:
    """Return a view of a stored tensor in the layout of `lm.model.parameters`, without the layers in front."""
    tensor = tensor.T if place.transposed else tensor
    if place.third is None:
        return tensor
    return np.split(tensor, 3, axis=-1)[place.third]
