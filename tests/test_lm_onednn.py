"""oneDNN's products against exact sums, and against the products that XLA makes itself."""

import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.generation.decode import Request, decode, prepare
from lm.generation.sampling import SamplingConfig
from lm.model import onednn
from lm.model.attention import causal_attention
from lm.model.config import ModelConfig
from lm.model.decoder import make
from lm.model.matmul import matmul

CPU = pathlib.Path("/proc/cpuinfo")
HAS_UNITS = CPU.exists() and "amx_bf16" in CPU.read_text(encoding="utf-8", errors="replace")
needs_units = pytest.mark.skipif(not HAS_UNITS, reason="needs a CPU with AMX")


@needs_units
def test_it_is_used_where_it_can_be():
    assert onednn.is_available() == (jax.default_backend() == "cpu" and jax.device_count() == 1)


def test_it_is_not_used_where_xla_does_not_know_it(monkeypatch):
    monkeypatch.setattr(onednn, "TARGET", "__onednn$no such thing")
    monkeypatch.setattr(onednn, "has_matrix_units", lambda: True)
    assert not onednn._can_be_called.__wrapped__()
    x = jnp.ones((8, 8), jnp.bfloat16)
    with pytest.raises(jax.errors.JaxRuntimeError):
        onednn.product(x, x)


@needs_units
def test_a_program_leaves_it_alone_if_asked():
    multiply, x = jax.jit(lambda x: matmul(x, x, "bfloat16")), jnp.ones((24, 24))
    plain = multiply(x)
    with onednn.left_alone():
        left = str(multiply.lower(x).compile().as_text())
        assert np.array_equal(multiply(x), plain)
    assert onednn.TARGET in str(multiply.lower(x).compile().as_text())
    assert onednn.TARGET not in left


def test_decoding_leaves_it_alone(monkeypatch):
    def tried():
        raise AssertionError("oneDNN was to be left alone")

    monkeypatch.setattr(onednn, "_can_be_called", tried)
    config = ModelConfig(vocabulary=61, context=16, width=32, heads=2, kv_heads=2, layers=1, compute="bfloat16")
    request = Request(SamplingConfig(), 4, (), 61)
    (made,) = decode(prepare(make(config, 0)), [[1, 2, 3]], ["one"], request, 0, prompt_places=8, rows=1)
    assert len(made.tokens) == 4


@needs_units
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products_of_integers_are_exact(rng, batch, transposed):
    x, w = rng.integers(-9, 10, size=(*batch, 70, 33)), rng.integers(-9, 10, size=(*batch, 33, 50))
    factors = [
        jnp.asarray(np.swapaxes(a, -1, -2) if t else a, jnp.bfloat16) for a, t in zip((x, w), transposed, strict=True)
    ]
    found = onednn.product(*factors, transposed=transposed)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, x @ w)


@needs_units
@pytest.mark.parametrize("by_position", [(True, True, False), (False, True, True), (True, False, True)])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
def test_factors_and_result_may_lie_by_position(rng, transposed, by_position):
    x, w = rng.integers(-9, 10, size=(2, 5, 20, 33)), rng.integers(-9, 10, size=(2, 5, 33, 48))
    factors = [
        jnp.asarray(np.swapaxes(a, -1, -2) if t else a, jnp.bfloat16) for a, t in zip((x, w), transposed, strict=True)
    ]
    multiply = jax.jit(lambda x, w: onednn.product(x, w, transposed, by_position=by_position))
    np.testing.assert_array_equal(multiply(*factors), x @ w)
    lines = str(multiply.lower(*factors).compile().as_text()).splitlines()
    (call,) = [line for line in lines if "custom-call" in line and onednn.TARGET in line]
    assert ("{3,1,2,0}" in call.partition("custom-call")[0]) == by_position[2]


def test_factors_that_do_not_fit_are_refused():
    x = jnp.ones((4, 8), jnp.bfloat16)
    for w, transposed in ((x, (False, False)), (x.T, (True, False)), (x.T, (False, True)), (x[None], (False, True))):
        with pytest.raises(AssertionError, match="do not fit"):
            onednn.product(x, w, transposed)


