"""Perplexity in Paloma's manner: every document alone, every token once, pooled, with standard errors."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.corpus import Corpus
from lm.errors import InputError
from lm.model import Decoder
from lm.packing import windows
from lm.scoring import over_windows

Array = jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _log_probability(graph: Any, state: Any, inputs_BxT: Array, targets_BxT: Array) -> tuple[Array]:
    model = nnx.merge(graph, state)
    logits_NxV = model.head(model.hidden(inputs_BxT))
    chosen = jnp.take_along_axis(logits_NxV, targets_BxT.reshape(-1, 1), axis=1)[:, 0]
    return ((chosen - jax.nn.logsumexp(logits_NxV, axis=1)).reshape(targets_BxT.shape),)


def log_probabilities(model: Decoder, corpus: Corpus, end: int, stride: int | None = None) -> np.ndarray:
    """Return log P(token | earlier tokens of its document) of every token, in nats, float32, shape (M,).

    Args:
        model: the prior.
        corpus: M tokens.
        end: end-of-text id, the context of a document's first token.
        stride: see `lm.packing.windows`.
    """
    cut = windows(corpus, end, model.config.context, stride)
    (scores,) = over_windows(model, cut, _log_probability)
    result = np.full(len(corpus.tokens), np.nan, np.float32)
    scored = cut.place >= 0
    result[cut.place[scored]] = scores[scored]
    return result


@dataclasses.dataclass(frozen=True)
class Score:
    """Perplexity of one domain.

    With C clusters (works), nll_c their negative log-likelihoods in nats and n_c their tokens, the mean per
    token is the ratio R = sum nll / sum n. Its standard error is the ratio estimator's (Cochran 1977, section
    6): sqrt(C / (C - 1) sum (nll_c - R n_c)^2) / sum n; that of exp(R) follows by the delta method.

    Attributes:
        perplexity: exp(R).
        perplexity_error: standard error over works; None for a single work.
        bits_per_byte: sum nll / (bytes ln 2), which alone compares models with different tokenizers.
        bits_per_byte_error: its standard error over works; None for a single work.
        tokens: scored.
        bytes: of the documents, UTF-8.
        documents: scored.
        works: clusters.
    """

    perplexity: float
    perplexity_error: float | None
    bits_per_byte: float
    bits_per_byte_error: float | None
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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums by work, from which every average and standard error is made.

    Attributes:
        works: names, length C.
        domains: of each work.
        nll: negative log-likelihood of each work, nats, shape (C,), float64.
        tokens: of each work, shape (C,).
        bytes: of each work, shape (C,).
        documents: of each work, shape (C,).
    """

    works: tuple[str, ...]
    domains: tuple[str, ...]
    nll: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    documents: np.ndarray

    def score(self, domain: str | None = None) -> Score:
        """Return the score of a domain, or pooled over all tokens (micro average) for None."""
        chosen = np.asarray([domain in (None, name) for name in self.domains])
        nll, tokens, size = self.nll[chosen], self.tokens[chosen], self.bytes[chosen]
        mean, error = ratio(nll, tokens)
        bits, bits_error = ratio(nll / math.log(2), size)
        return Score(
            math.exp(mean),
            None if error is None else math.exp(mean) * error,
            bits,
            bits_error,
            int(tokens.sum()),
            int(size.sum()),
            int(self.documents[chosen].sum()),
            int(chosen.sum()),
        )

    def macro_perplexity(self) -> float:
        """Return the mean of the domains' perplexities, each domain with the same weight."""
        return float(np.mean([self.score(domain).perplexity for domain in sorted(set(self.domains))]))

    def difference(self, other: "Evaluation", domain: str | None = None) -> tuple[float, float | None]:
        """Return the change of nats per token from `other` to this, and its paired standard error over works.

        Raises:
            InputError: the two were not made on the same documents.
        """
        if self.works != other.works or not np.array_equal(self.tokens, other.tokens):
            raise InputError("two evaluations on different documents cannot be compared; use the same test split")
        chosen = np.asarray([domain in (None, name) for name in self.domains])
        return ratio(self.nll[chosen] - other.nll[chosen], self.tokens[chosen])


def evaluate(model: Decoder, corpus: Corpus, end: int, stride: int | None = None) -> Evaluation:
    """Score every document of a corpus alone, each from an end-of-text id on.

    Args:
        model: to evaluate.
        corpus: documents of any domains and lengths.
        end: end-of-text id.
        stride: see `lm.packing.windows`.

    Raises:
        InputError: an empty corpus.
    """
    if not len(corpus.tokens):
        raise InputError("the evaluation corpus has no tokens; give documents with text")
    scores = log_probabilities(model, corpus, end, stride).astype(np.float64)
    by_document = -np.add.reduceat(np.append(scores, 0.0), corpus.starts[:-1]) * (corpus.lengths > 0)
    names = list(zip(corpus.domains, corpus.works, strict=True))
    ordered = sorted(set(names))
    index = {name: number for number, name in enumerate(ordered)}
    group = np.asarray([index[name] for name in names])

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights=values, minlength=len(ordered))

    return Evaluation(
        tuple(work for _, work in ordered),
        tuple(domain for domain, _ in ordered),
        total(by_document),
        total(corpus.lengths),
        total(corpus.sizes),
        total(np.ones(len(corpus))),
    )
