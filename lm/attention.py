"""Causal attention within documents, by blocks, with a hand-written backward pass that suits the CPU.

For each row and head, with queries q, keys k, values v (T, K) and the set A of allowed pairs (t, c), c <= t
and both positions in one document:

    s_tc = q_t k_c / sqrt(K),   l_t = log sum_{c in A(t)} exp s_tc,   w_tc = exp(s_tc - l_t),   o_t = sum_c
    w_tc v_c.

Backwards, with g = dL/do and delta_t = g_t o_t,

    ds_tc = w_tc (g_t v_c - delta_t),   dv_c = sum_t w_tc g_t,   dk_c = sum_t ds_tc q_t / sqrt(K),
    dq_t = sum_c ds_tc k_c / sqrt(K).

Blocks above the diagonal are never computed; the weights are recomputed, transposed, in the backward pass, so
that no (T, T) array is kept and every product contracts the layout that XLA multiplies fastest on a CPU (the
derived rule takes three times as long there).
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array

BLOCK = 64  # positions: of 64, 128 and 256 the fastest at 16 rows of 256 tokens
MASKED = -1e9  # finite, so that differences of masked scores are never NaN


def _swap(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _allowed(segment_BxT: Array, rows: slice, columns: slice) -> Array:
    """Return which pairs of positions may meet, shape (B, 1, rows, columns)."""
    position = jnp.arange(segment_BxT.shape[1])
    causal = position[rows, None] >= position[None, columns]
    return (causal & (segment_BxT[:, rows, None] == segment_BxT[:, None, columns]))[:, None]


def _starts(length: int) -> range:
    return range(0, length, BLOCK)


def _forward(q: Array, k: Array, v: Array, segment_BxT: Array) -> tuple[Array, Array]:
    scale, outputs, logs = 1 / math.sqrt(q.shape[-1]), [], []
    for start in _starts(q.shape[2]):
        rows, columns = slice(start, start + BLOCK), slice(0, start + BLOCK)
        score = jnp.matmul(q[:, :, rows], _swap(k[:, :, columns])) * scale
        score = jnp.where(_allowed(segment_BxT, rows, columns), score, MASKED)
        top = jnp.max(score, axis=-1, keepdims=True)
        weight = jnp.exp(score - top)
        total = jnp.sum(weight, axis=-1, keepdims=True)
        outputs.append(jnp.matmul(weight, v[:, :, columns]) / total)
        logs.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(outputs, axis=2), jnp.concatenate(logs, axis=2)


@jax.custom_vjp
def _attention(q: Array, k: Array, v: Array, segment_BxT: Array) -> Array:
    return _forward(q, k, v, segment_BxT)[0]


def _attention_forward(q: Array, k: Array, v: Array, segment_BxT: Array):
    output, log = _forward(q, k, v, segment_BxT)
    return output, (q, k, v, segment_BxT, output, log)


def _attention_backward(kept, g: Array):
    q, k, v, segment_BxT, output, log = kept
    scale, delta = 1 / math.sqrt(q.shape[-1]), jnp.sum(g * output, axis=-1)
    dq, dk, dv = jnp.zeros_like(q), [], []
    for start in _starts(q.shape[2]):
        rows, columns = slice(start, None), slice(start, start + BLOCK)
        score = jnp.matmul(k[:, :, columns], _swap(q[:, :, rows])) * scale
        allowed = _swap(_allowed(segment_BxT, rows, columns))
        weight = jnp.where(allowed, jnp.exp(score - log[:, :, None, rows]), 0.0)
        change = weight * (jnp.matmul(v[:, :, columns], _swap(g[:, :, rows])) - delta[:, :, None, rows]) * scale
        dv.append(jnp.matmul(weight, g[:, :, rows]))
        dk.append(jnp.matmul(change, q[:, :, rows]))
        dq = dq.at[:, :, rows].add(_swap(jnp.matmul(_swap(k[:, :, columns]), change)))
    return dq, jnp.concatenate(dk, axis=2), jnp.concatenate(dv, axis=2), None


_attention.defvjp(_attention_forward, _attention_backward)


def causal_attention(q_BxTxHxK: Array, k_BxTxHxK: Array, v_BxTxHxK: Array, segment_BxT: Array) -> Array:
    """Return causal attention restricted to each position's own document.

    Args:
        q_BxTxHxK: queries, float32.
        k_BxTxHxK: keys, float32.
        v_BxTxHxK: values, float32.
        segment_BxT: integer document number of each position.

    Returns:
        float32, shape (B, T, H, K).
    """
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK))
    return jnp.swapaxes(_attention(q, k, v, segment_BxT), 1, 2)


def cached_attention(q_BxHxK: Array, k_BxHxCxK: Array, v_BxHxCxK: Array, length: Array) -> Array:
    """Return attention of one new query a row over the first `length` cached positions, float32 (B, H, K).

    Args:
        q_BxHxK: queries, float32.
        k_BxHxCxK: cached keys, float32.
        v_BxHxCxK: cached values, float32.
        length: scalar, number of filled positions.
    """
    score = jnp.sum(q_BxHxK[:, :, None] * k_BxHxCxK, axis=-1) / math.sqrt(q_BxHxK.shape[-1])
    score = jnp.where(jnp.arange(k_BxHxCxK.shape[2]) < length, score, MASKED)
    return jnp.sum(jax.nn.softmax(score, axis=-1)[..., None] * v_BxHxCxK, axis=2)
