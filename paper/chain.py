"""The chain behind `make reproduce`: steps that are skipped while nothing they depend on has changed.

A step is a module of `paper.steps` with CONFIG, SECONDS, NEEDS and run(); its key is a hash of its
configuration, of every project file that it imports (directly or not), of its data files, of the locked
dependencies and of the results that it reads. Same key and intact outputs: the step is skipped.
"""

import ast
import ctypes
import errno
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from paper.errors import InputError
from paper.results import ROOT, digest, plain, record, write_record

PROJECT_PACKAGES = ("theory", "sim", "lm", "figures", "paper")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CORES = os.cpu_count() or 1


class Step(Protocol):
    """What a module of `paper.steps` offers."""

    __name__: str
    CONFIG: dict[str, Any]
    SECONDS: float
    NEEDS: tuple[str, ...]

    def run(
        self,
        config: dict[str, Any],
        needs: dict[str, dict[str, Any]],
        folder: Path,
        progress: Callable[[float, str], None],
    ) -> dict[str, Any]:
        """Compute and return the step's data."""
        ...


def load(name: str) -> Step:
    """Return the step of that name."""
    return cast(Step, importlib.import_module(f"paper.steps.{name}"))


def source_path(module: str) -> Path | None:
    """Return the file of a project module, None for a name that is no module of the project."""
    parts = module.split(".")
    if parts[0] not in PROJECT_PACKAGES:
        return None
    path = ROOT.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the names that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def closure(module: str) -> list[Path]:
    """Return every project file that importing `module` can run, sorted."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = source_path(name)
        if path is None or path in found:
            continue
        found.add(path)
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        waiting += [*parents, *imports(path)]
    return sorted(found)


def key(step: Step, upstream: dict[str, dict[str, Any]]) -> str:
    """Return the hash of all that determines a step's result."""
    files = [*closure(step.__name__), ROOT / "requirements.lock"]
    files += [ROOT / name for name in getattr(step, "FILES", ())]
    return digest(
        {
            "config": step.CONFIG,
            "files": {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "python": sys.version_info[:2],
            "needs": {name: digest(result["data"]) for name, result in upstream.items()},
        }
    )


def finished(path: Path, wanted: str) -> dict[str, Any] | None:
    """Return the stored result at `path` if it is whole and has the wanted key."""
    try:
        result = json.loads(path.read_text())
        intact = result["key"] == wanted and all(
            hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == sha
            for name, sha in result["data"].get("files", {}).items()
        )
        intact = intact and all((path.parent / f"{name}.csv").exists() for name in result["data"].get("tables", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if intact else None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the results folder, so that two runs never write the same files.

    Raises:
        InputError: another run holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror or error}); choose another with --results") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another run is writing {folder}; wait for it or choose another --results") from error
        yield


