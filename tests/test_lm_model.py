"""The decoder against PyTorch's numbers (tests/peers/make_references.py), causality, isolation, the cache."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm import attention
from lm.errors import InputError
from lm.model import Compute, Decoder, ModelConfig, count_parameters, make, matmul
from lm.train import TrainConfig, loss, optimizer

COMPUTE: tuple[Compute, ...] = ("bfloat16", "float32")
REFERENCE = pathlib.Path(__file__).parent / "data" / "decoder.npz"

CALL = nnx.jit(Decoder.__call__)


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return dict(arrays)


NAMES = ("attention_norm", "attention_in", "attention_out", "hidden_norm", "hidden_in", "hidden_out")


def _named(state):
    """Return the leaves of a state (of parameters or gradients) by the names that the references use."""
    named = {"embedding": state["embedding"], "norm": state["norm"]}
    for number in state["blocks"]:
        named |= {f"blocks.{number}.{name}": state["blocks"][number][name] for name in NAMES}
    return named


def _model(reference):
    config = ModelConfig(**json.loads(str(reference["config"])))
    model = make(config, 0)
    state = nnx.state(model, nnx.Param)
    for name, parameter in _named(state).items():
        parameter[...] = jnp.asarray(reference[f"weight/{name}"])
    nnx.update(model, state)
    return model


def _batch(reference):
    return tuple(jnp.asarray(reference[name]) for name in ("tokens", "targets", "segments"))


def _close(found, expected):
    # float32 sums of up to 130 terms in another order, through two layers: 100 units in the last place of the
    # largest number, and of 1 where all that is left is rounding.
    tolerance = 100 * np.finfo(np.float32).eps * max(np.abs(expected).max(), 0.1)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=tolerance)


def test_logits_loss_and_gradients_are_those_of_pytorch(reference):
    model, (tokens, targets, segments) = _model(reference), _batch(reference)
    _close(CALL(model, tokens, segments), reference["logits"])
    value, gradient = nnx.jit(nnx.value_and_grad(loss))(model, tokens, targets, segments)
    assert float(value) == pytest.approx(float(reference["loss"]), rel=1e-6)
    for name, leaf in _named(gradient).items():
        _close(leaf[...], reference[f"gradient/{name}"])


def test_wrong_segments_are_far_outside_the_tolerance(reference):
    model, (tokens, _, segments) = _model(reference), _batch(reference)
    wrong = np.abs(np.asarray(CALL(model, tokens, jnp.zeros_like(segments))) - reference["logits"]).max()
    assert wrong > 1e4 * 100 * np.finfo(np.float32).eps


def test_update_is_pytorchs_adamw(reference):
    model, settings = _model(reference), json.loads(str(reference["adamw"]))
    # One update at a constant rate: a cosine over very many updates after none of warm-up.
    config = TrainConfig(steps=10**9, warmup=0, final_share=1.0, **settings)
    updater = nnx.Optimizer(model, optimizer(config), wrt=nnx.Param)

    @nnx.jit
    def update(model, updater, *batch):
        updater.update(model, nnx.grad(loss)(model, *batch))

    update(model, updater, *_batch(reference))
    for name, leaf in _named(nnx.state(model, nnx.Param)).items():
        # A first step of Adam is the sign of the gradient: where that is near 0 (relative to eps) it may differ.
        clear = np.abs(reference[f"gradient/{name}"]) > 1e-5
        _close(np.asarray(leaf[...])[clear], reference[f"stepped/{name}"][clear])
        assert clear.mean() > 0.9


def _tiny(vocabulary=50):
    return make(ModelConfig.tiny(vocabulary), 3)


def _influence(model, tokens, segments):
    """Return |d (sum of squared states at t) / d embedding at c| as an array (T, T)."""
    T = tokens.shape[1]
    initial = model.embedding[...][tokens[0]]

    def states(x):
        for block in model.blocks:
            q, k, v = block.project(x, jnp.arange(T)[None])
            x = block.finish(x, attention.causal_attention(q, k, v, segments))
        return jnp.sum(x**2, axis=1)

    return np.abs(np.asarray(jax.jit(jax.jacrev(states))(initial))).sum(-1)


def test_causal_and_isolated_by_gradients():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 50, (1, 12)))
    segments = jnp.asarray([[4] * 5 + [5] * 6 + [4]])
    influence = _influence(_tiny(), tokens, segments)
    position, owner = np.arange(12), np.asarray(segments[0])
    allowed = (position[:, None] >= position) & (owner[:, None] == owner)
    assert (influence[~allowed] == 0).all()
    assert (influence[allowed] > 0).all()


@pytest.mark.parametrize("length", [1, 130])
def test_attention_blocks_equal_plain_attention(length):
    random = np.random.default_rng(length)
    q, k, v, weight = (jnp.asarray(random.normal(size=(2, length, 3, 8)), jnp.float32) for _ in range(4))
    segments = jnp.asarray(np.sort(random.integers(0, 3, (2, length)), axis=1))

    def plain(q, k, v):
        allowed = jnp.tril(jnp.ones((length, length), bool)) & (segments[:, :, None] == segments[:, None])
        score = jnp.einsum("bthk,bchk->bhtc", q, k) / np.sqrt(8)
        share = jax.nn.softmax(jnp.where(allowed[:, None], score, -jnp.inf), axis=-1)
        return jnp.sum(weight * jnp.einsum("bhtc,bchk->bthk", share, v))

    def blocked(q, k, v):
        return jnp.sum(weight * attention.causal_attention(q, k, v, segments))

    results = [jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2)))(q, k, v) for function in (blocked, plain)]
    assert float(results[0][0]) == pytest.approx(float(results[1][0]), abs=1e-3)
    for found, expected in zip(results[0][1], results[1][1], strict=True):
        _close(found, np.asarray(expected))


def test_cache_gives_the_logits_of_the_whole_sequence():
    model = _tiny()
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 50, (3, 9)))
    whole, cache = np.asarray(CALL(model, tokens)), model.empty_cache(3, 9)
    step = nnx.jit(type(model).step)
    for position in range(9):
        logits, cache = step(model, tokens[:, position], jnp.asarray(position), cache)
        _close(logits, whole[:, position])


def test_bfloat16_products_stay_within_bfloat16_of_float32():
    random = np.random.default_rng(2)
    x, w, g = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((40, 64), (64, 32), (40, 32)))

    def gradient(x, w, compute: Compute):
        return jax.grad(lambda x, w: jnp.sum(g * matmul(x, w, compute)), argnums=(0, 1))(x, w)

    for part in range(2):
        low, high = (np.asarray(gradient(x, w, c)[part]) for c in COMPUTE)
        # Each factor is rounded to 8 bits: relative error 2^-8 a product, adding up like a random walk.
        assert low.dtype == np.float32
        assert 0 < np.abs(low - high).max() < 2**-8 * 5 * np.abs(high).std()


def test_parameters_are_counted_and_depend_on_the_seed_only():
    config = ModelConfig.tiny(50)
    leaves = [jax.tree.leaves(nnx.state(make(config, seed), nnx.Param)) for seed in (1, 1, 2)]
    assert sum(leaf.size for leaf in leaves[0]) == count_parameters(config)
    assert all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[2], strict=True))
    assert {leaf.dtype for leaf in leaves[0]} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("wrong", [{"width": 30}, {"vocabulary": 0}, {"layers": 0}, {"context": 1}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(InputError, match=r"change one|raise them"):
        ModelConfig(**({"vocabulary": 50} | wrong))
