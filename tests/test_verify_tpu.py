"""Training, scoring and sampling compile for TPUs, with Google's own compiler, and fit their memory; none is here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).parent / "tpu_worker.py"
COMPILER = pathlib.Path(sys.prefix) / "tpu"
MEMORY = {"v5e": 16 * 2**30, "v5p": 95 * 2**30}  # bytes of a chip (Google's documentation of v5e and v5p)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (COMPILER / "libtpu").exists(), reason="make verify brings the compiler, on Linux (x86-64)"),
]


@pytest.mark.parametrize(
    ("program", "chip", "has_kernel"),
    [
        ("gpt2-124m data", "v5e", True),
        ("gpt2-124m mixed", "v5e", True),
        ("llama3-8b fsdp", "v5p", True),
        ("smollm2-135m states", "v5e", True),
        ("llama3-8b states", "v5e", True),
        ("smollm2-135m sampling", "v5e", False),
    ],
)
def test_a_program_compiles_for_tpus_and_fits_them(program, chip, has_kernel):
    paths = os.pathsep.join([str(COMPILER), str(WORKER.parents[1])])
    # The compiler only: no device is looked for.
    environment = dict(os.environ, PYTHONPATH=paths, JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1")
    command = [sys.executable, str(WORKER), program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["arguments"] + found["temporary"] < MEMORY[chip]
    assert found["kernel"] == has_kernel
