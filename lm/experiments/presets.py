"""Sizes of the experiments: laptop (minutes on two cores), gpu (one card), paper (the paper's own)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.presets import preset
from lm.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is trained and evaluated on.

    Attributes:
        trained: human sources to train on, the same number of tokens of each.
        held_out: human sources to evaluate on only.
        synthetic: source that a model wrote.
        vocabulary: ids of the tokenizer, which is learned on the human training text.
        train_tokens: of each human source; the synthetic one has as many as all human ones together.
        test_tokens: of each source.
        passage: characters of a document at most; longer ones are cut at paragraphs and sentences.
        synthetic_works: of the synthetic source at most, its first ones, so that an experiment stays the same when
            more is written; None: all.
    """

    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    synthetic: str
    vocabulary: int
    train_tokens: int
    test_tokens: int
    passage: int
    synthetic_works: int | None = None

    def __post_init__(self):
        """Check the counts; raises InputError."""
        if not self.trained or len({*self.trained, *self.held_out}) != len(self.trained) + len(self.held_out):
            raise InputError("an experiment needs different sources to train on and to hold out; change them")
        counts = {name: getattr(self, name) for name in ("train_tokens", "test_tokens", "passage", "synthetic_works")}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1; raise it")


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that the models of an experiment have in common.

    Attributes:
        texts: to train and evaluate on.
        model: name of a preset of `lm.model.presets`.
        changes: of its sizes.
        steps: updates of each model: the same number of tokens for all.
        batch: rows of `context` tokens an update.
        learning_rate: at its peak, chosen on the human text and held for all.
        evaluations: how often the test text is scored in a run, at equal distances, the last at its end.
        prior: of edits that are not made by the model's own predecessor.
        candidates: k of the redraw.
        edit_share: of the tokens that `iterate` selects in each generation, the most confident ones.
    """

    texts: Texts
    model: str
    changes: Mapping[str, Any]
    steps: int
    batch: int
    learning_rate: float
    evaluations: int
    prior: str
    candidates: int
    edit_share: float

    def config(self) -> ModelConfig:
        """Return the sizes of the models."""
        return preset(self.model, vocabulary=self.texts.vocabulary, **self.changes)

    def training(self, seed: int) -> TrainConfig:
        """Return the settings of a run."""
        return TrainConfig(
            self.steps,
            self.batch,
            self.learning_rate,
            warmup=max(1, self.steps // 10),
            seed=seed,
            save_every=max(1, self.steps // self.evaluations),
        )

    def changed(self, **changes: Any) -> "Setup":
        """Return the setup with some fields changed; "texts" are changes of the texts."""
        texts = dataclasses.replace(self.texts, **changes.pop("texts", {}))
        return dataclasses.replace(self, texts=texts, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the setup as JSON has it; `from_json` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Setup":
        """Return the setup that `to_json` wrote (JSON's lists become tuples)."""
        texts = dict(data["texts"])
        texts |= {name: tuple(texts[name]) for name in ("trained", "held_out")}
        return cls(**{**data, "texts": Texts(**texts)})


@dataclasses.dataclass(frozen=True)
class Preset:
    """A size of all experiments.

    Attributes:
        setup: of the models.
        seeds: each is a whole replication: weights, order of the documents, samples, random positions.
        shares: of synthetic text in `mixture`, percent.
        generations: of `iterate`.
        rates: effective edit rates of the dose-response in `edited`, percent.
        machine: what it is meant for.
        runs_here: whether `toedit experiment` runs it; the largest is a plan with its commands.
        devices: over which a batch is cut.
        variants: changes of the setup by experiment and by name of the variant, for experiments of other models or
            lengths; each variant has a folder of its own.
    """

    setup: Setup
    seeds: tuple[int, ...]
    shares: tuple[int, ...]
    generations: int
    rates: tuple[float, ...]
    machine: str
    runs_here: bool = True
    devices: int = 1
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)

    def sizes(self, experiment: str) -> dict[str, "Preset"]:
        """Return the preset at each size that an experiment is made at, by name; "" is the preset's own."""
        return {
            name: dataclasses.replace(self, setup=self.setup.changed(**changes))
            for name, changes in self.variants.get(experiment, {"": {}}).items()
        }


_HUMAN = ("sotu", "novels", "drama", "encyclopedia")
_HELD_OUT = (
    "federalist",
    "scripture",
    "security",
    "biomedical",
    "mathematics",
    "conventions",
    "verse",
    "news",
    "brown",
)
# Each has over a million training tokens; the encyclopedia, with half as many, is left out.
_MANY = ("sotu", "novels", "drama", "reviews", "dictionary", "legal", "api-docs", "python")
# Half of GPT-2's width and depth: whether what is seen depends on the size of the model.
_SMALLER: dict[str, Any] = {
    "changes": {"compute": "bfloat16", "width": 384, "layers": 6, "heads": 6, "hidden": 1536},
    "learning_rate": 1.2e-3,
}
_SHORTER: dict[str, Any] = {"steps": 306, "texts": {"train_tokens": 312_500}}
# Rows of OLMo's context, as many tokens an update; its vocabulary.
_OLMO: dict[str, Any] = {"batch": 256, "texts": {"vocabulary": 50_304}}
_SHARES, _RATES = (0, 25, 50, 75, 100), (0.03, 0.2, 1.0, 5.0, 20.0)

