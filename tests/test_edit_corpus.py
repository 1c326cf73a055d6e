"""Edits of a tokenized corpus with a tiny prior: probabilities, draws, thresholds by quantile, the random control."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.data.corpus import from_tokens
from lm.data.tokenising import from_documents
from lm.editing.config import EditConfig
from lm.editing.corpus import confident_positions, propose, quantile_threshold, random_positions, redraw
from lm.editing.decide import DRAW
from lm.editing.prior import prepare_prior
from lm.errors import InputError
from lm.generation.sampling import document_words, uniforms
from lm.generation.unconditional import generate_tokens
from lm.weights.load import load

TEXT = (
    "def read(path):\n    return path.read_text(encoding='utf-8')\n\n\nclass Reader:\n    def __init__(self, name):\n"
)


@dataclasses.dataclass(frozen=True)
class Document:
    id: str
    text: str
    work: str = "work"
    domain: str = "python"


@pytest.fixture(scope="module")
def prior():
    return prepare_prior(load("tiny"), compute="float32")


@pytest.fixture(scope="module")
def corpus(prior):
    texts = [TEXT, TEXT * 12, "x", TEXT[30:] * 3, TEXT[::-1]]  # one of them longer than the context
    return from_documents([Document(f"document {n}", text) for n, text in enumerate(texts)], prior.tokenizer)


@pytest.fixture(scope="module")
def proposal(prior, corpus):
    return propose(prior, corpus, EditConfig())


def test_probabilities_are_the_models_and_first_tokens_stay(prior, corpus, proposal):
    model = load("tiny").model
    ids = corpus.document(0).astype(int)
    inputs = jnp.asarray(np.append(prior.tokenizer.end, ids[:-1])[None])
    logits = np.asarray(nnx.jit(type(model).__call__)(model, inputs))[0]
    share = np.exp(logits - logits.max(axis=1, keepdims=True).astype(float))
    share /= share.sum(axis=1, keepdims=True)
    # float32 logits of size ~20: a probability's relative error is their absolute error times a few.
    found = proposal.probability[: len(ids)]
    np.testing.assert_allclose(found, share[np.arange(len(ids)), ids], rtol=2e-4)
    first = corpus.starts[:-1]
    assert not proposal.editable[first].any()
    assert proposal.editable.sum() == len(corpus.tokens) - len(first)
    assert np.array_equal(proposal.draw[first], corpus.tokens[first])
    assert prior.tokenizer.end not in proposal.draw


def test_draws_do_not_depend_on_the_other_documents(prior, corpus, proposal):
    for chosen in ([3], [4, 1, 0]):
        part = corpus.select(chosen)
        found = propose(prior, part, EditConfig())
        for place, number in enumerate(chosen):
            here = slice(part.starts[place], part.starts[place + 1])
            there = slice(corpus.starts[number], corpus.starts[number + 1])
            assert np.array_equal(found.draw[here], proposal.draw[there])
            assert np.array_equal(found.probability[here], proposal.probability[there])
    assert (propose(prior, corpus, EditConfig(seed=6)).draw != proposal.draw).mean() > 0.1


def test_what_is_selected_is_ignored_and_the_draw_is_that_of_its_key(prior, corpus, proposal):
    other = propose(prior, corpus, EditConfig(select="at-most", threshold=0.1, delete_below=0.05))
    assert np.array_equal(other.draw, proposal.draw)
    greedy = propose(prior, corpus, EditConfig(top_k=1, keep_original=False, seed=3)).draw
    assert (greedy[proposal.editable] != corpus.tokens[proposal.editable]).all()
    # The number behind a draw: it is not repeated between documents or positions.
    words = np.repeat(document_words(["document 0", "document 1"]), 5, axis=0)
    drawn = np.asarray(uniforms(np.int32(0), words, np.tile(np.arange(5, dtype=np.int32), 2), DRAW))
    assert len(set(drawn.tolist())) == 10


def test_the_seed_of_the_generation_is_as_good_as_another(prior):
    """Text that a model wrote is edited under the ids of its generation: no number may serve both."""
    model, end = load("tiny").model, prior.tokenizer.end
    written = from_tokens(generate_tokens(model, end, 3000, "written", seed=0), "written", prior.tokenizer)
    changes, errors = [], []
    for seed in (0, 1):
        found = propose(prior, written, EditConfig(candidates="all", temperature=1.0, seed=seed))
        changed = (found.draw != written.tokens)[found.editable]
        changes.append(changed.sum())
        errors.append(changed.var() * len(changed))  # at least the variance of the count: positions draw independently
    assert changes[0] == pytest.approx(changes[1], abs=4 * sum(errors) ** 0.5)


def test_quantile_threshold_selects_the_share(corpus, proposal):
    possible = proposal.probability[proposal.editable]
    for share in (0.01, 0.125, 1.0):
        threshold = quantile_threshold(possible, share)
        selected = confident_positions(proposal, threshold)
        ties = (possible == np.float32(threshold)).sum() - 1
        assert 0 <= selected.sum() - np.ceil(share * len(possible)) <= ties
        new = redraw(corpus, proposal, selected)
        assert np.array_equal(new[~selected], corpus.tokens[~selected])
        assert np.array_equal(new[selected], proposal.draw[selected])
        assert new.dtype == corpus.tokens.dtype
    for share in (0.0, 1.1):
        with pytest.raises(InputError, match="share"):
            quantile_threshold(possible, share)


def test_random_control_meets_the_number_of_changes(corpus, proposal):
    for changes in (0, 1, 57):
        selected = random_positions(corpus, proposal, changes, seed=1)
        assert (redraw(corpus, proposal, selected) != corpus.tokens).sum() == changes
        assert not selected[~proposal.editable].any()
    with pytest.raises(InputError, match="fewer"):
        random_positions(corpus, proposal, len(corpus.tokens), seed=1)
