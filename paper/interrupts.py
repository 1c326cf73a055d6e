"""Ctrl-C that comes where Python cannot raise it comes again."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

LATER = 0.05  # seconds until an interrupt comes again: the callback that it met has ended by then


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Send an interrupt again that Python threw away while this lasts.

    A callback of the garbage collector, such as JAX has, may not raise: Python prints the KeyboardInterrupt that meets
    it, traceback and all, and goes on as if nobody had pressed the keys.
    """
    hook, main = sys.unraisablehook, threading.main_thread().ident

    def again(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt or main is None:
            hook(unraisable)
            return
        timer = threading.Timer(LATER, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
