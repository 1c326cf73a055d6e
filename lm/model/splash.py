"""Attention on a TPU by JAX's own kernel (splash attention): its memory grows with the positions, not their square."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

Array = jax.Array

BLOCKS = 512, 256, 128  # positions of a block: the first that pads no row by more than one of the last
# Of the three kernels: forwards, gradients of keys and values, gradients of queries.
SIZES = (
    *("block_q", "block_kv", "block_kv_compute"),
    *("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute"),
    *("block_q_dq", "block_kv_dq"),
)
REMEMBERED = "matmul"  # name under which `lm.model.decoder` keeps what the backward pass needs


def block_of(length: int) -> int:
    """Return the positions of a block for rows of so many."""
    whole = -(-length // BLOCKS[-1]) * BLOCKS[-1]
    return next(size for size in BLOCKS if whole % size == 0)


def splash_attention(
    q_BxTxHxK: Array, k_BxTxGxK: Array, v_BxTxGxK: Array, segment_BxT: Array | None, *, interpret: bool = False
) -> Array:
    """Return causal attention within documents; arguments and result as of `lm.model.attention.causal_attention`.

    Args:
        q_BxTxHxK: queries, bfloat16 or float32; the kernel multiplies either as the TPU does by default.
        k_BxTxGxK: keys.
        v_BxTxGxK: values.
        segment_BxT: see `causal_attention`.
        interpret: compute as a TPU would, slowly, on any device.
    """
    (_, T, H, K), size = q_BxTxHxK.shape, block_of(q_BxTxHxK.shape[1])
    padding = -T % size
    # Keys behind the end are behind every query; queries there are cut off again.
    q, k, v = (
        jnp.moveaxis(jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))), 2, 1)
        for x in (q_BxTxHxK * np.asarray(1 / math.sqrt(K), q_BxTxHxK.dtype), k_BxTxGxK, v_BxTxGxK)
    )
    sizes: dict[str, Any] = dict.fromkeys(SIZES, size)
    kernel: Any = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.CausalMask((T + padding, T + padding))] * H),
        block_sizes=kernels.BlockSizes(**sizes),
        residual_checkpoint_name=REMEMBERED,
        interpret=interpret,
    )
    mixed: Any
    if segment_BxT is None:
        mixed = jax.vmap(functools.partial(kernel, segment_ids=None))(q, k, v)
    else:
        segment = jnp.pad(segment_BxT, ((0, 0), (0, padding)), mode="edge")
        mixed = jax.vmap(kernel)(q, k, v, kernels.SegmentIds(segment, segment))
    return jnp.moveaxis(mixed, 1, 2)[:, :T]
