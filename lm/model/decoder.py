"""A decoder-only transformer in Flax NNX whose families differ by configuration.

Shapes carry suffixes: B rows, T positions, D width, H query heads, G key heads, K head size, F hidden, V
vocabulary, L layers, N = B T flattened. Activations stay flattened to (N, D)
between the attentions, because one large product is faster on a CPU than a batch of small ones.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding

from lm.errors import InputError
from lm.model.attention import causal_attention
from lm.model.config import Compute, ModelConfig
from lm.model.cutting import layer_in_loop
from lm.model.elementwise import activated, layer_norm, rms_norm
from lm.model.matmul import matmul, narrow, rounded_back
from lm.model.packed import packing_of, takes_packed
from lm.model.parameters import parameters
from lm.model.sharding import for_rows, placed

Array = jax.Array

UNROLLED = 12  # layers up to which they are compiled one after the other instead of as a loop

_keeps_names = jax.checkpoint_policies.save_only_these_names("matmul")


def _keeps_products(primitive: Any, *arguments: Any, **parameters: Any) -> Any:
    """Policy of "matmuls": keep what is named so, and what cuDNN's attention needs to go backwards."""
    return primitive.name.startswith("dot_product_attention_fwd") or _keeps_names(primitive, *arguments, **parameters)


def positions(segment_BxT: Array) -> Array:
    """Return each position's place in its segment, from 0, int32, shape (B, T); segments are contiguous."""
    T = segment_BxT.shape[1]
    place = jnp.arange(T, dtype=jnp.int32)
    new = jnp.concatenate([jnp.ones_like(segment_BxT[:, :1], bool), segment_BxT[:, 1:] != segment_BxT[:, :-1]], 1)
    return place - jax.lax.cummax(jnp.where(new, place, 0), axis=1)


