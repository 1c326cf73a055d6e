"""How each corpus and each model of an experiment is made, as a graph of small descriptions.

A node says what it is made of; its key is a hash of that, all the way down, so that experiments that want the same
model share it. Nodes that take time (`Run`, `Sampled`, `Proposal`, `Edited`) keep what they made in a folder of the
experiment, `DONE` last; the others are cut from the prepared text whenever they are needed. What is lost or damaged
counts as not made.
"""

import abc
import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from lm.data.corpus import Corpus, from_tokens, join
from lm.data.mixture import Part
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig
from lm.editing.corpus import Proposal as Proposed
from lm.editing.corpus import confident_positions, propose, quantile_threshold, random_positions, redraw
from lm.editing.prior import prepare_prior
from lm.errors import InputError
from lm.experiments import kept
from lm.experiments.kept import ARRAYS, DONE
from lm.experiments.measure import Measured, measure, text_statistics
from lm.experiments.presets import Setup
from lm.experiments.texts import Prepared, beginning
from lm.generation.unconditional import generate_tokens
from lm.model.decoder import Decoder
from lm.train.loop import CHECKPOINTS, Data, train
from lm.weights import huggingface
from lm.weights.load import load

MODEL = "model"  # folder of a trained model, in that of its node
Progress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where nodes are made, and with what.

    Attributes:
        folder: of the experiments of one setup.
        setup: of all models.
        texts: prepared.
    """

    folder: pathlib.Path
    setup: Setup
    texts: Prepared
    _whole: set[str] = dataclasses.field(default_factory=set, init=False, repr=False, compare=False)

    def place(self, node: "Made") -> pathlib.Path:
        """Return the folder of a node."""
        return node.place(self.folder)

    def notes(self, node: "Made") -> dict[str, Any]:
        """Return what a finished node says of itself; raises InputError if that is lost or damaged."""
        return kept.load_notes(self.place(node))

    def finished(self, node: "Made") -> bool:
        """Return whether a node has been made and is whole; what was so once is not read again."""
        if node.key not in self._whole and node.whole(self.folder):
            self._whole.add(node.key)
        return node.key in self._whole

    def make(self, node: "Made", progress: Progress) -> None:
        """Make a node that is not finished, for the first time or again: others see it when it is complete."""
        place = self.place(node)
        if (place / DONE).exists():
            # What a process left that was killed while it removed them: nothing to go on from.
            shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
            (place / DONE).unlink()
        node.make(self, progress)


@dataclasses.dataclass(frozen=True)
class Node:
    """A part of the graph."""

    @functools.cached_property
    def key(self) -> str:
        """Hash of what the node is made of."""
        return hashlib.sha256(json.dumps([type(self).__name__, self.describe()], sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON has them, other nodes by their keys."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def parts(self) -> Iterator["Node"]:
        """Yield the nodes that this one is made of."""
        for field in dataclasses.fields(self):
            yield from _nodes(getattr(self, field.name))


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return value.key
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from _nodes(one)


class Text(Node, abc.ABC):
    """A node that is a corpus."""

    @abc.abstractmethod
    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus; what it is made of must be there."""


class Made(Node, abc.ABC):
    """A node that takes time and is kept.

    Attributes:
        arrays: that it keeps, by name.
    """

    arrays: ClassVar[tuple[str, ...]] = ()

    def place(self, folder: pathlib.Path) -> pathlib.Path:
        """Return the folder of the node in that of the experiments."""
        return folder / type(self).__name__.lower() / self.key[:16]

    def whole(self, folder: pathlib.Path) -> bool:
        """Return whether the node is there, in the folder of the experiments, and all its files can be read."""
        place = self.place(folder)
        if (place / DONE).exists():
            with contextlib.suppress(InputError):
                self._check(place, kept.load_notes(place))
                return True
        return False

    def _check(self, place: pathlib.Path, notes: dict[str, Any]) -> None:
        """Read the files of the node; raises InputError if one is lost or damaged."""
        del notes
        kept.load_arrays(place / ARRAYS, self.arrays)

    @abc.abstractmethod
    def make(self, stage: Stage, progress: Progress) -> None:
        """Make the files of the node, `DONE` last.

        Args:
            stage: where, and with what.
            progress: told of the share done.
        """


