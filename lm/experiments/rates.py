"""Effective edit rates of an experiment's settings, from a sample of its text, before any corpus is edited."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable

import numpy as np

from lm.evaluation.perplexity import ratio
from lm.experiments import graph
from lm.experiments.designs import Cell
from lm.experiments.nodes import Edited, Run, Stage
from lm.experiments.presets import Preset
from lm.experiments.tables import UNTESTABLE
from lm.experiments.texts import Prepared


@dataclasses.dataclass(frozen=True)
class Rate:
    """Effective edit rate of an arm: tokens that end up different, over all tokens.

    Attributes:
        arm: its name.
        rate: of the prior's tokens; None if it is not known yet.
        error: standard error over documents; None where the rate is exact or not known, or no token changed.
        tokens: that were scored, of the prior; 0 if none.
        reason: where the rate is from.
        verdict: "testable", "untestable" below `UNTESTABLE`, "undecided" within two standard errors of it.
    """

    arm: str
    rate: float | None
    error: float | None
    tokens: int
    reason: str
    verdict: str


def verdict(rate: float | None, error: float | None, tokens: int) -> str:
    """Return whether an arm can be tested at a rate.

    Where no token of a sample changed, the rate is below 3 / tokens with a probability of .95.
    """
    if rate is None:
        return "not known yet"
    margin = 0.0 if not tokens else 3 / tokens if not rate else 2 * (error or 0.0)
    if rate + margin < UNTESTABLE:
        return "untestable"
    return "testable" if rate - margin >= UNTESTABLE else "undecided"


def edit_rates(
    cells: Iterable[Cell], preset: Preset, folder: pathlib.Path | None = None, texts: Prepared | None = None, tokens=0
) -> list[Rate]:
    """Return the effective edit rate of each arm that is trained on edited text, of its first seed.

    Args:
        cells: of an experiment.
        preset: of these.
        folder: where finished edits, and models that edit, may be.
        texts: of the experiment, to take a sample from; None scores nothing.
        tokens: of the sample, in the experiment's tokens; 0 scores nothing.

    Raises:
        InputError: the prior cannot be loaded.
    """
    first: dict[str, Edited] = {}
    for cell in cells:
        if cell.edit is not None:
            first.setdefault(cell.arm, cell.edit)
    found = []
    with tempfile.TemporaryDirectory() as made:
        sample = _sample(pathlib.Path(made), preset, folder, texts, tokens) if texts and tokens else None
        whole = Stage(folder, preset.setup, texts) if texts and folder else None
        for arm, edit in first.items():
            rate, error, scored, reason = _rate(edit, whole, sample)
            found.append(Rate(arm, rate, error, scored, reason, verdict(rate, error, scored)))
    return found


def _sample(made: pathlib.Path, preset: Preset, folder: pathlib.Path | None, texts: Prepared, tokens: int) -> Stage:
    """Return a stage on which the human text is some random documents, beside the models that are finished."""
    human = texts.human
    order = np.random.default_rng(0).permutation(len(human))
    size = int(np.searchsorted(np.cumsum(human.lengths[order]), tokens)) + 1
    if folder is not None and (folder / "run").is_dir():
        (made / "run").symlink_to((folder / "run").absolute())
    chosen = dataclasses.replace(texts, human=human.select(np.sort(order[:size])))
    return Stage(made, preset.setup, chosen)


def _rate(edit: Edited, whole: Stage | None, sample: Stage | None) -> tuple[float | None, float | None, int, str]:
    """Return rate, standard error, scored tokens and where they are from."""
    if edit.choice in ("rate", "random"):
        return edit.value, None, 0, "by construction"
    if edit.twin is not None:
        rate, error, scored, _ = _rate(edit.twin, whole, sample)
        return rate, error, scored, "that of its twin"
    if whole is not None and whole.finished(edit):
        return whole.notes(edit)["effective_rate"], None, 0, "the finished edit"
    if sample is None:
        return None, None, 0, "no sample was scored"
    if any(isinstance(node, Run) and not sample.finished(node) for node in graph.ordered([edit])):
        return None, None, 0, "its prior is a model that is not trained yet"
    for node in graph.made([edit]):
        if not sample.finished(node):
            node.make(sample, lambda share, message: None)
    old = edit.proposal.tokens(sample)
    with np.load(sample.place(edit) / "arrays.npz", allow_pickle=False) as arrays:
        changed = arrays["tokens"] != np.asarray(old.tokens)
    document = np.repeat(np.arange(len(old)), old.lengths)
    rate, error = ratio(np.bincount(document, changed, len(old)), old.lengths)
    return rate, error if rate else None, len(old.tokens), "a scored sample"
