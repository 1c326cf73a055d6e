"""Demonstrations on real processes: kill -9 fifty times, a large damaged file, several hosts at once, memory."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from test_edit_run import CODE, content, files

pytestmark = pytest.mark.slow
WORKER = [sys.executable, str(pathlib.Path(__file__).with_name("edit_worker.py"))]
KILLS = 50


@pytest.fixture
def environment(tmp_path):
    """A cache of compiled code, so that a process starts in seconds."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "OMP_NUM_THREADS": "1"}  # fmt: skip


def start(environment, *arguments):
    """Start a worker and wait until it begins to edit."""
    worker = subprocess.Popen([*WORKER, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout as said:
        assert said.readline() == "ready\n"
    return worker


def write_corpus(folder, number, documents, damaged=()):
    """Write `number` files of so many documents each; lines whose numbers (from 1) are given are damaged."""
    draw = random.Random(5)
    lines = CODE.splitlines(keepends=True)
    folder.mkdir()
    for n in range(number):
        with (folder / f"{n:02d}.jsonl").open("w") as file:
            for m in range(1, documents + 1):
                row = json.dumps({"id": f"{n}/{m}", "text": "".join(draw.choices(lines, k=draw.randint(1, 6)))})
                file.write((row[: draw.randint(1, len(row) - 1)] if m in damaged else row) + "\n")


def test_fifty_kills_leave_the_same_bytes(tmp_path, environment):
    """Each kill comes at a random moment of the writing; where a run ends before it, the next one starts over."""
    write_corpus(tmp_path / "in", 12, 160, damaged={3, 90})
    start(environment, tmp_path / "in", tmp_path / "undisturbed", 6000).wait()
    worker = start(environment, tmp_path / "in", tmp_path / "timed", 6000)
    started = time.perf_counter()
    assert worker.wait() == 0
    longest = time.perf_counter() - started
    wanted = files(tmp_path / "undisturbed")
    assert len(wanted) == 12 * 5 + 3
    draw, kills, runs = random.Random(7), 0, 0
    while kills < KILLS:
        out = tmp_path / f"killed{runs}"
        while True:
            worker = start(environment, tmp_path / "in", out, 6000)
            time.sleep(draw.uniform(0, longest / 4))
            worker.send_signal(signal.SIGKILL)
            if worker.wait() == 0:
                break
            kills += 1
            if kills == KILLS:
                assert start(environment, tmp_path / "in", out, 6000).wait() == 0
                break
        assert files(out) == wanted
        runs += 1


def test_a_large_damaged_file_loses_nothing(tmp_path, environment):
    """200,000 lines, 1 % of them damaged: the good ones edited, the bad ones set aside, 0 with a warning, strict 2."""
    damaged = set(random.Random(3).sample(range(1, 200_001), 2000))
    folder, out = tmp_path / "in", tmp_path / "out"
    draw = random.Random(4)
    lines = CODE.splitlines(keepends=True)
    folder.mkdir()
    with (folder / "a.jsonl").open("w") as file:
        for n in range(1, 200_001):
            row = json.dumps({"id": n, "text": draw.choice(lines)})
            file.write((row[:-1] if n in damaged else row) + "\n")
    command = [sys.executable, "-m", "paper.main", "edit", str(folder), "--out", str(out), "--prior", "tiny"]
    options = ["--context", "32", "--threshold", "0.5", "--stats", "0"]
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2,000 damaged records set aside" in done.stderr
    rows = [json.loads(line) for line in (out / "a.jsonl.aside.jsonl").read_text().splitlines()]
    assert {row["line"] for row in rows} == damaged
    before = [line for n, line in enumerate((folder / "a.jsonl").read_text().splitlines(), 1) if n not in damaged]
    after = (out / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in before] == [json.loads(line)["id"] for line in after]
    assert json.loads((out / "stats.json").read_text())["total"]["documents"] == 198_000
    strict = subprocess.run(
        [*command[:-1], "tiny", "--out", str(tmp_path / "strict"), *options, "--strict"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert strict.returncode == 2
    assert f"a.jsonl:{min(damaged)}: " in strict.stderr


def test_several_hosts_at_once_are_one_run(tmp_path, environment):
    write_corpus(tmp_path / "in", 7, 60, damaged={5})
    start(environment, tmp_path / "in", tmp_path / "one", 3000).wait()
    hosts = [start(environment, tmp_path / "in", tmp_path / "three", 3000, f"{n}/3") for n in range(3)]
    assert [host.wait() for host in hosts] == [0, 0, 0]
    assert files(tmp_path / "three") == files(tmp_path / "one")
    assert content(tmp_path / "one" / "00.jsonl").count(b"\n") == 59
