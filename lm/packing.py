"""From documents to the fixed shapes that a model takes: packed rows to train on, windows to score."""

import dataclasses

import numpy as np

from lm.corpus import Corpus
from lm.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rows:
    """Packed training rows.

    Attributes:
        inputs: ids, shape (N, T), int32.
        targets: the next ids, shape (N, T), int32.
        segments: number of the document in the row, shape (N, T), int32.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segments: np.ndarray


def pack(corpus: Corpus, end: int, context: int, rows: int, seed: int) -> Rows:
    """Return rows cut from one stream of shuffled documents, an end-of-text id before each.

    The stream is the corpus in a random order, then in another order, and so on until it fills the rows; a
    row that starts inside a document sees only its part. Every position is a target once, end-of-text too.

    Args:
        corpus: documents.
        end: end-of-text id.
        context: T.
        rows: N.
        seed: of the orders.

    Raises:
        InputError: an empty corpus.
    """
    if not len(corpus.tokens):
        raise InputError("the training corpus has no tokens; give documents with text")
    random, needed = np.random.default_rng(seed), rows * context + 1
    tokens, owners, filled, documents = [], [], 0, 0
    while filled < needed:
        for number in random.permutation(len(corpus)):
            document = corpus.document(int(number))
            tokens.append(np.concatenate([[end], document]).astype(np.int32))
            owners.append(np.full(len(document) + 1, documents, np.int32))
            documents += 1
            filled += len(document) + 1
            if filled >= needed:
                break
    stream, owner = np.concatenate(tokens), np.concatenate(owners)
    return Rows(
        stream[: needed - 1].reshape(rows, context),
        stream[1:needed].reshape(rows, context),
        owner[: needed - 1].reshape(rows, context),
    )


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of single documents in which every token is a scored target exactly once.

    Attributes:
        inputs: ids, shape (N, T), int32; end-of-text before a document's first token, padding after its last.
        targets: the next ids, shape (N, T), int32.
        place: position of each scored target in the corpus' `tokens`, -1 where a target is not scored, (N,
            T), int64.
    """

    inputs: np.ndarray
    targets: np.ndarray
    place: np.ndarray


def windows(corpus: Corpus, end: int, context: int, stride: int | None = None) -> Windows:
    """Cut each document into windows.

    The first window of a document scores its first T tokens after an end-of-text id; each later one scores
    the next `stride` tokens, and the last one what is left, with as much context before as fits.

    Args:
        corpus: documents.
        end: end-of-text id, the context of a document's first token.
        context: T.
        stride: targets of a window after the first, in 1..T; T by default, the disjoint windows of Paloma
            (Magnusson et al. 2023, arXiv 2312.10523).

    Raises:
        InputError: a stride outside 1..T.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise InputError(f"a stride of {stride} does not fit a context of {context}; use 1 to {context}")
    # (document, first scored target, behind the last) of each window; filling them is vectorised.
    spans = []
    for number, length in enumerate(corpus.lengths):
        done = 0
        while done < length:
            until = min(done + (stride if done else context), int(length))
            spans.append((number, done, until))
            done = until
    table = np.asarray(spans, np.int64).reshape(-1, 3)
    origin, length = corpus.starts[table[:, 0]], corpus.lengths[table[:, 0]]
    first = np.maximum(table[:, 2] - context, 0)  # the first target that the window holds
    target = first[:, None] + np.arange(context)
    held = target < np.minimum(length, table[:, 2])[:, None]
    tokens = np.asarray(corpus.tokens, np.int32)
    place = origin[:, None] + np.minimum(target, length[:, None] - 1)
    targets = np.where(held, tokens[place], end).astype(np.int32)
    previous = np.where(target > 0, tokens[np.maximum(place - 1, 0)], end)
    inputs = np.where(held, previous, end).astype(np.int32)
    scored = held & (target >= table[:, 1:2])
    return Windows(inputs, targets, np.where(scored, place, -1))
