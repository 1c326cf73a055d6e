"""The decoder's logits, loss and gradients against PyTorch for configurations other than the committed one."""

import dataclasses
import importlib.util
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.model import ModelConfig, make
from lm.train import loss

pytestmark = pytest.mark.peers
HERE = pathlib.Path(__file__).parent


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(90, context=33, width=24, layers=3, heads=3, hidden=40, rope_base=500.0, epsilon=1e-3),
        ModelConfig(30, context=130, width=8, layers=1, heads=4, hidden=8),
    ],
)
def test_logits_loss_and_gradients(config):
    torch = importlib.import_module("torch")
    decoder = _load("decoder_torch")
    model, random = make(config, 1), np.random.default_rng(config.width)
    state = nnx.state(model, nnx.Param)
    leaves = {"embedding": state["embedding"], "norm": state["norm"]}
    for number in state["blocks"]:
        leaves |= {f"blocks.{number}.{name}": state["blocks"][number][name] for name in decoder.BLOCK}
    for leaf in leaves.values():
        leaf[...] = jnp.asarray(random.normal(size=leaf.shape) * 0.3, jnp.float32)
    nnx.update(model, state)
    tokens, targets = random.integers(0, config.vocabulary, (2, 2, config.context))
    segments = np.sort(random.integers(0, 3, tokens.shape), axis=1)
    weights = {
        name: torch.tensor(np.asarray(leaf[...]), dtype=torch.float64, requires_grad=True)
        for name, leaf in leaves.items()
    }
    expected = decoder.loss(weights, dataclasses.asdict(config), *map(torch.tensor, (tokens, targets, segments)))
    expected.backward()
    found, gradient = nnx.value_and_grad(loss)(model, tokens, targets, segments)
    assert float(found) == pytest.approx(expected.item(), rel=1e-6)
    gradients = {"embedding": gradient["embedding"], "norm": gradient["norm"]}
    for number in gradient["blocks"]:
        gradients |= {f"blocks.{number}.{name}": gradient["blocks"][number][name] for name in decoder.BLOCK}
    for name, leaf in gradients.items():
        reference = weights[name].grad.numpy()
        # float32 sums of up to 130 terms in another order: 100 units in the last place of the largest number.
        tolerance = 100 * np.finfo(np.float32).eps * max(np.abs(reference).max(), 0.1)
        np.testing.assert_allclose(np.asarray(leaf[...]), reference, rtol=0, atol=tolerance, err_msg=name)
