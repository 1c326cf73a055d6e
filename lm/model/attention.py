"""Causal attention within documents: by blocks with a hand-written backward pass on a CPU, by libraries elsewhere.

For each row and head, with queries q, keys k, values v (T, K) and the set A of allowed pairs (t, c), c <= t
and both positions in one document:

    s_tc = q_t k_c / sqrt(K),   l_t = log sum_{c in A(t)} exp s_tc,   w_tc = exp(s_tc - l_t),   o_t = sum_c
    w_tc v_c.

Backwards, with g = dL/do and delta_t = g_t o_t,

    ds_tc = w_tc (g_t v_c - delta_t),   dv_c = sum_t w_tc g_t,   dk_c = sum_t ds_tc q_t / sqrt(K),
    dq_t = sum_c ds_tc k_c / sqrt(K).

Blocks above the diagonal are never computed; the weights are recomputed in the backward pass, so that no (T, T)
array is kept. There they are transposed, so that every product contracts the layout that XLA multiplies fastest on a
CPU (the derived rule takes three times as long), except where oneDNN takes any layout (`lm.model.onednn`). The
R = H / G queries that share a key are stacked as rows of one product, so that keys and values are never repeated.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from lm.model import onednn
from lm.model.cutting import bits, block, numbers
from lm.model.matmul import product
from lm.model.packed import Packing, has_flash, packed_attention
from lm.model.sharding import BATCH, TENSOR

Array = jax.Array

QUERIES, KEYS = 64, 128  # positions of a block forwards: as fast as 128 and 256 of either, or faster
HEADS = 6  # whose queries a block holds, at least, if there are as many: of 3, 4, 6 and 12 none is best everywhere
BLOCK = 128  # positions of a block backwards: of 64, 128 and 256 the fastest at 16 rows of 256 tokens
BLOCKS = 8  # at most, as the code is unrolled over them and compiles in proportion
MASKED = -1e9  # finite, so that differences of masked scores are never NaN


def _swap(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _blocks(length: int) -> list[slice]:
    size = BLOCK * max(1, math.ceil(length / (BLOCK * BLOCKS)))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _allowed(segment_BxT: Array | None, rows: slice, columns: slice) -> Array:
    """Return which pairs of positions may meet, shape (B, rows, columns), or (1, rows, columns) without segments."""
    causal = jnp.arange(rows.start, rows.stop)[:, None] >= jnp.arange(columns.start, columns.stop)
    if segment_BxT is None:
        return causal[None]
    return causal & (segment_BxT[:, rows, None] == segment_BxT[:, None, columns])


def _by_head(x_BxTxHxK: Array, G: int) -> Array:
    """Return (B G, R, T, K)."""
    B, T, H, K = x_BxTxHxK.shape
    return jnp.moveaxis(x_BxTxHxK, 2, 1).reshape(B * G, H // G, T, K)


def _by_group(x_BxTxHxK: Array, G: int) -> Array:
    """Return (B, G, R, T, K)."""
    x_ZxRxTxK = _by_head(x_BxTxHxK, G)
    return x_ZxRxTxK.reshape(-1, G, *x_ZxRxTxK.shape[1:])


def _by_head_transposed(x_BxTxHxK: Array, G: int) -> Array:
    """Return (B G, K, R, T)."""
    B, T, H, K = x_BxTxHxK.shape
    return x_BxTxHxK.reshape(B, T, G, H // G, K).transpose(0, 2, 4, 3, 1).reshape(B * G, K, H // G, T)


def _from_heads(x_ZxRxTxK: Array, B: int) -> Array:
    Z, R, T, K = x_ZxRxTxK.shape
    return jnp.moveaxis(x_ZxRxTxK.reshape(B, Z // B * R, T, K), 1, 2)


def _from_groups(x_BxGxRxTxK: Array) -> Array:
    B, G, *rest = x_BxGxRxTxK.shape
    return _from_heads(x_BxGxRxTxK.reshape(B * G, *rest), B)


def _forward(q: Array, k: Array, v: Array, segment_BxT: Array | None) -> tuple[Array, Array]:
    """Return o, (B, T, H, K), and l, (B, G, R, T): a block of keys at a time, sums rescaled when a larger score comes.

    The scores of a block of queries and one of keys, of a few heads of one row, stay in the caches (Milakov &
    Gimelshein 2018, arXiv 1805.02867; Rabe & Staats 2021, arXiv 2112.05682). Blocks of keys behind the queries, or
    before all their documents, are left out. Outputs are written over the queries, which are not needed again.
    """
    (B, T, H, K), G, dtype = q.shape, k.shape[2], q.dtype
    R, Z, scale = H // G, B * G, 1 / math.sqrt(K)
    W = next(W for W in range(1, G + 1) if G % W == 0 and (W * R >= HEADS or W == G))  # key heads at a time
    queries = min(QUERIES, T)
    count = -(-T // queries)
    keys = min(KEYS, count * queries)  # a multiple of queries
    padding = -T % keys
    # Queries behind the end are cut off again; keys there are behind every query.
    q, k, v = (jnp.pad(bits(x), ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q, k, v))
    q, k_T, v = _by_head(q, G), _by_head_transposed(k, G)[:, :, 0], _by_head(v, G)[:, 0]
    begin = segment = None
    if segment_BxT is not None:
        segment = jnp.pad(segment_BxT, ((0, 0), (0, padding)), mode="edge")
        new = jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        begin = jax.lax.cummax(jnp.where(new, jnp.arange(T + padding), 0), axis=1)

    def rows(step: Array, made: tuple[Array, Array]) -> tuple[Array, Array]:
        output, logs = made
        head, first = step // count * W, step % count * queries
        row, at = head // G, first + jnp.arange(queries)
        query = block(output, (head, 0, first, 0), (W, R, queries, K), dtype).reshape(W, -1, K)

        def add(number: Array, sums: tuple[Array, Array, Array], masked: bool) -> tuple[Array, Array, Array]:
            top, total, mixed = sums
            start = number * keys
            score = product(query, block(k_T, (head, 0, start), (W, K, keys), dtype))
            if masked:
                allowed = at[:, None] >= start + jnp.arange(keys)
                if segment is not None:
                    own = jax.lax.dynamic_slice(segment, (row, first), (1, queries))[0]
                    allowed &= own[:, None] == jax.lax.dynamic_slice(segment, (row, start), (1, keys))
                score = jnp.where(allowed, score.reshape(W, R, queries, keys), MASKED).reshape(W, -1, keys)
            higher = jnp.maximum(top, jnp.max(score, axis=-1, keepdims=True))
            weight, less = jnp.exp((score - higher) * scale), jnp.exp((top - higher) * scale)
            more = product(_rounded(weight, dtype), block(v, (head, start, 0), (W, keys, K), dtype))
            return higher, less * total + jnp.sum(weight, axis=-1, keepdims=True), less * mixed + more

        # What a row adds before its own document's keys come is multiplied by exp(MASKED - score) = 0 then.
        one = (W, R * queries, 1)
        sums = jnp.full(one, MASKED), jnp.zeros(one), jnp.zeros((W, R * queries, K))
        last = (first + queries - 1) // keys  # the only block with keys behind queries
        early = partial(add, masked=segment is not None)
        sums = jax.lax.fori_loop(0 if begin is None else begin[row, first] // keys, last, early, sums)
        top, total, mixed = add(last, sums, masked=True)
        output_new = bits((mixed / total).astype(dtype).reshape(W, R, queries, K))
        log_new = (top * scale + jnp.log(total)).reshape(W, R, queries)
        return (
            jax.lax.dynamic_update_slice(output, output_new, (head, 0, first, 0)),
            jax.lax.dynamic_update_slice(logs, log_new, (head, 0, first)),
        )

    made = q, jnp.zeros((Z, R, T + padding), jnp.float32)
    output, log = jax.lax.fori_loop(0, Z // W * count, rows, made)
    return _from_heads(numbers(output, dtype)[:, :, :T], B), log[:, :, :T].reshape(B, G, R, T)


def _rounded(weight: Array, dtype: jnp.dtype) -> Array:
    """Return weights, between 0 and 1, in the given type; to bfloat16 they are rounded half up.

    XLA rounds half to even and looks for numbers that are none, with three times as many instructions (JAX 0.10).
    """
    if dtype != jnp.bfloat16:
        return weight.astype(dtype)
    half_up = (jax.lax.bitcast_convert_type(weight, jnp.uint32) + 0x8000) >> 16
    return jax.lax.bitcast_convert_type(half_up.astype(jnp.uint16), jnp.bfloat16)


@jax.custom_vjp
def _attention(q: Array, k: Array, v: Array, segment_BxT: Array | None) -> Array:
    return _forward(q, k, v, segment_BxT)[0]


def _forward_by_rows(q: Array, k: Array, v: Array, segment_BxT: Array | None) -> tuple[Array, Array]:
    """Return what `_forward` does: a block of queries and all keys before its end at a time.

    With oneDNN's products this is faster, but it compiles longer and needs more memory: for training, where the
    backward pass does as much. They read and write heads between positions, as they lie.
    """
    (B, T, H, K), G, dtype = q.shape, k.shape[2], q.dtype
    R, scale, outputs, logs = H // G, 1 / math.sqrt(K), [], []
    q, k, v = _by_group(q, G), _by_group(k, G)[:, :, 0], _by_group(v, G)[:, :, 0]
    for rows in _blocks(T):
        columns, size = slice(0, rows.stop), rows.stop - rows.start
        allowed = _allowed(segment_BxT, rows, columns)[:, None, None]
        score = _score(q[:, :, :, rows].reshape(B, G, -1, K), k[:, :, columns]).reshape(B, G, R, size, -1) * scale
        score = jnp.where(allowed, score, MASKED)
        top = jnp.max(score, axis=-1, keepdims=True)
        weight = jnp.exp(score - top)
        total = jnp.sum(weight, axis=-1, keepdims=True)
        mixed = _mixed(weight.astype(dtype).reshape(B, G, -1, rows.stop), v[:, :, columns])
        outputs.append((mixed.reshape(B, G, R, size, K) / total).astype(dtype))
        logs.append((top + jnp.log(total))[..., 0])
    return _from_groups(jnp.concatenate(outputs, axis=3)), jnp.concatenate(logs, axis=3)


def _score(x: Array, y: Array) -> Array:
    """Return x y', (B, G, N, C), of arrays (B, G, N, K) and (B, G, C, K)."""
    return onednn.product(x, y, (False, True), by_position=(True, True, False))


