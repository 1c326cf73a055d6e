"""What an edit did: counts of every document, and a closer look at a sample of them.

A run makes one `Statistics` a part and merges them. All sums are whole numbers, so the whole does not depend on the
cut or the order, with two exceptions that the limits below name: more than DOMAINS domains, and more than
SUBSTITUTIONS distinct substitutions.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig
from lm.editing.decide import Decisions
from lm.editing.documents import TokenizedDocument, joined
from lm.editing.excerpt import examples, order_of, shown
from lm.editing.mergeable import UNIT, Frequent, Moments, Sketch, units

NEAR = (1e-3, 1e-4, 1e-5, 1e-6)  # relative distances from a threshold
BINS = 100  # of the histogram of probabilities over [0, 1]
LEVELS = (0.9, 0.99, 0.999)  # probabilities at or above which tokens are counted
DOMAINS = 200  # domains told apart, those met first; the others are counted together
OTHERS = "(others)"
DOMAIN_NAME = 100  # characters of a domain's name
SUBSTITUTIONS = 20_000  # distinct pairs counted exactly; see `Frequent` for more
SHOWN_SUBSTITUTIONS = 100
EXAMPLES = 24  # edits in context
SHOWN = 2  # documents a domain, to read side by side
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

COUNTED = ("tokens", "bytes", "editable", "selected", "deleted", "changed")
SCORED = (
    "tokens", "nll", "tokens_after", "nll_after",
    "entropy", "selected", "entropy_selected", "changed", "entropy_changed",
)  # fmt: skip
LEAST = np.float32(np.finfo(np.float32).tiny)  # probabilities below have no logarithm in float32


def sampled(key: str, share: float) -> bool:
    """Return whether the document of this key is in the sample: by its hash, whatever else is in the run.

    A larger share's sample holds a smaller share's.

    Args:
        key: of the document.
        share: of all documents, in [0, 1].
    """
    return order_of(key) < share * 2.0**64


class _Domain:
    """Counts of one domain's documents.

    Attributes:
        empty: documents without tokens; they are nowhere else.
        counts: whole numbers of each document (COUNTED).
        rates: changed tokens over all tokens of each document.
        near: editable positions within each relative distance (NEAR) of a threshold: at or above it, and below.
        scores: whole numbers of each sampled document (SCORED); nats in multiples of UNIT.
        levels: mean log-probability per token of each sampled document: before, after, and the change.
        histogram: tokens by probability before and after, of sampled documents, shape (2, BINS).
        above: tokens at or above each of LEVELS before and after, shape (2, 3).
        shown: sampled documents to read.
    """

    def __init__(self) -> None:
        self.empty = 0
        self.counts = Moments(COUNTED)
        self.rates = Sketch()
        self.near = np.zeros((2, len(NEAR)), np.int64)
        self.scores = Moments(SCORED)
        self.levels = (Sketch(), Sketch(), Sketch())
        self.histogram = np.zeros((2, BINS), np.int64)
        self.above = np.zeros((2, len(LEVELS)), np.int64)
        self.shown: list[dict[str, Any]] = []

    def merge(self, other: "_Domain") -> None:
        self.empty += other.empty
        self.counts.merge(other.counts)
        self.rates.merge(other.rates)
        self.near += other.near
        self.scores.merge(other.scores)
        for mine, theirs in zip(self.levels, other.levels, strict=True):
            mine.merge(theirs)
        self.histogram += other.histogram
        self.above += other.above
        self.shown = _first([*self.shown, *other.shown], SHOWN)

    def to_json(self) -> dict[str, Any]:
        return {
            "empty": self.empty,
            "counts": self.counts.to_json(),
            "rates": self.rates.to_json(),
            "near": self.near.tolist(),
            "scores": self.scores.to_json(),
            "levels": [one.to_json() for one in self.levels],
            "histogram": self.histogram.tolist(),
            "above": self.above.tolist(),
            "shown": self.shown,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "_Domain":
        made = cls()
        made.empty = int(data["empty"])
        made.counts = Moments.from_json(data["counts"])
        made.rates = Sketch.from_json(data["rates"])
        made.near = np.asarray(data["near"], np.int64)
        made.scores = Moments.from_json(data["scores"])
        before, after, change = (Sketch.from_json(one) for one in data["levels"])
        made.levels = (before, after, change)
        made.histogram = np.asarray(data["histogram"], np.int64)
        made.above = np.asarray(data["above"], np.int64)
        made.shown = list(data["shown"])
        return made


def _first(chosen: Iterable[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Return the first by hash, each once."""
    known = {json.dumps(one, sort_keys=True): one for one in chosen}
    return [one for _, one in sorted(known.items(), key=lambda item: (item[1]["order"], item[0]))][:number]


