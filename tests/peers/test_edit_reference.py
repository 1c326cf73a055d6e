"""Editing with SmolLM2 against Algorithm 1 on torch and transformers: selection, and the law of replacements."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from compare_editing import tolerance
from edit_torch import law, logits, score, smollm2, whole_characters

from lm.data import sources
from lm.editing.config import PRESETS, EditConfig
from lm.editing.decide import decide
from lm.editing.documents import DocumentEncoder, drawable
from lm.editing.prior import decisions, prepare_prior
from lm.generation.sampling import document_words
from lm.weights.load import TINY, load

pytestmark = pytest.mark.peers
DOMAINS = ("sotu", "novels", "python")
CHARACTERS = 1200
SENTENCE = "The United States of America and the United States of Mexico have"
COPIES = 600
DRAWS, CHUNK, PLACES = 2000, 500, (2, 4, 7, 9)  # of each position of the sentence
LEVEL = 1e-4  # of a test; the seeds are fixed, so it is the chance that a test was born failing
POWER = 0.999


@pytest.fixture(scope="module")
def peer():
    return smollm2()


@pytest.fixture(scope="module")
def pretrained():
    return load("smollm2")


@pytest.fixture(scope="module")
def prior(pretrained):
    return prepare_prior(pretrained, compute="float32")


def test_the_same_positions_are_selected(peer, pretrained, prior):
    model, tokenizer, end = peer
    texts = [next(iter(sources.load(domain, "test"))).text[:CHARACTERS] for domain in DOMAINS]
    documents = DocumentEncoder(pretrained.tokenizer)([text.encode() for text in texts], DOMAINS)
    ids = [tokenizer.encode(text).ids for text in texts]
    assert [one.tokens.tolist() for one in documents] == ids
    scores = score(model, end, ids)
    for name in ("paper", "released", "released-drop"):
        found = decisions(prior, documents, PRESETS[name])
        differ = 0
        for one, document, expected in zip(found, documents, scores, strict=True):
            p, probability = PRESETS[name].threshold, expected.probability
            margin = tolerance(expected.largest, p)
            assert margin < 1e-4
            # float32 numbers, of which none is exactly p: at or above and above select the same.
            selected = (probability >= p) & (np.arange(len(probability)) > 0) & document.editable
            deleted = (probability < PRESETS[name].delete_below) & (np.arange(len(probability)) > 0) & ~selected
            near = np.abs(probability - p) <= margin
            rare = np.abs(probability - 0.001) <= tolerance(expected.largest, 0.001)
            assert not (one.deleted != deleted & document.editable)[~rare].any()
            differ += (one.selected != selected).sum()
            assert not (one.selected != selected)[~near].any()
            known = np.isfinite(one.probability)
            # Relative errors of P are at most those of the log-odds, of which `tolerance` at 1/2 has a quarter.
            np.testing.assert_allclose(
                one.probability[known], probability[known], rtol=4 * tolerance(expected.largest, 0.5)
            )
        print(name, sum(len(one) for one in ids), sum(int(one.selected.sum()) for one in found), differ)


def test_ids_that_can_be_drawn(peer, pretrained, prior):
    wanted = whole_characters(peer[1])
    assert np.array_equal(drawable(pretrained.tokenizer, len(wanted)), wanted)
    assert np.array_equal(prior.drawable, wanted)


def _cells(counts, shares):
    """Pool what is expected less than five times into one cell; return observed and expected numbers."""
    expected = shares * counts.sum()
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    return observed, wanted


def _statistic(counts, shares):
    """Return Pearson's statistic and its degrees of freedom; infinite where the impossible happened."""
    if counts[shares == 0].any():
        return np.inf, 1
    observed, wanted = _cells(counts, shares)
    kept = wanted > 0
    return float(((observed - wanted)[kept] ** 2 / wanted[kept]).sum()), int(kept.sum()) - 1


def _rejected(counts, laws):
    """Return whether the draws at several positions, each with its law, are too far from the laws together."""
    parts = [_statistic(row, shares) for row, shares in zip(counts, laws, strict=True)]
    return scipy.stats.chi2.sf(sum(one[0] for one in parts), sum(one[1] for one in parts)) < LEVEL


def _power(true, wrong, number):
    """Return the chance that `number` draws at each position of the true laws reject the wrong ones."""
    missed, noncentrality, freedom = 1.0, 0.0, 0
    for shares, others in zip(true, wrong, strict=True):
        missed *= (1 - shares[others == 0].sum()) ** number  # an impossible draw rejects at once
        _, wanted = _cells(others * number, others)
        expected, _ = _cells_of(shares, others, number)
        kept = wanted > 0
        noncentrality += ((expected - wanted)[kept] ** 2 / wanted[kept]).sum()
        freedom += kept.sum() - 1
    critical = scipy.stats.chi2.isf(LEVEL, freedom)
    return 1 - missed * (1 - scipy.stats.ncx2.sf(critical, freedom, noncentrality))


