"""The exact engine for Algorithm 1 against enumeration, closed forms and the propositions of the note."""

import itertools

import numpy as np
import pytest

from theory.errors import InputError
from theory.markov import (
    Editor,
    change_range,
    conditional,
    edit_kernel,
    edit_windows,
    entropy_rate,
    example_source,
    extend,
    iterate_edit,
    iterate_replace,
    kl_rate,
    memory,
    one_edit_source_view,
    random_edit,
    stationary,
    temper,
)

ROUNDING = 1e-12  # sums of at most 1e4 float64 terms of size 1: 1e4 * 1e-16
GOLDEN = (np.sqrt(5) - 1) / 2


def literal_candidates(row: np.ndarray, token: int, editor: Editor) -> np.ndarray:
    """Algorithm 1 for one position, written from the text: the law of x'_i."""
    out = np.zeros(len(row))
    if row[token] < editor.threshold or (editor.strict and row[token] == editor.threshold):
        out[token] = 1
        return out
    listed = sorted(range(len(row)), key=lambda b: (-row[b], b))[: editor.candidates or len(row)]
    if editor.keep_original and token not in listed:
        listed.append(token)
    for b in listed:
        out[b] = row[b] ** (1 / editor.temperature)
    return out / out.sum()


EDITORS = [
    Editor(0.5),
    Editor(0.2, candidates=2),
    Editor(0.05, candidates=1, keep_original=True, temperature=1.5),
    Editor(0.3, temperature=0.6),
    Editor(0.01, candidates=2, temperature=2.0),
    Editor.paper(),
    Editor.released(),
]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("editor", EDITORS)
def test_windows_against_enumeration(order: int, editor: Editor) -> None:
    vocabulary, length = 3, order + 3
    rng = np.random.default_rng(order)
    source = rng.dirichlet(np.full(vocabulary, 0.3), size=(vocabulary,) * order) * 0.98 + 0.02 / vocabulary
    prior = rng.dirichlet(np.full(vocabulary, 0.3), size=(vocabulary,) * order) * 0.98 + 0.02 / vocabulary
    source.reshape(-1, vocabulary)[0] = [0.994, 0.004, 0.002]
    prior.reshape(-1, vocabulary)[0] = [0.993, 0.002, 0.005]
    law = extend(stationary(source), source, length)
    expected = np.zeros((vocabulary,) * (length - order))
    for word in itertools.product(range(vocabulary), repeat=length):
        factors = [literal_candidates(prior[word[i - order : i]], word[i], editor) for i in range(order, length)]
        outer = np.array(law[word])
        for factor in factors:
            outer = np.multiply.outer(outer, factor)
        expected += outer
    got = edit_windows(law, edit_kernel(prior, editor))
    np.testing.assert_allclose(got, expected, atol=ROUNDING)


def test_stationary_law_and_rates_of_a_two_state_chain() -> None:
    a, b = 0.1, 0.3
    chain = np.array([[1 - a, a], [b, 1 - b]])
    np.testing.assert_allclose(stationary(chain), [b / (a + b), a / (a + b)], atol=ROUNDING)

    def h(x: float) -> float:
        return -x * np.log(x) - (1 - x) * np.log(1 - x)

    rate = (b * h(a) + a * h(b)) / (a + b)
    assert entropy_rate(chain) == pytest.approx(rate, abs=ROUNDING)
    assert memory(chain) == pytest.approx(h(a / (a + b)) - rate, abs=ROUNDING)
    assert kl_rate(chain, chain) == 0
    assert kl_rate(chain, np.array([[1.0, 0.0], [0.5, 0.5]])) == np.inf


def test_a_calibrated_edit_moves_the_conditional_marginals() -> None:
    # That temperature 1 with all candidates leaves the marginals as they were holds
    # for p below every probability only: a confident token's q becomes q^2.
    source = example_source(5, 0.006, 0)
    for threshold in (0.99, 0.5, 0.1):
        kernel = edit_kernel(source, Editor(threshold))
        law = extend(stationary(source), source, 2)
        view = (law * kernel.stay)[:, :] + (law * kernel.move).sum(1, keepdims=True) * kernel.weight
        view = view / view.sum(1, keepdims=True)
        np.testing.assert_allclose(view, one_edit_source_view(source, threshold), atol=ROUNDING)
        assert np.abs(view - source).max() > 0.005
        if threshold > 0.5:
            top = source.max(1)
            sure = top >= threshold
            assert sure.any()
            np.testing.assert_allclose(view[sure, source.argmax(1)[sure]], top[sure] ** 2, atol=ROUNDING)
    full = one_edit_source_view(source, source.min() / 2)
    np.testing.assert_allclose(full, source, atol=ROUNDING)


