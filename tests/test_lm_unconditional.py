"""Text sampled from a model without a prompt: its distribution, its keys, its budget; the draw underneath."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from lm.generation.sampling import pick
from lm.generation.unconditional import generate, generate_tokens
from lm.model.decoder import from_arrays, make, named
from lm.model.presets import preset

V, END = 37, 36


@pytest.fixture(scope="module")
def model():
    # Weights larger than at the start of training, so that the distributions are far from uniform.
    config = preset("tiny", vocabulary=V, context=64, width=32, hidden=96)
    arrays = named(make(config, 0))
    made = from_arrays(config, arrays | {"embedding": 8 * arrays["embedding"]})
    return made


def _softmax(logits, temperature=1.0):
    weight = np.exp((logits - logits.max()) / temperature)
    return weight / weight.sum()


def test_pick_inverts_the_distribution_function():
    weight = np.asarray([[0.0, 1.0, 0.0, 3.0] + [0.0] * 40 + [4.0]], np.float32)
    for uniform, index in ((0.0, 1), (0.124, 1), (0.126, 3), (0.499, 3), (0.501, 44), (1 - 2**-24, 44)):
        assert int(pick(jnp.asarray(weight), jnp.asarray([uniform], jnp.float32))[0]) == index


def test_samples_follow_the_model_and_do_not_depend_on_the_batch(model):
    ids = [f"sample {number}" for number in range(3000)]
    texts = generate(model, END, ids, seed=4)
    alone = generate(model, END, ids[1234:1236], seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(alone, texts[1234:1236], strict=True))
    logits = np.asarray(nnx.jit(type(model).__call__)(model, np.full((1, 64), END)))[0, 0].astype(float)
    first = np.bincount([text[0] for text in texts], minlength=V)[:END]
    expected = _softmax(logits[:END])
    common = expected * len(ids) >= 5
    pooled = (
        np.append(first[common], first[~common].sum()),
        np.append(expected[common], expected[~common].sum()),
    )
    keep = pooled[1] > 0
    assert scipy.stats.chisquare(pooled[0][keep], pooled[1][keep] * len(ids)).pvalue > 1e-4
    assert scipy.stats.chisquare(first, np.full(END, len(ids) / END)).pvalue < 1e-4
    assert all(0 < len(text) <= model.config.context and END not in text for text in texts)


def test_token_budget_is_met_exactly(model):
    texts = generate_tokens(model, END, 777, "g", seed=0)
    assert sum(map(len, texts)) == 777
