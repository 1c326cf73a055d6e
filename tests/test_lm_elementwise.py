"""Norms and activations with rules of their own: values and gradients of the plain formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.elementwise import _activated, activated, layer_norm, rms_norm
from lm.model.matmul import rounded_back

EPSILON = 1e-5
ULP = np.finfo(np.float32).eps


def _plain_norm(centre, x, scale):
    x = x - jnp.mean(x, axis=-1, keepdims=True) if centre else x
    y = x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON)
    return y if scale is None else y * scale


def _plain_gelu(x):
    return x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def _assert_same(ours, plain, arrays, weights, tolerance):
    """Compare values and gradients of <value, weights> by all arrays."""

    def both(function, arrays, weights):
        value, back = jax.vjp(function, *arrays)
        return value, *back(weights)

    found = jax.jit(lambda *a: both(ours, a, weights))(*arrays)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(array, np.float64)) for array in arrays]
        exact = [np.asarray(one) for one in both(plain, wide, jnp.asarray(np.asarray(weights, np.float64)))]
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(("centre", "scaled"), [(True, True), (True, False), (False, True)])
def test_norms(rng, centre, scaled):
    x, g = (jnp.asarray(3 + 2 * rng.standard_normal((50, 24)), jnp.float32) for _ in range(2))
    scale = jnp.asarray(rng.standard_normal(24), jnp.float32)

    def ours(x, *scale):
        return layer_norm(x, scale[0] if scale else None, EPSILON) if centre else rms_norm(x, scale[0], EPSILON)

    def plain(x, scale=None):
        return _plain_norm(centre, x, scale)

    # Sums of 24 and of 50 terms, each off by 2^-24 of the largest, in a row of a few.
    _assert_same(ours, plain, (x, scale) if scaled else (x,), g, 200 * ULP)


@pytest.mark.parametrize("parts", ["alone", "bias", "factor", "bias, factor"])
@pytest.mark.parametrize("kind", ["silu", "gelu-tanh"])
@pytest.mark.parametrize("function", [activated, _activated])  # a CPU's, an accelerator's
def test_activations(rng, function, kind, parts):
    x, g, factor = (jnp.asarray(4 * rng.standard_normal((60, 30)), jnp.float32) for _ in range(3))
    more = {"bias": jnp.asarray(rng.standard_normal(30), jnp.float32), "factor": factor}
    more = {name: array for name, array in more.items() if name in parts}
    plain = jax.nn.silu if kind == "silu" else _plain_gelu

    def ours(x, *arrays):
        given = dict(zip(more, arrays, strict=True))
        return function(kind, x, given.get("bias"), given.get("factor"))

    def formula(x, *arrays):
        given = dict(zip(more, arrays, strict=True))
        return plain(x + given.get("bias", 0.0)) * given.get("factor", 1.0)

    _assert_same(ours, formula, (x, *more.values()), g, 100 * ULP)


def test_a_gradient_has_the_type_of_its_activation(rng):
    x = jnp.asarray(rng.standard_normal((40, 16)), jnp.bfloat16)
    bias, g = jnp.zeros(16), jnp.asarray(rng.standard_normal((40, 16)), jnp.float32)
    slope, of_bias = jax.vjp(lambda x, bias: _activated("silu", x, bias, None), x, bias)[1](g)
    assert (slope.dtype, of_bias.dtype) == (jnp.bfloat16, jnp.float32)
    wide, _ = jax.vjp(lambda x, bias: _activated("silu", x, bias, None), x.astype(jnp.float32), bias)[1](g)
    np.testing.assert_allclose(np.asarray(slope, np.float32), wide, rtol=2.0**-8, atol=1e-6)
    np.testing.assert_allclose(of_bias, np.asarray(slope, np.float64).sum(0), rtol=0, atol=40 * 2.0**-24 * 40)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators round where the product is written")
def test_a_gradient_is_rounded_once_for_the_product_and_its_bias(rng):
    x, g = (jnp.asarray(rng.standard_normal((40, 16)), jnp.float32) for _ in range(2))
    slope, of_bias = jax.vjp(lambda x, bias: rounded_back(x + bias, "bfloat16"), x, jnp.zeros(16))[1](g)
    rounded = np.asarray(g).astype(jnp.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(slope, rounded)
    np.testing.assert_allclose(of_bias, rounded.sum(0), rtol=0, atol=40 * 2.0**-24 * 40)
    np.testing.assert_array_equal(jax.vjp(lambda x: rounded_back(x, "float32"), x)[1](g)[0], g)
    of_gelu = jax.vjp(lambda bias: activated("gelu-tanh", x, bias, compute="bfloat16"), jnp.zeros(16))[1](g)[0]
    slopes = np.asarray(jax.vjp(lambda x: activated("gelu-tanh", x), x)[1](g)[0])
    wanted = slopes.astype(jnp.bfloat16).astype(np.float64).sum(0)
    np.testing.assert_allclose(of_gelu, wanted, rtol=0, atol=40 * 2.0**-24 * 40)
    assert np.abs(wanted - slopes.sum(0)).max() > 1e-3  # the tolerance tells both apart
