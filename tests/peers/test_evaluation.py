"""SmolLM2's perplexity on three domains against transformers' model with windows and log-softmax of its own."""

import hashlib
import importlib.util
import itertools
import math
import pathlib

import numpy as np
import pytest
import torch

from lm.data import sources
from lm.data.tokenising import from_documents
from lm.evaluation.perplexity import evaluate
from lm.evaluation.scoring import prepare
from lm.weights.load import fetch_smollm2, load

pytestmark = pytest.mark.peers
DOMAINS = ("sotu", "novels", "python")
CONTEXT = 300  # shorter than the documents, so that there are windows
CHARACTERS, DOCUMENTS = 2000, 3  # about 1,500 tokens a domain


@pytest.fixture(scope="module")
def documents():
    found = []
    for name in DOMAINS:
        chosen = sorted(
            itertools.islice(sources.load(name, "test"), 50), key=lambda one: hashlib.sha256(one.id.encode()).digest()
        )[:DOCUMENTS]
        found += [one.__class__(one.id, one.work, one.domain, one.split, one.text[:CHARACTERS]) for one in chosen]
    return found


@pytest.fixture(scope="module")
def peer():
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "_smollm2_torch.py"
    spec = importlib.util.spec_from_file_location("_smollm2_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(fetch_smollm2())


def _by_peer(model, tokenizer, end, text):
    """Return tokens, nats, and the largest logit of a text; windows of CONTEXT, the last one filled up backwards."""
    ids = tokenizer.encode(text).ids
    stream, nats, largest, scored = [end, *ids], 0.0, 0.0, 0
    while scored < len(ids):
        until = min(scored + CONTEXT, len(ids))
        first = max(until - CONTEXT, 0)
        with torch.no_grad():
            logits = model(torch.tensor([stream[first:until]])).logits[0].double()
        target = torch.tensor(stream[first + 1 : until + 1])
        chosen = torch.log_softmax(logits, -1)[torch.arange(len(target)), target]
        nats -= chosen[scored - first :].sum().item()
        largest = max(largest, logits.abs().max().item())
        scored = until
    return len(ids), nats, largest


def test_perplexity_is_that_of_transformers(documents, peer):
    pretrained = load("smollm2")
    corpus = from_documents(documents, pretrained.tokenizer)
    found = evaluate(prepare(pretrained.model, "float32"), corpus, pretrained.tokenizer.end, context=CONTEXT)
    near = evaluate(prepare(pretrained.model, "bfloat16"), corpus, pretrained.tokenizer.end, context=CONTEXT)
    for domain in DOMAINS:
        own = [_by_peer(*peer, one.text) for one in documents if one.domain == domain]
        tokens, nats = sum(one[0] for one in own), sum(one[1] for one in own)
        score, half = found.score(domain), near.score(domain)
        print(domain, tokens, math.exp(nats / tokens), score.perplexity, half.perplexity)
        assert score.tokens == tokens
        # float32 sums of 30 layers in another order: 100 units in the last place of the largest logit, at every token.
        tolerance = 100 * float(np.finfo(np.float32).eps) * max(one[2] for one in own)
        assert math.log(score.perplexity) == pytest.approx(nats / tokens, abs=tolerance)
        # bfloat16 keeps 8 bits: 2^-9 a rounding of logits; errors of both signs average out over the tokens.
        assert math.log(half.perplexity) == pytest.approx(nats / tokens, abs=0.01)
        # The tolerance sees a doubled or a missing end-of-text id.
        assert tolerance < 1e-3
