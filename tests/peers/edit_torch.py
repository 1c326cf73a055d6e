"""Algorithm 1 of Zhu et al. (2025, arXiv 2412.14689, section 4.1), written from the paper with torch and NumPy.

For each position, P(x_i | x_<i) is a softmax over the whole vocabulary; where it is at least p, x_i is drawn from the
k likeliest tokens. Nothing of this project's editing is used: model and tokenizer come from the GGUF file directly.
"""

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import gguf
import numpy as np
import torch

from lm.weights.load import fetch_smollm2


class Scores(NamedTuple):
    """Of one document: P(x_i | x_<i), float64, and the largest absolute logit."""

    probability: np.ndarray
    largest: float


def smollm2():
    """Return the model in float32, its tokenizer and the id of end-of-text."""
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "_smollm2_torch.py"
    spec = importlib.util.spec_from_file_location("_smollm2_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(fetch_smollm2())


def score(model, end: int, documents: Sequence[Sequence[int]]) -> list[Scores]:
    """Return the scores of a few documents in one pass; padding is on the right, where no token sees it."""
    longest = max(map(len, documents))
    inputs = torch.full((len(documents), longest), end)
    for row, ids in enumerate(documents):
        inputs[row, 1 : len(ids)] = torch.tensor(ids[:-1], dtype=torch.long)
    with torch.inference_mode():
        states = model.model(inputs, use_cache=False).last_hidden_state
        found = []
        for row, ids in enumerate(documents):
            logits = model.lm_head(states[row, : len(ids)])
            largest = logits.abs().max().item()
            chosen = torch.softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])[:, 0].double()
            found.append(Scores(chosen.numpy(), largest))
    return found


def logits(model, end: int, ids: Sequence[int]) -> np.ndarray:
    """Return the logits before each token of a document, float64, shape (M, V)."""
    with torch.inference_mode():
        return model(torch.tensor([[end, *ids[:-1]]]), use_cache=False).logits[0].double().numpy()


def whole_characters(tokenizer) -> np.ndarray:
    """Return which ids of a byte-level tokenizer are text of whole UTF-8 characters, bool, shape (V,)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in printable)}
    kinds = gguf.GGUFReader(fetch_smollm2()).fields["tokenizer.ggml.token_type"].contents()
    found = np.array(kinds) != gguf.TokenType.CONTROL
    for token, number in tokenizer.get_vocab().items():
        try:
            bytes(table.get(character, 0xFF) for character in token).decode()
        except UnicodeDecodeError:
            found[number] = False
    return found


def law(logits_V: np.ndarray, original: int, allowed_V: np.ndarray, config) -> np.ndarray:
    """Return the probability of each replacement, float64, shape (V,), by the words of `EditConfig`.

    Args:
        logits_V: before the token.
        original: its id.
        allowed_V: ids that may be drawn.
        config: an `EditConfig`; of its attributes only the given values are used.
    """
    allowed = allowed_V.copy()
    if not config.keep_original:
        allowed[original] = False
    order = np.argsort(np.where(allowed, -logits_V, np.inf), kind="stable")[: allowed.sum()]
    weight = np.exp((logits_V - logits_V[order[0]]) / config.temperature)
    if config.candidates == "rejection":
        # A proposal c of probability proportional to its weight is accepted with exp((log P(c) - max log P) / beta).
        weight *= np.exp((logits_V - logits_V[order[0]]) / config.beta)
    if config.candidates == "top-k":
        order = order[: config.top_k]
    elif config.candidates == "top-p":
        upto = np.cumsum(weight[order])
        order = order[: np.searchsorted(upto, config.top_p * upto[-1]) + 1]
    if config.keep_original and original not in order:
        order = np.append(order, original)
    found = np.zeros(len(logits_V))
    found[order] = weight[order]
    return found / found.sum()
