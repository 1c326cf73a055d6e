"""Attention over several documents a row without a mask: cuDNN is told where each begins (its packed layout).

A mask of (T, T) for each row would be read by every head and layer, and pairs of different documents computed. What a
position attends to is computed as if its document were alone in a row: the same numbers, to the bit, wherever it lies.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.model.config import Compute

try:  # `jax.nn.dot_product_attention` offers all of cuDNN's but this layout
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention
except ImportError:
    MaskType = dot_product_attention = None

Array = jax.Array

PADDING = -1  # segment number of positions that hold nothing


class Packing(NamedTuple):
    """Where the documents of B rows lie, at most M in each.

    Attributes:
        start: first position of each in its row, int32, (B, M + 1); -1 behind the last one.
        length: positions of each, int32, (B, M); -1 behind the last one.
    """

    start: Array
    length: Array


def has_flash(compute: str, head_size: int) -> bool:
    """Return whether cuDNN's flash attention takes heads of this type and size."""
    return jax.default_backend() == "gpu" and compute == "bfloat16" and head_size % 8 == 0 and head_size <= 128


@functools.cache
def takes_packed(compute: Compute, head_size: int) -> bool:
    """Return whether this attention is there: on an NVIDIA GPU of the Hopper generation or a later one."""
    if dot_product_attention is None or not has_flash(compute, head_size):
        return False
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0)) >= 9.0
    except ValueError:  # other makers' GPUs have names
        return False


def packing_of(segment_BxT: Array, most: int) -> Packing:
    """Return where documents lie.

    Args:
        segment_BxT: number of each position's document, contiguous in a row. `PADDING` goes on with the document
            before it, which it comes behind and does not change.
        most: documents of a row; it must not have more.
    """
    T = segment_BxT.shape[1]
    new = (segment_BxT[:, 1:] != segment_BxT[:, :-1]) & (segment_BxT[:, 1:] != PADDING)
    new = jnp.pad(new, ((0, 0), (1, 0)), constant_values=True)
    first = jax.vmap(lambda row: jnp.nonzero(row, size=most, fill_value=T)[0])(new).astype(jnp.int32)
    end = jnp.pad(first[:, 1:], ((0, 0), (0, 1)), constant_values=T)
    found = first < T
    start = jnp.pad(jnp.where(found, first, -1), ((0, 0), (0, 1)), constant_values=-1)
    return Packing(start, jnp.where(found, end - first, -1))


def packed_attention(q_BxTxHxK: Array, k_BxTxGxK: Array, v_BxTxGxK: Array, packing: Packing) -> Array:
    """Return causal attention within documents; arguments and result as of `lm.model.attention.causal_attention`."""
    assert dot_product_attention is not None
    assert MaskType is not None
    mixed: Any = dot_product_attention(
        q_BxTxHxK,
        k_BxTxGxK,
        v_BxTxGxK,
        q_seqlen=packing.length,
        kv_seqlen=packing.length,
        q_offsets=packing.start,
        kv_offsets=packing.start,
        scale=1 / math.sqrt(q_BxTxHxK.shape[-1]),
        mask_type=MaskType.PADDING_CAUSAL,
    )
    return mixed
