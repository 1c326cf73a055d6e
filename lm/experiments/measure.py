"""What is measured: of a model the loss by document and on rare tokens; of a corpus diversity and coverage."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from lm.data.corpus import Corpus
from lm.evaluation.scoring import log_probabilities
from lm.experiments import kept
from lm.experiments.texts import Prepared
from lm.model.decoder import Decoder

CONFIDENT = (0.9, 0.99)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model's loss on the test text.

    Attributes:
        nll: of each document, nats, float64, shape (n,).
        rare_nll: of each document's rare tokens, nats, float64, shape (n,).
        above: share of the human test tokens with a probability of at least `CONFIDENT`, shape (2,).
        rare_tokens: number of rare tokens of each document, shape (n,).
    """

    nll: np.ndarray
    rare_nll: np.ndarray
    above: np.ndarray
    rare_tokens: np.ndarray

    def save(self, path: pathlib.Path) -> None:
        """Write the arrays."""
        kept.save_arrays(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: pathlib.Path) -> "Measured":
        """Return what `save` wrote; raises InputError if it is lost or damaged."""
        return cls(**kept.load_arrays(path, [field.name for field in dataclasses.fields(cls)]))

    def averages(self) -> dict[str, float]:
        """Return the numbers that are of all human test text."""
        shares = {f"share_above_{p:g}": float(share) for p, share in zip(CONFIDENT, self.above, strict=True)}
        return {"rare_nats": float(self.rare_nll.sum() / self.rare_tokens.sum()), **shares}


def measure(model: Decoder, texts: Prepared) -> Measured:
    """Score the test text with a model."""
    test = texts.test
    scores = log_probabilities(model, test, texts.tokenizer.end).astype(np.float64)
    document = np.repeat(np.arange(len(test)), test.lengths)
    rare = texts.rare
    mine = np.exp(scores[np.repeat(texts.is_human, test.lengths)])
    return Measured(
        np.bincount(document, -scores, len(test)),
        np.bincount(document, -scores * rare, len(test)),
        np.asarray([(mine >= p).mean() for p in CONFIDENT]),
        np.bincount(document, rare, len(test)),
    )


def _trigrams(corpus: Corpus) -> np.ndarray:
    tokens = np.asarray(corpus.tokens, np.int64)
    found = (tokens[:-2] << 40) | (tokens[1:-1] << 20) | tokens[2:]
    document = np.repeat(np.arange(len(corpus)), corpus.lengths)
    return found[document[:-2] == document[2:]]


def text_statistics(corpus: Corpus, texts: Prepared) -> dict[str, Any]:
    """Return sizes, diversity and tail coverage of a training corpus.

    `distinct_trigram_share`: distinct trigrams of tokens over all; `unigram_entropy_bits`: of the tokens;
    `tail_coverage`: share of the trigrams that the human training text has exactly once and that are in this
    corpus too (1 for the human text itself; corpora of other sizes are not comparable).
    """
    tokens = np.asarray(corpus.tokens, np.int64)
    counts = np.bincount(tokens, minlength=texts.tokenizer.size)
    p = counts[counts > 0] / len(tokens)
    mine = np.unique(_trigrams(corpus))
    once, number = np.unique(_trigrams(texts.human), return_counts=True)
    return {
        "documents": len(corpus),
        "tokens": len(tokens),
        "distinct_tokens": len(p),
        "distinct_trigram_share": len(mine) / max(len(_trigrams(corpus)), 1),
        "unigram_entropy_bits": float(-(p * np.log2(p)).sum()),
        "mean_document_tokens": len(tokens) / len(corpus),
        "tail_coverage": float(np.isin(once[number == 1], mine, assume_unique=True).mean()),
    }
