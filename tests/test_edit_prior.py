"""A prior's probabilities and decisions: the plain formulas, the same bits whatever else is computed with them."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import LLAMA, lively
from flax import nnx

from lm.data.tokenizer import Tokenizer
from lm.editing.config import PRESETS, EditConfig
from lm.editing.decide import DRAW
from lm.editing.documents import DocumentEncoder, TokenizedDocument
from lm.editing.layout import blocks, row_lengths, spans
from lm.editing.prior import decisions, prepare_prior, probabilities
from lm.editing.prune import make_bound, may_reach
from lm.errors import InputError
from lm.generation.sampling import document_words, uniforms
from lm.model.config import Compute
from lm.model.decoder import Decoder, from_arrays, named
from lm.weights.load import Pretrained

WORKER = pathlib.Path(__file__).parent / "prior_worker.py"
SPEECH = pathlib.Path(__file__).parent / "data" / "speech.txt"
CALL = nnx.jit(Decoder.__call__)
CONTEXT = 48
COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")
ROWS = 300  # of the embeddings


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([SPEECH.read_text(encoding="utf-8")], 290)


@pytest.fixture(scope="module")
def pretrained(tokenizer):
    model = lively(LLAMA.changed(vocabulary=ROWS), np.random.default_rng(3))
    return Pretrained(model, tokenizer, "random", "0" * 64, False)


@pytest.fixture(scope="module")
def documents(tokenizer):
    """Real passages of 0 to 140 tokens, one of more than two windows among them."""
    words = SPEECH.read_bytes().split(b" ")
    sizes = (3, 0, 40, 12, 25, 1, 18, 7, 30)
    starts = np.cumsum((0, *sizes))
    texts = [b" ".join(words[start : start + size]) for start, size in zip(starts, sizes, strict=False)]
    return DocumentEncoder(tokenizer)(texts, [f"speech {number}" for number in range(len(texts))])


def _plain(model, end, tokens):
    """Log-probabilities of all ids at all positions of a document, by windows one after the other, float64, (M, V)."""
    found = np.full((len(tokens), ROWS), np.nan)
    done = 0
    while done < len(tokens):
        first = 0 if done == 0 else done - CONTEXT // 2
        until = min(first + CONTEXT, len(tokens))
        inputs = np.zeros((1, CONTEXT), np.int32)  # one shape; what follows is not seen
        inputs[0, : until - first] = [tokens[first - 1] if first else end, *tokens[first : until - 1]]
        logits = np.asarray(CALL(model, jnp.asarray(inputs)), np.float64)[0, done - first : until - first]
        found[done:until] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        done = until
    return found


def _gap(probability):
    """Return a threshold in the widest gap of the third quarter of probabilities: rounding decides nothing there."""
    known = np.sort(probability)[len(probability) // 2 : 3 * len(probability) // 4]
    gap = int(np.argmax(known[1:] / known[:-1]))
    return float(np.sqrt(known[gap] * known[gap + 1]))


def test_decisions_are_those_of_algorithm_1_written_plainly(pretrained, documents):
    prior = prepare_prior(pretrained, compute="float32", context=CONTEXT, positions=96)
    end, allowed = pretrained.tokenizer.end, np.asarray(prior.drawable)
    logs = [_plain(pretrained.model, end, one.tokens) for one in documents]
    own = [log[np.arange(len(one.tokens)), one.tokens] for log, one in zip(logs, documents, strict=True)]
    config = EditConfig(threshold=_gap(np.exp(np.concatenate(own))), top_k=3, seed=5)
    found = decisions(prior, documents, config, full=True)
    checked = 0
    for one, log, log_p, made in zip(documents, logs, own, found, strict=True):
        # float32 logits up to about 30 by other sums: 100 units in the last place, doubled in the log-odds, is 7e-4.
        np.testing.assert_allclose(made.probability, np.exp(log_p), rtol=7e-4)
        np.testing.assert_allclose(made.entropy, -np.sum(np.exp(log) * log, axis=1), rtol=1e-3, atol=1e-3)
        wanted = (np.exp(log_p) >= config.threshold) & one.editable
        np.testing.assert_array_equal(made.selected, wanted)
        words = np.repeat(document_words([one.key]), len(one.tokens), axis=0)
        uniform = np.asarray(uniforms(jnp.int32(5), words, np.arange(len(one.tokens), dtype=np.int32), DRAW))
        for place in np.flatnonzero(wanted):
            candidates = np.argsort(np.where(allowed, -log[place], np.inf), kind="stable")[:3].tolist()
            if one.tokens[place] not in candidates:
                candidates.append(int(one.tokens[place]))
            weight = np.exp(log[place, candidates])
            at = np.cumsum(weight) / weight.sum()
            if np.abs(at - uniform[place]).min() < 1e-3:
                continue  # at the edge between two candidates rounding may decide
            checked += 1
            assert made.token[place] == candidates[int(np.searchsorted(at, uniform[place]))]
        np.testing.assert_array_equal(made.token[~wanted], one.tokens[~wanted])
    assert checked >= 10


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_document_has_the_same_bits_in_every_company(pretrained, documents, compute):
    prior = prepare_prior(pretrained, compute=compute, context=CONTEXT, positions=256)
    config = EditConfig(threshold=0.2)
    whole = decisions(prior, documents, config, full=True)
    np.testing.assert_array_equal(
        np.concatenate(probabilities(prior, documents)), np.concatenate([one.probability for one in whole])
    )
    orders = [range(len(documents))[::-1], [2], [4, 4, 8, 2, 2, 2], [5, 1]]
    for order in orders:
        for number, made in zip(order, decisions(prior, [documents[n] for n in order], config, full=True), strict=True):
            for one, other in zip(made, whole[number], strict=True):
                np.testing.assert_array_equal(one, other)
    # Some documents in full changes nothing for the others.
    mixed = decisions(prior, documents, config, full=[number % 2 == 0 for number in range(len(documents))])
    pruned = decisions(prior, documents, config)
    for number, made in enumerate(mixed):
        for one, other in zip(made, whole[number] if number % 2 == 0 else pruned[number], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_pruning_changes_no_decision(pretrained, documents, compute, threshold):
    prior = prepare_prior(pretrained, compute=compute, context=CONTEXT)
    config = EditConfig(threshold=threshold, top_k=4)
    pruned, full = decisions(prior, documents, config), decisions(prior, documents, config, full=True)
    for one, other in zip(pruned, full, strict=True):
        for name in ("selected", "deleted", "token", "new_probability"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        ruled_out = np.isnan(one.probability)
        assert (other.probability[ruled_out] < threshold).all()
        np.testing.assert_array_equal(one.probability[~ruled_out], other.probability[~ruled_out])
        np.testing.assert_array_equal(ruled_out, np.isnan(one.entropy))
    known = np.mean(np.isfinite(np.concatenate([one.probability for one in pruned])))
    assert (known == 1) == (threshold == 0)
    if threshold >= 0.5:
        assert known < 0.5, "the bound should rule out most positions"
    deleting = PRESETS["released-drop"]
    assert all(np.isfinite(one.probability).all() for one in decisions(prior, documents, deleting))


@pytest.fixture
def accelerator(monkeypatch):
    """Make this package compute as it does on an accelerator; float32 has no part that a CPU could not run."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    jax.clear_caches()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_the_way_of_accelerators_decides_the_same(pretrained, documents, accelerator, monkeypatch, full, several):
    config = EditConfig(threshold=0.3, top_k=4)
    prior = prepare_prior(pretrained, compute="float32", context=CONTEXT, positions=96)
    assert len(prior.scorer.blocks) == 1
    # Several chunks a block; one window a row, or several.
    prior = dataclasses.replace(prior, rows=16, parts=None if several else prior.parts)
    found = decisions(prior, documents, config, full=full)
    monkeypatch.undo()
    jax.clear_caches()
    prior = prepare_prior(pretrained, compute="float32", context=CONTEXT, positions=96)
    for one, other in zip(found, decisions(prior, documents, config, full=full), strict=True):
        for name in ("selected", "token"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        # The tolerance of the plain computation above; what a bound rules out may differ by rounding.
        both = np.isfinite(one.probability) & np.isfinite(other.probability)
        assert both.all() or not full
        assert both[one.selected].all()
        np.testing.assert_allclose(one.probability[both], other.probability[both], rtol=7e-4)


def test_the_bound_holds_for_every_threshold_and_part_of_the_head(rng):
    D, V, N = 16, 200, 400
    head = jnp.asarray(rng.standard_normal((D, V)), jnp.float32)
    states = jnp.asarray(2 * rng.standard_normal((N, D)), jnp.float32)
    logits = np.asarray(states, np.float64) @ np.asarray(head, np.float64)
    token = np.where(np.arange(N) % 2, logits.argmax(axis=1), rng.integers(0, V, N)).astype(np.int32)
    exact = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))[np.arange(N), token]
    ruled_out = []
    for size in (1, 20, V):
        bound = make_bound(head, jnp.asarray(rng.permutation(V)[:size]))
        for threshold in np.sort(exact)[::20]:
            kept = np.asarray(may_reach(bound, head, states, jnp.asarray(token), jnp.float32(threshold), "float32"))
            assert kept[exact >= threshold].all()
            ruled_out.append((size, 1 - kept.mean()))
    means = [np.mean([share for found, share in ruled_out if found == size]) for size in (1, 20, V)]
    assert means[0] < means[1] < means[2]
    # With the whole head the bound is P but for the margin: half of the thresholds lie above a position's P.
    assert means[2] > 0.4
    broken = states.at[3].set(jnp.nan)
    assert np.asarray(may_reach(bound, head, broken, jnp.asarray(token), jnp.float32(1.0), "float32"))[3]


