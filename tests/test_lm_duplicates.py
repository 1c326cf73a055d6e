"""Exact and near duplicates among documents."""

import itertools
import random

import numpy as np
import pytest

from lm.data import duplicates
from lm.data.duplicates import LIKELY, PERMUTATIONS, THRESHOLD, Report, distinct, jaccard, shingles, signature
from lm.data.sources import load


def _grams(text: str) -> set[tuple[str, ...]]:
    """Word 5-grams, from the words themselves; all words if there are fewer."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
    size = min(5, len(words))
    return set(zip(*(words[place:] for place in range(size)), strict=False))


def _similarity(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    """Different paragraphs of speeches, of 60 words or more."""
    found = {}
    for speech in itertools.islice(load("sotu"), 0, 249, 10):
        for paragraph in speech.text.split("\n\n"):
            if len(words := paragraph.split()) >= 60:
                found[" ".join(words[:5])] = " ".join(words)
    return list(found.values())[:200]


def _changed(text: str, words: int, seed: int) -> str:
    """Replace that many words, at random places, by words that occur nowhere."""
    pieces = text.split()
    for place in random.Random(seed).sample(range(len(pieces)), words):
        pieces[place] = f"zq{seed}x{place}"
    return " ".join(pieces)


def test_shingles_are_the_word_5_grams():
    text = 'One, two: "three" four five -- six'
    assert np.array_equal(shingles(text), shingles("one TWO three\nfour five six"))
    assert len(shingles(text)) == 2
    assert shingles(text).dtype == np.uint32
    assert not np.isin(shingles("two one three four five six"), shingles(text)).any()  # the order counts
    assert len(shingles("too short")) == 1
    assert len(shingles("... --")) == 0
    assert shingles("caf\u00e9 au lait s'il vous")[0] == shingles("CAF\u00c9 au lait s il vous")[0]


def test_equal_minima_estimate_the_similarity(paragraphs):
    errors = []
    for number, paragraph in enumerate(paragraphs[:100]):
        other = _changed(paragraph, 1 + number % 12, number)
        true = _similarity(_grams(paragraph), _grams(other))
        assert jaccard(np.unique(shingles(paragraph)), np.unique(shingles(other))) == pytest.approx(true, abs=1e-12)
        estimate = np.mean(signature(paragraph) == signature(other))
        errors.append((estimate - true) / (true * (1 - true) / PERMUTATIONS) ** 0.5)
    # Of 100 standardised errors: the mean has a standard error of 0.1, the standard deviation one of 0.07.
    assert abs(np.mean(errors)) < 0.4
    assert 0.7 < np.std(errors) < 1.3


def test_signature_does_not_depend_on_the_size_of_blocks(paragraphs, monkeypatch):
    text = " ".join(paragraphs[:5])
    whole = signature(text)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    assert np.array_equal(signature(text), whole)
    assert whole.dtype == np.uint32
    assert whole.shape == (PERMUTATIONS,)


def test_what_is_kept_equals_the_comparison_of_all_pairs(paragraphs):
    texts = list(paragraphs)
    for number, paragraph in enumerate(paragraphs[:100]):
        texts.append(_changed(paragraph, 1 + number % 9, number))
        texts.append(paragraph[: len(paragraph) // (1 + number % 3)].upper())
    random.Random(3).shuffle(texts)
    documents = [(f"{number:04d}", text) for number, text in enumerate(texts)]
    kept, report = distinct(lambda: documents)

    seen: set[str] = set()
    expected: dict[str, set] = {}
    for identity, text in documents:
        normal = " ".join(text.lower().split())
        grams = _grams(text)
        if normal not in seen and all(_similarity(grams, other) < THRESHOLD for other in expected.values()):
            expected[identity] = grams
        seen.add(normal)
    exact = len(texts) - len(seen)
    assert kept == set(expected)
    assert report == Report(len(texts), exact, len(texts) - exact - len(expected))
    assert report.exact >= 30
    assert report.near >= 25


def test_order_of_documents_does_not_matter_and_the_first_id_stays(paragraphs):
    copies = [(f"{number:03d}", text) for number, text in enumerate(paragraphs[:50])]
    copies += [(f"a{identity}", _changed(text, 1, 0)) for identity, text in copies[:20]]
    copies += [(f"b{identity}", "  " + text.upper()) for identity, text in copies[:20]]
    kept, report = distinct(lambda: copies)
    assert kept == {f"{number:03d}" for number in range(50)}
    assert report == Report(90, 20, 20)
    backwards = copies[::-1]
    assert distinct(lambda: backwards) == (kept, report)


def test_documents_without_words_and_no_documents():
    documents = [("1", "..."), ("2", "---"), ("3", "..."), ("4", "a word"), ("5", "A  word.")]
    assert distinct(lambda: documents) == ({"1", "2", "4"}, Report(5, 1, 1))
    assert distinct(list) == (set(), Report(0, 0, 0))


def test_a_pair_at_the_threshold_is_found_almost_always():
    missed = (1 - THRESHOLD**duplicates.ROWS) ** duplicates.BANDS
    assert missed < 7e-5
    assert pytest.approx(0.8 - 4 * 0.035355, abs=1e-5) == LIKELY
    assert duplicates.BANDS * duplicates.ROWS <= PERMUTATIONS
