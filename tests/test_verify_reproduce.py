"""Slow demonstrations, for `make verify`: killed runs end in the numbers of an undisturbed one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

STEPS = ("one_edit", "audit", "tokens")


def numbers(folder):
    """Return the data of every step, without anything that depends on time or place."""
    return {name: json.loads((folder / name / "result.json").read_text())["data"] for name in STEPS}


def start(folder, errors=subprocess.DEVNULL):
    command = [sys.executable, "-m", "paper.main", "reproduce", "--results", str(folder), "--only", *STEPS]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)


def children(pid):
    """Return the /proc folders of the processes whose parent is `pid` (Linux)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(status.parent)
        except OSError:  # it ended while we looked
            continue
    return found


def running(process):
    """Return whether the process of that /proc folder still runs; one that waits to be reaped does not."""
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_reproduce_killed_at_random_moments_ends_in_the_same_numbers(tmp_path):
    undisturbed = start(tmp_path / "undisturbed")
    begun = time.perf_counter()
    assert undisturbed.wait() == 0
    whole = time.perf_counter() - begun
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(5):
        run = start(tmp_path / "killed")
        try:
            run.wait(timeout=rng.uniform(0.1, 0.6) * whole)
        except subprocess.TimeoutExpired:
            workers = children(run.pid)
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
            time.sleep(1)
            assert not any(running(worker) for worker in workers)
        for path in (tmp_path / "killed").glob("*/*.json"):
            json.loads(path.read_text())  # nothing half-written under its final name
    assert kills > 0
    assert start(tmp_path / "killed").wait() == 0
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "undisturbed")
    again = time.perf_counter()
    assert start(tmp_path / "killed").wait() == 0
    assert time.perf_counter() - again < whole / 2


def test_interrupted_run_says_so_and_leaves_no_process(tmp_path):
    run = start(tmp_path, subprocess.PIPE)
    time.sleep(6)
    workers = children(run.pid)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=20)
    time.sleep(1)
    assert run.returncode == 130
    assert err == "toedit: stopped; the same command continues where it was\n"
    assert not any(running(worker) for worker in workers)


GENERATIONS = """
import dataclasses, json, pathlib, sys
from lm.experiments.designs import iterate
from lm.experiments.presets import PRESETS
from lm.experiments.tables import tables
from lm.experiments.workers import make

laptop = PRESETS["laptop"]
small = {"trained": ("sotu",), "held_out": ("news",), "train_tokens": 20_000, "test_tokens": 4_000}
setup = dataclasses.replace(laptop.setup, texts=dataclasses.replace(laptop.setup.texts, **small), steps=60)
cells = iterate(dataclasses.replace(laptop, setup=setup, seeds=(0, 1), generations=2))
stage = make([cell.run for cell in cells], pathlib.Path(sys.argv[1]), setup)
print(json.dumps(tables(stage, cells), sort_keys=True))
"""


def test_language_model_generations_killed_at_random_moments_end_in_the_same_bytes(tmp_path):
    """Real text, all rules, two seeds, small sizes; the corpora and the models are in the units' numbers."""

    def run(name):
        command = [sys.executable, "-c", GENERATIONS, str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    begun = time.perf_counter()
    wanted, errors = run("undisturbed").communicate()
    assert wanted, errors
    whole = time.perf_counter() - begun
    rng = np.random.default_rng(1)
    for _ in range(6):
        killed = run("killed")
        try:
            killed.communicate(timeout=rng.uniform(0.15, 0.5) * whole)
        except subprocess.TimeoutExpired:
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
    found, errors = run("killed").communicate()
    assert found == wanted, errors