def _cells_of(shares, others, number):
    """Return the expected numbers of a law in the cells of another one."""
    rare = others * number < 5
    return np.append(shares[~rare], shares[rare].sum()) * number, rare


def _always(config):
    """Return the configuration with every token selected."""
    return dataclasses.replace(config, select="at-least", threshold=0.0, delete_below=0.0)


def test_edited_documents_follow_the_law_and_other_laws_are_rejected(peer, pretrained, prior):
    """Copies of a sentence under different keys, edited as documents are."""
    model, tokenizer, end = peer
    ids, allowed = tokenizer.encode(SENTENCE).ids, whole_characters(tokenizer)
    rows = logits(model, end, ids)[1:]
    copies = [f"copy {number}" for number in range(COPIES)]
    documents = DocumentEncoder(pretrained.tokenizer)([SENTENCE.encode()] * COPIES, copies)
    for name in ("paper", "released"):
        config = _always(PRESETS[name])
        drawn = np.stack([one.token[1:] for one in decisions(prior, documents, config)])
        counts = [np.bincount(column, minlength=len(allowed)) for column in drawn.T]

        def laws(**changes):
            changed = dataclasses.replace(config, **changes)  # noqa: B023
            return [law(row, token, allowed, changed) for row, token in zip(rows, ids[1:], strict=True)]

        assert not _rejected(counts, laws())
        for wrong in ({"temperature": 2.5 - config.temperature}, {"top_k": 7}, {"keep_original": False}):
            power = _power(laws(), laws(**wrong), COPIES)
            print(name, wrong, f"power {power:.6f}")
            assert power > POWER
            assert _rejected(counts, laws(**wrong))


# What else is drawn from, and laws near it that must be rejected.
RULES = {
    "top-k": (EditConfig(), ({"temperature": 1.5}, {"temperature": 1.2}, {"top_k": 7}, {"top_k": 10})),
    "top-p": (EditConfig(candidates="top-p", top_p=0.8), ({"top_p": 0.7}, {"top_p": 0.9}, {"temperature": 1.3})),
    "all": (EditConfig(candidates="all"), ({"temperature": 1.1}, {"candidates": "top-k", "top_k": 200})),
    "rejection": (
        EditConfig(candidates="rejection", temperature=1.5, beta=2.0),
        ({"beta": 1.6}, {"temperature": 1.3}, {"candidates": "all"}),
    ),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_replacements_of_every_rule_follow_their_law(name, kept, peer):
    model, tokenizer, end = peer
    ids, allowed = tokenizer.encode(SENTENCE).ids, whole_characters(tokenizer)
    # Positions of much and of little doubt; the last one's original is none of the likeliest.
    rows = logits(model, end, ids)[list(PLACES)].astype(np.float32)
    originals = [ids[place] for place in PLACES[:-1]] + [tokenizer.encode(" zebra").ids[0]]
    config = dataclasses.replace(_always(RULES[name][0]), keep_original=kept)
    counts = []
    for row, token in zip(rows, originals, strict=True):
        found = np.zeros(len(allowed), int)
        for start in range(0, DRAWS, CHUNK):
            made = decide(
                np.broadcast_to(row, (CHUNK, len(row))),
                np.full(CHUNK, token, np.int32),
                np.ones(CHUNK, bool),
                allowed,
                np.repeat(document_words(["a document"]), CHUNK, axis=0),
                np.arange(start, start + CHUNK, dtype=np.int32),
                config.numbers,
                rule=config.rule,
            )
            found += np.bincount(np.asarray(made.token), minlength=len(allowed))
        counts.append(found)

    def laws(**changes):
        changed = dataclasses.replace(config, **changes)
        return [law(row.astype(float), one, allowed, changed) for row, one in zip(rows, originals, strict=True)]

    assert not _rejected(counts, laws())
    for wrong in (*RULES[name][1], {"keep_original": not kept}):
        power = _power(laws(), laws(**wrong), DRAWS)
        print(name, kept, wrong, f"power {power:.6f}")
        assert power > POWER
        assert _rejected(counts, laws(**wrong))


def test_transformers_reads_the_tiny_prior():
    pretrained = load("tiny")
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    text = b"def main(self):\n    return None\n"
    (document,) = DocumentEncoder(pretrained.tokenizer)([text], ["a"])
    expected = score(model, pretrained.tokenizer.end, [document.tokens.tolist()])[0]
    found = decisions(prepare_prior(pretrained, compute="float32"), [document], EditConfig(), full=True)[0]
    np.testing.assert_allclose(found.probability, expected.probability, rtol=4 * tolerance(expected.largest, 0.5))