def test_full_redraw_cubes_a_reversible_chain() -> None:
    rng = np.random.default_rng(0)
    symmetric = rng.uniform(size=(5, 5))
    symmetric += symmetric.T
    reversible = symmetric / symmetric.sum(1, keepdims=True)
    curve = iterate_edit(reversible, Editor(1e-9), 3)
    for generation in range(4):
        np.testing.assert_allclose(
            curve.models[generation], np.linalg.matrix_power(reversible, 3**generation), atol=ROUNDING
        )
    general = example_source(5, 0.05, 1)
    pi = stationary(general)
    back = (pi[:, None] * general).T / pi[:, None]
    np.testing.assert_allclose(
        iterate_edit(general, Editor(1e-9), 1).models[1], back @ general @ general, atol=ROUNDING
    )
    # the one-token law survives and the dependence dies: KL tends to the mutual information of neighbours
    end = iterate_edit(general, Editor(1e-12), 8, regenerate=True)
    np.testing.assert_allclose(stationary(end.models[-1]), pi, atol=1e-9)
    assert end.kl[-1] == pytest.approx(memory(general), abs=1e-6)


def test_random_edits_have_a_closed_form() -> None:
    source = example_source(6, 0.02, 2)
    pi = stationary(source)
    back = (pi[:, None] * source).T / pi[:, None]
    share = 0.3
    got = random_edit(source, edit_kernel(source, Editor(1e-12)), share)
    np.testing.assert_allclose(got, ((1 - share) * np.eye(6) + share * back @ source) @ source, atol=ROUNDING)


@pytest.mark.parametrize("threshold", [0.62, 0.8, 0.95, 0.99])
def test_calibrated_editing_ends_by_itself_above_the_golden_ratio(threshold: float) -> None:
    assert threshold > GOLDEN
    for seed in range(5):
        source = example_source(6, 1e-4, seed)
        highest = source.max()
        steps = int(np.ceil(np.log2(np.log(threshold) / np.log(highest))))
        curve = iterate_edit(source, Editor(threshold), steps + 2, regenerate=True)
        bound = highest
        for model in curve.models[1:]:
            bound = max(bound**2, threshold) if bound >= threshold else threshold
            assert model.max() <= bound + ROUNDING
        assert curve.selected[0] > 0
        # a redraw can leave the maximum just below p after `steps` squarings, never above
        assert curve.selected[steps:].max() == 0
        np.testing.assert_allclose(curve.models[steps], curve.models[-1], atol=ROUNDING)


def test_below_the_golden_ratio_an_edit_can_make_new_confident_tokens() -> None:
    # q = 0.55 falls to 0.3025 and its rival rises from 0.45 to 0.45 * 1.55 = 0.6975
    row = np.array([[0.55, 0.45], [0.55, 0.45]])
    curve = iterate_edit(row, Editor(0.55), 1)
    np.testing.assert_allclose(curve.models[1], [[0.3025, 0.6975]] * 2, atol=ROUNDING)
    golden = np.array([[GOLDEN, 1 - GOLDEN]] * 2)
    cycle = iterate_edit(golden, Editor(0.6), 4, regenerate=True)
    np.testing.assert_allclose(cycle.models[1], golden[:, ::-1], atol=1e-9)  # unstable cycle: error grows 1.24 a step
    np.testing.assert_allclose(cycle.models[2], golden, atol=1e-9)


def test_entropy_of_a_context_rises_above_the_golden_ratio_only() -> None:
    def entropy(row: np.ndarray) -> float:
        return float(-(row[row > 0] * np.log(row[row > 0])).sum())

    for top, sign in ((0.99, 1), (0.63, 1), (0.61, -1), (0.55, -1)):
        row = np.array([[top, 1 - top]] * 2)
        change = entropy(one_edit_source_view(row, 0.5)[0]) - entropy(row[0])
        assert np.sign(change) == sign


def test_at_most_one_minus_p_of_the_selected_tokens_change() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        prior = rng.dirichlet(np.full(9, 0.2), size=9)
        threshold = rng.uniform(0.2, 0.999)
        for candidates in (None, 2, 5):
            # p > 1/(k+1) puts every selected token among the k candidates
            if candidates and threshold <= 1 / (candidates + 1):
                continue
            kernel = edit_kernel(prior, Editor(threshold, candidates))
            assert np.all(kernel.unchanged[kernel.selected] >= prior[kernel.selected] - ROUNDING)
    # below 1/(k+1) a selected token can be no candidate at all and then always changes
    row = np.tile([0.4, 0.35, 0.25], (3, 1))
    kernel = edit_kernel(row, Editor(0.2, candidates=2))
    assert kernel.selected[0, 2]
    assert kernel.unchanged[0, 2] == 0


