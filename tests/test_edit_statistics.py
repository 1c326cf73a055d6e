"""Statistics of an edit: parts merge into the whole, numbers against NumPy, sketches within their bounds."""

import json
import math

import numpy as np
import pytest
from offsets import encode_with_offsets

from lm.data.tokenizer import Tokenizer
from lm.editing import statistics
from lm.editing.config import PRESETS, EditConfig
from lm.editing.decide import Decisions, decide
from lm.editing.documents import TokenizedDocument
from lm.editing.mergeable import GAMMA, UNIT, Frequent, Moments, Sketch
from lm.editing.statistics import BINS, EXAMPLES, SHOWN, Statistics, sampled, summary
from lm.evaluation.perplexity import ratio
from lm.generation.sampling import document_words

WORDS = "the prior gives every token of a text a probability, and naïve “edits” — 編集 — redraw the likeliest ones 🙂 "
CONFIG = EditConfig(select="at-least", threshold=0.3, delete_below=0.001, seed=4)
DOMAINS = ("talk", "books")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([WORDS * 3], 300)


@pytest.fixture(scope="module")
def cases(tokenizer):
    """Documents with decisions of random logits, the probabilities after, and a domain each."""
    documents, rng = [], np.random.default_rng(1)
    for number in range(24):
        words = WORDS.split(" ")
        rng.shuffle(words)
        # The last document is long enough to be cut.
        text = "" if number == 3 else " ".join(words) * (1 + number % 3 + 30 * (number == 23))
        ids, spans = encode_with_offsets(tokenizer, text)
        whole = np.asarray(["\ufffd" not in tokenizer.decode([i]).decode(errors="replace") for i in ids], bool)
        editable = whole & (np.arange(len(ids)) > 0)
        name = f"document {number}"
        documents.append(TokenizedDocument(name, np.asarray(ids, np.int32), spans, editable, text.encode()))
    tokens = np.concatenate([one.tokens for one in documents])
    lengths = [len(one.tokens) for one in documents]
    logits = rng.normal(size=(len(tokens), tokenizer.size)).astype(np.float32) * 3
    logits[np.arange(len(tokens)), tokens] += 6
    found = decide(
        logits, tokens, np.concatenate([one.editable for one in documents]), np.arange(tokenizer.size) > 255,
        np.repeat(document_words([one.key for one in documents]), lengths, axis=0),
        np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]), CONFIG.numbers, rule=CONFIG.rule,
    )  # fmt: skip
    cut = [np.split(np.asarray(column), np.cumsum(lengths)[:-1]) for column in found]
    made = []
    for number, (document, *columns) in enumerate(zip(documents, *cut, strict=True)):
        after = rng.beta(0.5, 0.5, lengths[number] and lengths[number] + number % 5).astype(np.float32)
        made.append((document, Decisions(*columns), DOMAINS[number % 2], after))
    return made


def _of(cases, tokenizer):
    found = Statistics(CONFIG)
    for document, decisions, domain, after in cases:
        found.add([document], [decisions], [domain])
        found.add_sampled(document, decisions, domain, after, tokenizer)
    return found


def _canonical(found):
    """Return what is in some statistics, without the order in which domains were met."""
    return json.dumps(found.to_json(), sort_keys=True)


def test_parts_merge_into_the_whole_whatever_the_cut_and_the_order(cases, tokenizer):
    whole = _of(cases, tokenizer)
    for size in (1, 5, 23):
        merged = Statistics(CONFIG)
        for first in reversed(range(0, len(cases), size)):
            part = _of(cases[first : first + size], tokenizer)
            merged.merge(Statistics.from_json(json.loads(json.dumps(part.to_json()))))
        assert _canonical(merged) == _canonical(whole)
        assert summary(merged, tokenizer) == summary(whole, tokenizer)
    with pytest.raises(ValueError, match="different edits"):
        whole.merge(Statistics(PRESETS["paper"]))


def test_counts_and_rates_are_those_of_the_documents(cases, tokenizer):
    found = summary(_of(cases, tokenizer), tokenizer)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for domain in (None, *DOMAINS):
        chosen = [case for case in cases if domain in (None, case[2])]
        row = found["total"] if domain is None else found["domains"][domain]
        assert row["documents"] == len(chosen)
        filled = [case for case in chosen if len(case[0].tokens)]
        assert row["empty_documents"] == len(chosen) - len(filled)
        tokens = np.asarray([len(document.tokens) for document, *_ in filled])
        changed = np.asarray([made.changed(document.tokens).sum() for document, made, *_ in filled])
        selected = np.asarray([made.selected.sum() for _, made, *_ in filled])
        assert row["tokens"] == tokens.sum()
        assert row["changed"] == changed.sum() > 0
        assert row["deleted"] == sum(made.deleted.sum() for _, made, *_ in filled) > 0
        assert row["bytes"] == sum(len(document.text) for document, *_ in filled)
        for name, top in (("effective_edit_rate", changed), ("selected_share", selected)):
            # Both round sums of products of small numbers to float64: 1e-12 relative is far above that.
            value, error = ratio(top.astype(float), tokens.astype(float))
            assert row[name]["value"] == pytest.approx(value, rel=1e-12)
            assert row[name]["standard_error"] == pytest.approx(error, rel=1e-12)
        for share, value in row["document_edit_rate_quantiles"].items():
            exact = np.quantile(changed / tokens, float(share), method="lower")
            assert value == pytest.approx(exact, rel=0.01)