class RemainingColumn(TextColumn):
    """Time that the remaining steps are expected to take, corrected by the pace so far."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: ProgressTask) -> Text:
        """Return "ETA m:ss"; the pace counts only once some work has been seen."""
        pace = task.elapsed / task.completed if task.elapsed and task.completed > 20 else 1 / CORES
        left = int(((task.total or 0) - task.completed) * pace)
        return Text(f"ETA {left // 60}:{left % 60:02d}")


def run(names: Sequence[str], folder: Path, console: Console) -> dict[str, dict[str, Any]]:
    """Run the named steps, as many at once as there are cores, skipping those whose inputs have not changed.

    Args:
        names: steps, each after the steps that it needs.
        folder: where results go, one folder a step.
        console: where progress is shown.

    Returns:
        The result of every step by name.

    Raises:
        InputError: a step refused its input, or the results folder cannot be used.
        RuntimeError: a step failed; the message holds its traceback.
    """
    steps = {name: load(name) for name in names}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        RemainingColumn(),
    )
    with only_one(folder), Progress(*columns, console=console, transient=True) as bar:
        return Scheduler(steps, folder, console, bar).run()


class Scheduler:
    """Starts steps in order as their needs are met and cores are free; only this process writes results."""

    def __init__(self, steps: dict[str, Step], folder: Path, console: Console, bar: Progress) -> None:
        self.steps, self.folder, self.console, self.bar = steps, folder, console, bar
        self.results: dict[str, dict[str, Any]] = {}
        self.waiting = list(steps)
        self.running: dict[Connection[Any, Any], Worker] = {}
        self.task = bar.add_task("reproduce", total=sum(weight(step) for step in steps.values()))
        self.finished_work = 0.0

    def run(self) -> dict[str, dict[str, Any]]:
        """Run until every step is done; stop all of them when one fails or the user interrupts."""
        try:
            while self.waiting or self.running:
                self.start_ready()
                for pipe in wait(list(self.running)) if self.running else ():
                    self.receive(cast("Connection[Any, Any]", pipe))
        finally:
            for worker in self.running.values():
                worker.process.kill()
        return self.results

    def start_ready(self) -> None:
        """Skip or start waiting steps; one that has to wait for cores holds back those after it."""
        for name in list(self.waiting):
            step = self.steps[name]
            if not set(step.NEEDS) <= set(self.results):
                continue
            needs = {need: self.results[need] for need in step.NEEDS}
            wanted = key(step, needs)
            stored = finished(self.folder / name / "result.json", wanted)
            if stored is not None:
                self.waiting.remove(name)
                self.results[name] = stored
                self.bar.update(self.task, total=(self.bar.tasks[self.task].total or 0) - weight(step))
                self.console.print(f"  {name}: unchanged, skipped", style="dim", highlight=False)
                self.start_ready()
                return
            if sum(worker.cores for worker in self.running.values()) + cores(step) > CORES:
                return
            self.waiting.remove(name)
            self.start(name, wanted, needs)

    def start(self, name: str, wanted: str, needs: dict[str, dict[str, Any]]) -> None:
        """Start a step in a process of its own."""
        scratch = self.folder / name / "scratch" / wanted[:16]
        try:
            scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write {scratch} ({error.strerror or error}); free it or change --results"
            ) from error
        ours, theirs = Pipe()
        context = get_context("spawn")
        process = context.Process(target=work, args=(name, needs, scratch, theirs), name=name, daemon=True)
        with threads_per_process(cores(self.steps[name])):
            process.start()
        theirs.close()
        self.running[ours] = Worker(name, wanted, cores(self.steps[name]), process)

    def receive(self, pipe: "Connection[Any, Any]") -> None:
        """Take one message from a running step: progress, its data, or how it failed."""
        worker = self.running[pipe]
        step = self.steps[worker.name]
        try:
            message: tuple[Any, ...] = pipe.recv()
        except EOFError:
            message = ("failed", "it was killed (out of memory?)")
        kind, *rest = message
        if kind == "progress":
            worker.fraction, text = rest
            current = sum(other.fraction * weight(self.steps[other.name]) for other in self.running.values())
            self.bar.update(
                self.task, completed=self.finished_work + current, description=f"{worker.name}: {text}"[:50]
            )
            return
        del self.running[pipe]
        worker.process.join()
        if kind == "refused":
            raise InputError(rest[0])
        if kind == "failed":
            raise RuntimeError(f"step {worker.name} failed: {rest[0]}")
        data, seconds = rest
        result = record(worker.name, step.CONFIG, data, seconds) | {"key": worker.wanted}
        write_record(self.folder / worker.name / "result.json", result)
        self.results[worker.name] = result
        shutil.rmtree(self.folder / worker.name / "scratch", ignore_errors=True)
        self.finished_work += weight(step)
        self.console.print(f"  {worker.name}: {seconds:.0f} s", highlight=False)


@dataclass
class Worker:
    """A running step."""

    name: str
    wanted: str
    cores: int
    process: BaseProcess
    fraction: float = 0.0


def cores(step: Step) -> int:
    """Return how many cores a step uses: one unless the module says CORES."""
    return min(getattr(step, "CORES", 1), CORES)


def weight(step: Step) -> float:
    """Return a step's expected core-seconds."""
    return step.SECONDS * cores(step)


@contextmanager
def threads_per_process(number: int) -> Iterator[None]:
    """Let a process started now use that many threads for linear algebra: steps share the cores, not fight for them."""
    settings: dict[str, str] = dict.fromkeys(THREAD_VARIABLES, str(number))
    if number == 1:
        settings["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def work(name: str, needs: dict[str, dict[str, Any]], scratch: Path, pipe: "Connection[Any, Any]") -> None:
    """Run one step in a process of its own and send what it returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the scheduler's to handle; it stops this process
    end_with_parent()
    start = time.perf_counter()
    try:
        step = load(name)
        data = step.run(
            step.CONFIG, needs, scratch, lambda fraction, message: pipe.send(("progress", fraction, message))
        )
        pipe.send(("done", plain(data), time.perf_counter() - start))
    except Exception as error:
        if type(error).__name__ == "InputError":  # theory, sim, lm and paper each have their own
            pipe.send(("refused", str(error)))
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            pipe.send(("refused", f"step {name} cannot write ({error}); make room or change --results, then run again"))
        else:
            pipe.send(("failed", traceback.format_exc()))


def end_with_parent() -> None:
    """Have the kernel end this process with its parent, so that a killed run leaves nothing running (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() == 1:  # the parent was gone before the call
            sys.exit(1)
