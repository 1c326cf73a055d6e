"""Cross-entropy of a large vocabulary without the logits of all tokens in memory.

With x_n the state of token n, W the head, y_n the target and w_n its weight,

    L = sum_n w_n (log sum_v exp(x_n W_v) - x_n W_{y_n}),
    dL/dx_n = w_n sum_v (p_nv - [v = y_n]) W_v,   dL/dW_v = sum_n w_n (p_nv - [v = y_n]) x_n,

with p_nv = softmax(x_n W)_v. The forward pass of a differentiated call makes both gradients chunk by chunk while it
has the chunk's logits (Hsu et al. 2024, arXiv 2410.10989), so nothing is computed twice.
"""

import functools

import jax
import jax.numpy as jnp

from lm.model.matmul import Compute, matmul

Array = jax.Array

CHUNK = {"cpu": 1024}  # tokens whose logits are in memory at a time
LARGE_CHUNK = 8192  # on devices that would wait for the gradient of the head, which each chunk reads and writes


def default_chunk() -> int:
    """Return how many tokens' logits are best in memory at a time on this machine."""
    return CHUNK.get(jax.default_backend(), LARGE_CHUNK)


def cross_entropy(
    states_NxD: Array, head_DxV: Array, targets_N: Array, weights_N: Array, chunk: int, compute: Compute
) -> tuple[Array, Array]:
    """Return the weighted sum of negative log-likelihoods in nats, and the sum of weights.

    Args:
        states_NxD: float32, final norm applied.
        head_DxV: float32.
        targets_N: integer ids in 0..V-1.
        weights_N: float32; 0 leaves a target out. Gradients with respect to the weights are not defined.
        chunk: tokens whose logits are in memory at a time; 0: `default_chunk`.
        compute: type of the factors of the matmuls; logits and sums are float32.

    Returns:
        Two float32 scalars.
    """
    chunk = chunk or default_chunk()
    return _summed(chunk, compute, states_NxD, head_DxV, targets_N, weights_N), jnp.sum(weights_N)


def _cut(chunk: int, *arrays: Array) -> tuple[tuple[Array, ...], int]:
    """Return arrays of shape (C, chunks, ...) padded with zeros, and the number of chunks.

    Chunk j holds the tokens j, j + chunks, ...: then the leading axis keeps the tokens' cut over devices, and every
    device has a share of every chunk.
    """
    N = len(arrays[0])
    chunks = -(-N // chunk)
    size = -(-N // chunks)
    padded = chunks * size
    if padded > N:
        arrays = tuple(jnp.pad(array, [(0, padded - N)] + [(0, 0)] * (array.ndim - 1)) for array in arrays)
    return tuple(array.reshape(size, chunks, *array.shape[1:]) for array in arrays), chunks


WHOLE = 128  # columns of the head are a multiple of this: an accelerator multiplies others at a fraction of the speed


def _padded(head_DxV: Array, compute: Compute) -> Array:
    """Return the head in the type of the products, with columns of zeros behind the vocabulary."""
    return jnp.pad(head_DxV.astype(compute), ((0, 0), (0, -head_DxV.shape[1] % WHOLE)))


def _logits(states_CxD: Array, head_DxW: Array, vocabulary: int, compute: Compute) -> Array:
    """Return logits, -inf behind the vocabulary."""
    logits = matmul(states_CxD, head_DxW, compute)
    if head_DxW.shape[1] == vocabulary:
        return logits
    return jnp.where(jnp.arange(head_DxW.shape[1]) < vocabulary, logits, -jnp.inf)


def _likelihood(logits_CxV: Array, targets_C: Array, weights_C: Array) -> tuple[Array, Array, Array]:
    """Return the weighted sum of one chunk, log sum exp of each token, and where the targets are."""
    top_Cx1 = jnp.max(logits_CxV, axis=1, keepdims=True)
    total_Cx1 = top_Cx1 + jnp.log(jnp.sum(jnp.exp(logits_CxV - top_Cx1), axis=1, keepdims=True))
    is_target_CxV = targets_C[:, None] == jnp.arange(logits_CxV.shape[1])
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        target_C = jnp.take_along_axis(logits_CxV, targets_C[:, None], axis=1, mode="clip")[:, 0]
    else:
        # Comparing instead of gathering: a vocabulary cut over devices needs no exchange but of sums.
        target_C = jnp.sum(jnp.where(is_target_CxV, logits_CxV, 0.0), axis=1)
    return jnp.sum(weights_C * (total_Cx1[:, 0] - target_C)), total_Cx1, is_target_CxV


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed(chunk: int, compute: Compute, states: Array, head: Array, targets: Array, weights: Array) -> Array:
    (x, y, w), chunks = _cut(chunk, states, targets, weights)
    vocabulary, head = head.shape[1], _padded(head, compute)

    def one(total: Array, number: Array) -> tuple[Array, None]:
        logits = _logits(x[:, number], head, vocabulary, compute)
        return total + _likelihood(logits, y[:, number], w[:, number])[0], None

    return jax.lax.scan(one, jnp.zeros(()), jnp.arange(chunks))[0]


def _summed_forward(chunk: int, compute: Compute, states: Array, head: Array, targets: Array, weights: Array):
    (x, y, w), chunks = _cut(chunk, states, targets, weights)
    vocabulary, head = head.shape[1], _padded(head, compute)

    def one(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Array]:
        total, head_gradient = carry
        states_CxD = x[:, number].astype(compute)
        logits = _logits(states_CxD, head, vocabulary, compute)
        value, normaliser, is_target = _likelihood(logits, y[:, number], w[:, number])
        change = w[:, number, None] * (jnp.exp(logits - normaliser) - is_target)
        head_gradient = head_gradient + matmul(states_CxD.T, change, compute)
        return (total + value, head_gradient), matmul(change, head.T, compute)

    start = (jnp.zeros(()), jnp.zeros(head.shape, jnp.float32))
    (total, head_gradient), parts = jax.lax.scan(one, start, jnp.arange(chunks))
    states_gradient = jnp.swapaxes(parts, 0, 1).reshape(-1, states.shape[1])[: len(states)]
    return total, (states_gradient, head_gradient[:, :vocabulary])


def _summed_backward(chunk: int, compute: Compute, gradients: tuple[Array, Array], g: Array):
    return (*(g * gradient for gradient in gradients), None, None)


_summed.defvjp(_summed_forward, _summed_backward)