PRESETS: dict[str, Preset] = {
    # Chosen once, on the human text alone (validation documents of the four trained domains; seeds 10 to 12, which no
    # experiment uses), before any arm at this size: mean loss in nats and its standard deviation over seeds.
    #   width 64, batch 8, rate 6e-3: 5.04, .18;  batch 4: 4.60, .18;  1e-2: 5.01, .19;  3e-3: 4.57, .04;
    #   one layer, 6e-3: 4.85, .12;  width 96, batch 4, 3e-3: 4.44, .05 (two seeds);
    #   width 128, batch 4, 3e-3: 4.29, .007 (taken);  with 600 updates: 4.69, .14;  and 4e-3: 4.79, .04 (two seeds).
    # Runs of the first of these, begun before this table was made, were stopped: its seeds differed by more than arms.
    "laptop": Preset(
        Setup(
            Texts(_HUMAN, _HELD_OUT, "smollm2-corpus", 1024, 50_000, 8_000, 320, synthetic_works=1536),
            "tiny",
            {"width": 128, "heads": 4, "hidden": 384},
            steps=800,
            batch=4,
            learning_rate=3e-3,
            evaluations=2,
            prior="smollm2",
            candidates=8,
            edit_share=0.125,
        ),
        seeds=(0, 1, 2),
        shares=_SHARES,
        generations=5,
        rates=_RATES,
        machine="2 CPU cores",
    ),
    # What the sources have enough of: 8 and 5 million tokens a model, twice over half as many. The learning rates were
    # chosen on validation documents of the trained domains before any arm, mean loss in nats of one model of 8 million
    # tokens a rate (seed 10, which no experiment uses; paper/results/gpu/learning-rates.json):
    #   17m:  6e-4: 5.379;  1.2e-3: 5.224 (taken);  2.4e-3: 5.261;  4.8e-3: 5.475.
    #   124m: 3e-4: 5.338;  6e-4: 5.257 (taken);  higher ones were not tried, as the machine's time ran out.
    "gpu": Preset(
        Setup(
            Texts(_MANY, tuple(name for name in _HELD_OUT if name != "news"), "champ", 16_384, 500_000, 30_000, 3_000),
            "gpt2-124m",
            {"compute": "bfloat16"},
            steps=488,
            batch=16,
            learning_rate=6e-4,
            evaluations=2,
            prior="smollm2",
            candidates=8,
            edit_share=0.125,
        ),
        seeds=(0, 1, 2),
        shares=_SHARES,
        generations=5,
        rates=_RATES,
        machine="one NVIDIA H200",
        variants={
            "mixture": {"8M-tokens-17m": _SMALLER, "8M-tokens-124m": {}},
            "edited": {"8M-tokens-17m": _SMALLER, "8M-tokens-124m": {}},
            "iterate": {"5M-tokens-17m": {**_SMALLER, **_SHORTER}, "5M-tokens-124m": _SHORTER},
        },
    ),
    # 8.4 billion unique tokens, five times: 42 billion a model (the paper, sections 2 and 4); sources are the hub's.
    # Chosen here: half a million tokens an update, and the learning rates.
    "paper": Preset(
        Setup(
            Texts(("hub:allenai/dolma",), ("hub:allenai/paloma",), "hub:HuggingFaceTB/cosmopedia", 50_257,
                  8_400_000_000, 10_000_000, 1_000_000),
            "gpt2-124m",
            {"compute": "bfloat16"},
            steps=80_109,
            batch=512,
            learning_rate=6e-4,
            evaluations=5,
            prior="hf:meta-llama/Meta-Llama-3-8B",
            candidates=8,
            edit_share=0.125,
        ),
        seeds=(0, 1, 2),
        shares=_SHARES,
        generations=5,
        rates=_RATES,
        machine="a cluster of NVIDIA H100",
        runs_here=False,
        devices=64,
        variants={
            "mixture": {
                "gpt2-124m": {},
                # Table 14: one epoch. No configuration is published: see `lm.model.presets`.
                "olmo-237m": {**_OLMO, "model": "olmo-237m", "steps": 16_022, "evaluations": 1},
            },
            # Table 2: a sample of 6 billion tokens, once; the learning rate of OLMo-1B.yaml of allenai/OLMo.
            "edited": {
                "olmo-1b": {
                    **_OLMO,
                    "model": "olmo-1b",
                    "steps": 11_445,
                    "evaluations": 1,
                    "learning_rate": 4e-4,
                    "texts": {"vocabulary": 50_304, "train_tokens": 6_000_000_000},
                }
            },
            # Not in the paper: one epoch a generation.
            "iterate": {"gpt2-124m-8.4B": {"steps": 16_022, "evaluations": 1}},
        },
    ),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """Return a preset by name; raises InputError for an unknown one."""
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
