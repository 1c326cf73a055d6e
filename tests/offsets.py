"""Tokens of a text with their bytes, for tests that make documents by hand."""

import numpy as np

from lm.data.tokenizer import Tokenizer


def encode_with_offsets(tokenizer: Tokenizer, text: str) -> tuple[list[int], np.ndarray]:
    """Return the N ids of a text, and where the bytes of each begin and end in it, int64, shape (N, 2)."""
    (ids,) = tokenizer.encode([text])
    sizes = np.asarray([len(tokenizer.decode([number])) for number in ids], np.int64)
    ends = np.cumsum(sizes)
    return ids, np.stack([ends - sizes, ends], axis=1)