def test_substitutions_are_counted(cases, tokenizer):
    pairs = {}
    for document, made, *_ in cases:
        for index in np.flatnonzero(made.changed(document.tokens)):
            pair = int(document.tokens[index]), -1 if made.deleted[index] else int(made.token[index])
            pairs[pair] = pairs.get(pair, 0) + 1
    found = summary(_of(cases, tokenizer), tokenizer)["substitutions"]
    assert found["distinct"] == len(pairs)
    assert found["counts_too_small_by_at_most"] == 0
    counts = [row["count"] for row in found["rows"]]
    assert counts == sorted(pairs.values(), reverse=True)[: len(counts)]
    assert any(row["new"] is None for row in found["rows"])
    for row in found["rows"]:
        assert pairs[row["old_token"], row["new_token"]] == row["count"]
        assert row["old"] == tokenizer.decode([row["old_token"]]).decode(errors="replace")


def test_scores_of_the_sample_against_numpy(cases, tokenizer):
    found = summary(_of(cases, tokenizer), tokenizer)["sample"]["total"]
    filled = [case for case in cases if len(case[0].tokens)]
    before = [made.probability.astype(float) for _, made, *_ in filled]
    after = [case[3].astype(float) for case in filled]
    for name, rows in (("before", before), ("after", after)):
        values = np.concatenate(rows)
        row = found["probability"][name]
        assert row["histogram"] == np.histogram(values, np.linspace(0, 1, BINS + 1))[0].tolist()
        assert row["deciles"] == pytest.approx(np.histogram(values, 10, (0, 1))[0] / len(values), rel=1e-12)
        assert row["at_least"]["0.9"] == pytest.approx(np.mean(values >= np.float32(0.9)), rel=1e-12)
        mean = found["mean_log_probability"][name]["value"]
        assert mean == pytest.approx(np.log(values).mean(), abs=UNIT)  # each token is rounded to that
    nll = [np.asarray([-np.log(row).sum() for row in rows]) for rows in (before, after)]
    sizes = [np.asarray([len(row) for row in rows], float) for rows in (before, after)]
    change = found["mean_log_probability"]["change"]
    means = [top.sum() / size.sum() for top, size in zip(nll, sizes, strict=True)]
    assert change["value"] == pytest.approx(means[0] - means[1], abs=2 * UNIT)
    # The delete-one jackknife is an independent estimate of the same error; they agree to the order of 1/n.
    left = []
    for out in range(len(filled)):
        kept = np.arange(len(filled)) != out
        left.append(nll[0][kept].sum() / sizes[0][kept].sum() - nll[1][kept].sum() / sizes[1][kept].sum())
    n = len(filled)
    jackknife = math.sqrt((n - 1) / n * np.sum((np.asarray(left) - np.mean(left)) ** 2))
    kept = [i for i in range(n) if sizes[0][i] < sizes[0].max()]
    assert change["standard_error"] == pytest.approx(jackknife, rel=0.6)
    few = summary(_of([filled[i] for i in kept], tokenizer), tokenizer)["sample"]["total"]["mean_log_probability"]
    left = [
        np.sum([nll[0][i] for i in kept if i != out]) / np.sum([sizes[0][i] for i in kept if i != out])
        - np.sum([nll[1][i] for i in kept if i != out]) / np.sum([sizes[1][i] for i in kept if i != out])
        for out in kept
    ]
    jackknife = math.sqrt((len(kept) - 1) / len(kept) * np.sum((np.asarray(left) - np.mean(left)) ** 2))
    assert few["change"]["standard_error"] == pytest.approx(jackknife, rel=0.1)
    entropy = np.concatenate([made.entropy[made.changed(document.tokens)] for document, made, *_ in filled])
    assert found["entropy"]["changed"]["value"] == pytest.approx(entropy.astype(float).mean(), abs=UNIT)


def test_positions_near_a_threshold_are_counted_on_their_side(tokenizer):
    threshold = np.float32(0.99)
    distances = np.asarray([0, 5e-7, -5e-7, 5e-5, -5e-4, 2e-3, -2e-3])
    probability = np.append((float(threshold) * (1 + distances)).astype(np.float32), np.nan).astype(np.float32)
    ids, spans = encode_with_offsets(tokenizer, "the prior")
    M = len(probability)
    assert len(ids) >= 1
    document = TokenizedDocument(
        "near", np.full(M, ids[0], np.int32), np.tile(spans[:1], (M, 1)), np.ones(M, bool), b""
    )
    no = np.zeros(M, bool)
    made = Decisions(probability, no, no, document.tokens, probability, probability)
    found = Statistics(PRESETS["paper"])
    found.add([document], [made], ["near"])
    # float32 moves each by 3e-8 at most, much less than any distance is from a limit.
    near = {row["relative_distance"]: row for row in summary(found, tokenizer)["total"]["near"]}
    counts = {share: (row["at_or_above"], row["below"]) for share, row in near.items()}
    assert counts == {1e-3: (3, 2), 1e-4: (3, 1), 1e-5: (2, 1), 1e-6: (2, 1)}


