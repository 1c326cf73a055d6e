"""Ctrl-C is not lost in a callback that may not raise; in a process of its own, because it is a signal."""

import subprocess
import sys

import pytest

CODE = """
import contextlib, gc, signal, time
from paper.interrupts import interrupts_kept

def met(phase, _):
    if phase == "start":
        gc.callbacks.remove(met)
        signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
gc.callbacks.append(met)
try:
    with {kept}:
        gc.collect()
        time.sleep(2)
    print("went on")
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize(("kept", "end"), [("interrupts_kept()", "stopped"), ("contextlib.nullcontext()", "went on")])
def test_an_interrupt_in_a_callback_comes_again(kept, end):
    made = subprocess.run(
        [sys.executable, "-c", CODE.format(kept=kept)], capture_output=True, text=True, timeout=60, check=True
    )
    assert made.stdout.strip() == end
    assert ("Traceback" in made.stderr) == (end == "went on")
