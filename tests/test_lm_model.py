"""The decoder against PyTorch's numbers (tests/peers/make_references.py), causality, remat, counts."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import FAMILIES, LLAMA
from flax import nnx

from lm.errors import InputError
from lm.model.config import Compute, ModelConfig, RopeScaling
from lm.model.decoder import Decoder, from_arrays, make, named, positions, rotary_frequencies
from lm.model.parameters import count_parameters, is_matrix, parameters
from lm.model.presets import PRESETS, preset
from lm.model.sharding import make_mesh, shardings

COMPUTE: tuple[Compute, ...] = ("bfloat16", "float32")
REFERENCE = pathlib.Path(__file__).parent / "data" / "decoder.npz"
CALL = nnx.jit(Decoder.__call__)


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return dict(arrays)


def _arrays(reference, prefix):
    """Return the reference's arrays of one kind by the decoder's names, layers stacked, the fused projection cut."""

    def stack(name):
        return np.stack([reference[f"{prefix}/blocks.{number}.{name}"] for number in range(2)])

    query, key, value = np.split(stack("attention_in"), 3, axis=-1)
    names = {"attention_norm_scale": "attention_norm", "output": "attention_out", "hidden_norm_scale": "hidden_norm"}
    names |= {"up": "hidden_in", "down": "hidden_out"}
    blocks = {"query": query, "key": key, "value": value} | {ours: stack(name) for ours, name in names.items()}
    whole = {"embedding": reference[f"{prefix}/embedding"], "norm_scale": reference[f"{prefix}/norm"]}
    return whole | {f"blocks.{name}": array for name, array in blocks.items()}


def _model(reference, **changes):
    sizes = json.loads(str(reference["config"]))
    config = ModelConfig(**sizes, activation="gelu-tanh", gated=False).changed(**changes)
    return from_arrays(config, {name: jnp.asarray(array) for name, array in _arrays(reference, "weight").items()})


def _batch(reference):
    return tuple(jnp.asarray(reference[name]) for name in ("tokens", "targets", "segments"))


def _loss(model, tokens, targets, segments):
    logits = model(tokens, segments)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def _close(found, expected):
    # float32 sums of up to 130 terms in another order, through two layers: 100 units in the last place of the
    # largest number, and of 1 where all that is left is rounding.
    tolerance = 100 * np.finfo(np.float32).eps * max(np.abs(expected).max(), 0.1)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("remat", ["none", "matmuls"])
def test_logits_loss_and_gradients_are_those_of_pytorch(reference, remat):
    model, (tokens, targets, segments) = _model(reference, remat=remat), _batch(reference)
    _close(CALL(model, tokens, segments), reference["logits"])
    value, gradient = nnx.jit(nnx.value_and_grad(_loss))(model, tokens, targets, segments)
    assert float(value) == pytest.approx(float(reference["loss"]), rel=1e-6)
    expected = _arrays(reference, "gradient")
    found = {name: gradient.blocks[name.removeprefix("blocks.")] for name in expected if name.startswith("blocks.")}
    found |= {name: gradient[name] for name in expected if not name.startswith("blocks.")}
    for name, leaf in found.items():
        _close(leaf[...], expected[name])


def test_wrong_segments_are_far_outside_the_tolerance(reference):
    model, (tokens, _, segments) = _model(reference), _batch(reference)
    wrong = np.abs(np.asarray(CALL(model, tokens, jnp.zeros_like(segments))) - reference["logits"]).max()
    assert wrong > 1e4 * 100 * np.finfo(np.float32).eps


@pytest.mark.parametrize("family", ["gpt2", "olmo2"])
def test_causal_and_isolated_by_gradients(family):
    model = make(FAMILIES[family].changed(context=12, layers=1), 3)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 50, (1, 12)))
    segments = jnp.asarray([[4] * 5 + [5] * 7])

    def states(embedded):
        # The embedding of a position enters through a table of twelve rows.
        table = from_arrays(model.config.changed(vocabulary=12), named(model) | changed(embedded))
        return jnp.sum(table.hidden(jnp.arange(12)[None], segments) ** 3, axis=1)

    def changed(embedded):
        return {"embedding": embedded} | ({} if model.config.tied else {"unembedding": jnp.zeros((32, 12))})

    influence = np.abs(np.asarray(jax.jit(jax.jacrev(states))(named(model)["embedding"][tokens[0]]))).sum(-1)
    position, owner = np.arange(12), np.asarray(segments[0])
    allowed = (position[:, None] >= position) & (owner[:, None] == owner)
    assert (influence[~allowed] == 0).all()
    assert (influence[allowed] > 0).all()


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_packed_documents_are_scored_as_alone(family):
    model = make(FAMILIES[family], 5)
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 50, (2, 30)))
    segments = jnp.asarray([[0] * 15 + [1] * 15, [7] * 15 + [8] * 14 + [-1]])
    packed = CALL(model, tokens, segments)
    alone = np.asarray(CALL(model, jnp.concatenate([tokens[:, :15], tokens[:, 15:]])))
    _close(packed[:, :15], alone[:2])
    _close(packed[0, 15:], alone[2])
    _close(packed[1, 15:29], alone[3, :14])


def test_positions_restart_in_each_segment():
    found = positions(jnp.asarray([[3, 3, 3, 5, 5, -1], [0, 1, 2, 2, 2, 2]]))
    assert found.tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]


def test_scaled_rotary_frequencies():
    plain = np.asarray(rotary_frequencies(LLAMA.changed(head_size=16)))
    linear = np.asarray(rotary_frequencies(LLAMA.changed(head_size=16, rope_scaling=RopeScaling("linear", 4.0))))
    np.testing.assert_allclose(linear, plain / 4, rtol=1e-6)
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
    waves = 64 * plain / (2 * np.pi)
    found = np.asarray(rotary_frequencies(LLAMA.changed(head_size=16, rope_scaling=scaling)))
    np.testing.assert_allclose(found[waves > 4], plain[waves > 4], rtol=1e-6)
    np.testing.assert_allclose(found[waves < 1], plain[waves < 1] / 8, rtol=1e-6)
    between = (waves > 1) & (waves < 4)
    assert between.any()
    smooth = (waves[between] - 1) / 3
    np.testing.assert_allclose(found[between], ((1 - smooth) / 8 + smooth) * plain[between], rtol=1e-5)


def test_bfloat16_logits_stay_near_float32_ones():
    low, high = (np.asarray(CALL(make(LLAMA.changed(compute=c), 2), jnp.arange(20)[None])) for c in COMPUTE)
    # Every factor is rounded to 8 bits: relative errors of 2^-8 that add up like a random walk over ~10 products.
    assert low.dtype == np.float32
    assert 0 < np.abs(low - high).max() < 2**-8 * 10 * np.abs(high).std()


@pytest.mark.parametrize("family", ["gpt2", "olmo", "olmo2", "qwen3"])
def test_parameters_are_counted_and_depend_on_the_seed_only(family):
    config = FAMILIES[family]
    first, again, other = (named(make(config, seed)) for seed in (1, 1, 2))
    assert sum(leaf.size for leaf in first.values()) == count_parameters(config)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)
    assert {leaf.dtype for leaf in first.values()} == {jnp.dtype(jnp.float32)}
    assert {name for name in first if is_matrix(name, config)} == {
        name for name in first if not name.endswith(("_scale", "_bias"))
    }


def test_published_parameter_counts():
    published = {
        "gpt2-124m": 124_439_808,
        "gpt2-355m": 354_823_168,
        "olmo-1b": 1_176_764_416,
        "llama3-8b": 8_030_261_248,
        "smollm2-135m": 134_515_008,
        "qwen2-0.5b": 494_032_768,
    }
    assert {name: count_parameters(PRESETS[name]) for name in published} == published
    assert round(count_parameters(PRESETS["olmo-237m"]) / 1e6) == 237


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_models_on_a_mesh(name):
    config = preset(name, compute="bfloat16")
    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    shape = jax.eval_shape(lambda seed, tokens: make(config, seed)(tokens), 0, tokens)
    assert shape.shape == (2, 16, config.vocabulary)
    assert shape.dtype == jnp.float32
    assert shardings(config, make_mesh()).keys() == parameters(config).keys()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"width": 30}, "heads"),
        ({"vocabulary": 0}, "raise them"),
        ({"layers": 0}, "raise them"),
        ({"context": 1}, "raise them"),
        ({"kv_heads": 3}, "evenly"),
        ({"head_size": 7}, "even number"),
        ({"rope_share": 0.1}, "even number"),
    ],
)
def test_impossible_sizes_are_refused(wrong, reason):
    with pytest.raises(InputError, match=reason):
        ModelConfig(**({"vocabulary": 50} | wrong))


def test_other_arrays_than_configured_are_refused():
    arrays = named(make(LLAMA, 0))
    missing = {name: array for name, array in arrays.items() if name != "blocks.gate"}
    other = arrays | {"embedding": jnp.zeros((3, 3))}
    for wrong, name in ((missing, "blocks.gate"), (arrays | {"extra": jnp.zeros(1)}, "extra"), (other, "embedding")):
        with pytest.raises(InputError, match=name):
            from_arrays(LLAMA, wrong)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (4096, 1, 1)])
def test_impossible_meshes_are_refused(sizes):
    with pytest.raises(InputError, match="mesh"):
        make_mesh(*sizes)


class OnProcess:
    """Stands for a device of another process."""

    platform, device_kind = "cpu", "cpu"

    def __init__(self, process_index):
        self.process_index = process_index


def test_meshes_that_leave_a_process_without_devices_are_refused():
    devices = [OnProcess(number // 2) for number in range(4)]
    with pytest.raises(InputError, match="uses 2 of 4 devices and none of process 1; choose --data"):
        make_mesh(tensor=2, devices=devices)
    assert make_mesh(data=3, devices=devices).size == 3


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match="gpt2-124m"):
        preset("gpt5")
