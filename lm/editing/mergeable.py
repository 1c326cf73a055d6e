"""Sums and sketches of many documents whose parts merge into the whole, whatever the cut and the order.

Everything kept is an integer, so that no rounding depends on the order of additions. Numbers that are not whole
enter as multiples of `UNIT`.
"""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

UNIT = 2.0**-20  # nats: rounding a token's log-probability to it changes a mean by less than 5e-7
GAMMA = 1.02  # ratio of neighbouring bins of a sketch


def units(values: np.ndarray) -> int:
    """Return the sum of some numbers in multiples of `UNIT`, each rounded."""
    return int(np.rint(np.asarray(values, np.float64) / UNIT).astype(np.int64).sum())


class Moments:
    """Numbers of documents, their sums, and the sums of their products: all that ratios and their errors need."""

    def __init__(self, names: Iterable[str]):
        """Start without documents.

        Args:
            names: of the whole numbers that each document has.
        """
        self.names: tuple[str, ...] = tuple(names)
        """Of the numbers."""
        self.documents: int = 0
        """Counted."""
        self._sums = [0] * len(self.names)
        self._products = [[0] * len(self.names) for _ in self.names]  # lower triangle

    def add(self, **values: Any) -> None:
        """Count a document, or several, given each of their numbers: whole, one or an array of one a document."""
        # As Python's integers, of which no sum of products is too large.
        columns = [np.atleast_1d(np.asarray(values[name])).astype(object) for name in self.names]
        self.documents += len(columns[0])
        for i, column in enumerate(columns):
            self._sums[i] += int(column.sum())
            for j in range(i + 1):
                self._products[i][j] += int(column @ columns[j])

    def merge(self, other: "Moments") -> None:
        """Add another part's documents."""
        self.documents += other.documents
        for i in range(len(self.names)):
            self._sums[i] += other._sums[i]
            for j in range(i + 1):
                self._products[i][j] += other._products[i][j]

    def sum(self, name: str) -> int:
        """Return a number's sum over documents."""
        return self._sums[self.names.index(name)]

    def ratio(
        self, top: str, bottom: str, less: tuple[str, str] | None = None, scale: float = 1.0
    ) -> dict[str, float | None]:
        """Return a ratio of sums, or the difference of two, with its standard error over documents.

        With A, B, C, D the sums of a, b, c, d over n documents, A/B - C/D has the residuals
        e = a/B - b A/B^2 - c/D + d C/D^2, which sum to 0, and the squared standard error n/(n-1) sum e^2 (ratio
        estimator, linearised). Both are computed as fractions and rounded once.

        Args:
            top: name of a.
            bottom: name of b.
            less: names of c and d.
            scale: that the result is multiplied by.

        Returns:
            "value", None where a sum below the line is 0, and "standard_error", None for fewer than two documents.
        """
        pairs = [(1, top, bottom)] + ([(-1, *less)] if less else [])
        value, weights = Fraction(0), [Fraction(0)] * len(self.names)
        for sign, above, below in pairs:
            if not self.sum(below):
                return {"value": None, "standard_error": None}
            part = sign * Fraction(self.sum(above), self.sum(below))
            value += part
            weights[self.names.index(above)] += Fraction(sign, self.sum(below))
            weights[self.names.index(below)] -= part / self.sum(below)
        if self.documents < 2:
            return {"value": scale * float(value) + 0.0, "standard_error": None}  # no negative zero
        used = [i for i, weight in enumerate(weights) if weight]
        spread = sum(
            weights[i] * weights[j] * self._products[max(i, j)][min(i, j)] for i in used for j in used
        ) * Fraction(self.documents, self.documents - 1)
        return {"value": scale * float(value) + 0.0, "standard_error": abs(scale) * math.sqrt(spread)}

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "documents": self.documents,
            "sums": dict(zip(self.names, self._sums, strict=True)),
            "products": [row[: i + 1] for i, row in enumerate(self._products)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Moments":
        """Return what `to_json` wrote."""
        made = cls(data["sums"])
        made.documents, made._sums = int(data["documents"]), [int(one) for one in data["sums"].values()]
        for i, row in enumerate(data["products"]):
            made._products[i][: i + 1] = [int(one) for one in row]
        return made


class Sketch:
    """Quantiles of numbers, each within 1 % of itself, from counts in bins of relative width (DDSketch).

    Masson et al. 2019, arXiv 1908.10693: x > 0 is in bin k = ceil(log x / log GAMMA).
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counts: dict[tuple[int, int], int] = {}  # by sign and bin

    def add(self, value: float) -> None:
        """Count a finite number."""
        value = float(value)
        sign = (value > 0) - (value < 0)
        place = (sign, math.ceil(math.log(abs(value)) / math.log(GAMMA)) if sign else 0)
        self._counts[place] = self._counts.get(place, 0) + 1

    def merge(self, other: "Sketch") -> None:
        """Add another part's counts."""
        for place, count in other._counts.items():
            self._counts[place] = self._counts.get(place, 0) + count

    def quantiles(self, shares: Iterable[float]) -> dict[str, float | None]:
        """Return the quantile of each share by its decimal form, the lower one between two; None of no numbers."""
        places = sorted(self._counts, key=lambda place: (place[0], place[0] * place[1]))
        upto = np.cumsum([self._counts[place] for place in places])
        found: dict[str, float | None] = {}
        for share in shares:
            if not places:
                found[f"{share:g}"] = None
                continue
            rank = share * (int(upto[-1]) - 1)
            sign, place = places[int(np.searchsorted(upto, rank, side="right"))]
            found[f"{share:g}"] = float(sign * 2 * GAMMA**place / (GAMMA + 1)) if sign else 0.0
        return found

    def to_json(self) -> list[list[int]]:
        """Return sign, bin and count of each bin."""
        return [[*place, count] for place, count in sorted(self._counts.items())]

    @classmethod
    def from_json(cls, data: Iterable[Iterable[int]]) -> "Sketch":
        """Return what `to_json` wrote."""
        made = cls()
        made._counts = {(int(sign), int(place)): int(count) for sign, place, count in data}
        return made


class Frequent:
    """Counts of the most frequent keys in bounded memory (Misra and Gries 1982).

    Exact up to `limit` distinct keys. Beyond, the (limit + 1)-th largest count is taken off all, and what is left of
    nothing is forgotten; merged parts keep the bound (Agarwal et al. 2012, Mergeable summaries): a count is too small
    by at most `missed`, which is at most the total over limit + 1.
    """

    def __init__(self, limit: int):
        """Start empty."""
        self.limit: int = limit
        """Distinct keys that are kept."""
        self.missed: int = 0
        """By how much a count may be too small."""
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, keys: np.ndarray) -> None:
        """Count some keys, int64."""
        for key, count in zip(*(part.tolist() for part in np.unique(keys, return_counts=True)), strict=True):
            self._counts[key] = self._counts.get(key, 0) + count
        self._shrink()

    def merge(self, other: "Frequent") -> None:
        """Add another part's counts."""
        for key, count in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + count
        self.missed += other.missed
        self._shrink()

    def _shrink(self) -> None:
        if len(self._counts) <= self.limit:
            return
        off = sorted(self._counts.values(), reverse=True)[self.limit]
        self._counts = {key: count - off for key, count in self._counts.items() if count > off}
        self.missed += off

    def top(self, number: int) -> list[tuple[int, int]]:
        """Return the most frequent keys with their counts, of equal ones the smaller keys first."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {"limit": self.limit, "missed": self.missed, "counts": sorted(map(list, self._counts.items()))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Frequent":
        """Return what `to_json` wrote."""
        made = cls(int(data["limit"]))
        made.missed = int(data["missed"])
        made._counts = {int(key): int(count) for key, count in data["counts"]}
        return made