@dataclasses.dataclass(frozen=True)
class Human(Text):
    """Human training text: the first documents of each domain, a share of its tokens."""

    share: float = 1.0

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        return stage.texts.human if self.share == 1 else beginning(stage.texts.human, self.share)


@dataclasses.dataclass(frozen=True)
class Synthetic(Text):
    """The synthetic source: a share of as many tokens as the human training text has."""

    share: float = 1.0

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        return stage.texts.synthetic if self.share == 1 else beginning(stage.texts.synthetic, self.share)


@dataclasses.dataclass(frozen=True)
class Joined(Text):
    """Corpora, one after the other."""

    texts: tuple[Text, ...]

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        return join([text.corpus(stage) for text in self.texts])


@dataclasses.dataclass(frozen=True)
class Subsample(Text):
    """Random documents of a corpus, as many tokens as the human training text has (to one document)."""

    text: Text
    seed: int

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        found = self.text.corpus(stage)
        order = np.random.default_rng(self.seed).permutation(len(found))
        total = np.cumsum(found.lengths[order])
        return found.select(order[: int(np.searchsorted(total, len(stage.texts.human.tokens))) + 1])


@dataclasses.dataclass(frozen=True)
class Run(Made):
    """A model: what it is trained on, with the share of the training tokens of each part, and a seed."""

    mixture: tuple[tuple[Text, str], ...]
    seed: int

    def make(self, stage: Stage, progress: Progress) -> None:
        """Make it."""
        here, texts, setup = stage.place(self), stage.texts, stage.setup
        corpora = [text.corpus(stage) for text, _ in self.mixture]
        parts = [
            Part(f"part{number}", corpus, share)
            for number, (corpus, (_, share)) in enumerate(zip(corpora, self.mixture, strict=True))
        ]
        config = setup.training(self.seed)
        every = config.steps // setup.evaluations
        steps = [config.steps - every * back for back in reversed(range(setup.evaluations))]

        def observe(step: int, model: Decoder) -> None:
            measure(model, texts).save(here / f"measured-{step}.npz")

        def trained() -> Decoder:
            data = Data(parts, texts.tokenizer.end)
            return train(setup.config(), config, data, here, progress, observe=(tuple(steps), observe))

        model = trained()
        try:
            measured = _measured(here, steps)
        except InputError:  # lost, of an update before the checkpoint from which training went on
            shutil.rmtree(here / CHECKPOINTS)
            model = trained()
            measured = _measured(here, steps)
        huggingface.write(here / MODEL, model, texts.tokenizer)
        whole = corpora[0] if len(corpora) == 1 else join(corpora)
        records = [json.loads(line) for line in (here / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        notes = {
            "seed": self.seed,
            "evaluations": steps,
            "tokens": config.steps * config.batch * setup.config().context,
            "text": text_statistics(whole, texts),
            "tests": {step: one.averages() for step, one in measured.items()},
            "loss": _thinned([record["loss"] for record in records]),
        }
        kept.save_notes(here, notes)
        shutil.rmtree(here / CHECKPOINTS, ignore_errors=True)

    def _check(self, place: pathlib.Path, notes: dict[str, Any]) -> None:
        """Read what was measured, and the model's files but for their numbers."""
        steps = notes.get("evaluations")
        if not isinstance(steps, list):
            raise kept.damaged(place / DONE)
        _measured(place, steps)
        huggingface.check(place / MODEL)


@dataclasses.dataclass(frozen=True)
class Sampled(Made, Text):
    """Text sampled from a model at temperature 1: a share of as many tokens as the human training text has."""

    run: Run
    share: float = 1.0
    arrays: ClassVar = ("tokens", "lengths")

    def make(self, stage: Stage, progress: Progress) -> None:
        """Make it."""
        model, _ = huggingface.load(stage.place(self.run) / MODEL)
        budget = round(self.share * len(stage.texts.human.tokens))
        progress(0.0, f"sampling {budget} tokens")
        documents = generate_tokens(model, stage.texts.tokenizer.end, budget, self.key[:16], self.run.seed)
        _save(stage, self, tokens=np.concatenate(documents), lengths=[len(one) for one in documents])
        kept.save_notes(stage.place(self), {"tokens": budget, "documents": len(documents)})

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        kept = _load(stage, self)
        ends = np.cumsum(kept["lengths"])[:-1]
        return from_tokens(np.split(kept["tokens"], ends), f"sampled-{self.key[:8]}", stage.texts.tokenizer)


@dataclasses.dataclass(frozen=True)
class Proposal(Made):
    """One pass of a prior over a corpus: each token's probability, and what a redraw would give there.

    Attributes:
        text: to be edited.
        prior: a model of the experiment, or the name of a pretrained one.
        temperature: of the draws.
        seed: of the draws.
    """

    text: Text
    prior: "Run | str"
    temperature: float
    seed: int
    arrays: ClassVar = ("probability", "draw", "editable")

    def make(self, stage: Stage, progress: Progress) -> None:
        """Make it."""
        progress(0.0, "scoring the text with the prior")
        tokens = self.tokens(stage)
        config = EditConfig(top_k=stage.setup.candidates, temperature=self.temperature, seed=self.seed)
        if isinstance(self.prior, Run):
            prior = prepare_prior(load(str(stage.place(self.prior) / MODEL)), compute="float32")
        else:
            prior = prepare_prior(load(self.prior, compute="bfloat16", inference=True))
        found = propose(prior, tokens, config)
        _save(stage, self, probability=found.probability, draw=found.draw.astype(np.int32), editable=found.editable)
        possible = found.probability[found.editable]
        notes = {f"share_above_{p:g}": float((possible >= np.float32(p)).mean()) for p in (0.9, 0.99)}
        kept.save_notes(
            stage.place(self), {"tokens": len(tokens.tokens), "median": float(np.median(possible)), **notes}
        )

    def tokenizer(self, stage: Stage) -> Tokenizer:
        """Return the prior's tokenizer."""
        return stage.texts.tokenizer if isinstance(self.prior, Run) else _tokenizer(self.prior)

    def tokens(self, stage: Stage) -> Corpus:
        """Return the corpus in the prior's tokens."""
        found = self.text.corpus(stage)
        if isinstance(self.prior, Run):
            return found
        return _retokenised(found, stage.texts.tokenizer, self.tokenizer(stage))

    def proposed(self, stage: Stage) -> Proposed:
        """Return what was proposed."""
        kept = _load(stage, self)
        return Proposed(kept["probability"], kept["draw"], kept["editable"])


Choice = Literal["at-least", "above", "share", "rate", "random", "twin"]


@dataclasses.dataclass(frozen=True)
class Edited(Made, Text):
    """A corpus after an edit.

    Attributes:
        proposal: of the prior.
        choice: which tokens are redrawn: those with P "at-least" or "above" a value; the most confident "share";
            the most confident ones until a "rate" of all tokens has changed; as many changes at "random" positions;
            or at random positions, as many changes as a "twin" has.
        value: probability, share or rate; 0 for a twin.
        seed: of the random positions.
        twin: for "twin".
    """

    proposal: Proposal
    choice: Choice
    value: float = 0.0
    seed: int = 0
    twin: "Edited | None" = None
    arrays: ClassVar = ("tokens",)

    def make(self, stage: Stage, progress: Progress) -> None:
        """Make it."""
        old, proposed = self.proposal.tokens(stage), self.proposal.proposed(stage)
        selected = self._selected(stage, old, proposed)
        new = redraw(old, proposed, selected)
        changed, wanted = int((new != old.tokens).sum()), selected.sum()
        _save(stage, self, tokens=new)
        edited = dataclasses.replace(old, tokens=new)
        tokenizer = self.proposal.tokenizer(stage)
        chances = proposed.probability[selected]
        notes = {
            "prior_tokens": len(new),
            "selected": int(wanted),
            "changed": changed,
            "selected_share": float(selected.mean()),
            "effective_rate": changed / len(new),
            "lowest_selected": float(chances.min()) if len(chances) else None,
            "invalid_documents": sum(_invalid(tokenizer, edited.document(n)) for n in range(len(edited))),
            **{key: stage.notes(self.proposal)[key] for key in ("share_above_0.9", "share_above_0.99", "median")},
        }
        kept.save_notes(stage.place(self), notes)

    def _selected(self, stage: Stage, old: Corpus, proposed: Proposed) -> np.ndarray:
        possible = proposed.probability[proposed.editable]
        if self.choice == "at-least":
            return confident_positions(proposed, self.value)
        if self.choice == "above":
            return proposed.editable & (proposed.probability > np.float32(self.value))
        if self.choice == "share":
            return confident_positions(proposed, quantile_threshold(possible, self.value))
        if self.choice == "twin":
            if self.twin is None:
                raise InputError("an edit at as many random positions as a twin's needs the twin; name it")
            return random_positions(old, proposed, stage.notes(self.twin)["changed"], self.seed)
        changes = round(self.value * len(old.tokens))
        if self.choice == "random":
            return random_positions(old, proposed, changes, self.seed)
        order = np.flatnonzero(proposed.editable)
        order = order[np.argsort(-proposed.probability[order], kind="stable")]
        changed = np.cumsum(proposed.draw[order] != old.tokens[order])
        selected = np.zeros(len(old.tokens), bool)
        selected[order[: int(np.searchsorted(changed, changes)) + 1]] = True
        return selected

    def corpus(self, stage: Stage) -> Corpus:
        """Return the corpus."""
        old, texts = self.proposal.tokens(stage), stage.texts
        new = _load(stage, self)["tokens"]
        if isinstance(self.proposal.prior, Run):
            return old.with_tokens(new, texts.tokenizer)
        return _retokenised(dataclasses.replace(old, tokens=new), self.proposal.tokenizer(stage), texts.tokenizer)


@dataclasses.dataclass(frozen=True)
class _Plain:
    """A document to be tokenized."""

    id: str
    work: str
    domain: str
    text: str


def _retokenised(corpus: Corpus, old: Tokenizer, new: Tokenizer) -> Corpus:
    """Return a corpus in another tokenizer's ids; an edit inside a character leaves no UTF-8 and becomes U+FFFD."""
    texts = (old.decode(corpus.document(number)).decode(errors="replace") for number in range(len(corpus)))
    names = zip(corpus.ids, corpus.works, corpus.domains, texts, strict=True)
    return from_documents([_Plain(*one) for one in names], new)


def _invalid(tokenizer: Tokenizer, tokens: np.ndarray) -> bool:
    try:
        tokenizer.decode(tokens).decode()
    except UnicodeDecodeError:
        return True
    return False


@functools.cache
def _tokenizer(name: str) -> Tokenizer:
    return load(name).tokenizer


def _thinned(loss: list[float]) -> list[list[float]]:
    """Return [last step, mean loss] of about 40 equal pieces of a run."""
    size = max(1, len(loss) // 40)
    return [[min(first + size, len(loss)), float(np.mean(loss[first : first + size]))]
            for first in range(0, len(loss), size)]  # fmt: skip


def _measured(place: pathlib.Path, steps: Sequence[int]) -> dict[int, Measured]:
    return {step: Measured.load(place / f"measured-{step}.npz") for step in steps}


def _save(stage: Stage, node: Made, **arrays: Any) -> None:
    kept.save_arrays(stage.place(node) / ARRAYS, arrays, compressed=True)


def _load(stage: Stage, node: Made) -> dict[str, np.ndarray]:
    return kept.load_arrays(stage.place(node) / ARRAYS, node.arrays)