def rotary_frequencies(config: ModelConfig) -> Array:
    """Return the angle that each pair of coordinates turns by per position, float32, shape (R / 2,)."""
    half, scaling = config.rotated // 2, config.rope_scaling
    frequency = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(config.rope_base) / half))
    if scaling is None:
        return frequency
    slow = frequency / scaling.factor
    if scaling.kind == "linear":
        return slow
    # Waves a original_context: below low_frequency slow, above high_frequency as they are, between interpolated.
    waves = scaling.original_context * frequency / (2 * math.pi)
    share = (waves - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    share = jnp.clip(share, 0.0, 1.0)
    return (1 - share) * slow + share * frequency


def rotate(x_BxTxHxK: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pairs (x_i, x_{i + R/2}) of the first R coordinates of each head; cos and sin are (B, T, 1, R/2)."""
    half = cos.shape[-1]
    a, b, rest = x_BxTxHxK[..., :half], x_BxTxHxK[..., half : 2 * half], x_BxTxHxK[..., 2 * half :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


class _Parameters(nnx.Module):
    """A module whose parameters, an attribute each, are those of the table that start with a prefix."""

    def __init__(self, config: ModelConfig, arrays: Mapping[str, Array]):
        self.config = config
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def read(self, name: str) -> Array:
        """Return a parameter's array."""
        return getattr(self, name).get_value()

    def norm(self, x_NxD: Array, prefix: str) -> Array:
        """Apply the configured norm with the parameters PREFIX_scale and PREFIX_bias."""
        c = self.config
        if c.norm == "rms":
            return rms_norm(x_NxD, self.read(f"{prefix}_scale"), c.epsilon)
        normed = layer_norm(x_NxD, self.read(f"{prefix}_scale") if c.norm == "layer" else None, c.epsilon)
        return normed + self.read(f"{prefix}_bias") if c.norm == "layer" and c.norm_bias else normed

    def product(self, x_NxI: Array, name: str, out: Compute) -> Array:
        """Return x w in the given type."""
        return checkpoint_name(matmul(x_NxI, self.read(name), self.config.compute, out), "matmul")

    def linear(self, x_NxI: Array, name: str, bias: bool, out: Compute = "float32") -> Array:
        """Return x w, written in the given type, plus NAME_bias if there is one, float32."""
        y = self.product(x_NxI, name, out).astype(jnp.float32)
        return rounded_back(y + self.read(f"{name}_bias"), self.config.compute) if bias else y


class Block(_Parameters):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), or with the norms after the branches.

    Its parameters are those of one layer when it computes, of all layers, stacked, inside a `Decoder`.
    """

    def project(self, x_NxD: Array, cos_sin: tuple[Array, Array] | None, rows: tuple[int, int]) -> tuple[Array, ...]:
        """Return queries (B, T, H, K), keys and values (B, T, G, K), rotated, in the type of the products.

        Args:
            x_NxD: residual stream, float32.
            cos_sin: of `rotate`; None without rotary positions.
            rows: (B, T).
        """
        c = self.config
        x = self.norm(x_NxD, "attention_norm") if c.norm_place == "before" else x_NxD
        bias, out = c.attention_bias != "none", narrow(c.compute)
        return tuple(
            self.heads(name, self.linear(x, name, bias, out), cos_sin, rows) for name in ("query", "key", "value")
        )

    def heads(self, name: str, y: Array, cos_sin: tuple[Array, Array] | None, rows: tuple[int, int]) -> Array:
        """Return the projection to the "query", "key" or "value", (N, heads K), as heads, as `project` returns them."""
        c = self.config
        if c.clip_qkv is not None:
            y = jnp.clip(y, -c.clip_qkv, c.clip_qkv)
        normed = name != "value" and c.query_key_norm != "none"
        if normed and c.query_key_norm == "whole":
            y = rms_norm(y, self.read(f"{name}_norm_scale"), c.epsilon)
        y = y.reshape(*rows, -1, c.head_size)
        if normed and c.query_key_norm == "head":
            y = rms_norm(y, self.read(f"{name}_norm_scale"), c.epsilon)
        if name != "value" and cos_sin is not None:
            y = rotate(y, *cos_sin)
        return y.astype(c.compute)

    def finish(self, x_NxD: Array, mixed: Array) -> Array:
        """Add the attention's output (its heads' values mixed) and the feed-forward layer to the residual stream."""
        c, after = self.config, self.config.norm_place == "after"
        y = self.linear(mixed.reshape(-1, c.query_width), "output", c.attention_bias == "all")
        x = x_NxD + (self.norm(y, "attention_norm") if after else y)
        y = self.feed_forward(x if after else self.norm(x, "hidden_norm"))
        return x + (self.norm(y, "hidden_norm") if after else y)

    def feed_forward(self, x_NxD: Array) -> Array:
        """Return down(activation(gate x) * up x), or down(activation(up x)) without a gate."""
        c = self.config
        out = narrow(c.compute)
        if c.gated:
            gate, up = self.product(x_NxD, "gate", out), self.linear(x_NxD, "up", c.hidden_bias, out)
            hidden = activated(c.activation, gate, None, up)
        else:
            bias = self.read("up_bias") if c.hidden_bias else None
            hidden = activated(c.activation, self.product(x_NxD, "up", out), bias, compute=c.compute)
        return self.linear(hidden, "down", c.hidden_bias)


class Decoder(_Parameters):
    """Maps token ids to the logits of the next one."""

    def __init__(self, config: ModelConfig, arrays: Mapping[str, Array], stream: NamedSharding | None = None):
        """Take the parameters.

        Args:
            config: of the model.
            arrays: of every parameter of the table `lm.model.parameters.parameters`, by name.
            stream: how the residual stream lies on several devices, of `lm.model.sharding.stream_sharding`.
        """
        super().__init__(config, {name: array for name, array in arrays.items() if not name.startswith("blocks.")})
        inner = {name.removeprefix("blocks."): array for name, array in arrays.items() if name.startswith("blocks.")}
        self.blocks = Block(config, inner)
        self.stream = stream

    def embed(self, token: Array, position: Array) -> Array:
        """Return the residual stream before the first block, float32, shape (N, D), of N ids and their positions."""
        x_NxD = self.read("embedding")[token.reshape(-1)]
        if self.config.position == "learned":
            x_NxD = x_NxD + self.read("position")[position.reshape(-1)]
        return x_NxD.astype(jnp.float32)

    def angles(self, position_BxT: Array) -> tuple[Array, Array] | None:
        """Return cos and sin of the rotary angles, each (B, T, 1, R/2); None without rotary positions."""
        if self.config.position != "rotary":
            return None
        angle = position_BxT[..., None, None].astype(jnp.float32) * rotary_frequencies(self.config)
        return jnp.cos(angle), jnp.sin(angle)

    def hidden(self, token_BxT: Array, segment_BxT: Array | None = None, most: int | None = None) -> Array:
        """Return the normalised residual stream, float32, shape (B T, D).

        Args:
            token_BxT: integer ids in 0..V-1.
            segment_BxT: integer document number of each position, contiguous in a row, PADDING where there is
                nothing; a position sees itself and earlier positions of its own document, and positions count
                from 0 in each. None: one document a row.
            most: documents of a row, if known: some GPUs then need no mask, and no device for one that begins its row.
        """
        return self.norm(self.through(token_BxT, segment_BxT, most, collect=False)[0], "norm")

    def through(
        self, token_BxT: Array, segment_BxT: Array | None, most: int | None = None, *, collect: bool
    ) -> tuple[Array, Any]:
        """Return the residual stream after the last block, and keys and values (L, B, T, G, K) if asked for."""
        (B, T), segment_BxT = token_BxT.shape, None if most == 1 else segment_BxT
        place = jnp.broadcast_to(jnp.arange(T), (B, T)) if segment_BxT is None else positions(segment_BxT)
        cos_sin, packed, stream = self.angles(place), None, for_rows(self.stream, B)
        if segment_BxT is not None and most is not None and takes_packed(self.config.compute, self.config.head_size):
            packed = packing_of(segment_BxT, most)
        graph, stacked = nnx.split(self.blocks)

        def layer(x_NxD: Array, step: Any) -> tuple[Array, Any]:
            # Forwards only, layers may be bfloat16, which a loop would convert as a whole: they are cut by number.
            state = jax.tree.map(lambda whole: layer_in_loop(whole, step), stacked) if collect else step
            block = nnx.merge(graph, state)
            q, k, v = block.project(x_NxD, cos_sin, (B, T))
            mixed = checkpoint_name(causal_attention(q, k, v, segment_BxT, packed, stream), "matmul")
            return placed(block.finish(x_NxD, mixed), stream), (k, v) if collect else None

        if self.config.remat == "matmuls":
            layer = jax.checkpoint(layer, policy=_keeps_products)
        elif self.config.remat == "full":
            layer = jax.checkpoint(layer)
        # Layers in a row are faster, as nothing is cut from stacked arrays, at the price of compiling each.
        unroll = self.config.layers if self.config.layers <= UNROLLED else 1
        steps = jnp.arange(self.config.layers) if collect else stacked
        return jax.lax.scan(layer, placed(self.embed(token_BxT, place), stream), steps, unroll=unroll)

    def head(self, hidden_NxD: Array) -> Array:
        """Return logits, float32, shape (N, V), from normalised states."""
        return matmul(hidden_NxD, self.head_weight(), self.config.compute)

    def head_weight(self) -> Array:
        """Return the matrix of the head, (D, V)."""
        return self.read("embedding").T if self.config.tied else self.read("unembedding")

    def __call__(self, token_BxT: Array, segment_BxT: Array | None = None) -> Array:
        """Return logits, float32, shape (B, T, V); arguments as of `hidden`."""
        return self.head(self.hidden(token_BxT, segment_BxT)).reshape(*token_BxT.shape, -1)


def named(model: Decoder) -> dict[str, Array]:
    """Return every parameter's array by the name in the table `lm.model.parameters.parameters`."""
    found = {}
    for name in parameters(model.config):
        owner = model.blocks if name.startswith("blocks.") else model
        found[name] = owner.read(name.removeprefix("blocks."))
    return found


