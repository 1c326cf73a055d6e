"""What happens in a training run, and the learning rate and optimiser that follow from it."""

import dataclasses
from typing import Any, Literal

import optax

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.parameters import is_matrix, parameters

# They change the rounding or the bookkeeping of a run, not what is computed: a checkpoint goes on with others.
FREE = ("accumulation", "save_every", "keep", "loss_chunk", "data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        steps: number of updates.
        batch: rows of `context` tokens an update, over all devices.
        learning_rate: at its peak.
        warmup: updates of linear increase to the peak.
        schedule: after the warm-up, a "cosine" to the end (Loshchilov & Hutter 2017), or "wsd": stable, then
            linear (Hu et al. 2024, arXiv 2404.06395).
        decay_share: of the updates, the last ones, that "wsd" spends on the decrease.
        final_share: learning rate of the last update, as a share of the peak.
        weight_decay: of matrices (AdamW, Loshchilov & Hutter 2019); norms and biases are not decayed.
        clip: largest global norm of the gradient.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        across: whether tokens see earlier documents of their row too, as in the training of GPT-2 and OLMo, instead of
            their own document only.
        seed: of the initial weights and of the order of the documents.
        accumulation: parts that a batch is cut into, one after the other, to save memory.
        save_every: updates between checkpoints.
        keep: checkpoints that are kept, the latest.
        loss_chunk: tokens whose logits each device has in memory at a time; 0: as many as suit it.
        data: devices that hold copies of the model, each for its share of the batch.
        fsdp: devices over which parameters and batch are cut.
        tensor: devices over which heads, hidden units and vocabulary are cut.
    """

    steps: int
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 10
    schedule: Literal["cosine", "wsd"] = "cosine"
    decay_share: float = 0.2
    final_share: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    across: bool = False
    seed: int = 0
    accumulation: int = 1
    save_every: int = 50
    keep: int = 2
    loss_chunk: int = 0
    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        counts = ("steps", "batch", "accumulation", "save_every", "keep", "data", "fsdp", "tensor")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.steps >= 2**31:
            raise InputError(
                f"{self.steps} updates cannot be counted in 32 bits; train on fewer tokens, or larger batches"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must be from 0 to {2**32 - 1}")
        if self.loss_chunk < 0:
            raise InputError(f"loss_chunk is {self.loss_chunk}; it must be 0 (chosen by the device) or more")
        if not 0 <= self.warmup < self.steps:
            raise InputError(f"a warm-up of {self.warmup} does not fit {self.steps} steps; make it shorter")
        if not (self.learning_rate > 0 and self.clip > 0 and self.epsilon > 0 and self.weight_decay >= 0):
            raise InputError("learning_rate, clip and epsilon must be positive and weight_decay not negative")
        if not (0 <= self.final_share <= 1 and 0 < self.decay_share <= 1):
            raise InputError("final_share must be in [0, 1] and decay_share in (0, 1]; change them")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise InputError("beta1 and beta2 must be in [0, 1); change them")
        if self.batch % (self.accumulation * self.rows_cut):
            raise InputError(
                f"a batch of {self.batch} rows cannot be cut into {self.accumulation} parts for "
                f"{self.rows_cut} devices; make it a multiple of {self.accumulation * self.rows_cut}"
            )

    @property
    def rows_cut(self) -> int:
        """Devices over which the rows of a batch are shared out."""
        return self.data * self.fsdp

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint of the same run must share: all but what is `FREE`."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in FREE}
        if not self.across:
            del fields["across"]  # checkpoints of runs that could not choose it go on
        return fields


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates done before.

    Update 1 has 1 / warmup of the peak, update `warmup` the peak, update `steps` the final share.
    """
    peak, final = config.learning_rate, config.final_share * config.learning_rate
    if config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, peak, config.warmup, config.steps, final)
    else:
        decay = min(max(1, round(config.decay_share * config.steps)), config.steps - config.warmup)
        # A linear schedule is constant before its start, which is the stable part.
        stable_then_linear = optax.linear_schedule(peak, final, decay, config.steps - decay - config.warmup)
        warm = optax.linear_schedule(0.0, peak, config.warmup)
        rate = optax.join_schedules([warm, stable_then_linear], [config.warmup])
    return lambda done: rate(done + 1)


def optimizer(model: ModelConfig, config: TrainConfig) -> optax.GradientTransformation:
    """Return clipping by the global norm, then AdamW, for a dictionary of parameters by name."""
    decayed = {name: is_matrix(name, model) for name in parameters(model)}
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
