"""Ctrl-C that comes where Python cannot raise it: in a callback it comes again, in an import it ends the process."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

LATER = 0.05  # seconds until an interrupt comes again: the callback that it met has ended by then
CODE = 130  # exit code of what Ctrl-C ends, as shells say it
IMPORT = "<frozen importlib._bootstrap>"  # file of the frames below every module that is being imported


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Send an interrupt again that Python threw away while this lasts, and let one in an import end the process.

    A callback of the garbage collector, such as JAX has, may not raise: Python prints the KeyboardInterrupt that meets
    it, traceback and all, and goes on as if nobody had pressed the keys. What is compiled, such as jaxlib, makes an
    ImportError of one that meets its import, or aborts.
    """
    hook, main = sys.unraisablehook, threading.main_thread().ident

    def again(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt or main is None:
            hook(unraisable)
            return
        timer = threading.Timer(LATER, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    # Python allows handlers in its main thread only; one that the caller has set, or nohup's, stays.
    is_usual = threading.get_ident() == main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process if a module is being imported."""
    below = frame
    while below is not None:
        if below.f_code.co_filename == IMPORT:
            os.write(2, b"toedit: stopped\n")
            os._exit(CODE)
        below = below.f_back
    signal.default_int_handler(number, frame)
