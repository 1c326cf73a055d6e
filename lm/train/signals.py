"""Stopping a run by SIGTERM or Ctrl-C: after the current update, with a checkpoint; by a second signal at once."""

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal ended the run and its state is saved; the exit code is 128 plus the signal's number.

    Attributes:
        step: updates that are done and saved.
    """

    def __init__(self, number: int, step: int):
        super().__init__(128 + number)
        self.step = step


class Listener:
    """Takes the place of the handlers of SIGTERM and SIGINT while a run lasts.

    Attributes:
        number: of the signal that came, 0 if none did.
    """

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self) -> "Listener":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
