"""Attention and matrix products against the plain formulas in float64, values and gradients, both types of factors."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import onednn
from lm.model.attention import BLOCK, BLOCKS, _library_attention, _rounded, causal_attention
from lm.model.matmul import Compute, matmul, narrow
from lm.model.packed import PADDING, packing_of, takes_packed

# (B, T, H, G, K): one position, less than a block, several with a rest, blocks made longer, some heads at a time.
SHAPES = [
    (2, 1, 4, 2, 4),
    (2, 7, 3, 1, 5),
    (2, 2 * BLOCK + 3, 4, 2, 8),
    (2, 2 * BLOCK // 3, 4, 2, 8),
    (1, BLOCK * BLOCKS + 9, 1, 1, 2),
    (2, BLOCK + 70, 12, 4, 8),
    (2, BLOCK + 3, 14, 14, 4),
]
PRODUCTS = [(1, 40, 9), (64, 8, 1), (130, 100, 33), (33, 16, 200)]
COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")


def _inputs(rng, shape, dtype):
    B, T, H, G, K = shape
    arrays = (jnp.asarray(rng.standard_normal((B, T, heads, K)), dtype) for heads in (H, G, G, H))
    segment = np.sort(rng.integers(0, 3, (B, T)))
    segment[:, T - T // 5 :] = -1
    return *arrays, jnp.asarray(segment, jnp.int32)


def _plain(q, k, v, segment):
    T, repeats = q.shape[1], q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
    score = jnp.einsum("bthk,bchk->bhtc", q, k) / np.sqrt(q.shape[-1])
    allowed = np.tri(T, dtype=bool) & (segment[:, :, None] == segment[:, None])
    return jnp.einsum("bhtc,bchk->bthk", jax.nn.softmax(jnp.where(allowed[:, None], score, -np.inf)), v)


def _both(function, *arguments):
    """Return the function's value and the gradients of <value, weights>, the weights the last argument."""
    *arguments, weights = arguments
    value, back = jax.vjp(function, *arguments)
    return value, *back(weights.astype(value.dtype))


def _assert_near(found, exact, tolerance):
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(
            np.asarray(one, np.float64), other, rtol=0, atol=tolerance * max(1.0, np.abs(other).max())
        )


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_the_plain_formula(rng, shape, compute):
    q, k, v, g, segment = _inputs(rng, shape, compute)
    found = jax.jit(lambda *a: _both(lambda q, k, v: causal_attention(q, k, v, segment), *a))(q, k, v, g)
    with jax.enable_x64(True):
        wide = (jnp.asarray(np.asarray(x, np.float64)) for x in (q, k, v, g))
        exact = [np.asarray(x) for x in _both(lambda q, k, v: _plain(q, k, v, np.asarray(segment)), *wide)]
    # float32: sums of K, K and T terms one after the other, each term off by 2^-24 of the largest, and as much for
    # the exponential of scores up to about 8. bfloat16: weights, their changes, outputs and gradients are rounded
    # on the way, each by 2^-9 of the largest.
    tolerance = (2 * shape[4] + shape[1] + 8) * 2.0**-24 if compute == "float32" else 4 * 2.0**-9
    _assert_near(found, exact, max(tolerance, 16 * 2.0**-24))