def test_examples_and_documents_show_the_text_around_the_edits(cases, tokenizer):
    found = summary(_of(cases, tokenizer), tokenizer)
    assert len(found["examples"]) == EXAMPLES
    by_key = {document.key: (document, made) for document, made, *_ in cases}
    for row in found["examples"]:
        document, made = by_key[row["document"]]
        begin, end = document.spans[row["index"]]
        assert document.text[:begin].decode().endswith(row["before"])
        assert document.text[end:].decode().startswith(row["after"])
        assert document.text[begin:end].decode() == row["old"]
        assert row["p_old"] == float(made.probability[row["index"]])
        assert row["deleted"] or row["new"] == tokenizer.decode([made.token[row["index"]]]).decode()
    assert len(found["documents"]) == SHOWN * len(DOMAINS)
    everything = Statistics(CONFIG)
    long = cases[23]
    everything.add_sampled(long[0], long[1], "long", long[3], tokenizer)
    for shown in (*found["documents"], *summary(everything, tokenizer)["documents"]):
        document, made = by_key[shown["document"]]
        at = edits = 0
        for segment in shown["segments"]:
            if "cut" in segment:
                at += segment["cut"]
                continue
            piece = segment.get("text", segment.get("old")).encode()
            assert document.text[at : at + len(piece)] == piece
            edits += "old" in segment
            at += len(piece)
        assert at == len(document.text)
        assert edits == shown["changed_shown"] <= shown["changed"] == made.changed(document.tokens).sum()
        cut = any("cut" in segment for segment in shown["segments"])
        assert cut == (len(document.text) > 2400)


def test_the_sample_is_a_share_of_the_documents_and_grows_with_it():
    keys = [f"key {number}" for number in range(4000)]
    chosen = {share: {key for key in keys if sampled(key, share)} for share in (0.0, 0.01, 0.1, 1.0)}
    assert chosen[0.0] < chosen[0.01] < chosen[0.1] < chosen[1.0] == set(keys)
    for share in (0.01, 0.1):
        assert abs(len(chosen[share]) - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share))


def test_ratios_keep_their_precision_where_sums_of_squares_would_lose_it():
    found, rng = Moments(("a", "b")), np.random.default_rng(0)
    b = rng.integers(10**8, 10**9, 200)
    a = 3 * b + rng.integers(-1, 2, 200)  # residuals of 1 beside squares of 10^18
    for one, other in zip(a, b, strict=True):
        found.add(a=one, b=other)
    value = a.sum() / b.sum()
    residual = (a - 3 * b) - (value - 3) * b
    expected = math.sqrt(200 / 199 * np.sum(residual**2)) / b.sum()
    assert found.ratio("a", "b")["standard_error"] == pytest.approx(expected, rel=1e-6)
    assert found.ratio("a", "b", scale=-1.0)["standard_error"] == found.ratio("a", "b")["standard_error"]


def test_sketch_quantiles_are_within_one_percent(rng):
    values = np.concatenate([rng.normal(size=500) * 10.0 ** rng.integers(-6, 3, 500), np.zeros(40)])
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    for share, found in sketch.quantiles((0, 0.01, 0.2, 0.5, 0.7, 0.99, 1)).items():
        exact = np.quantile(values, float(share), method="lower")
        assert found == pytest.approx(exact, rel=(GAMMA - 1) / (GAMMA + 1) * (1 + 1e-9))


def test_frequent_counts_are_exact_below_the_limit_and_bounded_beyond(rng):
    keys = rng.zipf(1.3, 20_000) % 5000
    exact = np.bincount(keys, minlength=5000)
    for limit in (5000, 50):
        parts = []
        for piece in np.array_split(keys, 7):
            parts.append(Frequent(limit))
            parts[-1].add(piece)
        whole = Frequent(limit)
        for part in parts:
            whole.merge(Frequent.from_json(part.to_json()))
        assert len(whole) <= limit
        assert whole.missed <= len(keys) / (limit + 1)
        assert (whole.missed == 0) == (limit == 5000)
        for key, count in whole.top(limit):
            assert exact[key] - whole.missed <= count <= exact[key]


def test_domains_beyond_the_limit_are_counted_together(cases, tokenizer, monkeypatch):
    monkeypatch.setattr(statistics, "DOMAINS", 3)
    found = Statistics(CONFIG)
    for number, (document, decisions, *_) in enumerate(cases):
        found.add([document], [decisions], [f"domain {number}" + "x" * 200])
    domains = summary(found, tokenizer)["domains"]
    assert len(domains) == 4
    assert domains["(others)"]["documents"] == len(cases) - 3
    assert max(map(len, domains)) == 100
