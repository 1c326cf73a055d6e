"""The training loop: batches in, checkpoints and metrics out; killed at any moment, it goes on.

On CPUs to the same bytes. A GPU takes the sums of a gradient in another order in every run, so that two runs differ by
rounding, and in time by more, killed or not.
"""

import contextlib
import dataclasses
import fcntl
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from lm.data.loader import Loader, local_rows
from lm.data.mixture import Part
from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.decoder import Decoder, named
from lm.model.sharding import batch_sharding, make_mesh, stream_sharding
from lm.train.checkpoint import Checkpoints
from lm.train.config import TrainConfig
from lm.train.distributed import global_batch, stop_flags
from lm.train.metrics import Recorder
from lm.train.signals import Listener, Stopped
from lm.train.step import Measures, abstract_state, start, updater

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        parts: corpora and their shares.
        end: end-of-text id.
    """

    parts: Sequence[Part]
    end: int


def _description(model: ModelConfig, config: TrainConfig, loader: Loader, first: str | None) -> dict[str, Any]:
    sizes = dataclasses.asdict(model)
    del sizes["remat"]  # changes what is kept in memory only
    data = {"shares": {use.name: str(use.share) for use in loader.use}, "sha256": loader.fingerprint}
    return {"model": sizes, "training": config.describe(), "data": data, "weights": first}


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system frees it when the process ends, however it ends.

    Raises:
        InputError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose one that you may write to") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another run is training in {folder}; wait until it ends, or choose another") from error
        yield


def train(
    model: ModelConfig,
    config: TrainConfig,
    data: Data,
    folder: pathlib.Path | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
    *,
    weights: tuple[str, Decoder] | None = None,
    tensorboard: bool = False,
    peak: float | None = None,
    observe: tuple[Sequence[int], Callable[[int, Decoder], None]] | None = None,
) -> Decoder:
    """Train a decoder.

    With a folder, checkpoints, metrics.jsonl (step, tokens, loss in nats, learning_rate, gradient_norm; the
    loss and norm of the batch before its update) and speed.jsonl are kept there, and a run that was killed goes
    on from the last checkpoint: its weights and metrics are those of an undisturbed run, bit by bit, on the
    same devices. SIGTERM and Ctrl-C save after the current update.

    Args:
        model: sizes.
        config: of the run.
        data: mixture of corpora.
        folder: for checkpoints and metrics; None keeps nothing.
        progress: called with the share done and a message.
        weights: name and model to start from instead of random weights.
        tensorboard: whether to write TensorBoard's event files too.
        peak: FLOP/s of all devices together, for the utilisation in speed.jsonl.
        observe: after these updates, a function is given the number of the update and the model; a run that goes on
            from a checkpoint does not repeat those before it, so what it finds is to be kept by then.

    Returns:
        The trained decoder, its parameters on the mesh.

    Raises:
        InputError: too few devices, a folder in use, a checkpoint of another run, a full disk, or a loss or
            gradient that is not finite (with its step).
        Stopped: a signal came; the state is saved.
    """
    mesh = make_mesh(config.data, config.fsdp, config.tensor)
    loader = Loader(
        data.parts,
        end=data.end,
        context=model.context,
        batch=config.batch,
        steps=config.steps,
        seed=config.seed,
        local=local_rows(batch_sharding(mesh), config.batch, model.context),
    )
    update = updater(model, config, mesh)
    run = _description(model, config, loader, weights[0] if weights else None)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(Listener())  # to the end: the last checkpoint is still to be written
        opened.enter_context(contextlib.closing(loader))
        writes = folder if jax.process_index() == 0 else None
        if writes:
            opened.enter_context(alone(writes))
        checkpoints = opened.enter_context(Checkpoints(folder / CHECKPOINTS, config.keep, run)) if folder else None
        found = checkpoints.restore(abstract_state(model, config, mesh)) if checkpoints else None
        if found:
            state, note = found
            loader.set_state(note["data"])
        else:
            state, note = start(model, config, mesh, named(weights[1]) if weights else None), None
        recorder = Recorder(writes, model, note and note["metrics"], tensorboard=tensorboard, peak=peak)
        opened.enter_context(contextlib.closing(recorder))
        pending: tuple[int, Measures] | None = None

        def fetch() -> bool:
            """Record the update before this one, which computes meanwhile; return whether a process should stop."""
            nonlocal pending
            if pending is None:
                return False
            (number, measures), pending = pending, None
            numbers = recorder.record(number, measures)
            speed = f"{numbers['tokens_per_second']:,.0f} tokens/s"
            progress(number / config.steps, f"step {number} of {config.steps}, loss {numbers['loss']:.4f}, {speed}")
            return int(measures.stop) > 0

        while loader.step < config.steps:
            parts = [array.reshape(config.accumulation, -1, model.context) for array in next(loader)]
            flags = stop_flags(mesh, listener.number > 0)
            state, measures = update(state, global_batch(mesh, config.batch, parts), flags)
            step = loader.step
            # Several processes must stop after the same update: a signal to one is told to all, one update late.
            told = fetch()
            stop = told if jax.process_count() > 1 else listener.number > 0
            pending = (step, measures)
            if observe and step in observe[0]:
                observe[1](step, Decoder(model, state.parameters, stream_sharding(mesh)))
            if checkpoints and (stop or step == config.steps or step % config.save_every == 0):
                fetch()  # what is saved must be finite, and the metrics complete
                checkpoints.save(step, state, {"data": loader.get_state(), "metrics": recorder.note()})
            if stop and step < config.steps:
                raise Stopped(listener.number or signal.SIGTERM, step)
        fetch()
    return Decoder(model, state.parameters, stream_sharding(mesh))
