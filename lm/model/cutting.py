"""Parts of arrays of bfloat16 numbers, on a CPU cut as the 16 bits that they are.

XLA up to JAX 0.10 cuts and pastes them there in float32: it converts the whole array first, and the part back.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def bits(x: Array) -> Array:
    """Return bfloat16 numbers on a CPU as integers, uint16; anything else as it is."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if _is_cut_as_bits(x.dtype) else x


def numbers(x: Array, dtype: jnp.dtype) -> Array:
    """Return the numbers of the given type whose `bits` these are."""
    return jax.lax.bitcast_convert_type(x, dtype) if _is_cut_as_bits(dtype) else x


def part(x: Array, start: Array | int, size: int, axis: int) -> Array:
    """Return the `size` elements from `start` on along an axis, as `jax.lax.dynamic_slice_in_dim` does."""
    return numbers(jax.lax.dynamic_slice_in_dim(bits(x), start, size, axis), x.dtype)


def block(x: Array, start: tuple[Array | int, ...], sizes: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Return a block of the numbers of the given type whose `bits` these are, as `jax.lax.dynamic_slice` does."""
    return numbers(jax.lax.dynamic_slice(x, start, sizes), dtype)


def layer(stacked: Array, number: int, dtype: str) -> Array:
    """Return one layer of a parameter that is stacked, layers first, cast to the given type.

    A layer of bfloat16 numbers that lie on one CPU is no copy. Parameters are such for inference only, so the memory is
    never given away to another result (donated).
    """
    devices = stacked.devices()
    if _is_cut_as_bits(stacked.dtype) and len(devices) == 1:
        return jax.device_put(np.asarray(stacked)[number], *devices).astype(dtype)
    return _layer(stacked, number, dtype)


def layer_in_loop(stacked: Array, number: Array) -> Array:
    """Return one layer of a parameter that is stacked, layers first, in a compiled loop over their numbers."""
    if _is_cut_as_bits(stacked.dtype):
        # Else the compiler would make the bits of all layers, a copy of them, before the loop.
        stacked, number = jax.lax.optimization_barrier((stacked, number))
    return part(stacked, number, 1, 0)[0]


@partial(jax.jit, static_argnames="dtype")
def _layer(stacked: Array, number: Array | int, dtype: str) -> Array:
    return part(stacked, number, 1, 0)[0].astype(dtype)


def _is_cut_as_bits(dtype: jnp.dtype) -> bool:
    return dtype == jnp.bfloat16 and jax.default_backend() == "cpu"
