"""Documents that a model writes from nothing, as small models trained here do."""

from collections.abc import Sequence

import numpy as np

from lm.generation.decode import Request, decode, prepare, sizes
from lm.generation.sampling import SamplingConfig
from lm.model.decoder import Decoder


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
        Ids of each document, int32, without end-of-text, at least one and at most `context` of them.
    """
    config, weights, documents = model.config, prepare(model), []
    request = Request(SamplingConfig(temperature), config.context, (end,), config.vocabulary)
    rows = sizes().rows
    for first in range(0, len(ids), rows):
        names = ids[first : first + rows]
        decoded = decode(weights, [(end,)] * len(names), names, request, seed, prompt_places=1)
        documents += [one.tokens for one in decoded]
    return documents


def generate_tokens(model: Decoder, end: int, budget: int, prefix: str, seed: int) -> list[np.ndarray]:
    """Sample documents at temperature 1 until they hold `budget` tokens; the last one is cut to meet it exactly.

    Args:
        model: to sample from.
        end: end-of-text id.
        budget: tokens.
        prefix: the documents' ids are `prefix/0`, `prefix/1`, ...
        seed: of the randomness.
    """
    documents: list[np.ndarray] = []
    left = budget
    while left > 0:
        ids = [f"{prefix}/{number}" for number in range(len(documents), len(documents) + sizes().rows)]
        for document in generate(model, end, ids, seed):
            if left > 0:
                documents.append(document[:left])
                left -= len(documents[-1])
    return documents
