"""The files that tell how a training run goes, cut back to a checkpoint when it goes on.

metrics.jsonl is a function of the run alone and the same after any kill; what depends on the clock is in
speed.jsonl. TensorBoard's event files hold both.
"""

import contextlib
import json
import math
import os
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (generated)
from tensorboardX.summary import scalar

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.matmul import Compute, product
from lm.model.parameters import count_parameters
from lm.train.step import Measures

METRICS, SPEED, EVENTS = "metrics.jsonl", "speed.jsonl", "tensorboard"
FLUSH_SECONDS = 30.0  # how old what a reader of a running run sees may be


def flops_per_token(model: ModelConfig) -> float:
    """Return the floating-point operations of one token in training, forwards and backwards.

    6 for each parameter in a matmul and 12 L H K T for the attention over T positions, not halved for
    causality (Chowdhery et al. 2022, arXiv 2204.02311, appendix B); an embedding is only a lookup.
    """
    lookups = model.context * model.width if model.position == "learned" else 0
    if not model.tied:
        lookups += model.vocabulary * model.width
    return 6.0 * (count_parameters(model) - lookups) + 12.0 * model.layers * model.query_width * model.context


def measure_peak(compute: Compute) -> float:
    """Return the FLOP/s of a square matmul of random numbers on all devices together: the best of some tries.

    An accelerator multiplies equal numbers faster, because it spends less power on them.

    Args:
        compute: type of the factors; sums are float32.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    factor = jax.random.normal(jax.random.key(0), (size, size), compute)
    multiply = jax.jit(lambda a, b: product(a, b, compute))
    multiply(factor, factor).block_until_ready()
    # An accelerator is busy for a millisecond, about as long as asking it and waiting: it gets some at a time.
    times, number = [], 1 if jax.default_backend() == "cpu" else 10
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([multiply(factor, factor) for _ in range(number)])
        times.append((time.perf_counter() - start) / number)
    # Several devices of a CPU are the same cores.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return 2 * size**3 / min(times) * devices


class Recorder:
    """Writes the measures of each update, and stops a run that is no longer finite.

    Attributes:
        tokens: targets trained on so far.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        model: ModelConfig,
        note: Mapping[str, Any] | None,
        *,
        tensorboard: bool = False,
        peak: float | None = None,
    ):
        """Open the files and cut them to the lengths that they had when the note was made.

        Args:
            folder: for the files; None only checks.
            model: whose operations are counted.
            note: of an earlier `note()`; None starts anew.
            tensorboard: whether to write event files.
            peak: FLOP/s of all devices, for the utilisation; None leaves it out.

        Raises:
            InputError: the files cannot be written.
        """
        note = note or {"tokens": 0, "files": {}}
        self.folder, self.tokens = folder, int(note["tokens"])
        self._tensorboard, self._flops, self._peak = tensorboard, flops_per_token(model), peak
        self._texts: dict[str, BinaryIO] = {}
        self._events: EventsWriter | None = None
        self._last, self._last_flush = time.perf_counter(), time.monotonic()
        if folder is not None:
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _cut(folder, note["files"])
                self._texts = {name: (folder / name).open("ab") for name in (METRICS, SPEED)}

    def record(self, step: int, measures: Measures) -> dict[str, float]:
        """Write down update number `step` (from 1) and return its metrics; waits until it is computed.

        Raises:
            InputError: its loss or gradient is not finite, or the disk is full.
        """
        loss, norm, rate, tokens = (float(np.asarray(value)) for value in measures[:4])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            _refuse(step, self.tokens, loss, measures)
        self.tokens += int(tokens)
        metrics = {
            "step": step,
            "tokens": self.tokens,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
        }
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        speed = {"step": step, "tokens_per_second": tokens / seconds}
        if self._peak:
            speed["utilisation"] = tokens * self._flops / seconds / self._peak
        if self.folder is not None:
            with _writing(self.folder):
                for name, record in ((METRICS, metrics), (SPEED, speed)):
                    self._texts[name].write((json.dumps(record) + "\n").encode())
                if self._tensorboard:
                    self._write_events(self.folder / EVENTS, step, metrics | speed)
            if time.monotonic() - self._last_flush > FLUSH_SECONDS:
                self._flush()
        return metrics | speed

    def _write_events(self, folder: pathlib.Path, step: int, values: Mapping[str, float]) -> None:
        if self._events is None:
            folder.mkdir(exist_ok=True)
            # The suffix keeps a run that goes on within the same second from writing over its first file.
            self._events = EventsWriter(str(folder / "events"), f".{step}")
        for name, value in values.items():
            if name != "step":
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def _flush(self) -> None:
        with _writing(self.folder):
            for file in (*self._texts.values(), self._events):
                if file is not None:
                    file.flush()
        self._last_flush = time.monotonic()

    def note(self) -> dict[str, Any]:
        """Write out everything and return the lengths of the files, in bytes, and the number of tokens."""
        self._flush()
        return {"tokens": self.tokens, "files": {} if self.folder is None else _sizes(self.folder)}

    def close(self) -> None:
        """Write out everything and close the files."""
        self._flush()
        for file in (*self._texts.values(), self._events):
            if file is not None:
                file.close()


@contextlib.contextmanager
def _writing(folder: pathlib.Path | None) -> Iterator[None]:
    """Turn what goes wrong on the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write metrics to {folder} ({error.strerror}); free space or choose another"
        ) from error


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    paths = [folder / METRICS, folder / SPEED, *sorted((folder / EVENTS).glob("events.*"))]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths if path.exists()}


def _cut(folder: pathlib.Path, lengths: Mapping[str, int]) -> None:
    """Cut each file to its length; what has none is younger than the checkpoint and goes."""
    found = _sizes(folder)
    for name, size in found.items():
        if name not in lengths:
            (folder / name).unlink()
        elif size > lengths[name]:
            os.truncate(folder / name, lengths[name])
    for name, length in lengths.items():
        if found.get(name, 0) < length:
            warnings.warn(f"{folder / name} is shorter than at the checkpoint; records are missing", stacklevel=4)


def _refuse(step: int, tokens: int, loss: float, measures: Measures) -> None:
    """Raise InputError that says where a run is no longer finite."""
    broken = [name for name, square in measures.squares.items() if not math.isfinite(float(np.asarray(square)))]
    more = f" and {len(broken) - 1} other parameters" if len(broken) > 1 else ""
    gradient = f"the gradient of {broken[0]}{more}" if broken else "the norm of the gradient"
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"{gradient} became infinite"
    raise InputError(
        f"{what} at step {step} (after {tokens} tokens); lower the learning rate or the clipping norm and start again"
    )
