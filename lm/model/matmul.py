"""Matrix product with factors of a chosen type and float32 sums, forwards and backwards, in each device's fast forms.

On a CPU with matrix units XLA multiplies bfloat16 factors seven times as fast as float32 ones, but only in one
form: sums in float32 asked for, the last axis of the first factor against the first of the second, and no
transpose in sight, which would turn both factors back into float32. `_row_major` hides it. Two matrices go to
oneDNN where it is available (`lm.model.onednn`), which takes them in any layout.

On an accelerator a product is as fast as its results can be written: what is about to be rounded to the type of the
factors anyway is rounded once, from its float32 sum, where it is made (`narrow`). On a CPU the gradient that comes back
to a product and its bias is (`rounded_back`).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lm.model import onednn

Array = jax.Array
Compute = Literal["float32", "bfloat16"]


def _row_major(x: Array) -> Array:
    # The result of a transpose is column-major to XLA, which has no bfloat16 product for it. A reshape that changes
    # the rank is row-major, if a barrier keeps the compiler from undoing it.
    return jax.lax.reshape(jax.lax.optimization_barrier(x[None]), x.shape)


def narrow(compute: Compute) -> Compute:
    """Return the type in which results that are soon rounded to `compute` should be written: float32 on a CPU."""
    return "float32" if jax.default_backend() == "cpu" else compute


def rounded_back(y: Array, compute: Compute) -> Array:
    """Return y, float32; on a CPU its gradient is rounded to `compute`, which the product that made y would do.

    Without a barrier the compiler would write what a bias sums in float32, too, and read that again to round it.
    """
    return _rounded_back(compute, y) if compute == "bfloat16" and jax.default_backend() == "cpu" else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_back(compute: Compute, y: Array) -> Any:
    return y


def _rounded_back_backward(compute: Compute, _: None, g: Array) -> tuple[Array]:
    return (jax.lax.optimization_barrier(g.astype(compute)).astype(g.dtype),)


_rounded_back.defvjp(lambda compute, y: (y, None), _rounded_back_backward)


def precision(dtype: Any) -> jax.lax.Precision:
    """Return what makes float32 factors be multiplied as such, where a GPU would cut them to 10 bits (TF32)."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def product(x: Array, w: Array, out: Compute = "float32") -> Array:
    """Return the matrix product of two factors of one type, summed in float32.

    Args:
        x: float32 or bfloat16, shape (..., N, I).
        w: same type, shape (..., I, O).
        out: type of the result.
    """
    if x.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
        return jnp.matmul(x, w, precision=precision(x.dtype), preferred_element_type=jnp.dtype(out))
    if x.ndim == 2 and w.ndim == 2 and onednn.is_available():
        return onednn.product(x, w).astype(out)
    y = jnp.matmul(_row_major(x), _row_major(w), preferred_element_type=jnp.float32)
    # Else a transpose of the result would become a transpose of the factors, which the CPU cannot run.
    return jax.lax.optimization_barrier(y).astype(out)


def matmul(x_NxI: Array, w_IxO: Array, compute: Compute, out: Compute = "float32") -> Array:
    """Return x w with factors cast to `compute` and summed in float32, forwards and backwards.

    Args:
        x_NxI: float32 or bfloat16.
        w_IxO: float32, or already in the type of the factors.
        compute: type of the factors.
        out: type of the result, and then of the gradient that comes back.

    Returns:
        Shape (N, O).
    """
    return _matmul(compute, out, x_NxI, w_IxO)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matmul(compute: Compute, out: Compute, x: Array, w: Array) -> Any:
    return product(x.astype(compute), w.astype(compute), out)


def _matmul_forward(compute: Compute, out: Compute, x: Array, w: Array):
    kept = x.astype(compute), w.astype(compute)
    return product(*kept, out), (*kept, jnp.zeros((), x.dtype))


def _matmul_backward(compute: Compute, out: Compute, kept, g: Array) -> tuple[Array, Array]:
    x, w, example = kept
    # The derived rule would multiply a float32 gradient by a bfloat16 factor, off the fast path.
    g = g.astype(compute)
    if compute == "bfloat16" and onednn.is_available():
        # The gradient by x is rounded where it is made, as on an accelerator: half as much to write and read.
        back = onednn.product(g, w, (False, True), jnp.bfloat16)
        return back.astype(example.dtype), onednn.product(x, g, (True, False))
    # Transposing costs a CPU a tenth of the product: the narrower factor is transposed.
    slope = product(x.T, g) if x.shape[1] <= g.shape[1] else product(g.T, x).T
    return product(g, w.T, narrow(compute)).astype(example.dtype), slope


_matmul.defvjp(_matmul_forward, _matmul_backward)
