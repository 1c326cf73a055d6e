"""The token toy against the exact engine; 4 standard errors of the seeds unless said otherwise."""

from typing import Any

import numpy as np
import pytest

from sim.errors import InputError
from sim.tokens import TokenRule, TokenSource, run_tokens, zipf_markov_source
from theory import markov

SEEDS = 16
# few long documents: a document's first token is never edited, which theory does not know; its weight is 1/length
SIZES: dict[str, Any] = {"documents": 20, "length": 2001, "seeds": SEEDS, "smoothing": 1e-6}


@pytest.fixture(scope="module")
def small() -> TokenSource:
    transition = 0.9 * markov.example_source(5, 0.01, 4) + 0.02
    return TokenSource(transition, markov.stationary(transition), markov.entropy_rate(transition))


def z(values: np.ndarray, theory: float) -> float:
    return abs(values.mean() - theory) / (values.std(ddof=1) / np.sqrt(len(values)))


def test_source_is_zipf_with_the_share_asked_for() -> None:
    source = zipf_markov_source(200, 0.125, 0)
    zipf = 1 / np.arange(1, 201)
    np.testing.assert_allclose(source.stationary, zipf / zipf.sum(), rtol=1e-12)
    np.testing.assert_allclose(source.stationary @ source.transition, source.stationary, atol=1e-15)
    np.testing.assert_allclose(source.transition.sum(1), 1, atol=1e-12)
    assert source.transition.min() > 0
    assert source.entropy == pytest.approx(markov.entropy_rate(source.transition), rel=1e-9)
    joint = source.stationary[:, None] * source.transition
    share = joint[source.transition >= 0.99].sum()
    # the share counts whole contexts: the next one would have passed it
    assert 0.12 < share <= 0.125


RULES = [
    {"threshold": 0.4},
    {"threshold": 0.3, "candidates": 2, "temperature": 1.5, "strict": True, "keep_original": True},
    {"threshold": 0.2, "candidates": 1, "keep_original": True},
    {"threshold": 0.02, "temperature": 0.7},
]


@pytest.mark.parametrize("rule", RULES)
def test_fixed_prior_against_the_exact_engine(small: TokenSource, rule: dict) -> None:
    generations = 3
    run = run_tokens(
        small, TokenRule("edit", prior="source", **{"candidates": 5, **rule}), generations=generations, **SIZES
    )
    exact = markov.iterate_edit(small.transition, markov.Editor(**rule), generations, prior=small.transition)
    inside = 2000 / 2001
    # 4 standard errors, and the first token's neighbourhood: at most one position in 2001 for each generation past
    edge = generations / 2001
    rounding = 1e-12
    for g in range(generations + 1):
        se = run.selected[g].std(ddof=1) / np.sqrt(SEEDS)
        assert abs(run.selected[g].mean() - inside * exact.selected[g]) < 4 * se + (edge * 0.3 if g else rounding)
        if g < generations:
            changed = run.changed[g + 1]
            se = changed.std(ddof=1) / np.sqrt(SEEDS)
            assert abs(changed.mean() - inside * exact.changed[g]) < 4 * se + (edge * 0.1 if g else rounding)
    # the plug-in KL exceeds the exact one by about (parameters)/(2 tokens) = 20/(2*40000)
    assert np.abs(run.kl.mean(1) - exact.kl).max() < 4 * run.kl.std(1).max() / np.sqrt(SEEDS) + 2e-3
    assert exact.kl[-1] > 0.02


def test_two_generations_tell_the_exact_engine_from_its_markov_closure(small: TokenSource) -> None:
    sizes: dict[str, Any] = {**SIZES, "documents": 120}
    run = run_tokens(small, TokenRule("edit", threshold=0.4, candidates=5, prior="source"), generations=3, **sizes)
    editor = markov.Editor(0.4)
    exact = markov.iterate_edit(small.transition, editor, 3, prior=small.transition)
    closed = markov.iterate_edit(small.transition, editor, 3, prior=small.transition, regenerate=True)
    scale = 2000 / 2001
    assert z(run.changed[3], scale * exact.changed[2]) < 5  # 4, and the edge effect of one position in 2001
    assert z(run.changed[3], scale * closed.changed[2]) > 4  # 1.6 % apart: 6 standard errors expected


