"""Freed memory is kept: what a process takes a second time costs no page faults."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from lm.memory import keep_freed_memory
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
