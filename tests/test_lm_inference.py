"""Models loaded for inference only: narrower parameters, and the same bits of everything that is made with them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES, lively
from safetensors.numpy import load_file, save_file

from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.editing.config import PRESETS
from lm.editing.documents import DocumentEncoder
from lm.editing.prior import decisions, prepare_prior
from lm.evaluation.scoring import log_probabilities, prepare
from lm.generation import decode
from lm.generation.sampling import SamplingConfig
from lm.model.decoder import named
from lm.model.parameters import is_matrix
from lm.model.sharding import make_mesh
from lm.weights import huggingface
from lm.weights.load import load

TEXT = (pathlib.Path(__file__).parent / "data" / "speech.txt").read_text(encoding="utf-8")[:1500]
CASES = {
    "tied": ("llama", jnp.bfloat16, {}),
    "learned positions": ("gpt2", jnp.bfloat16, {}),
    "float16": ("qwen2", np.float16, {}),
    "float32 and a head": ("olmo2", np.float32, {}),
    "layers in a loop": ("qwen3", jnp.bfloat16, {"layers": 13}),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 290)


@pytest.fixture(params=CASES)
def model(request, tmp_path, tokenizer, rng) -> str:
    """Return the folder of a model whose tensors are stored in one type."""
    family, dtype, changes = CASES[request.param]
    made = lively(FAMILIES[family].changed(vocabulary=300, **changes), rng)
    huggingface.write(tmp_path, made, tokenizer)
    path = tmp_path / "model.safetensors"
    save_file({name: array.astype(dtype) for name, array in load_file(path).items()}, path)
    return str(tmp_path)


def assert_same_bits(found: object, expected: object) -> None:
    """Compare types and bits of all arrays."""
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_what_is_narrower(model):
    wide, found = load(model, compute="bfloat16").model, load(model, compute="bfloat16", inference=True).model
    assert found.config == wide.config
    stored = next(iter(load_file(pathlib.Path(model) / "model.safetensors").values())).dtype
    for name, array in named(found).items():
        in_product = name == "unembedding" or (name.startswith("blocks.") and is_matrix(name, found.config))
        narrow = in_product or (name == "embedding" and stored == jnp.bfloat16)
        assert array.dtype == (jnp.bfloat16 if narrow else jnp.float32), name
        assert_same_bits(array, named(wide)[name].astype(array.dtype))


def test_float32_products_have_float32_parameters(model):
    assert_same_bits(named(load(model, inference=True).model), named(load(model).model))


def test_scores_decisions_and_documents_have_the_same_bits(model):
    made = []
    for inference in (False, True):
        pretrained = load(model, compute="bfloat16", inference=inference)
        scorer, end = prepare(pretrained.model), pretrained.tokenizer.end
        corpus = from_documents([Document("speech", "speech", "speech", "test", TEXT)], pretrained.tokenizer)
        scores = log_probabilities(scorer, corpus, end)
        documents = DocumentEncoder(pretrained.tokenizer)([TEXT.encode()], ["speech"])
        prior = prepare_prior(pretrained)
        decided = decisions(prior, documents, PRESETS["paper"], full=True)
        request = decode.Request(SamplingConfig(), 20, (end,), pretrained.tokenizer.size)
        weights = decode.prepare(pretrained.model)
        begun = decode.start(weights, [(5, 6, 7), (8,)], ["a", "b"], request, 0, 4)
        # What follows is made of the same blocks and head.
        made.append((scorer.blocks, scorer.head, scores, decided, weights.blocks, weights.head, begun))
    assert_same_bits(made[1], made[0])


def test_a_mesh_of_one_device_changes_nothing(model):
    blocks = []
    for mesh in (None, make_mesh()):
        pretrained = load(model, compute="bfloat16", mesh=mesh, inference=True)
        blocks.append((prepare(pretrained.model).blocks, decode.prepare(pretrained.model).blocks))
    assert_same_bits(blocks[1], blocks[0])


def test_the_cast_rounds_as_the_devices_does():
    mantissas = np.arange(1 << 16, dtype=np.uint32) * 65537 + 0x3F800000  # of every kind, halfway between included
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000
    below = np.arange(1 << 16, dtype=np.uint32) * 127  # less than float32's normal range
    numbers = np.concatenate([mantissas, ties, below]).view(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    assert_same_bits(numbers.astype(jnp.bfloat16), jnp.asarray(numbers).astype(jnp.bfloat16))