def test_own_prior_at_many_tokens(small: TokenSource) -> None:
    # thresholds away from every probability: a refitted prior must not flip a selection
    run = run_tokens(small, TokenRule("edit", threshold=0.02, candidates=5), generations=2, **SIZES)
    exact = markov.iterate_edit(small.transition, markov.Editor(0.02), 2)
    assert small.transition.min() >= 0.02
    np.testing.assert_allclose(run.kl.mean(1), exact.kl, atol=5e-3)  # 20 parameters over 40000 tokens, and the edge
    wrong = markov.iterate_edit(small.transition, markov.Editor(0.4), 2)
    assert np.abs(run.kl.mean(1) - wrong.kl).max() > 0.1


def test_random_edits_change_what_they_are_asked_to(small: TokenSource) -> None:
    rates = np.array([0.05, 0.02])
    rule = TokenRule("random", candidates=5, temperature=1.0, prior="source")
    run = run_tokens(small, rule, generations=2, rates=rates, **SIZES)
    for g, rate in enumerate(rates):
        assert z(run.changed[g + 1], rate) < 4
    every = markov.edit_kernel(small.transition, markov.Editor(1e-9))
    pairs = small.stationary[:, None] * small.transition
    share = rates[0] / float((pairs * (1 - every.unchanged)).sum()) * 2001 / 2000
    exact = markov.kl_rate(small.transition, markov.random_edit(small.transition, every, share))
    assert abs(run.kl[1].mean() - exact) < 4 * run.kl[1].std() / np.sqrt(SEEDS) + 1e-3


def test_replace_drifts_and_accumulate_levels_off() -> None:
    source = zipf_markov_source(50, 0.125, 1)
    sizes: dict[str, Any] = {"documents": 100, "length": 101, "seeds": 4, "generations": 6}
    replace = run_tokens(source, TokenRule("replace"), **sizes)
    accumulate = run_tokens(source, TokenRule("accumulate"), **sizes)
    np.testing.assert_array_equal(replace.kl[0], accumulate.kl[0])
    assert np.all(replace.kl[-1] > 1.5 * accumulate.kl[-1])
    assert np.all(np.diff(accumulate.bigrams, axis=0) >= 0)
    assert np.all(replace.bigrams[-1] < replace.bigrams[0])
    assert replace.changed.max() == 0


def test_tokens_below_the_threshold_stay_and_same_seed_same_run(small: TokenSource) -> None:
    sizes: dict[str, Any] = {**SIZES, "generations": 2}  # the shapes of other tests: already compiled
    still = run_tokens(small, TokenRule("edit", threshold=0.9999, candidates=5), **sizes)
    assert still.changed.max() == 0
    np.testing.assert_array_equal(still.kl[0], still.kl[2])
    one, two = (run_tokens(small, TokenRule("edit", threshold=0.3, candidates=5), **sizes).kl for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "call",
    [
        lambda: zipf_markov_source(5, 0.1, 0),
        lambda: zipf_markov_source(50, 0.9, 0),
        lambda: TokenRule("mix"),
        lambda: TokenRule("edit", threshold=1.0),
        lambda: TokenRule("edit", candidates=0),
        lambda: TokenRule("edit", prior="none"),
        lambda: run_tokens(zipf_markov_source(20, 0.1, 0), TokenRule("random")),
        lambda: run_tokens(zipf_markov_source(20, 0.1, 0), TokenRule("edit", candidates=30)),
        lambda: run_tokens(zipf_markov_source(20, 0.1, 0), TokenRule("edit"), length=1),
    ],
)
def test_bad_arguments(call) -> None:
    with pytest.raises(InputError):
        call()
