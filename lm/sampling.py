"""Categorical draws, keyed by (seed, document, position), never by a place in a batch."""

import functools
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

BLOCK = 32


def document_words(ids: Sequence[str]) -> np.ndarray:
    """Return two 32-bit words of each id's SHA-256, shape (n, 2), uint32."""
    return np.asarray([np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint32) for name in ids])


@jax.jit
def uniforms(seed: Array, words_Nx2: Array, position_N: Array) -> Array:
    """Return one uniform number in [0, 1) for each (seed, document, position), float32, shape (N,).

    Args:
        seed: scalar integer.
        words_Nx2: of `document_words`, uint32.
        position_N: position of the token in its document.
    """

    def one(words: Array, position: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), words[0]), words[1])
        return jax.random.uniform(jax.random.fold_in(key, position))

    return jax.vmap(one)(words_Nx2, position_N)


def pick(weight_NxV: Array, uniform_N: Array) -> Array:
    """Return for each row the index i with sum_{j<i} w_j <= u sum_j w_j < sum_{j<=i} w_j, shape (N,), int32.

    Inverse distribution function in two levels (blocks of 32, then inside one): one uniform number a row, and
    no cumulative sum over the whole vocabulary. Indices of weight 0 are never drawn.

    Args:
        weight_NxV: non-negative, not all zero, float32.
        uniform_N: in [0, 1).
    """
    N, V = weight_NxV.shape
    blocks = -(-V // BLOCK)
    padded = jnp.pad(weight_NxV, ((0, 0), (0, blocks * BLOCK - V))).reshape(N, blocks, BLOCK)
    upto = jnp.cumsum(jnp.sum(padded, axis=-1), axis=-1)
    goal = uniform_N * upto[:, -1]
    block = _first_above(upto, goal)
    before = jnp.where(block > 0, jnp.take_along_axis(upto, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = jnp.take_along_axis(padded, block[:, None, None], 1)[:, 0]
    return (block * BLOCK + _first_above(jnp.cumsum(inside, axis=-1), goal - before)).astype(jnp.int32)


def _first_above(upto: Array, goal: Array) -> Array:
    # Rounding may leave the goal at the total: the answer is then the last index that still adds something.
    last = jnp.argmax(upto, axis=-1)
    return jnp.minimum(jnp.sum(upto <= goal[:, None], axis=-1), last)


@functools.partial(jax.jit, static_argnames="candidates")
def draw_candidate(logits_NxV: Array, uniform_N: Array, temperature: Array, candidates: int) -> Array:
    """Draw an id from the `candidates` likeliest at a temperature, shape (N,), int32.

    P(i) is proportional to exp(logit_i / temperature) over the top `candidates`, 0 elsewhere; ties at the
    edge go to the lower ids.
    """
    top, ids = jax.lax.top_k(logits_NxV, candidates)
    chosen = pick(jax.nn.softmax(top / temperature, axis=-1), uniform_N)
    return jnp.take_along_axis(ids, chosen[:, None], axis=1)[:, 0]
