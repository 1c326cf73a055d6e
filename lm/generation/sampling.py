"""Categorical draws, keyed by (seed, document, position), never by a place in a batch.

With w_i = exp((logit_i - max) / temperature), token i is *kept* if fewer than k tokens are strictly likelier and
these have less than a share p of the total weight (top-k; top-p, Holtzman et al. 2020, arXiv 1904.09751). Tokens
of equal logits are kept or dropped together, and the likeliest are always kept. A draw gives a kept token i with
probability w_i over the sum of the kept weights. Both conditions are on the whole distribution: p is a share of
all the weight, not of what top-k left. Temperature 0 takes the likeliest token, of equals the first.

No sorting: a token is drawn from the candidates, at first all tokens. If it is kept, it is the answer; if not,
everything that is kept is strictly likelier than it, and the strictly likelier tokens are the next candidates. A
kept token is thus drawn with the right probability, and the candidates shrink quickly.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import InputError

Array = jax.Array

BLOCK = 32


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """From logits to a token.

    Attributes:
        temperature: 1 samples from the model; 0 takes the likeliest token.
        top_k: tokens strictly likelier than a kept one are fewer than this; 0 does not restrict.
        top_p: and have less than this share of the weight; 1 does not restrict.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if not 0 <= self.temperature < 1e6 or 0 < self.temperature < 1e-6:
            raise InputError(f"a temperature of {self.temperature} is impossible; use 0 (greedy) or a number such as 1")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise InputError("top-k must be 0 (all) or more and top-p in (0, 1]; change them")


def document_words(ids: Sequence[str]) -> np.ndarray:
    """Return two 32-bit words of each id's SHA-256, shape (n, 2), uint32."""
    return np.asarray([np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint32) for name in ids])


@jax.jit
def uniforms(seed: Array, words_Nx2: Array, position_N: Array, attempt: Array | int = 0) -> Array:
    """Return one uniform number in [0, 1) for each (seed, document, position, attempt), float32, shape (N,).

    Args:
        seed: scalar integer.
        words_Nx2: of `document_words`, uint32.
        position_N: position of the token in its document.
        attempt: scalar number of the draw for the same token.
    """

    def one(words: Array, position: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), words[0]), words[1])
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, position), attempt))

    return jax.vmap(one)(words_Nx2, position_N)


def pick(weight_NxV: Array, uniform_N: Array) -> Array:
    """Return for each row the index i with sum_{j<i} w_j <= u sum_j w_j < sum_{j<=i} w_j, shape (N,), int32.

    Inverse distribution function in two levels (blocks of 32, then inside one): one uniform number a row, and
    no cumulative sum over the whole vocabulary. Indices of weight 0 are never drawn.

    Args:
        weight_NxV: non-negative, not all zero, float32.
        uniform_N: in [0, 1).
    """
    blocks = _blocks(weight_NxV)
    return _pick(blocks, jnp.sum(blocks, axis=-1), uniform_N, jnp.full(len(uniform_N), -1.0))


def _blocks(x_NxV: Array, filling: float = 0.0) -> Array:
    N, V = x_NxV.shape
    return jnp.pad(x_NxV, ((0, 0), (0, -V % BLOCK)), constant_values=filling).reshape(N, -1, BLOCK)


def _pick(blocks: Array, sums: Array, uniform_N: Array, above_N: Array) -> Array:
    """Pick among the weights above a bound, given their sums by block."""
    upto = jnp.cumsum(sums, axis=-1)
    goal = uniform_N * upto[:, -1]
    block = _first_above(upto, goal)
    before = jnp.where(block > 0, jnp.take_along_axis(upto, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0]
    inside = jnp.where(inside > above_N[:, None], inside, 0.0)
    return (block * BLOCK + _first_above(jnp.cumsum(inside, axis=-1), goal - before)).astype(jnp.int32)


def _first_above(upto: Array, goal: Array) -> Array:
    # Rounding may leave the goal at the total: the answer is then the last index that still adds something.
    last = jnp.argmax(upto, axis=-1)
    return jnp.minimum(jnp.sum(upto <= goal[:, None], axis=-1), last)


def draw(logits_NxV: Array, config: SamplingConfig, seed: Array, words_Nx2: Array, position_N: Array) -> Array:
    """Draw one token a row, int32, shape (N,): the definition is at the top of this module.

    Args:
        logits_NxV: float32; -inf excludes a token.
        config: static.
        seed: scalar integer.
        words_Nx2: of `document_words`.
        position_N: position of the token in its document.
    """
    if config.temperature == 0:
        # What argmax does, in a tenth of its time on a CPU: the first block with the maximum, then its place there.
        blocks = _blocks(logits_NxV, -jnp.inf)
        block = jnp.argmax(jnp.max(blocks, axis=-1), axis=-1)
        inside = jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0]
        return (block * BLOCK + jnp.argmax(inside, axis=-1)).astype(jnp.int32)
    top = jnp.max(logits_NxV, axis=-1, keepdims=True)
    blocks = _blocks(jnp.exp((logits_NxV - top) / config.temperature))
    sums = jnp.sum(blocks, axis=-1)
    everything = jnp.full(len(words_Nx2), -1.0)
    first = _pick(blocks, sums, uniforms(seed, words_Nx2, position_N), everything)
    if not config.top_k and config.top_p == 1:
        return first
    limit = config.top_p * jnp.sum(sums, axis=-1)

    def check(token: Array) -> tuple[Array, Array, Array]:
        """Return the weight of a drawn token, the sums by block of what is likelier, and whether it is kept."""
        weight = jnp.take_along_axis(blocks.reshape(len(token), -1), token[:, None], 1)[:, 0]
        likelier = blocks > weight[:, None, None]
        above = jnp.sum(jnp.where(likelier, blocks, 0.0), axis=-1)
        # Strictly likelier tokens, and none at all: the likeliest is kept whatever p.
        total = jnp.sum(above, axis=-1)
        kept = (total < limit) | (total == 0)
        if config.top_k:
            # A larger number than there are tokens restricts nothing, and may not fit into 32 bits.
            kept &= jnp.sum(likelier, axis=(-2, -1)) < min(config.top_k, logits_NxV.shape[1])
        return weight, above, kept

    def unfinished(carry) -> Array:
        return ~jnp.all(carry[-1])

    def again(carry):
        attempt, token, weight, above, kept = carry
        uniform = uniforms(seed, words_Nx2, position_N, attempt)
        token = jnp.where(kept, token, _pick(blocks, above, uniform, weight))
        return attempt + 1, token, *check(token)

    return jax.lax.while_loop(unfinished, again, (1, first, *check(first)))[1]
