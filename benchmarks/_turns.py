"""Ways of doing the same work, measured in turn, so that a slow minute of the machine slows all of them.

Those that need torch run in a process of their own; the interpreter that has it is named by the environment variable
TOEDIT_PEERS_PYTHON, and without it this one is tried.
"""

import contextlib
import functools
import importlib.util
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from paper.results import processor

Way = Callable[[], dict[str, Any]]  # runs once and returns at least the "seconds" that it took


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def product_rate(compute: str) -> dict[str, float]:
    """Return the best of five matrix products of order 2048 with float32 sums, GFLOP/s, and the seconds of all."""
    import jax
    import jax.numpy as jnp

    from lm.model.matmul import product

    a = jnp.ones((2048, 2048), compute)
    square = jax.jit(lambda x: product(x, x))
    square(a).block_until_ready()
    times = [timed(lambda: square(a).block_until_ready())[0] for _ in range(5)]
    return {"seconds": sum(times), "gflops": 2 * 2048**3 / min(times) / 1e9}


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Start a process that calls `benchmarks._serve.serve`; yield what it says of itself, its ways as callables."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def answer() -> dict[str, Any]:
            line = stdout.readline()
            if not line:
                raise RuntimeError(f"{command[1]} has ended; what it printed above says why")
            return json.loads(line)

        def ask(name: str) -> dict[str, Any]:
            stdin.write(name + "\n")
            stdin.flush()
            return answer()

        about = answer()
        try:
            yield about | {"ways": {name: functools.partial(ask, name) for name in about["ways"]}}
        finally:
            process.kill()


@contextlib.contextmanager
def torch(script: str, *arguments: str, **arrays: Any) -> Iterator[dict[str, Any]]:
    """Start a script of this folder in the interpreter that has torch; without one there are no ways and no versions.

    Args:
        script: name of the file.
        *arguments: its first ones; the last is the path of the arrays, if there are any.
        **arrays: what it is to compute with.
    """
    python = os.environ.get("TOEDIT_PEERS_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)
    if python is None:
        yield {"ways": {}, "versions": {}}
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        if arrays:
            np.savez(path, **arrays)
        command = [python, str(Path(__file__).with_name(script)), *arguments, *([str(path)] if arrays else [])]
        with served(command) as peer:
            yield peer


def in_turn(ways: Mapping[str, Way], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run every way once a round, every other round backwards; the first run of each, with what it compiles, is extra.

    Returns:
        What the runs of each way returned, the extra one first.
    """
    found = {name: [way()] for name, way in ways.items()}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(ways[name]())
            print(f"round {number + 1} of {rounds}, {name}: {found[name][-1]['seconds']:.1f} s", flush=True)
    return found


def seconds(runs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the seconds of the runs that count."""
    return np.array([run["seconds"] for run in runs[1:]])


def best(runs: Mapping[str, Sequence[Mapping[str, Any]]], begin: str) -> str | None:
    """Return the way with the smallest median of its seconds, of those whose names begin so; None if there is none."""
    names = [name for name in runs if name.startswith(begin)]
    return min(names, key=lambda name: np.median(seconds(runs[name])), default=None)


def share(runs: Sequence[Mapping[str, Any]], work: float, rates: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """Return the median over the rounds of a speed as a share of the matrix products' rate, and the same in words.

    Args:
        runs: of a way.
        work: operations of a run.
        rates: of `product_rate`, in the same rounds.
    """
    rate = np.array([run["gflops"] for run in rates[1:]])
    median = float(np.median(work / seconds(runs) / 1e9 / rate))
    return median, f"{100 * median:.0f} % of {np.median(rate):.0f} GFLOP/s"


def times_faster(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """Return the median over the rounds of how many times faster ours is, and the same in words with the range."""
    ratio = seconds(theirs) / seconds(ours)
    median = float(np.median(ratio))
    return median, f"{median:.2f} times (median of {len(ratio)} rounds; {ratio.min():.2f} to {ratio.max():.2f})"


def mean_times_faster(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the geometric mean over the rounds of how many times faster ours is, and its standard error."""
    log = np.log(seconds(theirs) / seconds(ours))
    mean = float(np.exp(np.mean(log)))
    return mean, mean * float(np.std(log, ddof=1)) / math.sqrt(len(log))


def _processor_time() -> tuple[int, int]:
    """Return the time of all processors so far, and of it what the host gave to others; zeros if unknown."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0, 0
    times = [int(field) for field in path.read_text().split("\n", 1)[0].split()[1:9]]
    return sum(times), times[7]


class Machine:
    """What the measurements ran on; made before them."""

    def __init__(self):
        """Note the time of the processors."""
        self.before = _processor_time()

    def described(self, *packages: str, **others: str) -> dict[str, Any]:
        """Return processor, cores, load, the share of the processors' time that the host took, and versions.

        Args:
            *packages: installed here.
            **others: versions of what is installed elsewhere.
        """
        total, taken = (after - before for after, before in zip(_processor_time(), self.before, strict=True))
        return {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "taken": taken / max(total, 1),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}, **others},
        }


def sentence(machine: Mapping[str, Any]) -> str:
    """Return `Machine.described` as a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f} at the end, "
        f"{100 * machine['taken']:.0f} % of their time taken by the host for others; {versions}."
    )


def place(machine: str, jax: str) -> str:
    """Return the name of the folder for what was measured on a machine with a version of JAX."""
    words = re.sub(r"\((R|TM)\)|\b(Processor|CPU)\b", "", machine).lower()
    return "-".join([*re.findall(r"[a-z0-9]+", words), "jax", ".".join(jax.split(".")[:2])])


def save(name: str, data: Mapping[str, Any], text: str, machine: str | None = None) -> None:
    """Write results/bench/NAME.json and, in the folder of the machine and JAX beside this file, NAME.md; print that.

    Args:
        name: of the benchmark.
        data: the numbers.
        text: the table.
        machine: what decides about the speed; this machine's processor by default.
    """
    folder = Path("results/bench")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1))
    beside = Path(__file__).parent / place(machine or processor(), version("jax"))
    beside.mkdir(exist_ok=True)
    (beside / f"{name}.md").write_text(text)
    print(text)
