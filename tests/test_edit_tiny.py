"""The tiny prior that is shipped: its files, what made them, and how well it knows Python."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import lm.data.tokenizer
from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.evaluation.scoring import log_probabilities
from lm.model.decoder import from_arrays, named
from lm.weights.huggingface import write
from lm.weights.load import TINY, load
from lm.weights.make_tiny import FACTOR, make
from paper.commands.tokenize import Tokenize


@pytest.fixture(scope="module")
def prior():
    return load("tiny")


def test_the_folder_is_small_and_whole():
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in TINY.iterdir()} == names | {"tokenizer.json", "tokenizer_config.json"}
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 600_000
    card = (TINY / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "toedit train" in card


def test_the_model_is_what_the_card_says(prior):
    config = prior.model.config
    assert (config.vocabulary, config.width, config.layers, config.context) == (1024, 64, 3, 256)
    assert prior.tokenizer.size == 1024
    assert not prior.instruct
    # Stored as bfloat16, so products of either type see the same weights.
    whole = np.asarray(prior.model.head_weight())
    assert np.array_equal(whole, np.asarray(whole, jnp.bfloat16).astype(np.float32))


def test_the_maker_writes_the_shipped_files(prior, tmp_path):
    """A float32 export of the shipped model before it was sharpened, made again, is the shipped folder to the byte."""
    exported, folder = tmp_path / "exported", tmp_path / "tiny"
    folder.mkdir()
    arrays = named(prior.model)
    before = from_arrays(prior.model.config, arrays | {"norm_scale": arrays["norm_scale"] / FACTOR})
    write(exported, before, prior.tokenizer)
    make(exported, folder)
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert made == {path.name: path.read_bytes() for path in TINY.iterdir() if path.name != "README.md"}


def test_it_knows_python_that_it_has_never_seen(prior):
    text = pathlib.Path(lm.data.tokenizer.__file__).read_text()
    corpus = from_documents([Document("a", "a", "python", "test", text)], prior.tokenizer)
    found = log_probabilities(prior.model, corpus, prior.tokenizer.end)
    bits = -float(found.sum(dtype=np.float64)) / len(text.encode()) / np.log(2)
    share = float((np.exp(found) >= 0.99).mean())
    # Uniform over the ids it would be 10 bits a token, 6 a byte. The share is what the edit's tests need.
    assert 2 < bits < 4
    assert 0.01 < share < 0.2


def test_tokenize_knows_it(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("def main(self):\n    return None\n" * 20)
    assert Tokenize((str(tmp_path / "a.txt"),), tmp_path / "out", tokenizer="tiny", processes=1).run() == 0
    assert "tokenizer of 1,024 ids" in capsys.readouterr().out
