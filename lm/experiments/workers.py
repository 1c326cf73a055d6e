"""Make the nodes of a graph, a process a core: each process takes the first node that is ready and that nobody has.

Claims are locks on files, which the system frees when a process ends, however it ends; what is finished is in the
folder. So a run that was killed goes on by the same command, with the same bytes; and runs of several experiments at
the same time share a folder: a graph is named by its content, and what workers say is in files without names.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from lm.errors import InputError
from lm.experiments import graph
from lm.experiments.nodes import Made, Stage
from lm.experiments.presets import Setup
from lm.experiments.texts import prepare
from lm.startup import before_jax

CONFIG = "config.json"
PROGRESS = "progress"
REFUSED = 2  # exit code of a worker that was given something it cannot use
WAIT = 0.3  # seconds between looks at the folder


def open_folder(folder: pathlib.Path, setup: Setup) -> None:
    """Make the folder of a setup's experiments, or check that it is one.

    Raises:
        InputError: the folder is of another setup, or cannot be written.
    """
    path, given = folder / CONFIG, setup.to_json()
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, given)
    except ValueError as error:
        raise InputError(f"{path} is damaged; remove the folder and start again") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be used ({error.strerror}); choose another folder") from error
    if found is not None and found != json.loads(json.dumps(given)):
        raise InputError(f"{folder} holds experiments of another configuration; choose another folder")


def _write(path: pathlib.Path, data: object) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
    beside.replace(path)


def make(
    wanted: Sequence[Made],
    folder: pathlib.Path,
    setup: Setup,
    progress: Callable[[float, str], None] = lambda share, message: None,
    processes: int | None = None,
) -> Stage:
    """Make nodes and all that they are made of.

    Args:
        wanted: nodes.
        folder: of `setup`'s experiments.
        setup: of all models.
        progress: told of the share done.
        processes: at a time; one a core by default.

    Returns:
        The stage on which they are.

    Raises:
        InputError: what a node cannot use.
        RuntimeError: a fault in a worker, with what it said.
    """
    open_folder(folder, setup)
    progress(0.0, "preparing the text")
    stage = Stage(folder, setup, prepare(setup.texts))
    todo = graph.made(wanted)
    description = graph.to_json(wanted)
    name = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    _write(folder / f"graph-{name}.json", description)
    left = sum(not stage.finished(node) for node in todo)
    count = min(processes or os.cpu_count() or 1, left)
    environment = dict(os.environ)
    if count > 1:
        # One core a process: threads of several processes would wait for each other.
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # The memory of an accelerator that they share is shared out too.
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / count:.3f}")
    command = [sys.executable, "-m", "lm.experiments.workers", str(folder), f"graph-{name}.json", str(os.getpid())]
    running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for _ in range(count):
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker, whom a full pipe would stop
            running.append((subprocess.Popen(command, env=environment, stderr=errors), errors))
        while running:
            time.sleep(WAIT)
            for worker, errors in [one for one in running if one[0].poll() is not None]:
                running.remove((worker, errors))
                with errors:
                    errors.seek(0)
                    _check_exit(worker.returncode, errors.read().decode(errors="replace"))
            states = [_state(stage, node) for node in todo]
            done = sum(state == 1.0 for state in states)
            progress(sum(states) / len(todo), f"{done} of {len(todo)} corpora and models made")
    finally:
        for worker, errors in running:
            worker.kill()
            worker.wait()
            errors.close()
    return stage


def _check_exit(code: int, errors: str) -> None:
    """Raise what a worker's exit code says: 2 is input it could not use, anything else a fault."""
    if code == REFUSED:
        raise InputError(errors.strip().splitlines()[-1])
    if code < 0:
        raise RuntimeError(f"a worker was ended by signal {-code} (out of memory?); run it again to go on")
    if code:
        raise RuntimeError(errors)


def _state(stage: Stage, node: Made) -> float:
    if stage.finished(node):
        return 1.0
    try:
        return float((stage.place(node) / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


@contextlib.contextmanager
def _claimed(folder: pathlib.Path) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".claim").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _work(folder: pathlib.Path, name: str, parent: int) -> None:
    """Take nodes of a graph until all are made, or the process that asked for them is gone."""
    setup = Setup.from_json(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    stage = Stage(folder, setup, prepare(setup.texts))
    data = json.loads((folder / name).read_text(encoding="utf-8"))
    todo = [node for node in graph.from_json(data).values() if isinstance(node, Made)]
    parts = {node.key: graph.made([node])[:-1] for node in todo}
    while todo:
        todo = [node for node in todo if not stage.finished(node)]
        took = False
        for node in todo:
            if all(stage.finished(part) for part in parts[node.key]):
                with _claimed(stage.place(node)) as mine:
                    took = mine and not stage.finished(node)
                    if took:
                        stage.make(node, _reporter(stage.place(node), parent))
                if took:
                    break
        if not took:
            _check_parent(parent)
            time.sleep(WAIT)


def _check_parent(parent: int) -> None:
    if os.getppid() != parent:
        raise SystemExit(1)  # the run was killed: it goes on from what is there when started again


def _reporter(folder: pathlib.Path, parent: int) -> Callable[[float, str], None]:
    def progress(share: float, message: str) -> None:
        del message
        _check_parent(parent)
        (folder / PROGRESS).write_text(f"{0.9 * share:.3f}", encoding="utf-8")

    return progress


if __name__ == "__main__":
    before_jax()
    try:
        _work(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
