"""Memory that a process frees and asks for again, as every training step does."""

import ctypes
import sys

# Names and numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


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
