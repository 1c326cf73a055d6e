"""Ctrl-C is not lost in a callback that may not raise, nor told as an error; what the command line says then.

Signals are sent to processes of their own.
"""

import signal
import subprocess
import sys

import pytest

from paper.commands.claims import Claims
from paper.commands.train import Train
from paper.interrupts import interrupts_kept
from paper.main import main

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


def test_an_interrupt_in_an_import_ends_the_process(tmp_path):
    (tmp_path / "compiled.py").write_text("""
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("as jaxlib makes of it") from None
""")
    code = f"""
import signal, sys
from paper.interrupts import interrupts_kept
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(tmp_path)!r})
with interrupts_kept():
    import compiled
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (made.returncode, made.stdout, made.stderr) == (130, "", "toedit: stopped\n")


@pytest.mark.parametrize("usual", [signal.default_int_handler, signal.SIG_IGN])
def test_the_handler_of_interrupts_is_replaced_for_the_time_unless_one_was_set(usual):
    before = signal.signal(signal.SIGINT, usual)
    try:
        with interrupts_kept():
            assert (signal.getsignal(signal.SIGINT) is usual) == (usual is signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is usual
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("kind", "options", "goes_on"), [(Train, ("--out", "x"), True), (Claims, (), False)])
def test_an_interrupted_command_says_whether_it_continues(kind, options, goes_on, monkeypatch, capsys):
    def run(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(sys, "argv", ["toedit", kind.__name__.lower(), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    continues = "; the same command continues where it was" if goes_on else ""
    assert capsys.readouterr().err == f"toedit: stopped{continues}\n"


def test_warnings_are_one_line():
    code = """
import sys, warnings
from paper.commands.claims import Claims
from paper.main import main
Claims.run = lambda self: warnings.warn("a file is\\n  short")
sys.argv = ["toedit", "claims"]
main()
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "toedit: warning: a file is short\n")
