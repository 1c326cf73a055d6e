"""The experiments: which models are trained on what. A cell is one model and what it stands for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lm.errors import InputError
from lm.experiments.nodes import Edited, Human, Joined, Proposal, Run, Sampled, Subsample, Synthetic, Text
from lm.experiments.presets import Preset

RULES = ("replace", "accumulate", "accumulate-subsample", "fixed-real-share", "edit", "edit-random")
REAL_SHARE = "1/2"  # of the fixed real share


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model of an experiment.

    Attributes:
        arm: its name; the same for all seeds.
        about: what the arm is, flat.
        run: the model.
        edit: of its training text, if it was edited.
    """

    arm: str
    about: dict[str, Any]
    run: Run
    edit: Edited | None = None

    @property
    def seed(self) -> int:
        """The replication that the model belongs to."""
        return self.run.seed


def baseline(seed: int) -> Run:
    """Return the model trained on human text, from which every comparison is made."""
    return Run(((Human(), "1"),), seed)


def mixture(preset: Preset) -> list[Cell]:
    """Return a model for each share of synthetic text, source of it, and seed.

    The synthetic text is that of the preset's source, or sampled from the model of the same seed trained on the
    human text ("self"). All have the same number of tokens, and of different tokens: what synthetic text takes
    from the human text, it adds.
    """
    cells = []
    for seed in preset.seeds:
        base = baseline(seed)
        for source in (preset.setup.texts.synthetic, "self"):
            for percent in preset.shares:
                share = percent / 100
                made: Text = Synthetic(share) if source != "self" else Sampled(base, share)
                parts = ((Human(1 - share), f"{100 - percent}/100"), (made, f"{percent}/100"))
                run = base if not percent else Run(tuple(part for part in parts if part[1] != "0/100"), seed)
                cells.append(Cell(f"{source} {percent} %", {"synthetic": source, "share": percent}, run))
    return cells


def edited(preset: Preset) -> list[Cell]:
    """Return models of the source text, of the named settings' edits, and of the dose-response.

    Each rate is reached twice: by redrawing the most confident tokens until so many have changed, and as many at
    random positions. All edits are of the whole human text, with the preset's prior; their draws are the same in all
    seeds, the random positions are not.
    """
    cells = []
    prior = preset.setup.prior
    usual, hot = (Proposal(Human(), prior, temperature, 0) for temperature in (1.0, 1.5))
    for seed in preset.seeds:
        cells.append(Cell("source", {"selection": "none", "rate": 0.0}, baseline(seed)))
        named = {"paper": Edited(usual, "at-least", 0.99), "released": Edited(hot, "above", 0.99)}
        for name, edit in named.items():
            cells.append(Cell(name, {"selection": name, "rate": None}, Run(((edit, "1"),), seed), edit))
        for percent in preset.rates:
            rate = percent / 100
            arms = {"confident": Edited(usual, "rate", rate), "random": Edited(usual, "random", rate, seed)}
            for name, edit in arms.items():
                about = {"selection": name, "rate": percent}
                cells.append(Cell(f"{name} {percent:g} %", about, Run(((edit, "1"),), seed), edit))
    return cells


def iterate(preset: Preset, rules: Sequence[str] = RULES, generations: int | None = None) -> list[Cell]:
    """Return generations of models, each trained on what the one before it made or edited.

    replace: text sampled from it, as many tokens as the human text has; accumulate: the human text and all samples
    so far; accumulate-subsample: random documents of these, as many tokens as the human text; fixed-real-share: half
    human text, half sampled; edit: the previous text, its most confident tokens redrawn by the previous model;
    edit-random: as many changed tokens at random positions. All models of a seed start from the same weights and
    have the same number of updates.
    """
    count = preset.generations if generations is None else generations
    cells = []
    for seed in preset.seeds:
        cells.append(Cell("human 0", {"rule": "human", "generation": 0}, baseline(seed)))
        twins: dict[int, Edited] = {}
        for rule in rules:
            previous = baseline(seed)
            text: Text = Human()
            samples: list[Text] = [text]
            for number in range(1, count + 1):
                edit = None
                if rule in ("edit", "edit-random"):
                    # Each generation draws anew: the same numbers twice would redraw the same quantiles.
                    proposal = Proposal(text, previous, 1.0, seed * 1000 + number)
                    if rule == "edit":
                        edit = twins[number] = Edited(proposal, "share", preset.setup.edit_share)
                    else:
                        edit = Edited(proposal, "twin", seed=seed * 1000 + number, twin=twins[number])
                    text = edit
                    run = Run(((text, "1"),), seed)
                elif rule == "fixed-real-share":
                    run = Run(((Human(0.5), REAL_SHARE), (Sampled(previous, 0.5), REAL_SHARE)), seed)
                else:
                    sampled = Sampled(previous)
                    samples.append(sampled)
                    whole = Joined(tuple(samples))
                    made = {"replace": sampled, "accumulate": whole}
                    chosen = made[rule] if rule in made else Subsample(whole, seed * 1000 + number)
                    run = Run(((chosen, "1"),), seed)
                cells.append(Cell(f"{rule} {number}", {"rule": rule, "generation": number}, run, edit))
                previous = run
    return cells


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        question: that it asks.
        cells: models of a preset.
        paper: tables and figures of the paper that it stands beside.
    """

    question: str
    cells: Callable[[Preset], list[Cell]]
    paper: str


EXPERIMENTS = {
    "mixture": Experiment(
        "Does the training loss fall and the perplexity on human text rise as the share of synthetic text grows?",
        mixture,
        "figures 2, 7-9, tables 1, 13, 14, 17",
    ),
    "edited": Experiment(
        "Does training on edited text help or harm, at which effective edit rate, and does confidence matter?",
        edited,
        "table 2",
    ),
    "iterate": Experiment(
        "Do generations of models on their own text collapse, and does editing level off where replacing does not?",
        iterate,
        "not in the paper, which argues from it (section 3)",
    ),
}


def find_experiment(name: str) -> Experiment:
    """Return an experiment by name; raises InputError for an unknown one."""
    if name not in EXPERIMENTS:
        raise InputError(f"there is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