@needs_units
@pytest.mark.parametrize("shape", [(256, 576, 192), (7, 1536, 576), (512, 64, 4096), (104, 4096, 256)])
def test_sums_are_those_of_xla_in_another_order(rng, shape):
    rows, inner, columns = shape
    x, w = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in ((rows, inner), (inner, columns)))
    plain = jnp.matmul(x, w, preferred_element_type=jnp.float32)
    # Products of two bfloat16 are exact in float32: each of `inner` additions rounds by half a unit, on either side.
    tolerance = inner * 2.0**-24 * (jnp.abs(x).astype(jnp.float32) @ jnp.abs(w).astype(jnp.float32))
    for factors, transposed in (((x, w), (False, False)), ((x.T, w), (True, False)), ((x, w.T), (False, True))):
        found = onednn.product(*(jnp.array(one) for one in factors), transposed=transposed)
        assert (jnp.abs(found - plain) <= tolerance).all()


@jax.jit
def _several(x, ws):
    found = [onednn.product(x, w) for w in ws]
    return [*found, onednn.product(x, (0 * found[0] + 1).astype(jnp.bfloat16), (True, False))]


@needs_units
def test_many_at_a_time_are_exact(rng):
    # XLA hands a product's parts to its threads and goes on; oneDNN's working memory must be each one's own.
    jobs = []
    for rows in (7, 104, 512):
        x = rng.integers(-3, 4, size=(rows, 192))
        ws = [rng.integers(-3, 4, size=(192, columns)) for columns in (192, 64, 1536, 40)]
        exact = [*(x @ w for w in ws), x.T @ np.ones_like(x @ ws[0])]
        jobs.append((jnp.asarray(x, jnp.bfloat16), [jnp.asarray(w, jnp.bfloat16) for w in ws], exact))

    def work(number):
        x, ws, exact = jobs[number % len(jobs)]
        return all(np.array_equal(one, other) for one, other in zip(_several(x, ws), exact, strict=True))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(300)))


def _attended(q, k, v, g, segment, x, w):
    """Return the outputs of an attention in training, and the gradients of it and of a product."""

    def mixed(q, k, v):
        output = causal_attention(q, k, v, segment)
        return jnp.vdot(output.astype(jnp.float32), g), output

    def multiplied(x, w):
        return jnp.vdot(jnp.tanh(matmul(x, w, "bfloat16")), jnp.ones((len(x), w.shape[1])))

    slopes, output = jax.grad(mixed, (0, 1, 2), has_aux=True)(q, k, v)
    return output, *slopes, *jax.grad(multiplied, (0, 1))(x, w)


@needs_units
def test_training_equals_that_without_it(rng, monkeypatch):
    B, T, H, G, K = 2, 200, 4, 2, 16
    heads = [jnp.asarray(rng.normal(size=(B, T, n, K)), jnp.bfloat16) for n in (H, G, G)]
    g = rng.normal(size=(B, T, H, K)).astype(np.float32)
    segment = np.repeat([[0, 1]], B, axis=0).repeat(T // 2, axis=1)
    x, w = rng.normal(size=(96, 64)).astype(np.float32), rng.normal(size=(64, 32)).astype(np.float32)
    called = jax.jit(_attended).lower(*heads, g, segment, x, w).compile().as_text()
    assert called is not None
    assert onednn.TARGET in called
    found = jax.jit(_attended)(*heads, g, segment, x, w)
    jax.clear_caches()
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    plain = jax.jit(_attended)(*heads, g, segment, x, w)
    jax.clear_caches()
    for one, other in zip(
        *(jax.tree.map(lambda a: np.asarray(a, np.float32), each) for each in (found, plain)), strict=True
    ):
        # Factors are rounded to bfloat16 alike: only sums of up to 200 numbers in another order, then that rounding.
        np.testing.assert_allclose(one, other, rtol=2.0**-7, atol=2.0**-7 * np.abs(other).max())


KEPT = """
import pathlib, sys
import jax, jax.numpy as jnp
from lm.startup import before_jax
before_jax()
from lm.model.matmul import product
x = jnp.ones((16, 16), jnp.bfloat16)
called = jax.jit(product).lower(x, x).compile()
print("__onednn$matmul" in called.as_text(), float(called(x, x).sum()))
print(any("product" in path.name for path in pathlib.Path(sys.argv[1]).rglob("*-cache")))
"""


@needs_units
def test_what_the_cache_cannot_keep_is_not_written(tmp_path):
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", KEPT, str(tmp_path)],
        env={"JAX_PLATFORMS": "cpu", **os.environ, "TOEDIT_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.stderr, made.stdout.split()) == ("", ["True", "4096.0", "False"])
