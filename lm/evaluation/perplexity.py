"""Perplexity in Paloma's manner: every document alone, every token once, pooled, with standard errors."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lm.data.corpus import Corpus
from lm.errors import InputError
from lm.evaluation.scoring import Scorer, prepare, scores
from lm.model.decoder import Decoder


@dataclasses.dataclass(frozen=True)
class Score:
    """Perplexity of one domain.

    With C clusters, nll_c their negative log-likelihoods in nats and n_c their tokens, the mean per token is the
    ratio R = sum nll / sum n. Its standard error is the ratio estimator's (Cochran 1977, section 6):
    sqrt(C / (C - 1) sum (nll_c - R n_c)^2) / sum n; that of exp(R) follows by the delta method. Documents are the
    clusters where they are drawn one by one; works are where documents are passages of them.

    Attributes:
        nats_per_token: R.
        perplexity: exp(R); None where no float is so large, for R above 709.
        perplexity_error: standard error over works; None for a single work, or without a perplexity.
        perplexity_document_error: the same over documents; None for a single one.
        bits_per_byte: sum nll / (bytes ln 2), which alone compares models with different tokenizers.
        bits_per_byte_error: its standard error over works; None for a single work.
        bits_per_byte_document_error: the same over documents; None for a single one.
        tokens: scored.
        bytes: of the documents, UTF-8.
        documents: scored: those that are not empty.
        works: that they are parts of.
    """

    nats_per_token: float
    perplexity: float | None
    perplexity_error: float | None
    perplexity_document_error: float | None
    bits_per_byte: float
    bits_per_byte_error: float | None
    bits_per_byte_document_error: float | None
    tokens: int
    bytes: int
    documents: int
    works: int


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float | None]:
    """Return sum(numerator) / sum(denominator) over clusters and its standard error (see `Score`)."""
    value = float(numerator.sum() / denominator.sum())
    if len(numerator) < 2:
        return value, None
    residual = numerator - value * denominator
    spread = len(numerator) / (len(numerator) - 1) * float(residual @ residual)
    return value, math.sqrt(spread) / float(denominator.sum())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exp(exponent: float, factor: float | None = 1.0) -> float | None:
    """Return exp(exponent) times a factor; None without a factor, and where no float is so large."""
    try:
        return None if factor is None else _finite(math.exp(exponent) * factor)
    except OverflowError:  # a model may be as bad as it likes: its probabilities have logarithms
        return None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums by document, from which every average and standard error is made.

    Attributes:
        works: names, length C.
        domains: of each work.
        work: number of each document's work, shape (n,), int64.
        nll: negative log-likelihood of each document, nats, shape (n,), float64.
        tokens: of each document, at least 1, shape (n,), int64.
        bytes: of each document, shape (n,), int64.
    """

    works: tuple[str, ...]
    domains: tuple[str, ...]
    work: np.ndarray
    nll: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    def _of(self, domain: str | None) -> np.ndarray:
        """Return which documents belong to a domain, or all of them, shape (n,)."""
        return np.asarray([domain in (None, name) for name in self.domains])[self.work]

    def score(self, domain: str | None = None) -> Score:
        """Return the score of a domain, or pooled over all tokens (micro average) for None."""
        chosen = self._of(domain)
        work = np.unique(self.work[chosen], return_inverse=True)[1]
        nll, tokens, size = self.nll[chosen], self.tokens[chosen], self.bytes[chosen]

        def both(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float | None, float | None]:
            value, by_document = ratio(numerator, denominator)
            _, by_work = ratio(np.bincount(work, numerator), np.bincount(work, denominator))
            return value, by_work, by_document

        mean, by_work, by_document = both(nll, tokens)
        bits, bits_by_work, bits_by_document = both(nll / math.log(2), size)
        return Score(
            nats_per_token=mean,
            perplexity=_exp(mean),
            perplexity_error=_exp(mean, by_work),
            perplexity_document_error=_exp(mean, by_document),
            bits_per_byte=bits,
            bits_per_byte_error=bits_by_work,
            bits_per_byte_document_error=bits_by_document,
            tokens=int(tokens.sum()),
            bytes=int(size.sum()),
            documents=len(nll),
            works=int(work.max()) + 1,
        )

    def macro_perplexity(self) -> float | None:
        """Return the mean of the domains' perplexities, each domain with the same weight; None if one has none."""
        found = [self.score(domain).perplexity for domain in sorted(set(self.domains))]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        with np.errstate(over="ignore"):
            return _finite(float(np.mean(known)))

    def macro_bits_per_byte(self) -> float:
        """Return the mean of the domains' bits per byte, each domain with the same weight."""
        return float(np.mean([self.score(domain).bits_per_byte for domain in sorted(set(self.domains))]))

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON has them; `from_json` reads them."""
        return {
            field.name: list(getattr(self, field.name))
            if field.name in ("works", "domains")
            else getattr(self, field.name).tolist()
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that `to_json` wrote."""
        arrays = {name: np.asarray(data[name]) for name in ("work", "nll", "tokens", "bytes")}
        return cls(tuple(data["works"]), tuple(data["domains"]), **arrays)