def _thresholds(config: EditConfig) -> np.ndarray:
    """Return the numbers that decide, as the float32 that probabilities are compared with, in float64."""
    found = [config.numbers.threshold]
    if config.select == "band":
        found.append(config.numbers.upper)
    if config.delete_below:
        found.append(config.numbers.delete_below)
    return np.asarray(found, np.float64)


class Statistics:
    """Counts of one part of a run; parts merge into the whole."""

    def __init__(self, config: EditConfig):
        """Start without documents."""
        self.config: EditConfig = config
        """Of the edit."""
        self._thresholds = _thresholds(config)
        self._domains: dict[str, _Domain] = {}
        self._substitutions = Frequent(SUBSTITUTIONS)
        self._examples: list[dict[str, Any]] = []

    def _domain(self, name: str) -> _Domain:
        name = name[:DOMAIN_NAME]
        if name not in self._domains and len(self._domains) >= DOMAINS:
            name = OTHERS
        return self._domains.setdefault(name, _Domain())

    def add(
        self, documents: Sequence[TokenizedDocument], decisions: Sequence[Decisions], domains: Sequence[str]
    ) -> None:
        """Count documents; for every document of a run, sampled or not.

        Args:
            documents: originals.
            decisions: for the tokens of each.
            domains: of the documents.
        """
        by_domain: dict[_Domain, list[int]] = {}
        for number, (document, name) in enumerate(zip(documents, domains, strict=True)):
            place = self._domain(name)
            if len(document.tokens):
                by_domain.setdefault(place, []).append(number)
            else:
                place.empty += 1
        for place, numbers in by_domain.items():
            self._add(place, [documents[number] for number in numbers], [decisions[number] for number in numbers])

    def _add(self, place: _Domain, documents: Sequence[TokenizedDocument], decisions: Sequence[Decisions]) -> None:
        """Count documents of one domain, none of them empty."""
        tokens, editable = (joined([getattr(one, name) for one in documents]) for name in ("tokens", "editable"))
        probability, selected, deleted, token, *_ = (joined(column) for column in zip(*decisions, strict=True))
        changed = deleted | (token != tokens)
        lengths = np.array([len(one.tokens) for one in documents])
        starts = np.cumsum(lengths) - lengths
        editables, selecteds, deleteds, changeds = (
            np.add.reduceat(column, starts, dtype=np.int64) for column in (editable, selected, deleted, changed)
        )
        place.counts.add(
            tokens=lengths,
            bytes=[len(one.text) for one in documents],
            editable=editables,
            selected=selecteds,
            deleted=deleteds,
            changed=changeds,
        )
        for rate in changeds / lengths:
            place.rates.add(rate)
        place.near += self._near(probability[editable])
        new = np.where(deleted[changed], -1, token[changed]).astype(np.int64)
        self._substitutions.add((tokens[changed].astype(np.int64) << 32) | (new + 1))

    def _near(self, probability: np.ndarray) -> np.ndarray:
        """Return how many positions are close to a threshold: at or above it, and below, shape (2, 4)."""
        found = np.zeros((2, len(NEAR)), np.int64)
        for threshold in self._thresholds:
            # A probability that is not known (NaN) is close to nothing.
            distance = probability[np.abs(probability - threshold) <= NEAR[0] * threshold].astype(np.float64)
            distance -= threshold
            for column, share in enumerate(NEAR):
                close = distance[np.abs(distance) <= share * threshold]
                found[:, column] += (close >= 0).sum(), (close < 0).sum()
        return found

    def add_sampled(
        self,
        document: TokenizedDocument,
        decisions: Decisions,
        domain: str,
        after: np.ndarray,
        tokenizer: Tokenizer,
    ) -> None:
        """Look more closely at a sampled document, besides `add`.

        Args:
            document: original.
            decisions: with every probability and entropy (`full=True`).
            domain: of the document.
            after: probabilities of the edited text's tokens under the prior, tokenized anew, float32; as many as it
                has, perhaps none.
            tokenizer: of the prior.
        """
        tokens = document.tokens
        if not len(tokens):
            return
        place = self._domain(domain)
        selected, changed = np.asarray(decisions.selected), decisions.changed(tokens)
        entropy = np.asarray(decisions.entropy)
        sums = []
        for row, probability in enumerate((np.asarray(decisions.probability), after)):
            place.histogram[row] += np.histogram(probability.astype(np.float64), BINS, (0.0, 1.0))[0]
            place.above[row] += (probability[:, None] >= np.asarray(LEVELS, np.float32)).sum(axis=0)
            sums.append(units(-np.log(np.maximum(probability, LEAST).astype(np.float64))))
        place.scores.add(
            tokens=len(tokens),
            nll=sums[0],
            tokens_after=len(after),
            nll_after=sums[1],
            entropy=units(entropy),
            selected=int(selected.sum()),
            entropy_selected=units(entropy[selected]),
            changed=int(changed.sum()),
            entropy_changed=units(entropy[changed]),
        )
        means = [-one * UNIT / max(number, 1) for one, number in zip(sums, (len(tokens), len(after)), strict=True)]
        for sketch, value in zip(place.levels, (*means, means[1] - means[0]), strict=True):
            sketch.add(value)
        if changed.any():
            place.shown = _first([*place.shown, shown(document, decisions, domain[:DOMAIN_NAME], tokenizer)], SHOWN)
            found = examples(document, decisions, domain[:DOMAIN_NAME], tokenizer, EXAMPLES)
            self._examples = _first([*self._examples, *found], EXAMPLES)

    def merge(self, other: "Statistics") -> None:
        """Add another part's counts.

        Raises:
            ValueError: the parts are of different edits.
        """
        if self.config != other.config:
            raise ValueError("statistics of different edits cannot be merged")
        for name, domain in other._domains.items():
            self._domain(name).merge(domain)
        self._substitutions.merge(other._substitutions)
        self._examples = _first([*self._examples, *other._examples], EXAMPLES)

    def to_json(self) -> dict[str, Any]:
        """Return everything, as JSON types: to write a part, and to merge parts again."""
        return {
            "config": self.config.to_json(),
            "domains": {name: domain.to_json() for name, domain in self._domains.items()},
            "substitutions": self._substitutions.to_json(),
            "examples": self._examples,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Statistics":
        """Return what `to_json` wrote."""
        made = cls(EditConfig.from_json(data["config"]))
        made._domains = {name: _Domain.from_json(domain) for name, domain in data["domains"].items()}
        made._substitutions = Frequent.from_json(data["substitutions"])
        made._examples = list(data["examples"])
        return made


def summary(statistics: Statistics, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what there is to read, as JSON types: the content of a run's stats.json.

    Shares and rates are of tokens, 0 to 1; log-probabilities and entropies in nats per token. A "value" has its
    standard error over documents beside it; quantiles are within 1 % of themselves (the middles of bins). "deciles" are
    the shares of the tokens in the tenths of [0, 1], None of no tokens. "near" counts editable positions by their
    relative distance from a threshold; where pruning ruled positions out without their probability, those below are
    counted in part.

    Args:
        statistics: of a whole run, or of a file.
        tokenizer: of the prior, to spell the substitutions.
    """
    whole = _Domain()
    domains = dict(sorted(statistics._domains.items()))
    for domain in domains.values():
        whole.merge(domain)
    rows = [
        {
            "old_token": key >> 32,
            "new_token": (key & 0xFFFFFFFF) - 1,
            "old": tokenizer.decode([key >> 32]).decode(errors="replace"),
            "new": tokenizer.decode([new - 1]).decode(errors="replace") if (new := key & 0xFFFFFFFF) else None,
            "count": count,
        }
        for key, count in statistics._substitutions.top(SHOWN_SUBSTITUTIONS)
    ]
    chosen = [one for domain in domains.values() for one in domain.shown]
    return {
        "config": statistics.config.to_json(),
        "total": _rates(whole),
        "domains": {name: _rates(domain) for name, domain in domains.items()},
        "sample": {
            "total": _scores(whole),
            "domains": {name: _scores(domain) for name, domain in domains.items()},
        },
        "substitutions": {
            "distinct": len(statistics._substitutions),
            "counts_too_small_by_at_most": statistics._substitutions.missed,
            "rows": rows,
        },
        "examples": statistics._examples,
        "documents": chosen,
    }


def _rates(domain: _Domain) -> dict[str, Any]:
    counts = domain.counts
    return {
        "documents": counts.documents + domain.empty,
        "empty_documents": domain.empty,
        **{name: counts.sum(name) for name in COUNTED},
        "selected_share": counts.ratio("selected", "tokens"),
        "effective_edit_rate": counts.ratio("changed", "tokens"),
        "changed_of_selected": counts.ratio("changed", "selected") if not counts.sum("deleted") else None,
        "document_edit_rate_quantiles": domain.rates.quantiles(QUANTILES),
        "near": [
            {"relative_distance": share, "at_or_above": int(above), "below": int(below)}
            for share, above, below in zip(NEAR, *domain.near, strict=True)
        ],
    }


def _scores(domain: _Domain) -> dict[str, Any]:
    scores = domain.scores
    levels = {
        name: one.quantiles(QUANTILES) for name, one in zip(("before", "after", "change"), domain.levels, strict=True)
    }
    moments = {
        "before": scores.ratio("nll", "tokens", scale=-UNIT),
        "after": scores.ratio("nll_after", "tokens_after", scale=-UNIT),
        "change": scores.ratio("nll_after", "tokens_after", ("nll", "tokens"), scale=-UNIT),
    }
    return {
        "documents": scores.documents,
        "tokens": scores.sum("tokens"),
        "tokens_after": scores.sum("tokens_after"),
        "mean_log_probability": moments,
        "document_mean_log_probability_quantiles": levels,
        "entropy": {
            "all": scores.ratio("entropy", "tokens", scale=UNIT),
            "selected": scores.ratio("entropy_selected", "selected", scale=UNIT),
            "changed": scores.ratio("entropy_changed", "changed", scale=UNIT),
        },
        "probability": {
            name: _distribution(histogram, above)
            for name, histogram, above in zip(("before", "after"), domain.histogram, domain.above, strict=True)
        },
    }


def _distribution(histogram: np.ndarray, above: np.ndarray) -> dict[str, Any]:
    total = int(histogram.sum())
    tenths = histogram.reshape(10, -1).sum(axis=1).tolist()
    return {
        "histogram": histogram.tolist(),
        "deciles": [count / total for count in tenths] if total else None,
        "at_least": {
            f"{level:g}": int(count) / total if total else None for level, count in zip(LEVELS, above, strict=True)
        },
    }
