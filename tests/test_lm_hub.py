"""Models of the Hugging Face hub: its own client fetches from a hub on this machine what a model needs, and no code."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from local_hub import environment, serve

from lm.weights.load import TINY, load

LOAD = """
import json
from lm.weights.load import load
found = load("hf:owner/model")
print(json.dumps([found.name, found.sha256, found.tokenizer.sha256]))
"""


@pytest.fixture
def hub(tmp_path):
    """A hub with the tiny prior, beside files that must not be fetched, and how to run code against it."""
    folder = tmp_path / "hub" / "models" / "owner" / "model"
    shutil.copytree(TINY, folder)
    for name in ("pytorch_model.bin", "modeling.py", "training_args.bin"):
        (folder / name).write_bytes(b"not for us")
    with serve(tmp_path / "hub") as (address, asked):

        def run(*command, address=address):
            return subprocess.run(
                [sys.executable, *command],
                env=environment(address, tmp_path / "home"),
                capture_output=True,
                text=True,
                check=False,
            )

        yield run, asked


def test_a_model_of_the_hub_is_the_same_as_from_its_folder(hub):
    run, asked = hub
    made = run("-c", LOAD)
    assert made.returncode == 0, made.stderr
    own = load(str(TINY))
    assert json.loads(made.stdout) == ["hf:owner/model", own.sha256, own.tokenizer.sha256]
    fetched = {pathlib.PurePosixPath(one).name for one in asked if one.startswith("GET") and "/resolve/" in one}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_a_fetched_model_is_not_fetched_again_and_needs_no_network(hub):
    run, asked = hub
    assert run("-c", LOAD).returncode == 0
    asked.clear()
    assert run("-c", LOAD).returncode == 0
    assert not [one for one in asked if one.startswith("GET") and "/resolve/" in one]
    made = run("-c", LOAD, address="http://127.0.0.1:9")  # nothing answers there
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(("name", "address"), [("owner/nothing", None), ("owner/model", "http://127.0.0.1:9")])
def test_a_model_that_cannot_be_fetched_is_refused_in_one_sentence(hub, name, address):
    run, _ = hub
    where = {} if address is None else {"address": address}
    made = run("-m", "paper.main", "evaluate", "--model", f"hf:{name}", "--source", "sotu", **where)
    assert made.returncode == 2
    (sentence,) = made.stderr.splitlines()
    assert sentence.startswith(f"toedit: hf:{name} cannot be fetched (")
