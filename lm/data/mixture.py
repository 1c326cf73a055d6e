"""Mixtures of corpora with an exact share of the training tokens for each."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lm.data.corpus import Corpus
from lm.data.packing import Stream
from lm.errors import InputError

MOST_PERIOD = 100_000  # rows after which the choice of parts repeats: the common denominator of the shares


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a mixture.

    Attributes:
        name: unique in the mixture; it keys the order of the documents.
        corpus: documents.
        share: of the training tokens, in [0, 1]: the paper's alpha for the synthetic part. Decimal numbers and
            ratios such as "1/3" are taken exactly.
        sha256: digest of the corpus, as in its notes; computed where it is needed if not given.
    """

    name: str
    corpus: Corpus
    share: str | float | Fraction = 1
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Use:
    """What a training run takes of a part.

    Attributes:
        name: of the part.
        share: of the rows, exact.
        rows: of T targets each.
        tokens: targets in these rows, end-of-text ids included.
        available: ids of one pass over the part, an end-of-text id for each document included.
        epochs: tokens / available.
    """

    name: str
    share: Fraction
    rows: int
    tokens: int
    available: int
    epochs: float


def exact(share: str | float | Fraction, name: str) -> Fraction:
    """Return a share as a fraction; raises InputError if it is none in [0, 1]."""
    try:
        value = Fraction(str(share))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"the share {share!r} of {name} is no number; give one such as 0.25 or 1/3") from error
    if not 0 <= value <= 1:
        raise InputError(f"the share {share} of {name} is outside 0 to 1; give one such as 0.25 or 1/3")
    return value


def balanced(shares: Sequence[Fraction]) -> np.ndarray:
    """Return which part each row of a period belongs to.

    After any number of rows n, the rows of each part differ from share * n by less than one, and at the end of
    the period by nothing, so that it can be repeated: the chairman assignment of Tijdeman (1980, Discrete
    Mathematics 32, 323-330), whose bound is 1 - 1/(2k - 2) for k parts.

    Args:
        shares: of the parts, at least 0, with sum 1.

    Returns:
        Number of the part, shape (common denominator of the shares,), int32.
    """
    period = math.lcm(*(share.denominator for share in shares))
    weight = [int(share * period) for share in shares]
    parts = [number for number, value in enumerate(weight) if value]
    chosen = np.zeros(period, np.int32)
    if len(parts) == 1:
        chosen[:] = parts[0]
        return chosen
    # In units of 1 / (period (2k - 2)), all whole numbers: the deficit of a part is share * n - rows.
    scale = 2 * len(parts) - 2
    full = period * scale
    deficit = dict.fromkeys(parts, 0)
    common = math.lcm(*(weight[part] for part in parts))
    patience = {part: common // weight[part] for part in parts}
    for row in range(period):
        for part in parts:
            deficit[part] += weight[part] * scale
        # Of the parts that may have a row without running ahead, the one that must have one soonest.
        _, part = min(
            ((full - period - value) * patience[part], part) for part, value in deficit.items() if value >= period
        )
        deficit[part] -= full
        chosen[row] = part
    return chosen


class Mixture:
    """Packed training rows of several corpora; row r is a pure function of the parts, the seed and r."""

    def __init__(self, parts: Sequence[Part], end: int, context: int, seed: int):
        """Set up the streams of the parts.

        Args:
            parts: with shares that sum to 1.
            end: end-of-text id.
            context: T.
            seed: of the orders of the documents.

        Raises:
            InputError: no or an empty part, two of one name, shares that do not sum to 1 or have a common
                denominator above 100,000.
        """
        if not parts:
            raise InputError("the mixture has no parts; give at least one corpus")
        names = [part.name for part in parts]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two parts of the mixture are named {name}; give each its own name")
        for part in parts:
            if not len(part.corpus.tokens):
                raise InputError(f"the part {part.name} of the mixture has no tokens; fill it or leave it out")
        self._shares = [exact(part.share, part.name) for part in parts]
        if sum(self._shares) != 1:
            given = ", ".join(f"{part.name} {part.share}" for part in parts)
            raise InputError(f"the shares of the mixture ({given}) sum to {float(sum(self._shares)):.6g}, not to 1")
        if math.lcm(*(share.denominator for share in self._shares)) > MOST_PERIOD:
            raise InputError(
                f"the shares of the mixture have no common denominator up to {MOST_PERIOD}; "
                "give ratios such as 1/3 or fewer decimals"
            )
        self._names, self.context = names, context
        self._streams = [Stream(part.corpus, end, f"{seed}/{part.name}") for part in parts]
        self._choice = balanced(self._shares)
        # Rows of the chosen part before each row of the period, and of every part in a period.
        self._rank = np.zeros(len(self._choice), np.int64)
        self._weight = np.bincount(self._choice, minlength=len(parts))
        for number in range(len(parts)):
            own = self._choice == number
            self._rank[own] = np.arange(self._weight[number])

    def part(self, row: int) -> tuple[int, int]:
        """Return the number of the part that a row belongs to, and the row's number in that part."""
        period, place = divmod(row, len(self._choice))
        number = int(self._choice[place])
        return number, period * int(self._weight[number]) + int(self._rank[place])

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return inputs, targets and segments of a row, each shape (T,), int32."""
        number, own = self.part(row)
        return self._streams[number].row(own, self.context)

    def use(self, rows: int) -> tuple[Use, ...]:
        """Return what the first `rows` rows take of each part, in the order of the parts; nothing is read."""
        periods, left = divmod(rows, len(self._choice))
        counts = periods * self._weight + np.bincount(self._choice[:left], minlength=len(self._weight))
        uses = []
        for name, share, stream, count in zip(self._names, self._shares, self._streams, counts.tolist(), strict=True):
            epochs = count * self.context / stream.epoch
            uses.append(Use(name, share, count, count * self.context, stream.epoch, epochs))
        return tuple(uses)
