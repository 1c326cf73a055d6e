"""What a process sets before it first uses JAX, by the device that it will compute on."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

# Names and numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
VECTORS = "xla_cpu_prefer_vector_width"
KEPT = 30 * 86400  # seconds after which a compiled program is compiled again


def before_jax() -> None:
    """Keep what is compiled for the next process and, where the CPU computes, freed memory for the next use.

    On an accelerator the C library's defaults stay: its compiler's threads would wait for each other at a single heap.
    """
    if not expects_accelerator():
        keep_freed_memory()
        widen_vectors()
    keep_compiled()


def widen_vectors() -> None:
    """Let XLA use vectors of 512 bits on a CPU with matrix units, unless the environment says how wide.

    Its default of 256 suits CPUs that slow down for wider ones, which those with matrix units no longer do: there
    training, scoring and editing with JAX 0.12 are 8 % faster with 512, and as fast or 3 % faster with JAX 0.10.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if has_matrix_units() and VECTORS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{VECTORS}=512".strip()


def has_matrix_units() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices by units of their own (Intel's AMX)."""
    return "amx_bf16" in _about_cpu()


def _about_cpu() -> str:
    about = pathlib.Path("/proc/cpuinfo")
    return about.read_text(encoding="utf-8", errors="replace") if about.exists() else ""


def expects_accelerator() -> bool:
    """Return whether JAX has a plugin for an accelerator here, and was not told to leave it alone."""
    plugin = any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu"))
    return plugin and os.environ.get("JAX_PLATFORMS", "") != "cpu"


def keep_compiled() -> None:
    """Make JAX keep what it compiles in the cache's folder, unless it was told of another one.

    The second run of a command saves half a minute and more; and on a GPU it computes with the same programs, where the
    compiler would try out the forms of each product again and might choose another, with other roundings. What was
    compiled for a CPU is kept apart from other CPUs' programs, and only where JAX can read it again.
    """
    import jax

    from lm.data.fetch import cache_folder
    from lm.errors import InputError

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(InputError, OSError):  # without a cache everything is only compiled anew
        folder, accelerator = cache_folder() / "compiled", expects_accelerator()
        if not accelerator:
            folder /= _processor()
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        if accelerator or _can_read_again(folder):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            least = "jax_persistent_cache_min_compile_time_secs"
            if not math.isinf(jax.config.values[least]):  # set where nothing may be written (`lm.model.onednn`)
                jax.config.update(least, 0.0)


def _processor() -> str:
    """Return a name for the cores and their instructions, by which programs differ."""
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    found = {line for line in _about_cpu().splitlines() if line.partition(":")[0].strip() in wanted}
    known = "\n".join([platform.machine(), platform.processor(), *sorted(found)])
    return f"{cores()}-cores-{hashlib.sha256(known.encode()).hexdigest()[:16]}"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _clean(folder: pathlib.Path) -> None:
    """Remove programs that are old, and those that a killed process left incomplete: JAX would never replace them."""
    import zstandard

    marker, now = folder / "cleaned", time.time()
    before = marker.stat().st_mtime if marker.exists() else 0.0
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may have removed it
            written = path.stat().st_mtime
            removed = now - written > KEPT
            if written > before - 1:  # else it was looked at already
                try:
                    zstandard.ZstdDecompressor().decompress(path.read_bytes())
                except zstandard.ZstdError:
                    removed = True
            if removed:
                path.unlink()
    beside = folder / f"cleaned.{os.getpid()}"
    beside.touch()
    os.utime(beside, (now, now))
    beside.replace(marker)  # only now: what a killed process did not come to is looked at again


# Compiles a program, forgets it, and reads it from the cache; JAX and XLA complain if that does not work.
TRIAL = """
import sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
read = []
jax.monitoring.register_event_listener(lambda event, **_: read.append(event))
for _ in range(2):
    assert float(jax.jit(lambda x: 2 * x + 1)(3.0)) == 7.0
    jax.clear_caches()
print("/jax/compilation_cache/cache_hits" in read)
"""


def _can_read_again(folder: pathlib.Path) -> bool:
    """Return whether JAX reads a program for this CPU that it has kept, tried once for each version of JAX.

    Some versions refuse every such program on some CPUs, with a page of complaints each time (openxla/xla 44565).
    """
    tried = folder / f"jaxlib-{importlib.metadata.version('jaxlib')}.txt"
    if tried.exists():
        return tried.read_text(encoding="utf-8") == "reads"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    with tempfile.TemporaryDirectory() as cache:
        made = subprocess.run(
            [sys.executable, "-c", TRIAL, cache],
            env=environment | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
    reads = made.returncode == 0 and made.stdout.split() == ["True"] and not made.stderr
    beside = tried.with_suffix(f".{os.getpid()}")
    beside.write_text("reads" if reads else "does not read", encoding="utf-8")
    beside.replace(tried)
    return reads


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next use instead of returning it to the system.

    XLA takes the temporary arrays of a step anew each time; handed out by the system, each page costs a fault, up
    to a third of the time on a CPU. The peak stays the same. Call it before the first use of JAX, whose threads
    would otherwise have heaps of their own. Does nothing where the C library is not glibc.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        for option, value in ((TRIM_THRESHOLD, 2**31 - 1), (MMAP_MAX, 0), (ARENA_MAX, 1)):
            set_option(option, value)