def from_arrays(config: ModelConfig, arrays: Mapping[str, Array]) -> Decoder:
    """Return a decoder with these parameters.

    Raises:
        InputError: a parameter is missing, unknown or of another shape than the configuration says.
    """
    table = parameters(config)
    for name in [*table, *(name for name in arrays if name not in table)]:
        wanted = table[name].shape if name in table else "no such parameter"
        found = tuple(arrays[name].shape) if name in arrays else "nothing"
        if wanted != found:
            raise InputError(f"the parameter {name} should be {wanted} and is {found}; use the matching configuration")
    return Decoder(config, arrays)


@functools.partial(jax.jit, static_argnums=0)
def starting_arrays(config: ModelConfig, seed: Array | int) -> dict[str, Array]:
    """Return random starting values of every parameter, float32: they depend on configuration and seed only."""
    arrays = {}
    for number, (name, one) in enumerate(parameters(config).items()):
        if one.start in ("ones", "zeros"):
            arrays[name] = jnp.full(one.shape, float(one.start == "ones"), jnp.float32)
            continue
        deviation = 0.02 / math.sqrt(2 * config.layers) if one.start == "residual" else 0.02
        key = jax.random.fold_in(jax.random.key(seed), number)
        arrays[name] = deviation * jax.random.normal(key, one.shape)
    return arrays


def make(config: ModelConfig, seed: int) -> Decoder:
    """Return a decoder with random weights."""
    return Decoder(config, starting_arrays(config, seed))
