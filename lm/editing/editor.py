"""From documents to decisions, in batches of a few seconds; the documents of a sample are looked at more closely."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig
from lm.editing.decide import Decisions
from lm.editing.documents import DocumentEncoder, TokenizedDocument, joined
from lm.editing.prior import Prior, decisions, probabilities
from lm.editing.statistics import sampled

# Tokens of the first batch: what the last block of each length lacks is then little.
FIRST = {"cpu": 1 << 16}
LARGE_FIRST = 1 << 22  # on accelerators, which take a second or less for it
SECONDS = 4.0  # that a batch should take, so that progress is seen; what is decided does not depend on it


class Edit(NamedTuple):
    """What becomes of a document.

    Attributes:
        document: the original.
        decisions: for its tokens; with every probability and entropy where it is in the sample.
        after: of a document in the sample: the probabilities of the edited text's tokens, tokenized anew, float32.
    """

    document: TokenizedDocument
    decisions: Decisions
    after: np.ndarray | None


def counts(made: Sequence[Edit]) -> tuple[int, int, int]:
    """Return how many tokens some documents have, one at least, and how many are selected and changed."""
    tokens = joined([one.document.tokens for one in made])
    decisions = Decisions(*map(joined, zip(*(one.decisions for one in made), strict=True)))
    return len(tokens), int(np.sum(decisions.selected)), int(np.sum(decisions.changed(tokens)))


class Editor:
    """Decides for documents; keep one and reuse it, because it learns how many to take together."""

    def __init__(self, prior: Prior, config: EditConfig, sample: float):
        """Start.

        Args:
            prior: that edits.
            config: of the edit.
            sample: share of the documents that are looked at more closely, by the hash of their keys.
        """
        self._prior, self._config, self._sample = prior, config, sample
        self._encoder = DocumentEncoder(prior.tokenizer)
        self._tokens = FIRST.get(jax.default_backend(), LARGE_FIRST)

    def __call__(self, documents: Sequence[TokenizedDocument]) -> Iterator[list[Edit]]:
        """Yield the edits of all documents in their order, a batch at a time."""
        batch: list[TokenizedDocument] = []
        size = 0
        for document in documents:
            batch.append(document)
            size += len(document.tokens)
            if size >= self._tokens:
                yield self._timed(batch, size)
                batch, size = [], 0
        if batch:
            yield self._decide(batch)

    def _timed(self, batch: list[TokenizedDocument], size: int) -> list[Edit]:
        started = time.perf_counter()
        made = self._decide(batch)
        # The first batch compiles, so the number only grows.
        wanted = int(SECONDS * size / (time.perf_counter() - started))
        self._tokens = max(self._tokens, min(wanted, 2 * self._tokens))
        return made

    def _decide(self, batch: list[TokenizedDocument]) -> list[Edit]:
        closely = [sampled(document.key, self._sample) for document in batch]
        # One pass for all: few documents alone would leave most of each length's last block empty.
        made = decisions(self._prior, batch, self._config, full=closely)
        pairs = [pair for pair, close in zip(zip(batch, made, strict=True), closely, strict=True) if close]
        afters = iter(self._after(*zip(*pairs, strict=True)) if pairs else [])
        return [
            Edit(document, one, next(afters) if close else None)
            for document, one, close in zip(batch, made, closely, strict=True)
        ]

    def _after(self, documents: Sequence[TokenizedDocument], made: Sequence[Decisions]) -> list[np.ndarray]:
        texts = [edited_text(*pair, self._prior.tokenizer) for pair in zip(documents, made, strict=True)]
        return list(probabilities(self._prior, self._encoder(texts, [document.key for document in documents])))


def edited_text(document: TokenizedDocument, made: Decisions, tokenizer: Tokenizer) -> bytes:
    """Return a document's text after its edits.

    Args:
        document: the original.
        made: for its tokens.
        tokenizer: of the prior.
    """
    pieces, at = [], 0
    for index in np.flatnonzero(made.changed(document.tokens)).tolist():
        begin, end = document.spans[index].tolist()
        pieces += [document.text[at:begin], b"" if made.deleted[index] else tokenizer.decode([int(made.token[index])])]
        at = end
    return b"".join([*pieces, document.text[at:]])
