"""Training: AdamW, warm-up then cosine, clipping; resumable to the same bytes."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lm import checkpoint
from lm.corpus import Corpus, digest
from lm.errors import InputError
from lm.model import Decoder, ModelConfig, make
from lm.packing import Rows, pack

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What happens in a training run.

    Attributes:
        steps: number of updates.
        batch: rows of `context` tokens an update.
        learning_rate: at its peak.
        warmup: updates of linear increase from 0.
        final_share: learning rate at the end, as a share of the peak; a cosine between (Loshchilov & Hutter
            2017).
        weight_decay: of the matrices (AdamW, Loshchilov & Hutter 2019); norm scales are not decayed.
        clip: largest global norm of the gradient.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        seed: of the initial weights and of the order of the documents.
        save_every: updates between checkpoints.
    """

    steps: int
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 10
    final_share: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    seed: int = 0
    save_every: int = 50

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if min(self.steps, self.batch, self.save_every) < 1 or not 0 <= self.warmup < max(self.steps, 1):
            raise InputError("steps, batch and save_every must be at least 1 and warmup below steps; change them")
        if not (self.learning_rate > 0 and self.clip > 0 and 0 <= self.final_share <= 1):
            raise InputError("learning_rate and clip must be positive and final_share in [0, 1]; change them")


def schedule(config: TrainConfig) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates done."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps, config.final_share * config.learning_rate
    )


@functools.cache  # one object a configuration: the compiled update is found again by it
def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Return clipping, then AdamW with weight decay on matrices."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule(config),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=lambda weights: jax.tree.map(lambda leaf: leaf.ndim > 1, weights),
        ),
    )


def loss(model: Decoder, inputs_BxT: Array, targets_BxT: Array, segments_BxT: Array) -> Array:
    """Return the mean negative log-likelihood of the targets, in nats, float32, scalar."""
    logits_NxV = model.head(model.hidden(inputs_BxT, segments_BxT))
    target = jnp.take_along_axis(logits_NxV, targets_BxT.reshape(-1, 1), axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits_NxV, axis=1) - target)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _update(graph: Any, state: Any, inputs: Array, targets: Array, segments: Array) -> tuple[Any, Array, Array]:
    model, updater = nnx.merge(graph, state)
    value, gradient = nnx.value_and_grad(loss)(model, inputs, targets, segments)
    updater.update(model, gradient)
    return nnx.state((model, updater)), value, optax.tree.norm(gradient)


def _describe(model: ModelConfig, config: TrainConfig, corpus: Corpus, end: int) -> str:
    what = [dataclasses.asdict(model), dataclasses.asdict(config), digest(corpus), end]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    corpus: Corpus,
    end: int,
    folder: pathlib.Path | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Decoder:
    """Train a decoder on a corpus.

    With a folder, `state.safetensors` and `metrics.jsonl` (step, tokens, loss in nats, learning_rate,
    gradient_norm) are kept there, and a run that was killed goes on from them: its weights and metrics are
    those of an undisturbed run, byte for byte, on the same machine.

    Args:
        model_config: sizes.
        config: of the run.
        corpus: documents to train on; cycled through if it is smaller than the run.
        end: end-of-text id.
        folder: for checkpoints; None keeps nothing.
        progress: called with the share done and a message.

    Raises:
        InputError: an empty corpus, a checkpoint of another run, or a loss that is not finite (with its
            step).
    """
    rows = pack(corpus, end, model_config.context, config.steps * config.batch, config.seed)
    model = make(model_config, config.seed)
    graph, state = nnx.split((model, nnx.Optimizer(model, optimizer(config), wrt=nnx.Param)))
    start, records, about = 0, [], {"run": _describe(model_config, config, corpus, end)}
    path = folder / "state.safetensors" if folder else None
    if path and path.exists():
        state, found = checkpoint.load(path, state)
        if found.get("run") != about["run"]:
            raise InputError(f"the checkpoint {path} belongs to another run; remove it to start again")
        start, records = int(found["step"]), json.loads(found["metrics"])
    rate, pending = schedule(config), None
    for step in range(start, config.steps):
        batch = slice(step * config.batch, (step + 1) * config.batch)
        state, value, norm = _update(graph, state, *_arrays(rows, batch))
        if pending is not None:  # fetched one step late, so that the device never waits for the host
            records.append(_record(config, model_config, rate, *pending))
        pending = (step, value, norm)
        last = step + 1 == config.steps
        if last or (step + 1) % config.save_every == 0:
            records.append(_record(config, model_config, rate, *pending))
            pending = None
            if path and folder:
                # One file holds weights, moments and metrics, so that a kill cannot part them.
                checkpoint.save(path, state, {**about, "step": str(step + 1), "metrics": json.dumps(records)})
        progress((step + 1) / config.steps, f"step {step + 1} of {config.steps}")
    if folder:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        beside = folder / ".metrics.jsonl"
        beside.write_text(lines, encoding="utf-8")
        beside.replace(folder / "metrics.jsonl")
    return nnx.merge(graph, state)[0]


def _arrays(rows: Rows, batch: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.inputs[batch], rows.targets[batch], rows.segments[batch]


def _record(
    config: TrainConfig, model: ModelConfig, rate: optax.Schedule, step: int, value: Array, norm: Array
) -> dict[str, float]:
    number = float(value)
    if not math.isfinite(number):
        tokens = step * config.batch * model.context
        raise InputError(
            f"the loss became {number} at step {step + 1} (after {tokens} tokens); "
            "lower the learning rate or the clipping norm and start again"
        )
    return {
        "step": step + 1,
        "tokens": (step + 1) * config.batch * model.context,
        "loss": number,
        "learning_rate": float(np.asarray(rate(step))),
        "gradient_norm": float(norm),
    }


def save_weights(path: pathlib.Path, model: Decoder) -> None:
    """Write a model's weights and configuration to one safetensors file."""
    checkpoint.save(path, nnx.state(model, nnx.Param), {"config": json.dumps(dataclasses.asdict(model.config))})


def load_weights(path: pathlib.Path, config: ModelConfig) -> Decoder:
    """Return the model in a file of `save_weights`; raises InputError if it has another configuration."""
    model = make(config, 0)
    state, about = checkpoint.load(path, nnx.state(model, nnx.Param))
    with contextlib.suppress(KeyError):
        if json.loads(about["config"]) != dataclasses.asdict(config):
            raise InputError(f"the weights in {path} belong to another configuration; remove them to start again")
    nnx.update(model, state)
    return model