@pytest.mark.parametrize("parts", [8, None])
@pytest.mark.parametrize(("context", "positions"), [(2, 8), (7, 64), (64, 256), (1000, 512), (1000, 4096)])
def test_every_token_comes_once_with_half_a_window_before_it(context, positions, parts):
    lengths = np.asarray([1, 0, 3, 64, 65, 150, 64, 64, 64, 300, 1500])
    documents = [
        TokenizedDocument(str(n), 1 + 2000 * n + np.arange(size), np.zeros((size, 2)), np.arange(size) % 3 > 0, b"")
        for n, size in enumerate(lengths)
    ]
    seen, shapes = [np.zeros(size, int) for size in lengths], set()
    for block in blocks(documents, 0, context, positions, devices=2, parts=parts):
        shapes.add(block.inputs.shape)
        assert block.inputs.shape[0] % 2 == 0
        if block.segments is None:
            row = np.arange(block.inputs.shape[0])[:, None]
            window = np.where(block.targets > 0, row, -1)
        else:
            assert block.most is not None
            assert block.segments.max() < block.most
            window = np.where(block.segments >= 0, 64 * np.arange(len(block.segments))[:, None] + block.segments, -1)
        for one in range(window.max() + 1):
            row, column = np.nonzero(window == one)
            if not len(row):
                continue
            place = (row[0], slice(column[0], column[-1] + 1))
            assert len(set(row)) == 1
            assert len(column) == column[-1] + 1 - column[0] <= context
            (number,), position, scored = set(block.document[place]), block.position[place], block.scored[place]
            np.testing.assert_array_equal(np.diff(position), 1)
            tokens, editable = documents[number].tokens, documents[number].editable
            seen[number][position[scored]] += 1
            np.testing.assert_array_equal(block.targets[place], tokens[position])
            np.testing.assert_array_equal(block.editable[place], editable[position])
            np.testing.assert_array_equal(block.inputs[place], np.r_[0, tokens][position])
            start = int(np.argmax(scored))
            assert scored[start:].all()
            assert position[0] == 0 or start >= context // 2
        assert not block.scored[window < 0].any()
    assert all((one == 1).all() for one in seen)
    assert shapes == {(2 * max(1, positions // T), T) for _, T in shapes}
    assert parts is not None or {T for _, T in shapes} <= {32, 256, 2048}


def test_rows_are_little_longer_than_windows():
    sizes = np.arange(1, 8193)
    rows = row_lengths(sizes, 8192)
    assert (rows >= sizes).all()
    assert (rows[31:] < 1.25 * sizes[31:] + 1).all()
    assert len(set(rows)) == 4 + 8 * 7 + 1  # fewer below 64
    few = row_lengths(sizes, 8192, 2)
    assert (few >= sizes).all()
    assert (few[31:] < 1.5 * sizes[31:] + 1).all()
    assert sorted(set(few))[:5] == [32, 48, 64, 96, 128]
    assert row_lengths(np.asarray([90, 100]), 100).tolist() == [96, 100]
    assert spans(np.asarray([10, 0, 4]), 4).tolist() == [
        [0, 0, 0, 4], [0, 2, 4, 6], [0, 4, 6, 8], [0, 6, 8, 10], [2, 0, 0, 4],
    ]  # fmt: skip


def test_devices_share_the_work_and_change_nothing(tmp_path):
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    command = [sys.executable, str(WORKER), str(tmp_path / "found.json")]
    subprocess.run(command, env=environment, check=True, timeout=240)
    found = json.loads((tmp_path / "found.json").read_text())
    for compute in COMPUTES:
        # Copies of the model compute the same rows by the same code: not a bit differs.
        assert found[f"data {compute}"] == found[f"alone {compute}"]
    near, exact = (np.asarray(found[f"{name} float32"]["probability"]) for name in ("sharded", "alone"))
    # Sums over axes that are cut come in another order: the tolerance of the plain computation above.
    np.testing.assert_allclose(near, exact, rtol=7e-4)


def test_bad_input_is_one_sentence(pretrained, documents):
    for context in (0, 1, 65):
        with pytest.raises(InputError, match=f"context of {context} tokens does not fit"):
            prepare_prior(pretrained, context=context)
    prior = prepare_prior(pretrained, compute="float32", context=CONTEXT)
    stranger = TokenizedDocument("a", np.asarray([3, ROWS]), np.zeros((2, 2)), np.ones(2, bool), b"")
    with pytest.raises(InputError, match=f"a has the id {ROWS} and the prior only {ROWS}"):
        probabilities(prior, [stranger])
    model = pretrained.model
    arrays = named(model)
    broken = from_arrays(model.config, arrays | {"norm_scale": arrays["norm_scale"].at[0].set(jnp.nan)})
    prior = prepare_prior(pretrained._replace(model=broken), context=CONTEXT)
    with pytest.raises(InputError, match=r"speech \d a probability that is no number"):
        decisions(prior, documents, EditConfig())
    assert decisions(prior, [], EditConfig()) == []
