"""What devices send each other is what the mesh needs, in training and scoring: read off the compiled programs.

With four devices, "data" reduces the gradient, "fsdp" also gathers each matrix for each pass, and neither sends
activations (Rajbhandari et al. 2020); "tensor" adds up a stream after each branch (Shoeybi et al. 2019).
"""

import functools
import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
from communication_worker import MESHES, MODEL, ROWS

from lm.model.parameters import parameters
from lm.train.step import shared_chunk

WORKER = pathlib.Path(__file__).parent / "communication_worker.py"


@functools.cache
def sent():
    # What is sent is settled before machine code is made, which then need not be good.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count=4 {flags}")
    command = [sys.executable, str(WORKER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def weight_bytes(prefix=""):
    return 4 * sum(math.prod(one.shape) for name, one in parameters(MODEL).items() if name.startswith(prefix))


def test_chunks_are_cut_evenly_if_that_takes_few():
    assert shared_chunk(1024, 4 * 2048, 4) == 4 * 1024
    assert shared_chunk(1024, 4 * 2560, 4) == 4 * 640
    assert shared_chunk(1024, 4 * 2053, 4) == 4 * 685  # a prime: three chunks, of which the last is shorter


def streams(mesh, rows):
    """Return the bytes of one device's share of a residual stream."""
    shares = math.prod(size for axis, size in MESHES[mesh].items() if axis != "tensor")
    return 4 * rows * MODEL.context * MODEL.width / shares


@pytest.mark.parametrize("rows", range(len(ROWS)))
def test_training_sends_weights_and_gradients_not_activations(rows):
    found, all_weights = {name: numbers[rows] for name, numbers in sent()["training"].items()}, weight_bytes()
    head = 4 * MODEL.vocabulary * MODEL.width  # the tied embedding has a gradient from either end
    assert all_weights < found["data"] < 1.01 * (all_weights + head)
    assert 3 * all_weights < found["fsdp"] < 4 * all_weights + streams("fsdp", ROWS[rows])
    # Forwards two sums a layer, backwards one for each product of the normed stream, and the embedding.
    sums = MODEL.layers * (2 + 5) + 1
    assert found["fsdp and tensor"] < 3 * all_weights + 1.01 * sums * streams("fsdp and tensor", ROWS[rows])


@pytest.mark.parametrize("rows", range(len(ROWS)))
def test_scoring_sends_nothing_each_matrix_once_or_two_streams_a_layer(rows):
    found, blocks = {name: numbers[rows] for name, numbers in sent()["scoring_block"].items()}, weight_bytes("blocks")
    assert found["data"] == 0
    assert found["fsdp"] == pytest.approx(blocks, rel=0.01)  # norms lie whole everywhere
    wanted = blocks / 2 + 2 * MODEL.layers * streams("fsdp and tensor", ROWS[rows])
    assert found["fsdp and tensor"] == pytest.approx(wanted, rel=0.01)