def test_a_token_that_is_the_only_candidate_cannot_change() -> None:
    assert change_range(0.9, Editor(0.5, candidates=1), 50) == (0.0, 0.0)


def test_range_of_the_change_probability() -> None:
    released = Editor.released()
    low, high = change_range(0.99, released, 50)
    weights = 0.99 ** (1 / 1.5)
    assert high == pytest.approx(7 ** (1 / 3) * 0.01 ** (2 / 3) / (7 ** (1 / 3) * 0.01 ** (2 / 3) + weights))
    assert high == pytest.approx(0.0821, abs=5e-5)
    rng = np.random.default_rng(0)
    seen = []
    for concentration in (0.01, 0.1, 1, 10, 1000):
        rest = 0.01 * rng.dirichlet(np.full(49, concentration), size=200)
        rows = np.concatenate([np.full((200, 1), 0.99), rest], axis=1)
        # rows of contexts 50.. reuse the square shape: fifty contexts at a time
        for block in rows.reshape(4, 50, 50):
            shifted = block.copy()
            shifted[:, 0] += 1e-12 + 1 - shifted.sum(1)
            seen.append(1 - edit_kernel(shifted, released).unchanged[:, 0])
    seen = np.concatenate(seen)
    assert low - 1e-9 <= seen.min()
    assert seen.max() <= high + 1e-9
    even = np.full(50, 0.0)
    even[0], even[1:8] = 0.99, 0.01 / 7
    even[0] += 1e-12
    even /= even.sum()
    assert 1 - edit_kernel(np.tile(even, (50, 1)), released).unchanged[0, 0] == pytest.approx(high, abs=1e-9)


def test_edited_data_are_not_markov_after_the_first_generation() -> None:
    source = example_source(5, 0.01, 4)
    exact = iterate_edit(source, Editor(0.4), 3)
    closed = iterate_edit(source, Editor(0.4), 3, regenerate=True)
    np.testing.assert_allclose(exact.models[1], closed.models[1], atol=ROUNDING)
    assert np.abs(exact.models[2] - closed.models[2]).max() > 1e-3


def test_high_threshold_is_the_identity_and_replace_has_a_closed_form() -> None:
    source = example_source(5, 0.2, 5)
    still = iterate_edit(source, Editor(0.999999), 3)
    np.testing.assert_allclose(still.kl, 0, atol=ROUNDING)
    assert still.changed.max() == 0
    np.testing.assert_allclose(iterate_replace(source, 0.8, 4).models[4], temper(source, 0.8**4), atol=ROUNDING)
    np.testing.assert_allclose(iterate_replace(source, 1.0, 4, accumulate=True).kl, 0, atol=1e-10)
    assert iterate_replace(source, 0.8, 4).kl[4] > iterate_replace(source, 0.8, 4, accumulate=True).kl[4] > 0


def test_fixed_prior_share_falls_by_what_changes() -> None:
    # iid-like check of the bookkeeping: selected and changed from the exact pair law
    source = example_source(6, 0.006, 0)
    curve = iterate_edit(source, Editor.released(), 3, prior=source)
    kernel = edit_kernel(source, Editor.released())
    for generation in range(4):
        pairs = stationary(curve.models[generation])[:, None] * curve.models[generation]
        assert curve.selected[generation] == pytest.approx(pairs[kernel.selected].sum(), abs=1e-10)
        assert curve.changed[generation] == pytest.approx((pairs * (1 - kernel.unchanged)).sum(), abs=1e-10)


def test_conditional_keeps_the_fallback_where_nothing_was_seen() -> None:
    law = np.array([[0.25, 0.75], [0.0, 0.0]])
    np.testing.assert_array_equal(conditional(law, np.eye(2)), [[0.25, 0.75], [0.0, 1.0]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: Editor(1.0),
        lambda: Editor(0.5, candidates=0),
        lambda: Editor(0.5, temperature=0.0),
        lambda: stationary(np.ones((2, 2))),
        lambda: stationary(np.ones(2) / 2),
        lambda: Editor(0.5, candidates=1.5),  # pyright: ignore[reportArgumentType]
        lambda: iterate_edit(np.eye(2), Editor(0.5), -1),
        lambda: iterate_replace(np.eye(2), 1.0, -3),
        lambda: iterate_replace(np.eye(2), 1.0, 1.5),  # pyright: ignore[reportArgumentType]
        lambda: iterate_edit(np.eye(2), Editor(0.5), 1, prior=np.eye(3)),
        lambda: iterate_edit(np.eye(9), Editor(0.5), 12),
        lambda: change_range(0.4, Editor.released()),
        lambda: random_edit(np.eye(2), edit_kernel(np.eye(2), Editor(0.5)), 1.5),
    ],
)
def test_bad_arguments(call) -> None:
    with pytest.raises(InputError):
        call()
