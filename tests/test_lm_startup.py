"""What a process sets before JAX: freed memory is kept on a CPU, and what was compiled everywhere."""

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
import sys
import jax
import jax.numpy as jnp
from lm import startup
startup.expects_accelerator = lambda: {accelerator}
startup.before_jax()
x, seen = jnp.arange(4.0), []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
assert jax.jit(lambda x: x * 3 + 1)(x).tolist() == [1, 4, 7, 10]
print("/jax/compilation_cache/cache_hits" in seen)
"""


def _compile(cache, accelerator=False):
    """Return whether a process that compiles a program found it in the cache; it has nothing to complain about."""
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE.format(accelerator=accelerator)],
        env={"JAX_PLATFORMS": "cpu", **os.environ, "TOEDIT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    return made.stdout.split() == ["True"]


def _kept(cache):
    return sorted(cache.rglob("jit__lambda*-cache"))


@pytest.mark.parametrize("accelerator", [False, True])
def test_programs_are_kept_for_the_next_process(tmp_path, accelerator):
    assert not _compile(tmp_path, accelerator)
    kept = _kept(tmp_path)
    assert kept
    assert (kept[0].parent.name == "compiled") == accelerator  # those for CPUs are apart
    assert _compile(tmp_path, accelerator)


def test_a_program_that_a_killed_process_left_incomplete_is_compiled_again(tmp_path):
    _compile(tmp_path)
    (path,) = _kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not _compile(tmp_path)
    assert _compile(tmp_path)


def test_an_old_program_is_compiled_again(tmp_path):
    _compile(tmp_path)
    (path,) = _kept(tmp_path)
    os.utime(path, (0, 0))
    assert not _compile(tmp_path)


def test_nothing_is_kept_where_jax_cannot_read_it_again(tmp_path):
    _compile(tmp_path)
    (tried,) = tmp_path.rglob("jaxlib-*.txt")
    assert tried.read_text(encoding="utf-8") == "reads"
    tried.write_text("does not read", encoding="utf-8")
    assert not _compile(tmp_path)


def test_without_a_folder_to_write_everything_is_compiled(tmp_path):
    (tmp_path / "compiled").write_text("no folder", encoding="utf-8")
    assert not _compile(tmp_path)


@pytest.mark.parametrize(
    ("platforms", "found", "expected"), [("", True, True), ("cpu", True, False), ("", False, False)]
)
def test_an_accelerator_is_expected_where_jax_has_a_plugin(monkeypatch, platforms, found, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: name if found else None)
    assert startup.expects_accelerator() is expected


@pytest.mark.parametrize(
    ("flags", "units", "after"),
    [
        ("", True, "--xla_cpu_prefer_vector_width=512"),
        ("--xla_dump_to=x", True, "--xla_dump_to=x --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=128", True, "--xla_cpu_prefer_vector_width=128"),
        ("", False, ""),
    ],
)
def test_vectors_are_wide_beside_matrix_units(monkeypatch, flags, units, after):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(startup, "has_matrix_units", lambda: units)
    startup.widen_vectors()
    assert os.environ["XLA_FLAGS"] == after
