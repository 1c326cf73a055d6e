"""Norms and activations whose backward passes keep nothing but their inputs.

The derived rules would keep every intermediate result, which costs an accelerator more to write and read than to
compute again. With r = 1 / sqrt(var(x) + e) or 1 / sqrt(mean(x^2) + e), y = r (x - mean(x)) or r x, and g the gradient
by y s, s the scale,

    ds = sum_n g y,   dx = r (g s - y mean(g s y) - mean(g s)),

the last term for the layer norm only. All means are over the last axis; everything is float32.

Both activations are x s(z), s the logistic function: silu with z = x, and GPT-2's approximation of gelu,
x (1 + tanh(a x (1 + b x^2))) / 2 (Hendrycks & Gimpel 2016), with z = 2 a x (1 + b x^2), a = sqrt(2 / pi), b = .044715.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lm.model.matmul import Compute, rounded_back

Array = jax.Array
Activation = Literal["gelu-tanh", "silu"]

TWICE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715  # 2 a and b


def rms_norm(x: Array, scale: Array, epsilon: float) -> Array:
    """Return x / sqrt(mean(x^2) + epsilon) * scale over the last axis (Zhang & Sennrich 2019), float32."""
    return _norm(False, epsilon, x, scale)


def layer_norm(x: Array, scale: Array | None, epsilon: float) -> Array:
    """Return (x - mean(x)) / sqrt(var(x) + epsilon) * scale over the last axis (Ba et al. 2016), float32."""
    return _norm(True, epsilon, x, scale)


def _mean(x: Array) -> Array:
    return jnp.mean(x, axis=-1, keepdims=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _norm(centre: bool, epsilon: float, x: Array, scale: Array | None) -> Array:
    return _norm_forward(centre, epsilon, x, scale)[0]


def _norm_forward(centre: bool, epsilon: float, x: Array, scale: Array | None):
    middle = _mean(x) if centre else None
    centred = x if middle is None else x - middle
    r = jax.lax.rsqrt(_mean(centred * centred) + epsilon)
    y = centred * r
    return y if scale is None else y * scale, (x, middle, r, scale)


def _norm_backward(centre: bool, epsilon: float, kept: Any, g: Array):
    x, middle, r, scale = jax.lax.optimization_barrier(kept)  # see `_activated_backward`
    y = (x if middle is None else x - middle) * r
    slope = None if scale is None else jnp.sum(g * y, axis=range(g.ndim - 1))
    g = g if scale is None else g * scale
    change = g - y * _mean(g * y)
    return r * (change - _mean(g) if centre else change), slope


_norm.defvjp(_norm_forward, _norm_backward)


def _wide(x: Array, bias: Array | None) -> Array:
    return x.astype(jnp.float32) if bias is None else x + bias


def _sigmoid(kind: Activation, x: Array) -> tuple[Array, Array]:
    """Return s and, with y = x s, dy / dx."""
    if kind == "silu":
        s = jax.nn.sigmoid(x)
        return s, s * (1 + x * (1 - s))
    s = jax.nn.sigmoid(TWICE * x * (1 + CUBIC * x * x))
    return s, s * (1 + x * (1 - s) * TWICE * (1 + 3 * CUBIC * x * x))


def activated(
    kind: Activation,
    x: Array,
    bias: Array | None = None,
    factor: Array | None = None,
    compute: Compute = "float32",
) -> Array:
    """Return activation(x + bias) * factor (Shazeer 2020), float32.

    Args:
        kind: of the activation; "gelu-tanh" is GPT-2's approximation.
        x: of any type; its gradient is of the same, and that of the bias a sum of it.
        bias: float32, of x's last axis, or none.
        factor: shape of x, or none.
        compute: type to which the product that made x rounds its gradient.
    """
    if jax.default_backend() == "cpu":
        # A CPU reads what the derived rule keeps in less time than it computes it again.
        wide = _wide(x, bias)
        wide = wide if bias is None else rounded_back(wide, compute)
        y = (jax.nn.silu if kind == "silu" else jax.nn.gelu)(wide)
        return y if factor is None else y * factor
    return _activated(kind, x, bias, factor)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activated(kind: Activation, x: Array, bias: Array | None, factor: Array | None) -> Any:
    x = _wide(x, bias)
    y = x * _sigmoid(kind, x)[0]
    return y if factor is None else y * factor


def _activated_forward(kind: Activation, x: Array, bias: Array | None, factor: Array | None):
    return _activated(kind, x, bias, factor), (x, bias, factor)


def _activated_backward(kind: Activation, kept: tuple[Array, Array | None, Array | None], g: Array):
    # The barrier keeps the compiler from finding, and storing, what the forward pass has computed already.
    x, bias, factor = jax.lax.optimization_barrier(kept)
    wide = _wide(x, bias)
    s, slope = _sigmoid(kind, wide)
    change = g * slope if factor is None else g * factor * slope
    if change.dtype != x.dtype:
        # Written once, rounded: without a barrier the compiler would write what the bias sums, too.
        change = jax.lax.optimization_barrier(change.astype(x.dtype))
    of_bias = None if bias is None else jnp.sum(change.astype(jnp.float32), axis=range(x.ndim - 1))
    return change, of_bias, None if factor is None else g * wide * s


_activated.defvjp(_activated_forward, _activated_backward)