def join(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return several evaluations as one; their works are different ones."""
    works = np.cumsum([0, *(len(one.works) for one in evaluations)])
    return Evaluation(
        tuple(name for one in evaluations for name in one.works),
        tuple(name for one in evaluations for name in one.domains),
        np.concatenate([one.work + first for one, first in zip(evaluations, works[:-1], strict=True)]),
        *(np.concatenate([getattr(one, name) for one in evaluations]) for name in ("nll", "tokens", "bytes")),
    )


def evaluate(
    model: Decoder | Scorer,
    corpus: Corpus,
    end: int,
    stride: int | None = None,
    context: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Evaluation:
    """Score every document of a corpus alone, each from an end-of-text id on.

    Args:
        model: to evaluate.
        corpus: documents of any domains and lengths; empty ones are left out.
        end: end-of-text id.
        stride: see `lm.evaluation.windows.blocks`.
        context: longest window, in tokens; the model's by default.
        progress: called with the number of tokens scored so far.

    Raises:
        InputError: a corpus without tokens; what `lm.evaluation.scoring.scores` raises.
    """
    if not len(corpus.tokens):
        raise InputError("the evaluation corpus has no tokens; give documents with text")
    scorer = model if isinstance(model, Scorer) else prepare(model)
    nll, done = np.zeros(len(corpus)), 0
    for place, found in scores(scorer, corpus, end, stride, context):
        _add(nll, corpus, place, found)
        done += len(place)
        progress(done)
    return _evaluation(corpus, nll)


def from_scores(corpus: Corpus, log_probability: np.ndarray) -> Evaluation:
    """Return the evaluation of a corpus whose tokens' log-probabilities are known.

    Args:
        corpus: M tokens, at least one.
        log_probability: of `lm.evaluation.scoring.log_probabilities`, shape (M,).
    """
    nll = np.zeros(len(corpus))
    _add(nll, corpus, np.arange(len(corpus.tokens)), log_probability)
    return _evaluation(corpus, nll)


def _add(nll: np.ndarray, corpus: Corpus, place: np.ndarray, log_probability: np.ndarray) -> None:
    """Take log-probabilities of tokens at some places from the sums of their documents."""
    document = np.searchsorted(corpus.starts, place, side="right") - 1
    np.subtract.at(nll, document, log_probability.astype(np.float64))


def _evaluation(corpus: Corpus, nll: np.ndarray) -> Evaluation:
    lengths = corpus.lengths
    kept = lengths > 0
    names = [
        name for name, some in zip(zip(corpus.domains, corpus.works, strict=True), kept.tolist(), strict=True) if some
    ]
    ordered = sorted(set(names))
    index = {name: number for number, name in enumerate(ordered)}
    return Evaluation(
        tuple(work for _, work in ordered),
        tuple(domain for domain, _ in ordered),
        np.asarray([index[name] for name in names]),
        nll[kept],
        lengths[kept],
        np.asarray(corpus.sizes[kept]),
    )
