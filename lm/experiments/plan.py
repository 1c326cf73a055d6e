"""What an experiment costs and can see, before any training.

FLOPs: a token costs 6 N + 12 L H K T in training and a third of it in a forward pass, with N the parameters in matrix
products, L layers, H heads of width K, and T positions (Chowdhery et al. 2022, arXiv 2204.02311, appendix B; the 6 N
is Kaplan et al.'s 2020, arXiv 2001.08361).
"""

import dataclasses
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Literal

from scipy.stats import norm
from scipy.stats import t as student

from lm.editing.prior import CONTEXT
from lm.errors import InputError
from lm.experiments import graph
from lm.experiments.designs import EXPERIMENTS, find_experiment
from lm.experiments.nodes import Edited, Human, Joined, Made, Node, Proposal, Run, Sampled, Subsample, Synthetic
from lm.experiments.presets import Preset, Setup
from lm.experiments.tables import LEVEL, WORKS_ERRORS
from lm.model.config import Compute, ModelConfig
from lm.model.parameters import count_parameters
from lm.model.presets import preset as find_model
from lm.train.loss import default_chunk
from lm.train.metrics import flops_per_token
from lm.weights.load import load

Kind = Literal["trained", "sampled", "scored"]
KINDS: tuple[Kind, ...] = ("trained", "sampled", "scored")

POWER = 0.8
# Share of a square matmul's rate that the laptop's models reach on two cores, and what each node takes besides, most
# of it compilation: measured on the preset laptop.
UTILISATION: dict[Kind, float] = {"trained": 0.2, "sampled": 0.05, "scored": 0.3}
START_SECONDS = 10.0
# An H100 or H200: dense bfloat16 FLOP/s (NVIDIA's data sheets). Llama 3 was trained at 38-43 % of it (Grattafiori et
# al. 2024, arXiv 2407.21783, section 3.3.2); sampling waits for memory, its share is an assumption.
GPU_FLOPS = 989e12
GPU_UTILISATION: dict[Kind, float] = {"trained": 0.4, "sampled": 0.02, "scored": 0.4}
# What each node takes besides, most of it compilation: measured with the preset gpu, models of 17 million parameters,
# four processes on an H200 (893 s for 102 nodes, of which the shares above explain 254).
GPU_START_SECONDS = 6.0
PROCESS_BYTES = 500 << 20  # of Python and JAX with nothing in them

_PRIORS = {"smollm2": "smollm2-135m", "hf:meta-llama/Meta-Llama-3-8B": "llama3-8b"}


