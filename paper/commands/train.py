"""`toedit train`: a decoder from scratch or from a pretrained one, on a mixture of sources."""

import json
import math
import re
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from paper.commands.bar import share_bar
from paper.commands.kept import Kept
from paper.commands.sources import is_token_folder, named, short_names, token_folder
from paper.errors import InputError
from paper.words import warn

if TYPE_CHECKING:
    from lm.data.tokenizer import Tokenizer
    from lm.model.config import ModelConfig
    from lm.model.decoder import Decoder
    from lm.train.config import TrainConfig
    from lm.train.loop import Data
    from lm.weights.load import Pretrained

FACTORS = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
SCORED = 20_000  # tokens of each validation split that are scored at the end
HARMLESS = 4  # readings of a text that teach a model about as much as new text (Muennighoff et al. 2023)
SHARE = re.compile(r"(\d+\.?\d*|\.\d+)(e-?\d)?(/\d+)?")


@dataclass(frozen=True)
class Train:
    """Train a decoder on a mixture of sources; the same command goes on where a run was stopped or killed.

    Example: `toedit train --preset small --source sotu --source novels:0.3 --tokens 2M --out runs/x`.

    The folder gets data/ (token files), checkpoints/, metrics.jsonl, speed.jsonl, tensorboard/ and, at the end,
    final/, which transformers and `toedit evaluate --model` read. On CPUs a run that went on ends in the same bytes as
    one that was left alone; on a GPU no two runs do.
    """

    source: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A named source (its training split), text files as for `toedit tokenize`, or a folder that it made; repeatable.
    NAME:SHARE gives it a share of the tokens, such as 0.3 or 1/3; what has none shares the rest evenly."""
    out: Path
    """Folder of the run."""
    tokens: str = "1M"
    """Tokens to train on: a number, also with k, M, B or T."""
    preset: str | None = None
    """Sizes and family of the model: tiny, small (the default), gpt2-124m, olmo-1b, llama3-8b, ..."""
    model: str | None = None
    """Go on from a pretrained model instead: smollm2, tiny, a folder, a .gguf file, hf:OWNER/NAME."""
    tokenizer: str | None = None
    """train:4096 to learn one of 4096 ids on the sources, smollm2, a tokenizer.json or its folder. By default the
    pretrained model's, that of the token folders, or one learned with the preset's number of ids."""
    context: int | None = None
    """Tokens of a row; the preset's by default."""
    width: int | None = None
    """Width of the residual stream, instead of the preset's."""
    layers: int | None = None
    """Number of blocks, instead of the preset's."""
    heads: int | None = None
    """Number of attention heads, instead of the preset's."""
    hidden: int | None = None
    """Width of the feed-forward layers, instead of the preset's."""
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the factors of matrix products; parameters, sums and logits are float32 always."""
    remat: Literal["none", "matmuls", "full"] = "none"
    """What the backward pass computes again to save memory: nothing, all but the matmuls, the full blocks."""
    batch: int = 16
    """Rows an update, over all devices."""
    accumulation: int = 1
    """Parts that a batch is cut into, one after the other, to save memory."""
    learning_rate: float = 3e-3
    """At its peak."""
    warmup: int | None = None
    """Updates of linear increase of the learning rate; a twentieth of all by default."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: a cosine to the end, or stable and then a linear decay."""
    decay_share: float = 0.2
    """For wsd: share of the updates, the last ones, with the decay."""
    final_share: float = 0.1
    """Learning rate of the last update, as a share of the peak."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases are not decayed."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    across: bool = False
    """Tokens see earlier documents of their row too, as in the training of GPT-2 and OLMo."""
    seed: int = 0
    """Of the initial weights and of the order of the documents."""
    save_every: int = 100
    """Updates between checkpoints."""
    keep: int = 2
    """Checkpoints that are kept, the latest."""
    data: int = 1
    """Devices that hold copies of the model, each for its share of the batch."""
    fsdp: int = 1
    """Devices over which parameters and batch are cut."""
    tensor: int = 1
    """Devices over which heads, hidden units and vocabulary are cut."""
    coordinator: str | None = None
    """For several processes: HOST:PORT of process 0 (or $TOEDIT_COORDINATOR). They share the folder of the run."""
    processes: int | None = None
    """For several processes: how many there are (or $TOEDIT_PROCESSES)."""
    process: int | None = None
    """For several processes: number of this one, from 0 (or $TOEDIT_PROCESS)."""
    peak: float | None = None
    """TFLOP/s that all devices could reach, for the utilisation; measured with one matmul by default."""
    dry_run: bool = False
    """Print the plan and stop; the tokens in data/ are made, and kept."""

    def run(self) -> int:
        """Prepare, print the plan, train, export and score; return the exit code.

        Raises:
            InputError: what cannot be used, found or written; too few devices; a checkpoint of another run; a loss
                that is not finite.
        """
        from lm.startup import before_jax

        before_jax()
        from lm.model.sharding import make_mesh
        from lm.train.distributed import Processes, connect, first_alone
        from lm.train.loop import alone, train
        from lm.train.metrics import measure_peak
        from lm.train.signals import Stopped
        from lm.weights.published import family_of
        from paper.results import check_writable

        started = time.perf_counter()
        wanted = shares(self.source)
        count = amount(self.tokens)
        self._check()
        check_writable(self.out / "metrics.jsonl")
        connect(Processes(self.coordinator, self.processes, self.process))
        import jax

        first = jax.process_index() == 0
        # All that can be refused without the text comes before it: it may take hours to prepare.
        make_mesh(self.data, self.fsdp, self.tensor)
        pretrained = self._pretrained()
        model = self._model(pretrained)
        family_of(model)
        config = self._config(model, count)
        with first_alone("prepared the text"), alone(self.out) if first else nullcontext():
            tokenizer = self._tokenizer(short_names(list(wanted)), pretrained)
            data = self._data(wanted, tokenizer)
        if pretrained is None:
            model = model.changed(vocabulary=tokenizer.size)
        if first:
            show_plan(model, config, data)
        if self.dry_run:
            return 0
        peak = measure_peak(model.compute) if self.peak is None else self.peak * 1e12
        weights = None if pretrained is None else (f"{pretrained.name} {pretrained.sha256}", pretrained.model)
        del pretrained
        try:
            with share_bar("compiling", shown=first) as progress:
                trained = train(model, config, data, self.out, progress, weights=weights, tensorboard=True, peak=peak)
        except Stopped as stopped:
            if first:
                print(f"toedit: stopped after step {stopped.step}; the same command goes on", file=sys.stderr)
            return int(stopped.code or 0)
        del weights
        trained = _whole(trained)
        with first_alone("scored the model"):
            if first:
                self._finish(trained, tokenizer, list(wanted), started)
        return 0

    def _check(self) -> None:
        """Refuse options that contradict each other."""
        if self.model is not None:
            for name in ("preset", "tokenizer", "width", "layers", "heads", "hidden"):
                if getattr(self, name) is not None:
                    raise InputError(f"--{name} does not apply to a pretrained model; leave it out, or --model")
        if self.peak is not None and not self.peak > 0:
            raise InputError(f"--peak is {self.peak}; give the TFLOP/s of all devices")

    def _pretrained(self) -> "Pretrained | None":
        if self.model is None:
            return None
        from lm.model.sharding import make_mesh
        from lm.weights.load import load

        return load(self.model, mesh=make_mesh(self.data, self.fsdp, self.tensor))

    def _model(self, pretrained: "Pretrained | None") -> "ModelConfig":
        """Return the sizes of the model, with the preset's vocabulary."""
        from lm.model.presets import preset

        sizes = {name: getattr(self, name) for name in ("context", "width", "layers", "heads", "hidden")}
        changes = {name: value for name, value in sizes.items() if value is not None}
        changes |= {"compute": self.compute, "remat": self.remat}
        if pretrained is None:
            return preset(self.preset or "small", **changes)
        given = pretrained.model.config
        context = changes.get("context", given.context)
        if context > given.context or (given.position == "learned" and context != given.context):
            raise InputError(
                f"{self.model} has a context of {given.context} and cannot have {context}; change --context"
            )
        return given.changed(**changes)

    def _config(self, model: "ModelConfig", tokens: int) -> "TrainConfig":
        """Return the settings of the run."""
        from lm.train.config import TrainConfig

        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; it must be at least 1")
        steps = math.ceil(tokens / (self.batch * model.context))
        same = ("batch", "accumulation", "learning_rate", "schedule", "decay_share", "final_share", "weight_decay")
        same += ("clip", "across", "seed", "save_every", "keep", "data", "fsdp", "tensor")
        warmup = min(steps - 1, max(1, steps // 20)) if self.warmup is None else self.warmup
        return TrainConfig(steps, warmup=warmup, **{name: getattr(self, name) for name in same})

    def _kept(self) -> Kept:
        from lm.train.loop import CHECKPOINTS

        checkpoints = self.out / CHECKPOINTS
        begun = checkpoints.is_dir() and any(one.name.isdecimal() for one in checkpoints.iterdir())
        return Kept(self.out / "data", begun=begun)

    def _tokenizer(self, names: dict[str, str], pretrained: "Pretrained | None") -> "Tokenizer":
        """Return the tokenizer; one that is learned is kept in the folder of the run."""
        from lm.data.tokenizer import Tokenizer
        from lm.model.presets import preset
        from paper.commands.tokenize import named_tokenizer

        if pretrained is not None:
            return pretrained.tokenizer
        folders = [Path(name) for name in names if is_token_folder(name)]
        if self.tokenizer is None and folders:
            return Tokenizer.from_file(folders[0] / "tokenizer.json")
        asked = self.tokenizer or f"train:{preset(self.preset or 'small').vocabulary}"
        if not asked.startswith("train:"):
            return named_tokenizer(asked)
        size = asked.removeprefix("train:")
        if not size.isdecimal():
            raise InputError(f"--tokenizer {asked} has no number of ids; write train:4096")
        if folders:
            raise InputError(
                f"{folders[0]} holds tokens and no text to learn a tokenizer on; name the tokenizer with --tokenizer"
            )
        return self._kept().tokenizer(int(size), names, "train")

    def _data(self, wanted: dict[str, Any], tokenizer: "Tokenizer") -> "Data":
        """Return the mixture; token files that are made are kept in the folder of the run."""
        from lm.data.mixture import Part
        from lm.train.loop import Data

        parts = []
        names = short_names(list(wanted))
        for number, (name, share) in enumerate(wanted.items()):
            if is_token_folder(name):
                found, notes = token_folder(name, tokenizer)
            else:
                found, notes = self._kept().tokens(f"part{number}", name, names[name], tokenizer, "train")
            parts.append(Part(names[name], found, share, notes["sha256"]))
        return Data(tuple(parts), tokenizer.end)

    def _finish(self, model: "Decoder", tokenizer: "Tokenizer", names: list[str], started: float) -> None:
        """Export the model, score it on the validation splits of the named sources and write the result."""
        from lm.evaluation.perplexity import evaluate, join
        from lm.evaluation.scoring import prepare
        from lm.weights import huggingface
        from paper.commands.evaluate import first, show, table
        from paper.results import record, write_text

        final = self.out / "final"
        huggingface.write(final, model, tokenizer)
        rows = []
        scored = [source for name in names if (source := named(name))]
        if scored:
            scorer = prepare(model, self.compute)
            evaluations = []
            for name in scored:
                found, _ = self._kept().tokens(f"validation-{name}", name, name, tokenizer, "validation")
                evaluations.append(evaluate(scorer, first(found, None, SCORED), tokenizer.end))
            rows = table(join(evaluations))
            print(f"Validation (documents with at least {SCORED:,} tokens of each source):")
            show(rows)
        result = record("train", asdict(self), {"tables": {"perplexity": rows}}, time.perf_counter() - started)
        write_text(self.out / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
        print(f"The model is in {final}; try toedit evaluate --model {final} --source sotu.")


def amount(text: str) -> int:
    """Return the number that a text such as 2M or 1.5B says; raises InputError if it says none."""
    number, factor = (text[:-1], FACTORS[text[-1]]) if text[-1:] in FACTORS else (text, 1)
    try:
        value = round(float(number) * factor)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise InputError(f"--tokens {text} is no number of tokens; give one such as 500k, 2M or 1B")
    return value


def shares(sources: Iterable[str]) -> dict[str, Any]:
    """Return each source with its share, as a fraction.

    Args:
        sources: NAME or NAME:SHARE each; those without a share divide what is left evenly.

    Raises:
        InputError: no sources, one twice, or shares that leave nothing for the rest.
    """
    from fractions import Fraction

    from lm.data.mixture import exact

    given: dict[str, Fraction | None] = {}
    for text in sources:
        name, _, share = text.rpartition(":")
        # source:NAME, hub:OWNER/NAME:CONFIGURATION and C:\\x have a colon too, but no number after it.
        has_share = bool(name and SHARE.fullmatch(share))
        name = name if has_share else text
        if (named(name) or name) in [named(other) or other for other in given]:
            raise InputError(f"the source {name} is named twice; give it once with its share")
        given[name] = exact(share, name) if has_share else None
    if not given:
        raise InputError("there is nothing to train on; name a source with --source")
    open_ones = [name for name, share in given.items() if share is None]
    left = 1 - sum((share for share in given.values() if share is not None), Fraction(0))
    total = f"the shares of the sources sum to {float(1 - left):g}"
    if open_ones and left <= 0:
        raise InputError(f"{total}, which leaves nothing for {' and '.join(open_ones)}; lower them, or leave that out")
    if not open_ones and left != 0:
        raise InputError(f"{total}; make them 1, or leave one source without a share")
    return {name: left / len(open_ones) if share is None else share for name, share in given.items()}


def show_plan(model: "ModelConfig", config: "TrainConfig", data: "Data") -> None:
    """Print what will be done."""
    from rich.console import Console
    from rich.table import Table

    from lm.data.mixture import Mixture
    from lm.model.parameters import count_parameters
    from lm.train.metrics import flops_per_token

    tokens = config.steps * config.batch * model.context
    console = Console(highlight=False)
    console.print(
        f"{count_parameters(model):,} parameters; {config.steps:,} updates of {config.batch} x {model.context} = "
        f"{tokens:,} tokens; {flops_per_token(model) * tokens:.3g} FLOPs; "
        f"mesh data {config.data} x fsdp {config.fsdp} x tensor {config.tensor}."
    )
    drawn = Table()
    for column in ("source", "share", "tokens", "available", "epochs"):
        drawn.add_column(column, justify="left" if column == "source" else "right")
    uses = Mixture(data.parts, data.end, model.context, config.seed).use(config.steps * config.batch)
    for use in uses:
        drawn.add_row(use.name, str(use.share), f"{use.tokens:,}", f"{use.available:,}", f"{use.epochs:.3g}")
    console.print(drawn)
    for use in uses:
        if use.epochs > HARMLESS:
            warn(
                f"the text of {use.name} is read {use.epochs:.3g} times; beyond {HARMLESS} it teaches less "
                "and less (Muennighoff et al. 2023): give more of it, or train on fewer tokens or a smaller share",
            )


def _whole(model: "Decoder") -> "Decoder":
    """Return a model whose arrays this process can read as a whole."""
    import jax
    from jax.experimental.multihost_utils import process_allgather

    from lm.model.decoder import from_arrays, named

    if jax.process_count() == 1:
        return model
    arrays = {name: process_allgather(array, tiled=True) for name, array in named(model).items()}
    return from_arrays(model.config, arrays)
