"""Algorithm 1: selection, the distribution of replacements, keys, thresholds; sampling from a model."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from lm.data.corpus import Corpus
from lm.edit import EditConfig, apply, apply_random, decide, propose, quantile_threshold
from lm.errors import InputError
from lm.generation.sampling import document_words, pick, uniforms
from lm.generation.unconditional import generate, generate_tokens
from lm.model.decoder import from_arrays, make, named
from lm.model.presets import preset

V, END = 37, 36


@pytest.fixture(scope="module")
def model():
    # Weights larger than at the start of training, so that the distributions are far from uniform.
    config = preset("tiny", vocabulary=V, context=64, width=32, hidden=96)
    arrays = named(make(config, 0))
    made = from_arrays(config, arrays | {"embedding": 8 * arrays["embedding"]})
    return made


@pytest.fixture(scope="module")
def corpus():
    lengths = np.asarray([5, 64, 65, 150, 1, 30, 0, 100])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(0).integers(0, END, starts[-1]).astype(np.uint16)
    names = tuple(f"document {number}" for number in range(len(lengths)))
    return Corpus(tokens, starts, names, names, names, lengths)


def _softmax(logits, temperature=1.0):
    weight = np.exp((logits - logits.max()) / temperature)
    return weight / weight.sum()


def _expected(logits, candidates, temperature):
    kept = np.argsort(-logits, kind="stable")[:candidates]
    share = np.zeros(len(logits))
    share[kept] = _softmax(logits[kept].astype(float), temperature)
    return share


def _draws(logits, candidates, temperature, number=30_000):
    words = document_words(["a document"])
    uniform = uniforms(7, np.repeat(words, number, axis=0), np.arange(number))
    token = int(np.argmax(logits))
    made = decide(
        np.tile(logits, (number, 1)),
        np.full(number, token),
        np.ones(number, bool),
        uniform,
        0.0,
        temperature,
        candidates=candidates,
        strict=False,
    )
    return np.bincount(np.asarray(made.token), minlength=len(logits))


def test_replacements_follow_the_candidates_distribution_and_wrong_ones_are_rejected():
    logits = np.random.default_rng(3).normal(size=60).astype(np.float32) * 1.5
    for candidates, temperature in ((8, 1.0), (8, 1.5), (60, 1.0), (3, 0.7)):
        counts = _draws(logits, candidates, temperature)

        def rejected(other_candidates, other_temperature, counts=counts):
            expected = _expected(logits, other_candidates, other_temperature) * counts.sum()
            if counts[expected == 0].any():
                return True
            kept = expected > 0
            return scipy.stats.chisquare(counts[kept], expected[kept]).pvalue < 1e-4

        # The seed is fixed, so 1e-4 is the chance that this test was born failing.
        assert not rejected(candidates, temperature)
        assert rejected(candidates, temperature * 1.1)
        assert rejected(candidates - 1, temperature)
        assert rejected(min(candidates + 1, 60) if candidates < 60 else 50, temperature)


def test_selection_at_or_above_and_strictly_above():
    logits = np.log(np.asarray([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], np.float32))
    token, editable = np.zeros(2, int), np.ones(2, bool)

    def selected(threshold, strict, editable=editable):
        made = decide(logits, token, editable, np.zeros(2), threshold, 1.0, candidates=2, strict=strict)
        return np.asarray(made.selected).tolist()

    exact = float(decide(logits, token, editable, np.zeros(2), 0, 1.0, candidates=2, strict=False).probability[0])
    assert exact == pytest.approx(0.5, abs=1e-6)
    assert selected(exact, strict=False) == [True, False]
    assert selected(exact, strict=True) == [False, False]
    assert selected(0.2, strict=True) == [True, True]
    assert selected(0.2, strict=True, editable=np.asarray([False, True])) == [False, True]
    assert selected(1.01, strict=False) == [False, False]


def test_probabilities_are_those_of_the_model_and_first_tokens_stay(model, corpus):
    proposal, call = propose(model, corpus, END, EditConfig()), nnx.jit(type(model).__call__)
    for number in (0, 1, 5):
        ids = corpus.document(number).astype(int)
        # Padded to one length: what comes after a token has no influence on it.
        whole = np.pad(np.append(END, ids[:-1]), (0, model.config.context - len(ids)))
        logits = np.asarray(call(model, whole[None]))[0, : len(ids), :END]
        expected = [_softmax(row)[token] for row, token in zip(logits, ids, strict=True)]
        # float32 logits of size ~10: relative error of a probability is that absolute error times a few.
        found = proposal.probability[corpus.starts[number] : corpus.starts[number + 1]]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    everything = apply(corpus, proposal, 0.0)
    first = corpus.starts[:-1][corpus.lengths > 0]
    assert not np.asarray(everything.selected)[first].any()
    assert np.asarray(everything.selected).sum() == len(corpus.tokens) - len(first)
    assert END not in np.asarray(everything.token)


def test_threshold_above_one_is_the_identity(model, corpus):
    made = apply(corpus, propose(model, corpus, END, EditConfig()), 1.0 + 1e-6)
    assert np.array_equal(np.asarray(made.token), corpus.tokens)
    assert made.token.dtype == corpus.tokens.dtype


def test_output_does_not_depend_on_the_other_documents_or_their_order(model, corpus):
    config = EditConfig(seed=5)
    whole = propose(model, corpus, END, config)
    for chosen in ([3], [7, 3, 0], [1, 2, 3, 4, 5, 6, 7, 0]):
        part = corpus.select(chosen)
        proposal = propose(model, part, END, config)
        for place, number in enumerate(chosen):
            here = slice(part.starts[place], part.starts[place + 1])
            there = slice(corpus.starts[number], corpus.starts[number + 1])
            assert np.array_equal(proposal.draw[here], whole.draw[there])
            assert np.array_equal(proposal.probability[here], whole.probability[there])
    other = propose(model, corpus, END, EditConfig(seed=6))
    assert (other.draw != whole.draw).mean() > 0.1  # the same seed gives 0; this model is sure of most tokens


def test_quantile_threshold_selects_the_share(model, corpus):
    proposal = propose(model, corpus, END, EditConfig())
    possible = proposal.probability[proposal.editable]
    for share in (0.01, 0.125, 1.0):
        threshold = quantile_threshold(possible, share)
        assert (possible >= threshold).sum() == np.ceil(share * len(possible))
        made = apply(corpus, proposal, threshold)
        assert np.asarray(made.selected).sum() == np.ceil(share * len(possible))
        kept = ~np.asarray(made.selected)
        assert np.array_equal(np.asarray(made.token)[kept], corpus.tokens[kept])
    for share in (0.0, 1.1):
        with pytest.raises(InputError, match="share"):
            quantile_threshold(possible, share)


def test_random_control_meets_the_number_of_changes(model, corpus):
    proposal = propose(model, corpus, END, EditConfig())
    for changes in (0, 1, 57):
        made = apply_random(corpus, proposal, changes, seed=1)
        assert (np.asarray(made.token) != corpus.tokens).sum() == changes
    with pytest.raises(InputError, match="fewer"):
        apply_random(corpus, proposal, len(corpus.tokens), seed=1)


def test_bad_settings_are_refused(model, corpus):
    with pytest.raises(InputError, match="temperature positive"):
        EditConfig(temperature=0.0)
    with pytest.raises(InputError, match="use fewer"):
        propose(model, corpus, END, EditConfig(candidates=V))


def test_pick_inverts_the_distribution_function():
    weight = np.asarray([[0.0, 1.0, 0.0, 3.0] + [0.0] * 40 + [4.0]], np.float32)
    for uniform, index in ((0.0, 1), (0.124, 1), (0.126, 3), (0.499, 3), (0.501, 44), (1 - 2**-24, 44)):
        assert int(pick(jnp.asarray(weight), jnp.asarray([uniform], jnp.float32))[0]) == index


def test_samples_follow_the_model_and_do_not_depend_on_the_batch(model):
    ids = [f"sample {number}" for number in range(3000)]
    texts = generate(model, END, ids, seed=4)
    alone = generate(model, END, ids[1234:1236], seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(alone, texts[1234:1236], strict=True))
    logits = np.asarray(nnx.jit(type(model).__call__)(model, np.full((1, 64), END)))[0, 0].astype(float)
    first = np.bincount([text[0] for text in texts], minlength=V)[:END]
    expected = _softmax(logits[:END])
    common = expected * len(ids) >= 5
    pooled = (
        np.append(first[common], first[~common].sum()),
        np.append(expected[common], expected[~common].sum()),
    )
    keep = pooled[1] > 0
    assert scipy.stats.chisquare(pooled[0][keep], pooled[1][keep] * len(ids)).pvalue > 1e-4
    assert scipy.stats.chisquare(first, np.full(END, len(ids) / END)).pvalue < 1e-4
    assert all(0 < len(text) <= model.config.context and END not in text for text in texts)


def test_token_budget_is_met_exactly(model):
    texts = generate_tokens(model, END, 777, "g", seed=0)
    assert sum(map(len, texts)) == 777
