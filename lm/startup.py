"""What a process sets before it first uses JAX, by the device that it will compute on."""

import contextlib
import ctypes
import importlib.util
import os
import sys

# Names and numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def before_jax() -> None:
    """Keep freed memory where the CPU computes, and what is compiled where an accelerator does.

    On an accelerator the C library's defaults stay: its compiler's threads would wait for each other at a single heap.
    """
    if expects_accelerator():
        keep_compiled()
    else:
        keep_freed_memory()


def expects_accelerator() -> bool:
    """Return whether JAX has a plugin for an accelerator here, and was not told to leave it alone."""
    plugin = any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu"))
    return plugin and os.environ.get("JAX_PLATFORMS", "") != "cpu"


def keep_compiled() -> None:
    """Make JAX keep what it compiles in the cache's folder, unless it was told of another one.

    The second run of a command saves half a minute and more; and it computes with the same programs, where a GPU's
    compiler would try out the forms of each product again and might choose another, with other roundings.
    """
    import jax

    from lm.data.fetch import cache_folder
    from lm.errors import InputError

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(InputError):  # without a home folder everything is only compiled anew
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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
