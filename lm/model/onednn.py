"""Products of bfloat16 factors by oneDNN, on a CPU with matrix units (AMX): the compiler's own sums in less time.

XLA is built with oneDNN, but turns a product into a call of it only behind an experimental option, and only where the
result is bfloat16, too. Called by its name it gives the float32 sums, and multiplies transposes as they lie.

A program that calls it is not split over devices. Nor can it be kept in JAX's cache: XLA takes the call for one of
another kind when it writes it. A process that uses it therefore only reads what others have kept. Decoding leaves it
alone: its products are small, and its programs take longer to compile than many a text to make.
"""

import contextlib
import functools
import json
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lm.startup import has_matrix_units

Array = jax.Array

# It is part of the key by which JAX knows what it has traced.
_is_left_alone = jax.make_user_context(False)

TARGET = "__onednn$matmul"  # as XLA has called it since its pull request 30997 (2025)

POSITIONS_FIRST = (0, 2, 1, 3)  # of an array (B, H, T, K): its axes in the order of memory


def _config(transposed: tuple[bool, bool]) -> str:
    return json.dumps({"onednn_matmul_config": {"transpose_a": transposed[0], "transpose_b": transposed[1]}})


def product(
    x: Array,
    w: Array,
    transposed: tuple[bool, bool] = (False, False),
    out: DTypeLike = jnp.float32,
    by_position: tuple[bool, bool, bool] = (False, False, False),
) -> Array:
    """Return the matrix product of two factors, summed in float32, shape (..., N, O), where `is_available`.

    Args:
        x: bfloat16, shape (..., N, I), or (..., I, N) if it is to be transposed.
        w: bfloat16, shape (..., I, O), or (..., O, I) if it is to be transposed.
        transposed: which of both.
        out: type of the result, float32 or bfloat16.
        by_position: which of both and of the result, of shape (B, H, T, K) then, lie in memory as (B, T, H, K): taken
            and written so, their axes need not be exchanged by a copy.
    """
    *batch, rows, inner = (*x.shape[:-2], x.shape[-1], x.shape[-2]) if transposed[0] else x.shape
    *same, again, columns = (*w.shape[:-2], w.shape[-1], w.shape[-2]) if transposed[1] else w.shape
    # oneDNN ends the process over factors that do not fit, and sums nothing to anything.
    assert (batch, inner) == (same, again), f"{x.shape} and {w.shape} do not fit"
    assert inner > 0
    assert x.dtype == w.dtype == jnp.bfloat16
    call = jax.ffi.ffi_call(
        TARGET,
        jax.ShapeDtypeStruct((*batch, rows, columns), out),
        custom_call_api_version=3,  # of XLA's own operations, whose configuration is a text
        legacy_backend_config=_config(transposed),
        input_layouts=[POSITIONS_FIRST if first else None for first in by_position[:2]],
        output_layouts=POSITIONS_FIRST if by_position[2] else None,
    )
    return call(x, w)


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Leave every product to XLA in the programs that are traced within; also decorates a function."""
    with _is_left_alone(True):
        yield


def is_available() -> bool:
    """Return whether XLA can call oneDNN here, in this program: one CPU device, with matrix units; tried once."""
    return not _is_left_alone.value and _can_be_called()


@functools.cache
def _can_be_called() -> bool:
    if jax.default_backend() != "cpu" or jax.device_count() != 1 or not has_matrix_units():
        return False
    least = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[least]
    jax.config.update(least, math.inf)  # what compiles in less time is not written
    works = _works()
    if not works:
        jax.config.update(least, before)
    return works


def _works() -> bool:
    # Sums of such numbers are exact, whatever their order; all axes are alike, because oneDNN ends the process over
    # other shapes than it was told of.
    x, w = np.random.default_rng(0).integers(-8, 9, size=(2, 8, 8, 8, 8)).astype(jnp.bfloat16)
    exact = np.matmul(x.astype(np.float32), w.astype(np.float32))
    try:
        for transposed in ((False, False), (True, False), (False, True)):
            factors = [np.swapaxes(a, 2, 3) if t else a for a, t in zip((x, w), transposed, strict=True)]
            for by_position in ((False, False, False), (True, True, True)):
                form = functools.partial(product, transposed=transposed, by_position=by_position)
                # Compiled ahead, because it may be asked for while another program is traced.
                if not np.array_equal(jax.jit(form).lower(*factors).compile()(*factors), exact):
                    return False
    except jax.errors.JaxRuntimeError:
        return False
    return True
