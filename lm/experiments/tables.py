"""From finished models to tables: losses by domain, paired changes against the human-only model, intervals, verdicts.

Every model is compared with the model of the same seed that was trained on human text alone, on the same documents and
at the same update. Two errors are kept apart: over seeds (weights, order, samples), as the half-width of Student's 95 %
interval; and over works of the test text (ratio estimator), which more seeds do not shrink. A change is called by its
direction only where it exceeds the half-width and twice the error over works.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from lm.data.corpus import Corpus
from lm.evaluation.perplexity import ratio
from lm.experiments.designs import Cell, baseline
from lm.experiments.measure import Measured
from lm.experiments.nodes import Run, Stage
from lm.experiments.texts import kind_of, macro

LEVEL = 0.95
WORKS_ERRORS = 2.0  # standard errors over works
UNTESTABLE = 0.001  # effective edit rate below which an edited corpus is the same corpus for a test of this size

Row = dict[str, Any]


def half_width(values: Sequence[float]) -> float | None:
    """Return the half-width of Student's interval of the mean over seeds, None for a single seed."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return error * float(student.ppf((1 + LEVEL) / 2, len(values) - 1))


def direction(change: float, half: float | None, works_error: float | None) -> str:
    """Return "rises", "falls" or "not distinguishable" (also for a single seed, which has no interval)."""
    if half is None or abs(change) <= half or (works_error and abs(change) <= WORKS_ERRORS * works_error):
        return "not distinguishable"
    return "rises" if change > 0 else "falls"


class Scores:
    """Losses of one model at one update, by domain.

    Attributes:
        nats: mean loss of each domain, and of "human", "trained" and "held-out": means over their domains.
    """

    def __init__(self, stage: Stage, run: Run, step: int):
        """Read what was measured of a finished model after an update."""
        self._test: Corpus = stage.texts.test
        self._groups = macro(tuple(dict.fromkeys(self._test.domains)), stage.setup.texts)
        self._domains = np.asarray(self._test.domains)
        self._works = np.unique(np.asarray(self._test.works), return_inverse=True)[1]
        self._nll = Measured.load(stage.place(run) / f"measured-{step}.npz").nll

    def averages(self, other: "Scores | None" = None) -> dict[str, tuple[float, float | None]]:
        """Return nats a token and the error over works by domain; of the paired change if another is given."""
        nll = self._nll if other is None else self._nll - other._nll
        found = {}
        for name in dict.fromkeys(self._test.domains):
            chosen = self._domains == name
            work = np.unique(self._works[chosen], return_inverse=True)[1]
            found[name] = ratio(np.bincount(work, nll[chosen]), np.bincount(work, self._test.lengths[chosen]))
        for group, names in self._groups.items():
            if names:
                errors = [found[name][1] for name in names]
                total = None if None in errors else math.sqrt(sum(one * one for one in errors if one)) / len(names)
                found[group] = statistics.fmean(found[name][0] for name in names), total
        return found


def tables(stage: Stage, cells: Iterable[Cell]) -> dict[str, Any]:
    """Return {"cells", "perplexity", "arms", "edits": rows; "loss": curves} of finished cells.

    Args:
        stage: on which they were made, with the human-only model of each of their seeds.
        cells: of one experiment.
    """
    cells = list(cells)
    scores: dict[tuple[str, int], Scores] = {}

    def scored(run: Run, step: int) -> Scores:
        if (run.key, step) not in scores:
            scores[run.key, step] = Scores(stage, run, step)
        return scores[run.key, step]

    perplexity, about, edits, loss = [], [], [], []
    for cell in cells:
        notes = stage.notes(cell.run)
        name = {"arm": cell.arm, **cell.about, "seed": cell.seed}
        last = str(notes["evaluations"][-1])
        final = statistics.fmean(value for _, value in notes["loss"][-len(notes["loss"]) // 5 :])
        size = notes["text"]
        about.append({**name, "run": cell.run.key[:16], "final_training_loss": final, **notes["tests"][last], **size})
        loss.append({**name, "loss": notes["loss"]})
        if cell.edit is not None:
            edit = stage.notes(cell.edit)
            edits.append({**name, **edit, "testable": edit["effective_rate"] >= UNTESTABLE})
        for step in notes["evaluations"]:
            mine = scored(cell.run, step)
            base = scored(baseline(cell.seed), step)
            changes = mine.averages(base)
            for domain, (nats, error) in mine.averages().items():
                change, change_error = changes[domain]
                perplexity.append(
                    {
                        **name,
                        "step": step,
                        "domain": domain,
                        "nats": nats,
                        "nats_se": error,
                        "perplexity": math.exp(nats),
                        "change": change,
                        "change_se": change_error,
                    }
                )
    untestable = {row["arm"] for row in edits if not row["testable"]}
    kinds = {name: kind_of(name, stage.setup.texts) for name in dict.fromkeys(stage.texts.test.domains)}
    return {
        "tables": {
            "cells": about,
            "perplexity": perplexity,
            "arms": over_seeds(perplexity, untestable, kinds),
            "edits": edits,
        },
        "loss": loss,
        "removed": stage.texts.removed,
        "sha256": stage.texts.sha256,
    }


def over_seeds(rows: Sequence[Row], untestable: set[str], kinds: dict[str, str]) -> list[Row]:
    """Return means over seeds of every arm, update and domain.

    Args:
        rows: of the table "perplexity".
        untestable: arms whose edits change too few tokens.
        kinds: of the domains: trained, held-out, synthetic; what is none of them is an average.
    """
    found: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["step"], row["domain"]), []).append(row)
    arms = []
    for (arm, step, domain), some in found.items():
        changes = [row["change"] for row in some]
        change, half = statistics.fmean(changes), half_width(changes)
        errors = [row["change_se"] for row in some]
        works = None if None in errors else statistics.fmean(errors)
        nats = [row["nats"] for row in some]
        first = next(iter(some))
        about = {key: value for key, value in first.items() if key not in _OWN}
        arms.append(
            {
                "arm": arm,
                **about,
                "step": step,
                "domain": domain,
                "kind": kinds.get(domain, "average"),
                "seeds": len(some),
                "nats": statistics.fmean(nats),
                "nats_half_width": half_width(nats),
                "perplexity": math.exp(statistics.fmean(nats)),
                "change": change,
                "change_half_width": half,
                "change_works_se": works,
                "verdict": "untestable" if arm in untestable else direction(change, half, works),
            }
        )
    return arms


_OWN = ("arm", "seed", "step", "domain", "nats", "nats_se", "perplexity", "change", "change_se")
