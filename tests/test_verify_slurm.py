"""The edit on a cluster that Slurm itself schedules, two nodes on this machine, one of which loses its power."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings

import pytest
from edit_worker import CONTEXT, EDIT

from lm.editing.inputs import find_tasks
from lm.editing.prior import prepare_prior
from lm.editing.run import run
from lm.editing.settings import Settings
from lm.weights.load import load

pytest.importorskip("datatrove", reason="the extra `datatrove` is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package's own imports
    from datatrove.executor import SlurmPipelineExecutor  # pyright: ignore[reportMissingImports]

    from lm.editing.pipeline import EditFiles

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
PLACES = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(one, path=PLACES) for one in PROGRAMS),
        reason="root starts Slurm's own programs (Debian: slurm-wlm and munge)",
    ),
]

SETTINGS = Settings(EDIT, chunk=2000)
NODES = ("node1", "node2")
CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdTimeout=10
ReturnToService=0
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=1 RealMemory=4000
PartitionName=cpu Nodes=node[1-2] Default=YES State=UP
"""


def until(done, seconds, what):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def asked(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A controller and two nodes, each in a space of processes of its own, whose end is the end of all in it."""
    monkeypatch.setenv("PATH", PLACES)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(40)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        free = sorted(one.getsockname()[1] for one in taken)
    first = next(port for port in free if port + 1 not in free)
    ports = (next(port for port in free if port not in (first, first + 1)), first, first + 1)
    text = CONFIGURATION.format(host=socket.gethostname(), folder=tmp_path, ports=ports)
    (tmp_path / "slurm.conf").write_text(text, encoding="utf-8")
    (tmp_path / "state").mkdir()
    key = tmp_path / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    own = [f"--{name}-file={tmp_path}/munge-{name}" for name in ("seed", "log", "pid")]
    commands = {"munge": ["munged", "-F", "--force", f"--key-file={key}", f"--socket={tmp_path}/munge", *own]}
    commands["controller"] = ["slurmctld", "-D", "-c"]
    for name in NODES:
        commands[name] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "slurmd", "-D", "-N", name]
    running = {}
    try:
        for name, command in commands.items():
            with (tmp_path / f"{name}.log").open("w", encoding="utf-8") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=log)
            if name == "munge":
                until((tmp_path / "munge").exists, 30, "munge has not started")
        until(lambda: asked("sinfo", "-h", "-o", "%t %D").split() == ["idle", "2"], 60, "Slurm has not started")
        yield {name: running[name] for name in NODES}
    finally:
        for one in reversed(running.values()):
            one.send_signal(signal.SIGKILL)
            one.wait()


def test_a_lost_node_loses_nothing(nodes, tmp_path):
    """Its task is put back into the queue and goes on inside its file on the other node: the same bytes."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    for name in "abcd":
        rows = [{"id": f"{name}{n}", "text": f"class {name.upper()}{n}:\n" + "    size = 3\n" * 300} for n in range(40)]
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    whole = tmp_path / "whole"
    run(find_tasks([str(corpus)], whole), whole, prepare_prior(load("tiny"), context=CONTEXT), SETTINGS)

    out, logs = tmp_path / "out", tmp_path / "logs"
    step = EditFiles([str(corpus)], str(out), "tiny", SETTINGS, context=CONTEXT)
    SlurmPipelineExecutor(
        [step], tasks=4, time="1:00:00", partition="cpu", logging_dir=str(logs), mem_per_cpu_gb=2, requeue=True,
        slurm_logs_folder=str(tmp_path / "slurm"), venv_path=str(pathlib.Path(sys.prefix) / "bin" / "activate"),
    ).run()  # fmt: skip
    parts = out / ".parts" / "b.jsonl"  # what the second task has finished of its file
    until(lambda: len(list(parts.glob("[0-9]*"))) > 1, 300, "the second task has not begun")
    tasks = dict(line.split() for line in asked("squeue", "-h", "-r", "-t", "R", "-o", "%K %N").splitlines())
    nodes[tasks["1"]].send_signal(signal.SIGKILL)
    nodes[tasks["1"]].wait()
    assert not (out / "b.jsonl").exists()
    until(lambda: not asked("squeue", "-h"), 600, "the tasks have not ended")

    assert "Restarts=1" in asked("scontrol", "show", "job")
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(list((logs / "completions").iterdir())) == 4
    told = [json.loads(path.read_text())[0]["stats"]["tokens"]["total"] for path in (logs / "stats").iterdir()]
    assert sum(told) < json.loads((whole / "stats.json").read_text())["total"]["tokens"]  # not all of the file again
