"""Slow demonstration, for `make verify`: a killed `toedit generate` ends in the bytes of an undisturbed one."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm.data.tokenizer import Tokenizer
from lm.model.config import ModelConfig
from lm.model.decoder import make
from lm.weights.huggingface import write

pytestmark = pytest.mark.slow

DOCUMENTS = 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(["One sentence after another; and so on, and so on. " * 20], 270)
    write(folder, make(ModelConfig(270, context=200, width=64, heads=4, hidden=128), 0), tokenizer)
    return folder


def start(model, out):
    options = ["--model", model, "--out", out, "--documents", DOCUMENTS, "--tokens", 150, "--seed", 3]
    command = [sys.executable, "-m", "paper.main", "generate", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
def test_generation_killed_at_random_moments_ends_in_the_same_bytes(model, tmp_path, suffix):
    assert start(model, tmp_path / f"first{suffix}").wait() == 0  # compiles, which later ones need not
    began = time.monotonic()
    assert start(model, tmp_path / f"whole{suffix}").wait() == 0
    seconds = time.monotonic() - began
    moments, out = np.random.default_rng(0), tmp_path / f"killed{suffix}"
    partial, kept = Path(f"{out}.partial"), []
    for _ in range(5):
        process = start(model, out)
        time.sleep(moments.uniform(0.3, 0.9) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if partial.exists():
            kept.append(partial.stat().st_size)
            with partial.open("rb+") as file:  # as if the machine had lost the end of what was written
                file.truncate(int(moments.uniform(0.8, 1) * kept[-1]))
    assert kept
    assert start(model, out).wait() == 0
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not partial.exists()