@dataclasses.dataclass(frozen=True)
class Work:
    """Tokens that go through models.

    Attributes:
        kind: what is done with them.
        compute: type of the factors of the products.
        tokens: number.
        flops: of all of them.
    """

    kind: Kind
    compute: Compute
    tokens: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment costs and can see.

    Attributes:
        experiment: its name.
        variant: of the preset, "" for its own setup.
        model: name of the models' sizes.
        parameters: of each model.
        seeds: replications.
        arms: models of a seed, the human-only one among them.
        counts: "models", "samples", "scored" (corpora that a prior scores), "edits" to make in all.
        finished: how many of all these are in the folder already.
        shared: of the models, how many other experiments in the same folder use too.
        tokens_a_model: that each is trained on.
        tokens: of all, by kind: trained, sampled, scored.
        flops: the same.
        left: work that is not finished.
        nodes_left: corpora and models that are not made yet.
        disk: bytes that will be written at most, of what is left.
        memory: bytes of a process at most, with a device each.
        effect: paired difference, in nats a token, that would be seen with a probability of `POWER`; None if not known.
        effect_reason: what that is taken from, or why it is not known.
    """

    experiment: str
    variant: str
    model: str
    parameters: int
    seeds: int
    arms: int
    counts: dict[str, int]
    finished: int
    shared: int
    tokens_a_model: int
    tokens: dict[str, float]
    flops: dict[str, float]
    left: tuple[Work, ...]
    nodes_left: int
    disk: float
    memory: float
    effect: float | None
    effect_reason: str

    @property
    def gpu_hours(self) -> float:
        """Hours of one H100 or H200 for what is left."""
        busy = sum(work.flops / (GPU_UTILISATION[work.kind] * GPU_FLOPS) for work in self.left)
        return (busy + GPU_START_SECONDS * self.nodes_left) / 3600

    def seconds(self, peak: Mapping[Compute, float], processes: int) -> float:
        """Return the seconds that what is left takes.

        Args:
            peak: FLOP/s of a square matmul on all cores or devices, by type of its factors.
            processes: that share them.
        """
        busy = sum(work.flops / (UTILISATION[work.kind] * peak[work.compute]) for work in self.left)
        return busy + START_SECONDS * self.nodes_left / max(1, min(processes, self.nodes_left))


def plan(
    name: str,
    preset: Preset,
    sd: float | None = None,
    works_error: float | None = None,
    folder: pathlib.Path | None = None,
    variant: str = "",
) -> Plan:
    """Return what an experiment costs and can see.

    Args:
        name: of the experiment.
        preset: its size, one of `Preset.sizes`.
        sd: of paired differences over seeds, nats a token, from earlier models; None if there are none.
        works_error: standard error of such a difference over the works of the test text; None if not known.
        folder: where finished corpora and models may be.
        variant: name of that size.

    Raises:
        InputError: an unknown experiment or prior, no seeds.
    """
    experiment, setup = find_experiment(name), preset.setup
    if not preset.seeds:
        raise InputError("an experiment needs at least one seed; give some, such as 0 1 2")
    cells = experiment.cells(preset)
    nodes = graph.made([cell.run for cell in cells])
    left = [node for node in nodes if folder is None or not node.whole(folder)]
    work = [part for node in nodes for part in work_of(node, setup)]
    model = setup.config()
    effect, reason = detectable(sd, works_error, len(preset.seeds))
    return Plan(
        name,
        variant,
        setup.model,
        count_parameters(model),
        len(preset.seeds),
        len({cell.arm for cell in cells}),
        {
            "models": sum(isinstance(node, Run) for node in nodes),
            "samples": sum(isinstance(node, Sampled) for node in nodes),
            "scored": sum(isinstance(node, Proposal) for node in nodes),
            "edits": sum(isinstance(node, Edited) for node in nodes),
        },
        len(nodes) - len(left),
        0 if variant else _shared(name, preset, nodes),
        setup.steps * setup.batch * model.context,
        {kind: sum(part.tokens for part in work if part.kind == kind) for kind in KINDS},
        {kind: sum(part.flops for part in work if part.kind == kind) for kind in KINDS},
        tuple(part for node in left for part in work_of(node, setup)),
        len(left),
        _disk(left, setup, 1 if preset.devices > 1 else os.cpu_count() or 1),
        _memory(nodes, setup, preset.devices),
        effect,
        reason,
    )


def _shared(name: str, preset: Preset, nodes: Iterable[Made]) -> int:
    others = {
        node.key
        for other, experiment in EXPERIMENTS.items()
        if other != name and other not in preset.variants
        for node in graph.made([cell.run for cell in experiment.cells(preset)])
    }
    return sum(isinstance(node, Run) and node.key in others for node in nodes)


def human_tokens(setup: Setup) -> int:
    """Return the number of tokens of the human training text."""
    return setup.texts.train_tokens * len(setup.texts.trained)


def tokens_of(text: Node, setup: Setup) -> float:
    """Return the number of tokens of a corpus, to one document."""
    if isinstance(text, Human | Synthetic | Sampled):
        return text.share * human_tokens(setup)
    if isinstance(text, Joined):
        return sum(tokens_of(one, setup) for one in text.texts)
    if isinstance(text, Subsample):
        return human_tokens(setup)
    if isinstance(text, Edited):
        return tokens_of(text.proposal.text, setup)
    raise TypeError(f"{type(text).__name__} is no corpus")


def prior_config(name: str) -> ModelConfig:
    """Return the sizes of a pretrained prior as it is used; raises InputError for an unknown one."""
    found = find_model(_PRIORS[name]) if name in _PRIORS else load(name).model.config
    return found.changed(context=min(found.context, CONTEXT), compute="bfloat16")


def work_of(node: Made, setup: Setup) -> list[Work]:
    """Return what goes through models when a node is made.

    What a prior scores is counted in the experiment's own tokens, of which there are not fewer than of the prior's
    where its vocabulary is larger.
    """
    model = setup.config()
    if isinstance(node, Run):
        trained = setup.steps * setup.batch * model.context
        texts = setup.texts
        domains = len(texts.trained) + len(texts.held_out) + 1
        tested = setup.evaluations * texts.test_tokens * domains
        each = flops_per_token(model)
        return [
            Work("trained", model.compute, trained, trained * each),
            Work("scored", model.compute, tested, tested * each / 3),
        ]
    if isinstance(node, Sampled):
        tokens = tokens_of(node, setup)
        return [Work("sampled", model.compute, tokens, tokens * flops_per_token(model) / 3)]
    if isinstance(node, Proposal):
        prior = model if isinstance(node.prior, Run) else prior_config(node.prior)
        tokens = tokens_of(node.text, setup)
        return [Work("scored", prior.compute, tokens, tokens * flops_per_token(prior) / 3)]
    return []


def detectable(sd: float | None, works_error: float | None, seeds: int) -> tuple[float | None, str]:
    """Return the smallest paired difference that is called by its direction with a probability of `POWER`, and why.

    Over seeds it is (t_{.975, n-1} + t_{.8, n-1}) sd / sqrt(n), over the works of the test text (2 + z_{.8}) of their
    standard error; the larger counts, as `lm.experiments.tables.direction` asks for both.
    """
    if sd is None:
        return None, "not known: no finished models to take the spread over seeds from"
    if seeds < 2:
        return None, "not known: a single seed has no interval"
    factor = float(student.ppf((1 + LEVEL) / 2, seeds - 1) + student.ppf(POWER, seeds - 1))
    over_seeds = factor * sd / math.sqrt(seeds)
    over_works = (WORKS_ERRORS + float(norm.ppf(POWER))) * (works_error or 0.0)
    if over_works > over_seeds:
        return over_works, f"the test text's works decide (standard error {works_error:.2g}); more seeds do not help"
    return over_seeds, f"{seeds} seeds decide (standard deviation of a paired difference {sd:.2g})"


def _disk(nodes: Iterable[Made], setup: Setup, at_once: int) -> float:
    """Return bytes: models as float32, checkpoints of one model, scores, token files of the text, sampled, edited."""
    texts = setup.texts
    tested = texts.test_tokens * (len(texts.trained) + len(texts.held_out) + 1)
    size = 4 if setup.texts.vocabulary > 1 << 16 else 2
    total = size * (2 * human_tokens(setup) + tested)
    keep, parameters = setup.training(0).keep, count_parameters(setup.config())
    runs = sum(isinstance(node, Run) for node in nodes)
    total += runs * 4 * parameters
    # One checkpoint more than are kept is there while it is written; finished models have none.
    total += min(runs, at_once) * (keep + 1) * 12 * parameters
    for node in nodes:
        if isinstance(node, Sampled | Edited):
            total += 4 * tokens_of(node, setup)
        elif isinstance(node, Proposal):
            total += 9 * tokens_of(node.text, setup)
    return total


def _memory(nodes: Iterable[Made], setup: Setup, devices: int) -> float:
    """Return bytes of the largest process: training, or a prior that scores."""
    model = setup.config()
    used = training_bytes(model, setup.batch // devices)
    for node in nodes:
        if isinstance(node, Proposal) and not isinstance(node.prior, Run):
            used = max(used, 8 * count_parameters(prior_config(node.prior)))
    return PROCESS_BYTES + used


def training_bytes(model: ModelConfig, rows: int) -> float:
    """Return bytes that training holds on one device, about.

    24 a parameter (weights, gradient, two moments and copies on the way), 12 for each logit of a piece of the loss, and
    4 for each number that the backward pass wants: of each token and layer about 10 widths of the residual stream and 3
    or 4 of the feed-forward layer (Korthikanti et al. 2022, arXiv 2205.05198, without the attention's scores, which are
    computed again). XLA's own count for GPT-2 124M is 4 % less, for the laptop's models 5 % more.

    Args:
        model: its sizes.
        rows: of `context` tokens at a time.
    """
    tokens = rows * model.context
    logits = min(default_chunk(), tokens) * model.vocabulary
    kept = 10 * model.width + (4 if model.gated else 3) * model.hidden
    return 24 * count_parameters(model) + 12 * logits + 4 * tokens * model.layers * kept


def check_room(plans: Iterable[Plan], folder: pathlib.Path, processes: int, device: float | None = None) -> None:
    """Refuse experiments that do not fit.

    Args:
        plans: made one after the other.
        folder: that is written.
        processes: at a time.
        device: bytes of an accelerator's memory, in which models are; None where the cores compute.

    Raises:
        InputError: too little disk or memory.
    """
    plans = list(plans)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk, free = sum(one.disk for one in plans if one.nodes_left), shutil.disk_usage(existing).free
    if disk > free:
        raise InputError(
            f"the experiment writes up to {disk / 1e9:,.1f} GB and {folder} has {free / 1e9:,.1f} GB free; free space "
            "or choose another folder"
        )
    largest = max((one.memory for one in plans if one.nodes_left), default=0.0)
    if device is not None and processes * largest > device:
        raise InputError(
            f"the experiment needs {processes * largest / 1e9:,.1f} GB of the accelerator's memory for {processes} "
            f"processes, and it has {device / 1e9:,.1f} GB; choose fewer, a smaller preset or a larger device"
        )
    needed = processes * (PROCESS_BYTES if device is not None else largest)
    available = available_memory()
    if needed > available:
        raise InputError(
            f"the experiment needs {needed / 1e9:,.1f} GB of memory for {processes} processes and "
            f"{available / 1e9:,.1f} GB are available; choose a smaller preset or a larger machine"
        )


def available_memory() -> float:
    """Return bytes of memory that a new process can have."""
    information = pathlib.Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
