"""The decoder's logits, loss and gradients against PyTorch for configurations other than the committed one."""

import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.model.config import ModelConfig
from lm.model.decoder import from_arrays, make, named

pytestmark = pytest.mark.peers
HERE = pathlib.Path(__file__).parent


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _named(arrays):
    """Return the decoder's arrays (numpy) by the reference's names: layers apart, the projections fused."""
    names = {"attention_norm": "attention_norm_scale", "attention_out": "output", "hidden_norm": "hidden_norm_scale"}
    names |= {"hidden_in": "up", "hidden_out": "down"}
    found = {"embedding": arrays["embedding"], "norm": arrays["norm_scale"]}
    for number in range(len(arrays["blocks.up"])):
        fused = [arrays[f"blocks.{name}"][number] for name in ("query", "key", "value")]
        found[f"blocks.{number}.attention_in"] = np.concatenate(fused, axis=1)
        found |= {f"blocks.{number}.{theirs}": arrays[f"blocks.{ours}"][number] for theirs, ours in names.items()}
    return found


@pytest.mark.parametrize(
    "sizes",
    [
        {
            "vocabulary": 90,
            "context": 33,
            "width": 24,
            "layers": 3,
            "heads": 3,
            "hidden": 40,
            "rope_base": 500.0,
            "epsilon": 1e-3,
        },
        {
            "vocabulary": 30,
            "context": 130,
            "width": 8,
            "layers": 1,
            "heads": 4,
            "hidden": 8,
            "rope_base": 1e4,
            "epsilon": 1e-5,
        },
    ],
)
def test_logits_loss_and_gradients(sizes):
    torch = importlib.import_module("torch")
    decoder = _load("decoder_torch")
    config, random = ModelConfig(**sizes, activation="gelu-tanh", gated=False), np.random.default_rng(sizes["width"])
    arrays = {
        name: jnp.asarray(random.normal(size=array.shape) * 0.3, jnp.float32)
        for name, array in named(make(config, 1)).items()
    }
    tokens, targets = random.integers(0, config.vocabulary, (2, 2, config.context))
    segments = np.sort(random.integers(0, 3, tokens.shape), axis=1)
    weights = {
        name: torch.tensor(np.asarray(array), dtype=torch.float64, requires_grad=True)
        for name, array in _named(arrays).items()
    }
    expected = decoder.loss(weights, sizes, *map(torch.tensor, (tokens, targets, segments)))
    expected.backward()

    def loss(arrays):
        logits = from_arrays(config, arrays)(tokens, segments)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    found, gradient = jax.value_and_grad(loss)(arrays)
    assert float(found) == pytest.approx(expected.item(), rel=1e-6)
    for name, array in _named(gradient).items():
        reference = weights[name].grad.numpy()
        # float32 sums of up to 130 terms in another order: 100 units in the last place of the largest number.
        tolerance = 100 * np.finfo(np.float32).eps * max(np.abs(reference).max(), 0.1)
        np.testing.assert_allclose(np.asarray(array), reference, rtol=0, atol=tolerance, err_msg=name)
