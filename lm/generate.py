"""Unconditional sampling with a key-value cache."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.model import Decoder
from lm.sampling import document_words, pick, uniforms
from lm.scoring import split

Array = jax.Array

BATCH = 256  # documents sampled at a time: the shape is fixed, so a document does not depend on the others


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sample(graph: Any, state: Any, words_Bx2: Array, end: int, seed: Array, temperature: Array) -> Array:
    model = nnx.merge(graph, state)
    B, T = words_Bx2.shape[0], model.config.context

    def step(carry, position):
        token, cache = carry
        logits, cache = model.step(token, position, cache)
        # A document is not empty: its first token cannot be end-of-text.
        logits = jnp.where((position == 0) & (jnp.arange(logits.shape[1]) == end), -jnp.inf, logits)
        weight = jax.nn.softmax(logits / temperature, axis=-1)
        token = pick(weight, uniforms(seed, words_Bx2, jnp.full(B, position)))
        return (token, cache), token

    start = (jnp.full(B, end, jnp.int32), model.empty_cache(B, T))
    _, tokens_TxB = jax.lax.scan(step, start, jnp.arange(T))
    return tokens_TxB.T


def generate(model: Decoder, end: int, ids: Sequence[str], seed: int, temperature: float = 1.0) -> list[np.ndarray]:
    """Sample one document for each id.

    Each starts from end-of-text and runs until end-of-text is drawn or the context is full. The numbers that
    decide are keyed by (seed, id, position).

    Args:
        model: to sample from.
        end: end-of-text id.
        ids: names of the documents.
        seed: of the randomness.
        temperature: of the distribution; 1 samples from the model.

    Returns:
        Ids of each document, without end-of-text, at least one and at most `context` of them.
    """
    graph, state = split(model)
    words, documents = document_words(ids), []
    for start in range(0, len(ids), BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), len(ids) - 1)
        tokens = np.asarray(_sample(graph, state, words[rows], end, seed, temperature))
        for row in tokens[: len(ids) - start]:
            stops = np.flatnonzero(row == end)
            documents.append(row[: stops[0]] if len(stops) else row)
    return documents


def generate_tokens(
    model: Decoder, end: int, budget: int, prefix: str, seed: int, temperature: float = 1.0
) -> list[np.ndarray]:
    """Sample documents until they hold `budget` tokens; the last one is cut to meet it exactly.

    Args:
        model: to sample from.
        end: end-of-text id.
        budget: tokens.
        prefix: the documents' ids are `prefix/0`, `prefix/1`, ...
        seed: of the randomness.
        temperature: see `generate`.
    """
    documents: list[np.ndarray] = []
    left = budget
    while left > 0:
        ids = [f"{prefix}/{number}" for number in range(len(documents), len(documents) + BATCH)]
        for document in generate(model, end, ids, seed, temperature):
            if left > 0:
                documents.append(document[:left])
                left -= len(documents[-1])
    return documents