def _mixed(weight: Array, x: Array, transposed: bool = False, out: DTypeLike = jnp.float32) -> Array:
    """Return w x, or w' x, (B, G, ., K)."""
    return onednn.product(weight, x, (transposed, False), out, by_position=(False, True, True))


def _uses_onednn(dtype: jnp.dtype) -> bool:
    return dtype == jnp.bfloat16 and onednn.is_available()


def _attention_forward(q: Array, k: Array, v: Array, segment_BxT: Array | None):
    forward = _forward_by_rows if _uses_onednn(q.dtype) else _forward
    output, log = forward(q, k, v, segment_BxT)
    return output, (q, k, v, segment_BxT, output, log)


def _attention_backward(kept, g_BxTxHxK: Array):
    q, k, v, segment_BxT, output, log = kept
    (B, T, H, _), G = q.shape, k.shape[2]
    delta = jnp.sum(g_BxTxHxK.astype(jnp.float32) * output, axis=-1)
    delta = jnp.swapaxes(delta, 1, 2).reshape(B, G, H // G, T)
    backward = _gradients if _uses_onednn(q.dtype) else _gradients_transposed
    return *backward(q, k, v, g_BxTxHxK, segment_BxT, log, delta), None


def _add_from(x: Array, more: Array, start: int, axis: int) -> Array:
    """Add to the last places of an axis; `x.at[].add` of the whole axis in a shard_map crashes JAX 0.11 on a CPU."""
    rest = jax.lax.slice_in_dim(x, start, None, axis=axis)
    return jax.lax.dynamic_update_slice_in_dim(x, rest + more, start, axis)


def _gradients(
    q: Array, k: Array, v: Array, g: Array, segment_BxT: Array | None, log: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv like q, k and v.

    Args:
        q: queries, (B, T, H, K).
        k: keys, (B, T, G, K).
        v: values, (B, T, G, K).
        g: gradient by the outputs, (B, T, H, K).
        segment_BxT: see `causal_attention`.
        log: l above, (B, G, R, T).
        delta: as above, (B, G, R, T).
    """
    (B, T, H, K), G, dtype = q.shape, k.shape[2], q.dtype
    q, k, v, g = (_by_group(x, G) for x in (q, k, v, g))
    scale, dq, dk, dv = 1 / math.sqrt(K), jnp.zeros(q.shape, jnp.float32), [], []
    for columns in _blocks(T):
        rows, size = slice(columns.start, T), columns.stop - columns.start
        shape = (B, G, H // G, T - columns.start, size)
        allowed = _allowed(segment_BxT, rows, columns)[:, None, None]
        log_rows, delta_rows = (x[..., rows, None] for x in (log, delta))
        q_rows, g_rows = (x[:, :, :, rows].reshape(B, G, -1, K) for x in (q, g))
        k_columns, v_columns = (x[:, :, 0, columns] for x in (k, v))
        weight = jnp.exp(_score(q_rows, k_columns).reshape(shape) * scale - log_rows)
        weight = jnp.where(allowed, weight, 0.0)
        change = weight * (_score(g_rows, v_columns).reshape(shape) - delta_rows) * scale
        weight, change = (x.astype(dtype).reshape(B, G, -1, size) for x in (weight, change))
        dv.append(_mixed(weight, g_rows, transposed=True, out=dtype))
        dk.append(_mixed(change, q_rows, transposed=True, out=dtype))
        dq = _add_from(dq, _mixed(change, k_columns).reshape(B, G, -1, T - columns.start, K), columns.start, 3)
    dk, dv = (_from_groups(jnp.concatenate(x, axis=2)[:, :, None]) for x in (dk, dv))
    return _from_groups(dq.astype(dtype)), dk, dv


def _gradients_transposed(
    q: Array, k: Array, v: Array, g: Array, segment_BxT: Array | None, log: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """Return what `_gradients` does, by products of factors as they lie."""
    G, B, dtype = k.shape[2], len(q), q.dtype
    q, k, v, g = (_by_head(x, G) for x in (q, k, v, g))
    (Z, R, T, K), k, v = q.shape, k[:, 0], v[:, 0]
    q_T, g_T, k_T = (jnp.moveaxis(x, -1, 1) for x in (q, g, k))
    scale, dq_T, dk, dv = 1 / math.sqrt(K), jnp.zeros(q_T.shape, jnp.float32), [], []
    for columns in _blocks(T):
        rows, size = slice(columns.start, T), columns.stop - columns.start
        shape = (B, G, size, R, T - columns.start)
        allowed = _swap(_allowed(segment_BxT, rows, columns))[:, None, :, None]
        log_rows, delta_rows = (x[:, :, None, :, rows] for x in (log, delta))
        score = product(k[:, columns], q_T[..., rows].reshape(Z, K, -1)).reshape(shape) * scale
        weight = jnp.where(allowed, jnp.exp(score - log_rows), 0.0)
        slope = product(v[:, columns], g_T[..., rows].reshape(Z, K, -1)).reshape(shape)
        change = (weight * (slope - delta_rows) * scale).astype(dtype).reshape(Z, size, -1)
        dv.append(product(weight.astype(dtype).reshape(Z, size, -1), g[:, :, rows].reshape(Z, -1, K)))
        dk.append(product(change, q[:, :, rows].reshape(Z, -1, K)))
        dq_T = _add_from(dq_T, product(k_T[..., columns], change).reshape(Z, K, R, -1), columns.start, 3)
    dq = jnp.moveaxis(dq_T.astype(dtype).reshape(B, G, K, R, T), (4, 2), (1, 4)).reshape(B, T, -1, K)
    dk, dv = (_from_heads(jnp.concatenate(x, axis=1)[:, None].astype(dtype), B) for x in (dk, dv))
    return dq, dk, dv


_attention.defvjp(_attention_forward, _attention_backward)


def _library_attention(q: Array, k: Array, v: Array, segment_BxT: Array | None, implementation) -> Array:
    mask = None if segment_BxT is None else (segment_BxT[:, :, None] == segment_BxT[:, None])[:, None]
    with jax.default_matmul_precision("float32" if q.dtype == jnp.float32 else "default"):
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, implementation=implementation)


def causal_attention(
    q_BxTxHxK: Array,
    k_BxTxGxK: Array,
    v_BxTxGxK: Array,
    segment_BxT: Array | None,
    packing: Packing | None = None,
    stream: NamedSharding | None = None,
) -> Array:
    """Return causal attention restricted to each position's own document.

    Query head h reads key and value head h // (H / G). Products have factors of the type of the queries and are
    summed in float32; the softmax is float32. bfloat16 goes to cuDNN's flash attention on a GPU, to JAX's on a TPU.

    Args:
        q_BxTxHxK: queries, float32 or bfloat16.
        k_BxTxGxK: keys, same type; G divides H.
        v_BxTxGxK: values, same type.
        segment_BxT: integer document number of each position, contiguous in a row; None: one document a row.
        packing: where these documents lie, where `lm.model.packed.takes_packed`.
        stream: how the rows lie on several devices, of `lm.model.sharding.stream_sharding`: each then computes its own
            rows, which the compiler would not find out of the loops, and its own heads if "tensor" divides G.

    Returns:
        Type of the queries, shape (B, T, H, K).
    """
    given = q_BxTxHxK, k_BxTxGxK, v_BxTxGxK, segment_BxT, packing
    if stream is None:
        return _local_attention(*given)
    heads = TENSOR if k_BxTxGxK.shape[2] % stream.mesh.shape[TENSOR] == 0 else None
    rows, cut = P(BATCH), P(BATCH, None, heads)
    places = cut, cut, cut, rows, rows
    return jax.shard_map(_local_attention, mesh=stream.mesh, in_specs=places, out_specs=cut, check_vma=False)(*given)


def _local_attention(q: Array, k: Array, v: Array, segment_BxT: Array | None, packing: Packing | None) -> Array:
    if packing is not None:
        return packed_attention(q, k, v, packing)
    if jax.default_backend() == "tpu" and q.dtype == jnp.bfloat16:
        from lm.model.splash import splash_attention  # what others need not wait for

        return splash_attention(q, k, v, segment_BxT)
    if jax.default_backend() != "cpu":
        # With a mask it needs an even number of positions.
        flash = has_flash(str(q.dtype), q.shape[3]) and q.shape[1] % 2 == 0
        return _library_attention(q, k, v, segment_BxT, "cudnn" if flash else "xla")
    return _attention(q, k, v, segment_BxT)
