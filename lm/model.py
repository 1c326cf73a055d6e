"""A decoder-only transformer in Flax NNX: pre-norm, rotary positions, GELU, tied embeddings.

Shapes carry suffixes: B documents or rows, T positions, D width, H heads, K head size, F hidden, V
vocabulary, N = B T flattened, C positions of a key-value cache. Activations stay flattened to (N, D) between
the attentions, because one large matmul is faster on a CPU than a batch of small ones.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lm.attention import cached_attention, causal_attention
from lm.errors import InputError

Array = jax.Array
Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of a decoder.

    Attributes:
        vocabulary: number of token ids, V.
        context: longest sequence that the model sees, in tokens.
        width: of the residual stream, D.
        layers: number of blocks.
        heads: attention heads; `width` is a multiple of it.
        hidden: width of the feed-forward layer, F.
        rope_base: base of the rotary angles (Su et al. 2021, arXiv 2104.09864).
        epsilon: added to the mean square in RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467).
        compute: type of the factors of every matmul; parameters, sums, norms and logits are float32.
    """

    vocabulary: int
    context: int = 256
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    rope_base: float = 10_000.0
    epsilon: float = 1e-5
    compute: Compute = "float32"

    def __post_init__(self):
        """Check the sizes; raises InputError."""
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(f"a width of {self.width} cannot be cut into {self.heads} heads of even size; change one")
        if min(self.vocabulary, self.context - 1, self.layers, self.hidden) < 1:
            raise InputError("vocabulary, layers and hidden must be at least 1 and context at least 2; raise them")

    @classmethod
    def tiny(cls, vocabulary: int, compute: Compute = "float32") -> "ModelConfig":
        """Return the sizes of a model for tests: two layers of width 32, 64 positions."""
        return cls(vocabulary, context=64, width=32, layers=2, heads=2, hidden=64, compute=compute)

    @classmethod
    def small(cls, vocabulary: int) -> "ModelConfig":
        """Return the sizes that train in seconds on two CPU cores: four layers of width 128."""
        return cls(vocabulary)

    @property
    def head_size(self) -> int:
        """Width of one head, K."""
        return self.width // self.heads


class Cache(NamedTuple):
    """Keys and values of the positions seen so far, one array per layer, each (B, H, C, K)."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]


def _product(x: Array, w: Array, compute: Compute) -> Array:
    # Without preferred_element_type XLA computes a bfloat16 product in float32 on the CPU, at half the speed.
    return jnp.dot(x.astype(compute), w.astype(compute), preferred_element_type=jnp.float32)


def matmul(x_NxI: Array, w_IxO: Array, compute: Compute) -> Array:
    """Return x w with factors cast to `compute` and summed in float32, forwards and backwards.

    Args:
        x_NxI: float32.
        w_IxO: float32.
        compute: type of the factors.

    Returns:
        float32, shape (N, O).
    """
    return _matmul(compute, x_NxI, w_IxO)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(compute: Compute, x: Array, w: Array) -> Any:
    return _product(x, w, compute)


def _matmul_forward(compute: Compute, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    x, w = x.astype(compute), w.astype(compute)
    return _product(x, w, compute), (x, w)


def _matmul_backward(compute: Compute, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = kept
    # The derived rule would multiply a float32 cotangent by a bfloat16 factor, which falls off the fast path.
    return _product(g, w.T, compute), _product(x.T, g, compute)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def rms_norm(x: Array, scale: Array, epsilon: float) -> Array:
    """Return x / sqrt(mean(x^2) + epsilon) * scale over the last axis, float32."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale


def rotate(x_BxTxHxK: Array, position_BxT: Array, base: float) -> Array:
    """Rotate the pairs (x_i, x_{i + K/2}) by position * base^(-2 i / K): rotary position embedding.

    Scores of rotated queries and keys depend on the difference of positions only, so packed documents need no
    positions of their own.
    """
    half = x_BxTxHxK.shape[-1] // 2
    frequency = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(base) / half))
    angle = position_BxT[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x_BxTxHxK[..., :half], x_BxTxHxK[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F = config.width, config.hidden
        # As in GPT-2, what writes to the residual stream is scaled down by its depth.
        into = nnx.initializers.normal(0.02)
        out = nnx.initializers.normal(0.02 / math.sqrt(2 * config.layers))
        self.config = config
        self.attention_norm = nnx.Param(jnp.ones(D))
        self.attention_in = nnx.Param(into(rngs.params(), (D, 3 * D), jnp.float32))
        self.attention_out = nnx.Param(out(rngs.params(), (D, D), jnp.float32))
        self.hidden_norm = nnx.Param(jnp.ones(D))
        self.hidden_in = nnx.Param(into(rngs.params(), (D, F), jnp.float32))
        self.hidden_out = nnx.Param(out(rngs.params(), (F, D), jnp.float32))

    def project(self, x_NxD: Array, position_BxT: Array) -> tuple[Array, Array, Array]:
        """Return rotated queries, rotated keys and values, each (B, T, H, K)."""
        c = self.config
        normed = rms_norm(x_NxD, self.attention_norm[...], c.epsilon)
        qkv = matmul(normed, self.attention_in[...], c.compute).reshape(*position_BxT.shape, 3, c.heads, c.head_size)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        return rotate(q, position_BxT, c.rope_base), rotate(k, position_BxT, c.rope_base), v

    def finish(self, x_NxD: Array, mixed: Array) -> Array:
        """Add the attention's output and the feed-forward layer to the residual stream."""
        c = self.config
        x = x_NxD + matmul(mixed.reshape(-1, c.width), self.attention_out[...], c.compute)
        normed = rms_norm(x, self.hidden_norm[...], c.epsilon)
        hidden = jax.nn.gelu(matmul(normed, self.hidden_in[...], c.compute))
        return x + matmul(hidden, self.hidden_out[...], c.compute)


class Decoder(nnx.Module):
    """Maps token ids to the logits of the next one; every parameter is float32.

    The layers are unrolled: a scan over stacked layers would save compilation, not time, at these depths.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        initial = nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(initial(rngs.params(), (config.vocabulary, config.width), jnp.float32))
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.layers)])
        self.norm = nnx.Param(jnp.ones(config.width))

    def hidden(self, token_BxT: Array, segment_BxT: Array | None = None) -> Array:
        """Return the normalised residual stream, float32, shape (B T, D).

        Args:
            token_BxT: integer ids in 0..V-1.
            segment_BxT: integer document number of each position; a position sees itself and earlier
                positions of its own document. None: one document a row.
        """
        B, T = token_BxT.shape
        position_BxT = jnp.broadcast_to(jnp.arange(T), (B, T))
        segment_BxT = jnp.zeros((B, T), jnp.int32) if segment_BxT is None else segment_BxT
        x_NxD = self.embedding[...][token_BxT.reshape(-1)]
        for block in self.blocks:
            q, k, v = block.project(x_NxD, position_BxT)
            x_NxD = block.finish(x_NxD, causal_attention(q, k, v, segment_BxT))
        return rms_norm(x_NxD, self.norm[...], self.config.epsilon)

    def head(self, hidden_NxD: Array) -> Array:
        """Return logits, float32, shape (N, V), from normalised states."""
        return matmul(hidden_NxD, self.embedding[...].T, self.config.compute)

    def __call__(self, token_BxT: Array, segment_BxT: Array | None = None) -> Array:
        """Return logits, float32, shape (B, T, V); arguments as of `hidden`."""
        return self.head(self.hidden(token_BxT, segment_BxT)).reshape(*token_BxT.shape, -1)

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Return a zeroed cache for `batch` rows of `length` positions, float32."""
        c = self.config
        zeros = tuple(jnp.zeros((batch, c.heads, length, c.head_size)) for _ in range(c.layers))
        return Cache(zeros, zeros)

    def step(self, token_B: Array, position: Array, cache: Cache) -> tuple[Array, Cache]:
        """Feed one token a row and return the logits of the next, float32 (B, V), and the longer cache.

        Args:
            token_B: integer ids.
            position: scalar, number of tokens already in the cache.
            cache: keys and values of the earlier positions.
        """
        c, B = self.config, token_B.shape[0]
        position_Bx1 = jnp.full((B, 1), position)
        x, keys, values = self.embedding[...][token_B], [], []
        for block, old_k, old_v in zip(self.blocks, cache.keys, cache.values, strict=True):
            q, k, v = block.project(x, position_Bx1)
            keys.append(jax.lax.dynamic_update_slice(old_k, jnp.swapaxes(k, 1, 2), (0, 0, position, 0)))
            values.append(jax.lax.dynamic_update_slice(old_v, jnp.swapaxes(v, 1, 2), (0, 0, position, 0)))
            x = block.finish(x, cached_attention(q[:, 0], keys[-1], values[-1], position + 1))
        logits = self.head(rms_norm(x, self.norm[...], c.epsilon))
        return logits, Cache(tuple(keys), tuple(values))


def make(config: ModelConfig, seed: int) -> Decoder:
    """Return a decoder with random weights that depend on `config` and `seed` only."""
    return Decoder(config, nnx.Rngs(params=seed))


def count_parameters(config: ModelConfig) -> int:
    """Return the number of trainable numbers: V D + layers (4 D^2 + 2 D F + 2 D) + D."""
    D, F = config.width, config.hidden
    return config.vocabulary * D + config.layers * (4 * D * D + 2 * D * F + 2 * D) + D
