"""The edit on a cluster that Ray schedules, two nodes on this machine, one of which loses its power."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from edit_worker import CONTEXT, EDIT

from lm.editing.inputs import find_tasks
from lm.editing.prior import prepare_prior
from lm.editing.run import run
from lm.editing.settings import Settings
from lm.weights.load import load

WORKER = pathlib.Path(__file__).parent / "ray_worker.py"
RAY = pathlib.Path(sys.prefix) / "ray"
# A space of processes for each node, whose end is the end of all in it.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (RAY / "ray").exists() or os.geteuid() != 0 or not shutil.which("unshare"),
        reason="make verify brings Ray, on Linux (x86-64); root loses a node with all that runs on it",
    ),
]


@pytest.fixture
def cluster(tmp_path):
    """Return the address of a cluster, its environment and its two nodes, each with one core."""
    short = tempfile.mkdtemp(prefix="ray")  # names of sockets have at most 107 characters
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = os.pathsep.join((str(RAY), str(WORKER.parent), str(WORKER.parents[1])))
    environment = dict(os.environ, PYTHONPATH=paths, RAY_USAGE_STATS_ENABLED="0", RAY_raylet_start_wait_time_s="120")
    address, running = f"127.0.0.1:{port}", []

    def start(*words, alone=()):
        command = [*alone, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words]
        path, end = tmp_path / f"node{len(running)}.log", time.monotonic() + 120
        with path.open("w", encoding="utf-8") as log:
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        while "Ray runtime started" not in path.read_text(encoding="utf-8"):
            assert time.monotonic() < end, path.read_text(encoding="utf-8")
            time.sleep(0.2)

    try:
        start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={short}")
        for _ in range(2):
            start(f"--address={address}", "--num-cpus=1", "--object-store-memory=100000000", alone=ALONE)
        yield address, environment, running[1:]
    finally:
        for one in reversed(running):
            one.send_signal(signal.SIGTERM if one is running[0] else signal.SIGKILL)
        for one in running:
            one.wait(60)
        shutil.rmtree(short, ignore_errors=True)


def test_a_lost_node_loses_nothing(cluster, tmp_path):
    """Its task goes on inside its file on the other node: the same bytes."""
    address, environment, nodes = cluster
    corpus, out = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    for name in "ab":
        rows = [{"id": f"{name}{n}", "text": f"class {name.upper()}{n}:\n" + "    size = 3\n" * 300} for n in range(60)]
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    whole = tmp_path / "whole"
    run(
        find_tasks([str(corpus)], whole), whole, prepare_prior(load("tiny"), context=CONTEXT),
        Settings(EDIT, chunk=2000),
    )  # fmt: skip

    with (tmp_path / "driver.log").open("w", encoding="utf-8") as log:
        driver = subprocess.Popen(
            [sys.executable, str(WORKER), str(tmp_path), address], env=environment, stdout=log, stderr=log
        )
    parts, end = [out / ".parts" / f"{name}.jsonl" for name in "ab"], time.monotonic() + 300
    while not all(len(list(part.glob("[0-9]*"))) > 1 for part in parts):
        assert driver.poll() is None
        assert time.monotonic() < end, "the tasks have not begun"
        time.sleep(0.1)
    nodes[0].send_signal(signal.SIGKILL)
    nodes[0].wait()
    finished = [name for name in "ab" if (out / f"{name}.jsonl").exists()]
    assert not finished
    assert driver.wait(600) == 0

    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    told = [json.loads(path.read_text())[0]["stats"]["tokens"]["total"] for path in (tmp_path / "logs/stats").iterdir()]
    assert len(told) == 2
    assert sum(told) < json.loads((whole / "stats.json").read_text())["total"]["tokens"]  # not all of a file again
