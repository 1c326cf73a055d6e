"""Paired differences between the models of an experiment, with both errors: over seeds and over works of the test text.

Everything is computed from the rows of `lm.experiments.tables`, live or committed.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm.experiments.tables import UNTESTABLE, direction, half_width

Data = Mapping[str, Any]


class UntestableError(Exception):
    """The result does not hold what a comparison needs; the message says what."""


@dataclass(frozen=True)
class Contrast:
    """A difference, one value a seed.

    Attributes:
        values: by seed; nats a token, or the unit of the column that was compared.
        works_se: standard error over works of the test text; None where it is not known.
    """

    values: Mapping[int, float]
    works_se: float | None = None

    def __post_init__(self):
        """Refuse a difference that no seed has; raises UntestableError."""
        if not self.values:
            raise UntestableError("no seed has both sides of the comparison")

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def half_width(self) -> float | None:
        """Half-width of Student's 95 % interval over seeds, None for a single seed."""
        return half_width(list(self.values.values()))

    @property
    def direction(self) -> str:
        """Return "rises", "falls" or "not distinguishable": beyond the interval and twice the error over works."""
        return direction(self.mean, self.half_width, self.works_se)

    def __sub__(self, other: "Contrast") -> "Contrast":
        """Return the difference within each seed that both have.

        The errors over works are added as though they were independent: of other works they are, and on the same
        works, where models suffer together, the sum is an upper limit.
        """
        seeds = sorted(self.values.keys() & other.values.keys())
        known = self.works_se is not None and other.works_se is not None
        error = math.hypot(self.works_se or 0.0, other.works_se or 0.0) if known else None
        return Contrast({seed: self.values[seed] - other.values[seed] for seed in seeds}, error)


def change(data: Data, arm: str, domain: str = "human", *, half_way: bool = False) -> Contrast:
    """Return an arm's loss minus that of the human-only model of the same seed, nats a token.

    Args:
        data: of an experiment.
        arm: its name.
        domain: of the test text, or "human", "trained", "held-out" for means over domains.
        half_way: at the first evaluation instead of the last.

    Raises:
        UntestableError: there is no such arm or domain.
    """
    rows = data["tables"]["perplexity"]
    step = (min if half_way else max)(row["step"] for row in rows)
    found = [row for row in rows if (row["arm"], row["domain"], row["step"]) == (arm, domain, step)]
    if not found:
        raise UntestableError(f"the run has no {arm!r} with {domain!r}")
    errors = [row["change_se"] for row in found]
    error = None if None in errors else statistics.fmean(errors)
    return Contrast({row["seed"]: row["change"] for row in found}, error)


def column(data: Data, arm: str, name: str) -> Contrast:
    """Return a column of an arm's cells, such as its final training loss, by seed; raises UntestableError."""
    found = {row["seed"]: row[name] for row in data["tables"]["cells"] if row["arm"] == arm}
    if not found:
        raise UntestableError(f"the run has no {arm!r}")
    return Contrast(found)


def effective_rate(data: Data, arm: str) -> float:
    """Return the smallest share of tokens that an arm's edits changed; raises UntestableError for no edited arm."""
    rates = [row["effective_rate"] for row in data["tables"]["edits"] if row["arm"] == arm]
    if not rates:
        raise UntestableError(f"the run has no edit of {arm!r}")
    return min(rates)


def is_testable(data: Data, arm: str) -> bool:
    """Return whether an edited arm's text differs enough from its source."""
    return effective_rate(data, arm) >= UNTESTABLE


def sources(data: Data) -> list[str]:
    """Return the synthetic sources of a mixture, the external one first."""
    names = dict.fromkeys(row["synthetic"] for row in data["tables"]["cells"])
    return sorted(names, key=lambda name: name == "self")


def human_domains(data: Data) -> list[str]:
    """Return the domains of human text on which models are evaluated."""
    return list(
        dict.fromkeys(row["domain"] for row in data["tables"]["arms"] if row["kind"] in ("trained", "held-out"))
    )


def rates(data: Data) -> list[float]:
    """Return the rates of the dose-response, percent, in rising order."""
    chosen = (row["rate"] for row in data["tables"]["cells"] if row["selection"] in ("confident", "random"))
    return sorted(set(chosen))


def last_generation(data: Data) -> int:
    """Return the number of the last generation."""
    return max(row["generation"] for row in data["tables"]["cells"])