def test_weights_are_rounded_to_the_nearest_bfloat16(rng):
    weight = np.concatenate([rng.random(9999), np.exp(-80 * rng.random(999)), [0, 1]]).astype(np.float32)
    weight = weight[weight.view(np.uint32) & 0xFFFF != 0x8000]  # not in the middle of two
    found = _rounded(jnp.asarray(weight), jnp.dtype("bfloat16"))
    np.testing.assert_array_equal(found, weight.astype(jnp.bfloat16))
    between = jnp.asarray([1 + 2.0**-8, 1 + 3 * 2.0**-8], jnp.float32)
    np.testing.assert_array_equal(_rounded(between, jnp.dtype("bfloat16")), [1 + 2.0**-7, 1 + 2.0**-6])


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("broken", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_what_is_no_number_stays_none(rng, compute, broken):
    q, k, v, _, segment = _inputs(rng, (1, 70, 4, 2, 8), "float32")
    q = q.at[0, 9, 1, 3].set(jnp.uint32(broken).view(jnp.float32))
    q, k, v = (x.astype(compute) for x in (q, k, v))
    found = np.asarray(causal_attention(q, k, v, segment), np.float32)
    expected = np.zeros(found.shape, bool)
    expected[0, 9, 1] = True
    np.testing.assert_array_equal(np.isnan(found), expected)


def test_without_segments_a_row_is_one_document(rng):
    q, k, v, _, segment = _inputs(rng, (2, 9, 2, 1, 4), "float32")
    call = jax.jit(causal_attention)
    np.testing.assert_array_equal(call(q, k, v, None), call(q, k, v, jnp.zeros_like(segment)))


def test_a_row_does_not_know_where_documents_of_others_begin(rng):
    q, k, v, _, _ = _inputs(rng, (2, 3 * BLOCK, 4, 2, 8), "float32")
    segment = jnp.stack([jnp.arange(3 * BLOCK) // BLOCK, jnp.zeros(3 * BLOCK, int)])
    both = causal_attention(q, k, v, segment)
    for row in (slice(0, 1), slice(1, 2)):
        np.testing.assert_array_equal(both[row], causal_attention(q[row], k[row], v[row], segment[row]))


def test_library_attention_is_the_same(rng):
    q, k, v, g, segment = _inputs(rng, (2, 40, 4, 2, 8), "float32")
    ours = jax.jit(lambda *a: _both(lambda q, k, v: causal_attention(q, k, v, segment), *a))(q, k, v, g)
    library = jax.jit(lambda *a: _both(lambda q, k, v: _library_attention(q, k, v, segment, "xla"), *a))(q, k, v, g)
    # The bound of the test above, for both.
    _assert_near(ours, [np.asarray(x) for x in library], 2 * (2 * 8 + 40 + 8) * 2.0**-24)


def test_packing_tells_where_documents_lie():
    segment = jnp.asarray([[0, 0, 0, 0, 0, 0], [4, 4, 2, 3, 3, -1], [0, 0, 1, 1, -1, -1]], jnp.int32)
    found = packing_of(segment, 4)
    assert found.start.tolist() == [[0, -1, -1, -1, -1], [0, 2, 3, -1, -1], [0, 2, -1, -1, -1]]
    assert found.length.tolist() == [[6, -1, -1, -1], [2, 1, 3, -1], [2, 4, -1, -1]]


@pytest.mark.parametrize(
    ("capability", "compute", "head_size", "taken"),
    [
        ("9.0", "bfloat16", 64, True),
        ("10.3", "bfloat16", 128, True),
        ("8.0", "bfloat16", 64, False),
        ("gfx942", "bfloat16", 64, False),
        ("9.0", "float32", 64, False),
        ("9.0", "bfloat16", 36, False),
        ("9.0", "bfloat16", 256, False),
    ],
)
def test_packed_attention_is_taken_where_it_is_there(monkeypatch, capability, compute, head_size, taken):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(compute_capability=capability)])
    assert takes_packed.__wrapped__(compute, head_size) == taken
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not takes_packed.__wrapped__(compute, head_size)


@pytest.mark.skipif(not takes_packed("bfloat16", 64), reason="needs a GPU of the Hopper generation or a later one")
@pytest.mark.parametrize(("shape", "most"), [((3, 512, 6, 2, 64), 3), ((2, 128, 4, 4, 128), 15)])
def test_packed_attention_is_the_masked_one(rng, shape, most):
    q, k, v, g, segment = _inputs(rng, shape, "bfloat16")

    def packed(q, k, v):
        return causal_attention(q, k, v, segment, packing_of(segment, most))

    # What holds nothing attends to the document before it here, and to itself there; nobody reads either.
    g = jnp.where(segment[..., None, None] == PADDING, 0, g)
    found = jax.jit(lambda *a: _both(packed, *a))(q, k, v, g)
    masked = jax.jit(lambda *a: _both(lambda q, k, v: causal_attention(q, k, v, segment), *a))(q, k, v, g)
    # Weights, their changes, outputs and gradients are rounded on the way, each by 2^-9 of the largest.
    held = np.asarray(segment) != PADDING
    _assert_near([x[held] for x in found], [np.asarray(x, np.float64)[held] for x in masked], 8 * 2.0**-9)


def test_gradients_stay_in_the_past_of_the_document(rng):
    q, k, v, _, _ = _inputs(rng, (1, BLOCK + 40, 2, 1, 4), "float32")
    segment = jnp.asarray((np.arange(BLOCK + 40) >= BLOCK - 20)[None], jnp.int32)
    at = BLOCK + 5

    def one(k, v):
        return jnp.sum(causal_attention(q, k, v, segment)[:, at])

    for slope in jax.jit(jax.grad(one, (0, 1)))(k, v):
        reached = np.flatnonzero(np.abs(np.asarray(slope)).sum((0, 2, 3)))
        np.testing.assert_array_equal(reached, np.arange(BLOCK - 20, at + 1))


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", PRODUCTS)
def test_matmul_sums_rounded_factors_in_float32(rng, shape, transposed, compute):
    N, I, O = shape  # noqa: E741
    x, w, g = (jnp.asarray(rng.standard_normal(size), jnp.float32) for size in ((N, I), (I, O), (N, O)))

    def ours(x, w):
        return matmul(x, w.T if transposed else w, compute)

    found = jax.jit(lambda *a: _both(ours, *a))(x, w.T if transposed else w, g)
    rx, rw, rg = (np.asarray(a.astype(compute), np.float64) for a in (x, w, g))
    slope = rx.T @ rg
    exact = rx @ rw, rg @ rw.T, slope.T if transposed else slope
    sizes = np.abs(rx) @ np.abs(rw), np.abs(rg) @ np.abs(rw.T), np.abs(rx.T) @ np.abs(rg)
    for one, other, size, terms in zip(found, exact, sizes, (I, O, N), strict=True):
        assert one.dtype == jnp.float32
        # A sum of n float32 terms in any order is off by at most n 2^-24 of the sum of their sizes. An accelerator
        # rounds the gradient of the first factor, as oneDNN does, and may leave factors of vectors as they were.
        by_onednn = compute == "bfloat16" and onednn.is_available() and other is exact[1]
        rounded = 2.0**-8 if narrow(compute) == "bfloat16" or by_onednn else 0.0
        np.testing.assert_allclose(one, other, rtol=0, atol=(max(terms, 2) * 2.0**-24 + rounded) * size.max())
