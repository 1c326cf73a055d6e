"""Standard normal draws for label noise: the largest single cost of a literal simulation."""

import jax
import jax.numpy as jnp
from jax import lax


def from_bits(words: jax.Array) -> jax.Array:
    """Maps uniform 32-bit words to standard normals.

    The upper 24 bits of a word, as a signed integer k, give u = (2k + 1) 2^-24: odd multiples of 2^-24 in
    (-1, 1), exact in float32, symmetric about 0 and never 0 or +-1. The normal is sqrt(2) erf^-1(u),
    evaluated in float32. The law is therefore discrete with 2^24 atoms and |z| <= 5.4; a test enumerates all
    atoms: odd moments vanish, the variance is 1 to 10^-6 and the fourth moment 3 to 10^-5.

    Args:
        words: uint32, any shape.

    Returns:
        float64, same shape.
    """
    k = lax.bitcast_convert_type(words, jnp.int32) >> 8
    u = (2 * k + 1).astype(jnp.float32) * jnp.float32(2.0**-24)
    return (lax.erf_inv(u) * jnp.float32(2.0**0.5)).astype(jnp.float64)


def normals(key: jax.Array, size: int) -> jax.Array:
    """Draws `size` standard normals from one key, float64 values of float32 resolution (see `from_bits`).

    Each 64-bit threefry block feeds two draws: on the CPU this is 2 to 3 times faster than
    `jax.random.normal` in float64 and 1.5 times faster than in float32, which discards half of the block.
    """
    blocks = jax.random.bits(key, ((size + 1) // 2,), jnp.uint64)
    words = jnp.concatenate([blocks.astype(jnp.uint32), (blocks >> 32).astype(jnp.uint32)])
    return from_bits(words[:size])
