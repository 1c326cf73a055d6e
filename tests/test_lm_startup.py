"""What a process sets before JAX: freed memory is kept on a CPU, what was compiled on an accelerator."""

import os
import platform
import subprocess
import sys

import pytest

from lm import startup

CODE = """
import resource
import numpy as np
from lm.startup import keep_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed_memory does nothing without glibc")
def test_memory_taken_again_costs_no_faults():
    def run(call):
        return int(
            subprocess.run([sys.executable, "-c", CODE.format(call=call)], capture_output=True, check=True).stdout
        )

    # 16 MiB are 8 pages of 2 MiB at least, as large as the system may make them.
    assert run("") >= 8
    assert run("keep_freed_memory()") < 8


COMPILE = """
import importlib.util
import jax
import jax.numpy as jnp
from lm import startup
startup.expects_accelerator = lambda: True
startup.before_jax()
jax.jit(lambda x: x * 3 + 1)(jnp.arange(4.0))
"""


def test_an_accelerators_programs_are_kept_in_the_cache(tmp_path):
    environment = dict(os.environ, TOEDIT_CACHE=str(tmp_path))
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
    kept = {path.name for path in (tmp_path / "compiled").iterdir()}
    assert kept
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
    assert {path.name for path in (tmp_path / "compiled").iterdir() if path.name.endswith("cache")} <= kept


@pytest.mark.parametrize(
    ("platforms", "found", "expected"), [("", True, True), ("cpu", True, False), ("", False, False)]
)
def test_an_accelerator_is_expected_where_jax_has_a_plugin(monkeypatch, platforms, found, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: name if found else None)
    assert startup.expects_accelerator() is expected
