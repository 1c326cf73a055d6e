"""What is edited and how: the paper's Algorithm 1, its released code, and their parts in other combinations."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lm.data.readers import Unit
from lm.errors import InputError

Select = Literal["at-least", "above", "at-most", "band"]
Candidates = Literal["top-k", "top-p", "all", "rejection"]


class Rule(NamedTuple):
    """The part of a configuration that decides which computation is compiled."""

    select: Select
    candidates: Candidates
    top_k: int
    keep_original: bool


class Numbers(NamedTuple):
    """The numbers of a configuration, scalars: other values need no new compilation.

    Attributes:
        threshold: p, float32.
        upper: upper end of a band, float32.
        temperature: at which candidates are drawn, float32; what rejection makes of it is in it.
        top_p: float32.
        delete_below: float32.
        seed: int32.
    """

    threshold: Any
    upper: Any
    temperature: Any
    top_p: Any
    delete_below: Any
    seed: Any


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """Which tokens are redrawn, and from what. P is the prior's P(x_i | x_<i) over its whole vocabulary.

    Attributes:
        select: redraw tokens with P at-least the threshold (the paper), above it (its released code), at-most it
            (the paper's ablation), or in the band threshold <= P <= upper.
        threshold: p.
        upper: upper end of the band.
        candidates: what a redrawn token is drawn from: the top_k likeliest tokens (top-k); the fewest likeliest ones
            with at least a share top_p of the probability, at the temperature (top-p; Holtzman et al. 2020, arXiv
            1904.09751); all; or rejection sampling, which here is all at a lower temperature, see `temperature_drawn`.
        top_k: number of candidates.
        top_p: share of the probability.
        temperature: the weight of candidate c is P(c) to the power of 1 / temperature.
        beta: of rejection.
        keep_original: whether the original token is always a candidate (as in the released code, where it is one more
            where it is not among the likeliest) or never one.
        delete_below: delete tokens with P below this instead; 0 deletes none.
        seed: of the draws.
        unit: of `lm.editing.settings.Settings`, which sets it: what an edit must leave in one piece. Of lines, tokens
            with line breaks are neither drawn nor changed; of paragraphs, those with a line break or nothing but white
            space, which could make a blank line.
    """

    select: Select = "at-least"
    threshold: float = 0.99
    upper: float = 1.0
    candidates: Candidates = "top-k"
    top_k: int = 8
    top_p: float = 0.99
    temperature: float = 1.0
    beta: float = 0.5
    keep_original: bool = True
    delete_below: float = 0.0
    seed: int = 0
    unit: Unit = dataclasses.field(default="file", compare=False)  # is compared, and kept, with the settings

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if self.unit not in get_args(Unit):
            raise InputError(f"there is no unit {self.unit!r}; choose one of {', '.join(get_args(Unit))}")
        if self.select not in get_args(Select) or self.candidates not in get_args(Candidates):
            raise InputError(
                f"select must be one of {', '.join(get_args(Select))} and candidates one of "
                f"{', '.join(get_args(Candidates))}; change {self.select!r} or {self.candidates!r}"
            )
        numbers = (self.threshold, self.upper, self.top_p, self.temperature, self.beta, self.delete_below)
        if not all(math.isfinite(number) for number in numbers):
            raise InputError("a number of the edit is not finite; give finite numbers")
        if not 0 <= self.threshold <= 1 or not self.threshold <= self.upper or not 0 <= self.delete_below <= 1:
            raise InputError(
                "the threshold and the limit of deletion must be in [0, 1], and upper not below the threshold"
            )
        if self.top_k < 1 or not 0 < self.top_p <= 1:
            raise InputError("top-k must be at least 1 and top-p in (0, 1]; change them")
        if not 1e-3 <= self.temperature <= 1e3 or not 1e-3 <= self.beta <= 1e3:
            raise InputError("the temperature and beta must be between 0.001 and 1000; change them")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"the seed {self.seed} must be in 0 .. 2^31 - 1; choose another")

    @property
    def prunable(self) -> bool:
        """Whether a position is settled once an upper bound of P is below the threshold."""
        return self.select in ("at-least", "above") and self.delete_below == 0

    @property
    def temperature_drawn(self) -> float:
        """Temperature of the candidates' weights.

        Rejection sampling (Liu et al. 2023, arXiv 2309.06657) draws candidates from the prior, here at `temperature`,
        and accepts candidate c with probability exp((r(c) - max r) / beta). The paper names no reward r. With the only
        one at hand, r(c) = log P(c | x_<i), and as many proposals as it takes, the accepted token has a probability
        proportional to P(c)^(1 / temperature + 1 / beta) (this work): a draw at a lower temperature, made directly.
        """
        if self.candidates == "rejection":
            return 1 / (1 / self.temperature + 1 / self.beta)
        return self.temperature

    @property
    def rule(self) -> Rule:
        """The part that decides which computation is compiled."""
        return Rule(self.select, self.candidates, self.top_k if self.candidates == "top-k" else 0, self.keep_original)

    @property
    def numbers(self) -> Numbers:
        """The numbers, as NumPy scalars."""
        return Numbers(
            np.float32(self.threshold),
            np.float32(self.upper),
            np.float32(self.temperature_drawn),
            np.float32(self.top_p),
            np.float32(self.delete_below),
            np.int32(self.seed),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object, but for the unit, which is in the settings'."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "unit"}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "EditConfig":
        """Return the configuration of such an object.

        Raises:
            InputError: an unknown field or a value out of range.
        """
        unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"an edit has no setting {', '.join(sorted(unknown))}; remove it")
        return cls(**fields)


PRESETS: dict[str, EditConfig] = {
    # Section 4.1 and Algorithm 1: P >= .99, the 8 likeliest tokens; no temperature is named.
    "paper": EditConfig(),
    # The strategy `up_revise` of the released code: P > .99 and a temperature of 1.5, which the paper does not name.
    "released": EditConfig(select="above", temperature=1.5),
    # Its `low_drop_up_revise`: redraws at temperature 1 and deletes tokens with P < .001.
    "released-drop": EditConfig(select="above", delete_below=0.001),
    # Its `filtering`: only deletes; no probability is above 1.
    "filter": EditConfig(select="above", threshold=1.0, delete_below=0.001),
}
