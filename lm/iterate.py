"""Generations of training on one's own text: replace, accumulate, edit, and a random-edit control.

Generation 0 is trained on human text. For generation g = 1, 2, ... of a rule, with the model of generation g
- 1:

    replace      train on text sampled from it, as many tokens as the human corpus has;
    accumulate   train on the human text and everything sampled so far in this arm;
    edit         edit the previous corpus with it as the prior (Algorithm 1; the `share` most confident tokens
                 redrawn), train on the result;
    edit-random  the same number of changed tokens, at uniformly random positions.

All models have the same number of updates of the same size, so a larger corpus is seen less often. Within a
seed all models start from the same weights, and equal seeds of sampling give replace and accumulate the same
first samples.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lm.data.corpus import Corpus, from_tokens, join
from lm.data.mixture import Part
from lm.data.prepare import Prepared, prepare
from lm.editing.config import EditConfig
from lm.editing.corpus import confident_positions, propose, quantile_threshold, random_positions, redraw
from lm.editing.prior import prepare_prior
from lm.errors import InputError
from lm.evaluation.perplexity import evaluate
from lm.generation.unconditional import generate_tokens
from lm.memory import keep_freed_memory
from lm.model.config import ModelConfig
from lm.model.decoder import Decoder
from lm.train.config import TrainConfig
from lm.train.loop import CHECKPOINTS, Data, train
from lm.weights import huggingface
from lm.weights.load import load

RULES = ("replace", "accumulate", "edit", "edit-random")
UNTESTABLE = 0.001  # effective edit rate below which an edited corpus is the same corpus for a test of this size
REFUSED = 2  # exit code of a worker that was given something it cannot use


@dataclasses.dataclass(frozen=True)
class IterateConfig:
    """What the generations are made of.

    Attributes:
        rules: of `RULES`; edit before edit-random.
        generations: after generation 0.
        seeds: each is a whole replication: weights, order, samples, draws.
        share: of editable tokens that an edit selects, the most confident ones.
        candidates: k of the redraw.
        temperature: of the redraw; sampling for replace and accumulate is at 1.
        steps: updates of each training run.
        batch: rows an update.
        learning_rate: peak.
        width: of the model.
        layers: of the model.
        context: of the model, tokens.
        corpus: settings of `lm.prepare.prepare`.
    """

    rules: tuple[str, ...]
    generations: int
    seeds: tuple[int, ...]
    share: float
    candidates: int
    temperature: float
    steps: int
    batch: int
    learning_rate: float
    width: int
    layers: int
    context: int
    corpus: dict[str, Any]

    def __post_init__(self):
        """Check rules and counts; raises InputError."""
        unknown = set(self.rules) - set(RULES)
        if unknown or ("edit-random" in self.rules and "edit" not in self.rules):
            raise InputError(f"rules must be among {', '.join(RULES)}, and edit-random needs edit; change them")
        if self.generations < 1 or not self.seeds:
            raise InputError("iterating needs at least one generation and one seed; raise them")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "IterateConfig":
        """Return the configuration that a JSON object holds (lists become tuples)."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(**values)

    def model(self, vocabulary: int) -> ModelConfig:
        """Return the sizes of the models."""
        heads = max(1, self.width // 32)
        return ModelConfig(vocabulary, self.context, self.width, self.layers, heads, hidden=3 * self.width)

    def training(self, seed: int) -> TrainConfig:
        """Return the settings of each training run of a seed."""
        return TrainConfig(
            self.steps,
            self.batch,
            self.learning_rate,
            warmup=max(1, self.steps // 10),
            seed=seed,
            save_every=200,
        )


def units(config: IterateConfig) -> list[tuple[int, str, int]]:
    """Return (seed, rule, generation), each after what it needs; rule "human" is generation 0."""
    chain = [(rule, number) for rule in RULES if rule in config.rules for number in range(1, config.generations + 1)]
    return [(seed, *unit) for seed in config.seeds for unit in [("human", 0), *chain]]


def _write_json(path: pathlib.Path, data: Any) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    beside.replace(path)


def _text_statistics(corpus: Corpus) -> dict[str, float]:
    """Return shares of distinct unigrams and trigrams, and the unigram entropy in bits."""
    tokens = np.asarray(corpus.tokens, np.int64)
    trigrams = (tokens[:-2] << 40) | (tokens[1:-1] << 20) | tokens[2:]
    counts = np.bincount(tokens)
    p = counts[counts > 0] / len(tokens)
    return {
        "documents": len(corpus),
        "tokens": len(tokens),
        "distinct_tokens": len(p),
        "distinct_trigram_share": len(np.unique(trigrams)) / max(len(trigrams), 1),
        "unigram_entropy_bits": float(-(p * np.log2(p)).sum()),
        "mean_document_tokens": len(tokens) / len(corpus),
    }


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the files of a run are."""

    folder: pathlib.Path

    def unit(self, seed: int, rule: str, generation: int) -> pathlib.Path:
        return self.folder / f"seed{seed}" / f"{rule}-{generation}"

    def done(self, seed: int, rule: str, generation: int) -> pathlib.Path:
        return self.unit(seed, rule, generation) / "unit.json"

    def previous(self, seed: int, rule: str, generation: int) -> pathlib.Path:
        return self.unit(seed, "human", 0) if generation == 1 else self.unit(seed, rule, generation - 1)


def _save_tokens(path: pathlib.Path, corpus: Corpus) -> None:
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        np.savez(file, tokens=corpus.tokens, starts=corpus.starts)
    beside.replace(path)


def _load_tokens(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["tokens"], arrays["starts"]


def _sampled(config: IterateConfig, prepared: Prepared, place: _Place, seed: int, rule: str, generation: int) -> Corpus:
    """Return the text sampled from the previous model of a chain, from its file if it was made before."""
    source = place.previous(seed, rule, generation)
    path = source / f"sample-{generation}.npz"
    prefix = f"generation-{generation}"
    if not path.exists():
        model, _ = huggingface.load(source / "model")
        budget = len(prepared.train.tokens)
        documents = generate_tokens(model, prepared.tokenizer.end, budget, prefix, seed)
        _save_tokens(path, from_tokens(documents, prefix, prepared.tokenizer))
    tokens, starts = _load_tokens(path)
    return from_tokens(np.split(tokens, starts[1:-1]), prefix, prepared.tokenizer)


def _edited(
    config: IterateConfig, prepared: Prepared, place: _Place, seed: int, rule: str, generation: int
) -> tuple[Corpus, dict[str, Any]]:
    """Return the previous corpus edited with the previous model, and what was done."""
    source, human = place.previous(seed, rule, generation), prepared.train
    old = human
    if generation > 1:
        old = dataclasses.replace(human, tokens=_load_tokens(source / "corpus.npz")[0])
    # Each generation draws anew: the same numbers twice would redraw the same quantiles.
    draws = EditConfig(top_k=config.candidates, temperature=config.temperature, seed=seed * 1000 + generation)
    proposal = propose(prepare_prior(load(str(source / "model")), compute="float32"), old, draws)
    possible = proposal.probability[proposal.editable]
    threshold = quantile_threshold(possible, config.share)
    if rule == "edit":
        selected = confident_positions(proposal, threshold)
    else:
        twin = json.loads(place.done(seed, "edit", generation).read_text(encoding="utf-8"))["edit"]
        selected = random_positions(old, proposal, twin["changed"], draws.seed)
    new = redraw(old, proposal, selected)
    changed = int((new != old.tokens).sum())
    return old.with_tokens(new, prepared.tokenizer), {
        "threshold": threshold if rule == "edit" else None,
        "tokens": len(new),
        "selected": int(selected.sum()),
        "changed": changed,
        "selected_share": float(selected.mean()),
        "effective_rate": changed / len(new),
        "different_from_human": float((new != human.tokens).mean()),
        "share_above_099": float((possible >= 0.99).mean()),
        "share_above_09": float((possible >= 0.9).mean()),
        "median_probability": float(np.median(possible)),
        "testable": changed / len(new) >= UNTESTABLE,
    }


def _corpus_of(
    config: IterateConfig, prepared: Prepared, place: _Place, seed: int, rule: str, generation: int
) -> tuple[Corpus, dict[str, Any] | None]:
    if rule == "human":
        return prepared.train, None
    if rule == "replace":
        return _sampled(config, prepared, place, seed, rule, generation), None
    if rule == "accumulate":
        samples = [_sampled(config, prepared, place, seed, rule, number) for number in range(1, generation + 1)]
        return join([prepared.train, *samples]), None
    return _edited(config, prepared, place, seed, rule, generation)


def run_unit(
    config: IterateConfig,
    prepared: Prepared,
    folder: pathlib.Path,
    unit: tuple[int, str, int],
    progress: Callable[[float, str], None],
) -> None:
    """Make one generation of one rule and seed: corpus, model, evaluation; nothing if it is there already.

    Args:
        config: of the run.
        prepared: human text.
        folder: of the run; the unit's files are in seedS/RULE-G/, unit.json last.
        unit: (seed, rule, generation).
        progress: called with the share of the training done.
    """
    place = _Place(folder)
    here = place.unit(*unit)
    if place.done(*unit).exists():
        return
    here.mkdir(parents=True, exist_ok=True)
    corpus, edit = _corpus_of(config, prepared, place, *unit)
    model_config = config.model(prepared.tokenizer.size)
    data = Data([Part("corpus", corpus)], prepared.tokenizer.end)
    model: Decoder = train(model_config, config.training(unit[0]), data, here, progress)
    huggingface.write(here / "model", model, prepared.tokenizer)
    if edit is not None:
        _save_tokens(here / "corpus.npz", corpus)
    metrics = [json.loads(line) for line in (here / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    result = {
        "seed": unit[0],
        "rule": unit[1],
        "generation": unit[2],
        "corpus": _text_statistics(corpus),
        "edit": edit,
        "train_loss": [[record["step"], record["loss"]] for record in metrics],
        "evaluation": evaluate(model, prepared.test, prepared.tokenizer.end).to_json(),
    }
    _write_json(place.done(*unit), result)
    shutil.rmtree(here / CHECKPOINTS, ignore_errors=True)


def run(
    config: IterateConfig,
    folder: pathlib.Path,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> list[dict[str, Any]]:
    """Run all units in one process a core and return their results in order.

    One thread a process uses two cores better than one process with two threads at these sizes. What is
    finished in the folder is kept, an unfinished training run goes on from its checkpoint.

    Args:
        config: of the run.
        folder: for the units' files.
        progress: called with the share done and a message.

    Raises:
        InputError: what a worker found wrong.
        RuntimeError: a worker failed or was killed.
    """
    prepare(config.corpus)  # once, before the workers read it
    folder.mkdir(parents=True, exist_ok=True)
    place, todo = _Place(folder), units(config)
    _write_json(folder / "config.json", dataclasses.asdict(config))
    environment = dict(os.environ)
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    waiting = _jobs(config)
    running: list[tuple[subprocess.Popen[bytes], pathlib.Path]] = []
    limit = os.cpu_count() or 1
    try:
        while waiting or running:
            for seed, rules in list(waiting):
                if len(running) == limit:
                    break
                if rules != ("human",) and not place.done(seed, "human", 0).exists():
                    continue
                waiting.remove((seed, rules))
                job = [str(folder), str(seed), ",".join(rules), str(os.getpid())]
                log = folder / f"seed{seed}-{rules[0]}.log"  # a file: a full pipe would stop the worker
                with log.open("w", encoding="utf-8") as errors:
                    command = [sys.executable, "-m", "lm.iterate", *job]
                    running.append((subprocess.Popen(command, env=environment, stderr=errors), log))
            time.sleep(0.2)
            for worker, log in [(worker, log) for worker, log in running if worker.poll() is not None]:
                running.remove((worker, log))
                _check_exit(worker.returncode, log.read_text(encoding="utf-8"))
            states = [_state(place, unit) for unit in todo]
            count = Counter(state == 1.0 for state in states)[True]
            progress(sum(states) / len(todo), f"{count} of {len(todo)} models trained and evaluated")
    finally:
        for worker, _ in running:
            worker.kill()
            worker.wait()
    return [json.loads(place.done(*unit).read_text(encoding="utf-8")) for unit in todo]


def _check_exit(code: int, errors: str) -> None:
    """Raise what a worker's exit code says: 2 is input it could not use, anything else a fault."""
    if code == REFUSED:
        raise InputError(errors.strip().splitlines()[-1])
    if code < 0:
        raise RuntimeError(f"a worker was ended by signal {-code} (out of memory?); run it again to go on")
    if code:
        raise RuntimeError(errors)


def _jobs(config: IterateConfig) -> list[tuple[int, tuple[str, ...]]]:
    """What one process does after another: a seed's human model first, then each rule's generations.

    The random control copies the number of changes of the confident edit, so the two go together, and first,
    being the longest.
    """
    edits = tuple(rule for rule in config.rules if rule.startswith("edit"))
    others = [(rule,) for rule in config.rules if rule not in edits]
    chains = [rules for rules in (edits, *others) if rules]
    return [(seed, ("human",)) for seed in config.seeds] + [(seed, rules) for seed in config.seeds for rules in chains]


def _state(place: _Place, unit: tuple[int, str, int]) -> float:
    if place.done(*unit).exists():
        return 1.0
    try:
        return float((place.unit(*unit) / "progress").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _work(folder: pathlib.Path, seed: int, rules: tuple[str, ...], parent: int) -> None:
    config = IterateConfig.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    prepared = prepare(config.corpus)
    for unit in units(config):
        if unit[0] != seed or unit[1] not in rules:
            continue
        here = _Place(folder).unit(*unit)

        def progress(fraction: float, message: str, here: pathlib.Path = here) -> None:
            if os.getppid() != parent:
                raise SystemExit(1)  # the run was killed: it goes on from the checkpoint when started again
            (here / "progress").write_text(f"{0.9 * fraction:.3f}", encoding="utf-8")

        run_unit(config, prepared, folder, unit, progress)


if __name__ == "__main__":
    keep_freed_memory()
    try:
        _work(pathlib.Path(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3].split(",")), int(sys.argv[4]))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
