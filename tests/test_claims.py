"""The ledger: coverage of the paper's equations, verdicts that can fail, and the arithmetic beneath."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import t as student

from paper.claims import appendix_a1, entry, ledger, method, ours_bounds, ours_exact, ours_tokens, process, table
from paper.claims.entry import Claim, Comparison, Outcome, above, agrees, at_most, close, evaluate, exact, verdict
from paper.claims.exact_process import Design, design, inverse, is_positive_semidefinite, trajectory
from paper.commands.claims import Claims
from paper.errors import InputError

PASS, FAIL = exact("holds", 1, 0), exact("fails", 1, 1)
BLIND = Comparison("no power", True, {}, powered=False)


def by_id(name: str) -> Claim:
    return next(claim for claim in ledger.CLAIMS if claim.id == name)


def test_every_numbered_equation_has_an_entry():
    covered = {number for claim in ledger.CLAIMS for number in claim.equations}
    assert covered == set(range(1, 46))


def test_unnumbered_statements_have_entries():
    ids = {claim.id for claim in ledger.CLAIMS}
    assert {"n-fold", "data-model", "start-and-step", "pseudo-inverse", "theorem-1", "theorem-2"} <= ids
    assert {"theorem-2-decay", "first-fit", "recursion", "algorithm-1", "perplexity", "dsir-weight", "cost"} <= ids


def test_ids_are_unique_and_every_claim_says_its_tolerance():
    assert len({claim.id for claim in ledger.CLAIMS}) == len(ledger.CLAIMS)
    assert all(claim.tolerance and claim.statement for claim in ledger.CLAIMS)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(stated=()), "untestable here"),
        (Outcome(stated=(PASS,)), "holds"),
        (Outcome(stated=(PASS, BLIND)), "untestable here"),
        (Outcome(stated=(FAIL,)), "fails"),
        (Outcome(stated=(FAIL,), conditional=(PASS,)), "holds under a condition"),
        (Outcome(stated=(FAIL,), conditional=(PASS, FAIL)), "fails"),
        (Outcome(stated=(FAIL,), conditional=(BLIND,)), "fails"),
    ],
)
def test_verdict_follows_from_the_comparisons(outcome: Outcome, expected: str):
    assert verdict(outcome) == expected


def test_nothing_evaluated_proves_nothing():
    assert not exact("empty", 0, 0).passed


def test_agreement_within_four_standard_errors_and_power():
    assert agrees("near", 1.03, 0.01, 1.0).passed
    assert not agrees("far", 1.05, 0.01, 1.0).passed
    assert agrees("sharp", 1.0, 0.01, 1.0, alternative=("wrong", 1.05)).powered
    assert not agrees("blunt", 1.0, 0.02, 1.0, alternative=("wrong", 1.05)).powered
    with pytest.raises(ValueError, match="positive standard error"):
        agrees("no error", 1.0, 0.0, 1.0)


def test_bounds_need_four_standard_errors_to_be_violated_or_exceeded():
    assert at_most("noise", 2.03, 0.01, 2.0).passed
    assert not at_most("violated", 2.05, 0.01, 2.0).passed
    assert not above("clearly below", 1.95, 0.01, 2.0).passed
    assert not above("equal, without error", 2.0, 0.0, 2.0).passed
    assert above("clear", 2.05, 0.01, 2.0).passed
    assert not close("rounding", 1.0, 1.1, 0.01).passed


def test_a_bound_that_an_estimate_cannot_tell_from_its_violation_decides_nothing():
    def decided(comparison):
        return verdict(Outcome((comparison,)))

    assert decided(at_most("attained", 2.0, 0.01, 2.0)) == "holds"
    assert decided(at_most("exact", 2.0, 0.0, 2.0)) == "holds"
    for error in (0.06, math.inf):  # 4 of them reach beyond 2.2
        assert decided(at_most("blunt", 2.0, error, 2.0)) == "untestable here"
    assert decided(above("in between", 2.1, 0.1, 2.0)) == "untestable here"
    assert decided(above("in between", 1.9, 0.1, 2.0)) == "untestable here"
    assert decided(above("clear", 2.5, 0.1, 2.0)) == "holds"
    assert decided(above("clearly below", 1.5, 0.1, 2.0)) == "fails"


def test_own_claims_and_corrections_decide_the_exit_code():
    own = Claim("own", "this work", "s", "this work", "algebra", lambda: Outcome(stated=(FAIL,)))
    paper = Claim("paper", "eq.", "s", "paper", "algebra", lambda: Outcome(stated=(FAIL,), correction=(PASS,)))
    broken = Claim("paper", "eq.", "s", "paper", "algebra", lambda: Outcome(stated=(FAIL,), correction=(FAIL,)))
    assert evaluate(own).ours_broken
    assert not evaluate(paper).ours_broken
    assert evaluate(broken).ours_broken


def test_false_alarms_are_counted_once_a_measurement():
    shared = agrees("one measurement", 1.0, 0.1, 1.0)
    claims = [Claim(name, "", "", "paper", "algebra", lambda: Outcome(stated=(shared,))) for name in ("a", "b")]
    assert [len(found) for found in table.estimates([evaluate(claim) for claim in claims])] == [1, 0]
    # 6.334e-5 = P(|N(0, 1)| > 4), to four digits.
    assert entry.chance_of_false_alarm(100) == pytest.approx(6.314e-3, rel=1e-3)


def test_comparisons_at_wider_intervals_are_counted_apart():
    generator = np.random.default_rng(5)
    seeds = {"sure": generator.normal(9, 1, 3), "hardly": np.array([1.0, 1.2, 1.9]), "not": np.array([-1.0, 0.5, 1.0])}
    half = {name: student.interval(0.95, 2, scale=values.std(ddof=1) / 3**0.5)[1] for name, values in seeds.items()}
    wide = [
        Comparison(
            name,
            True,
            {"value": float(values.mean()), "half_width": float(half[name]), "seeds": 3},
            random=True,
            level=0.05,
        )
        for name, values in seeds.items()
    ]
    stated = (agrees("narrow", 1.0, 0.1, 1.0), wide[0])
    entries = [
        evaluate(Claim(f"of {number}", "", "", "paper", "algebra", lambda some=some: Outcome(stated=some)))
        for number, some in enumerate((stated, (wide[1],), (wide[2], wide[0])))
    ]
    text = table.summary(entries)
    assert "1 distinct comparisons of estimates at 4 standard errors" in text
    assert "3 distinct comparisons at Student's 95 % interval" in text
    assert "about 0.2 of them" in text
    # An independent correction of independently computed chances.
    chances = [2 * student.sf(abs(one.mean()) / one.std(ddof=1) * 3**0.5, 2) for one in seeds.values()]
    corrected = holm_by_hand(chances)
    rows = {row["comparison"]: row for row in table.corrected(entries)}
    assert [rows[name]["p"] for name in seeds] == pytest.approx(chances, rel=1e-9)
    assert [rows[name]["p_holm"] for name in seeds] == pytest.approx(corrected, rel=1e-9)
    assert chances[1] < 0.05 < corrected[1], "told alone, but not of three"
    assert (
        "Of all 3 together (Holm's correction) 1 tell a difference; of the entries that hold, of 1, of 2 do so" in text
    )


def holm_by_hand(chances):
    """Step down: each level at which the comparison and all with smaller chances are rejected."""
    order = np.argsort(chances)
    levels = [chances[place] * (len(chances) - rank) for rank, place in enumerate(order)]
    smallest = [min(1.0, max(levels[: list(order).index(place) + 1])) for place in range(len(chances))]
    return smallest


def test_rational_inverse_and_definiteness_against_floating_point():
    matrix = np.random.default_rng(0).integers(-4, 5, size=(4, 4)) + 6 * np.eye(4, dtype=int)
    exact_inverse = inverse(np.array([[Fraction(int(v)) for v in row] for row in matrix], dtype=object))
    # float64 inverse of a well-conditioned 4 x 4 matrix: 1e-12 is a thousand roundings.
    np.testing.assert_allclose(exact_inverse.astype(float), np.linalg.inv(matrix), atol=1e-12)
    for eigenvalue in (1, 0, -1):
        basis = np.array([[1, 1], [1, -1]])
        product = basis @ np.diag([2, eigenvalue]) @ basis.T
        rational = np.array([[Fraction(int(v)) for v in row] for row in product], dtype=object)
        assert is_positive_semidefinite(rational) == (eigenvalue >= 0)


def test_rational_process_equals_a_numpy_run():
    X, edits = np.array([[1, 0], [1, 1], [1, 2], [2, 5], [0, 3]]), [(1, 0, 1, 0, 0), (0, 1, 1, 0, 1)]
    path = trajectory(design(X), edits)
    rng = np.random.default_rng(1)
    w_star, noise = rng.standard_normal(2), rng.standard_normal((3, 5))
    values = np.concatenate([w_star, noise.ravel()])
    labels = X @ w_star + noise[0]
    for n, edit in enumerate(edits):
        w = np.linalg.lstsq(X, labels, rcond=None)[0]
        np.testing.assert_allclose(path.w[n].astype(float) @ values, w, atol=1e-12)
        labels = np.where(np.array(edit) == 1, X @ w + noise[n + 1], labels)
    np.testing.assert_allclose(path.y[2].astype(float) @ values, labels, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("theorem-1", "fails"),
        ("eq-13", "untestable here"),
        ("eq-14", "holds"),
        ("eq-16", "holds under a condition"),
        ("eq-18", "untestable here"),
        ("eq-23", "holds under a condition"),
        ("eq-25", "holds"),
        ("eq-26", "fails"),
        ("eq-29", "holds"),
        ("eq-30", "fails"),
        ("eq-31", "holds under a condition"),
        ("eq-33", "fails"),
        ("eq-35", "holds under a condition"),
        ("eq-38", "holds"),
        ("eq-44", "holds under a condition"),
        ("dsir-weight", "fails"),
        ("exact-identity", "holds"),
        ("residual-bound", "holds"),
        ("diagonal-recursion", "holds"),
        ("token-marginal", "holds"),
        ("first-fit-identity", "holds"),
        ("random-bracket", "holds"),
        ("disjoint-loewner", "holds"),
        ("two-blocks-cover", "holds"),
        ("disjoint-best-constant", "holds"),
        ("high-confidence-stops", "holds"),
        ("low-confidence-budget", "holds"),
        ("token-editing-stops", "holds"),
        ("token-full-redraw", "holds"),
        ("token-entropy", "holds"),
        ("token-confident-harm", "holds"),
    ],
)
def test_verdicts_of_the_cheap_claims(name: str, expected: str):
    result = evaluate(by_id(name))
    assert result.verdict == expected
    assert not result.ours_broken


def test_theorem_1_counterexample_is_printed():
    text = evaluate(by_id("theorem-1")).outcome.headline
    assert "1/9" in text
    assert "1/3" in text


def test_a_broken_correction_is_noticed(monkeypatch: pytest.MonkeyPatch):
    # The paper's own formula in the place of ours.
    monkeypatch.setattr(appendix_a1, "corrected", appendix_a1.theorem_1)
    assert evaluate(by_id("eq-26")).verdict == "fails"
    appendix_a1.correction_all.cache_clear()
    try:
        assert evaluate(by_id("exact-identity")).verdict == "fails"
        assert evaluate(by_id("exact-identity")).ours_broken
    finally:
        appendix_a1.correction_all.cache_clear()


def test_a_broken_expectation_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "dropped_share", lambda T, d, m: m * (T - m) / (T * T))  # f forgotten
    assert evaluate(by_id("eq-33")).ours_broken


def test_a_broken_recursion_is_noticed(monkeypatch: pytest.MonkeyPatch):
    right = ours_exact.diagonal_recursion
    monkeypatch.setattr(
        ours_exact, "diagonal_recursion", lambda given, counts, wrong=False: right(given, counts, wrong=True)
    )
    assert evaluate(by_id("diagonal-recursion")).verdict == "fails"


def test_conditional_marginals_do_change_at_temperature_one():
    # The selected mass s becomes s^2: redrawing a token because of what it is biases the law.
    law = np.array([Fraction(9, 10), Fraction(1, 10)], dtype=object)
    after = ours_tokens.edited_law(law, np.array([True, False]))
    assert list(after) == [Fraction(81, 100), Fraction(19, 100)]


def test_edited_sequence_law_sums_to_one():
    start, step = method.markov(3, 3)
    after = method.edited(method.sequences(start, step, 3), start, step, Fraction(1, 2))
    assert sum(after.values()) == 1


def test_a_wrong_covariance_formula_is_noticed(monkeypatch: pytest.MonkeyPatch):
    right = ours_bounds.spread

    def without_square(given: Design, blocks: ours_bounds.Blocks) -> ours_bounds.Spread:
        part = right(given, blocks)
        return replace(part, last=part.last + part.Y)  # C = P + P' - I

    monkeypatch.setattr(ours_bounds, "spread", without_square)
    assert evaluate(by_id("disjoint-loewner")).verdict == "fails"


def test_a_generation_too_few_is_noticed(monkeypatch: pytest.MonkeyPatch):
    right = ours_tokens.last_generation
    monkeypatch.setattr(ours_tokens, "last_generation", lambda p, largest: max(right(p, largest) - 1, 0))
    assert evaluate(by_id("token-editing-stops")).verdict == "fails"


def test_the_wrong_cube_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ours_tokens, "reversal", lambda transition: transition)  # P P P, without the reversal
    assert evaluate(by_id("token-full-redraw")).verdict == "fails"


def test_the_fit_test_form_needs_residual_rules():
    (comparison,) = ours_bounds.fit_test_needs_residuals()
    assert comparison.passed
    assert comparison.powered  # the two sides differ by more than 4 standard errors


def test_two_blocks_at_one_feature_against_the_integral():
    # W_1 uniform on [0, 1]: 2 + int (w - w^2)(4 - 2 w - w + w^2) dw = 37/15.
    assert ours_bounds.beta_cover(4, 2) == Fraction(37, 15)


def test_every_sequence_of_blocks_is_enumerated_once():
    blocks = ours_bounds.ordered_blocks(tuple(range(6)), 2, 2)
    assert len(set(blocks)) == len(blocks) == 15 * 6


def test_an_unwritable_output_is_refused_before_the_computation(tmp_path, monkeypatch: pytest.MonkeyPatch):
    called = []
    monkeypatch.setattr(ledger, "select", lambda *args: called.append(args))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Claims(json=tmp_path / "file" / "ledger.json").run()
    with pytest.raises(InputError, match="cannot write"):
        Claims(json=tmp_path).run()
    assert not called
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_command_writes_json_and_returns_zero(tmp_path):
    path = tmp_path / "ledger.json"
    assert Claims(only=("eq-13", "eq-26", "eq-16"), json=path).run() == 0
    data = json.loads(path.read_text())["data"]
    assert data["counts"]["paper"] == {
        "holds": 0, "holds under a condition": 1, "fails": 1, "untestable here": 1
    }  # fmt: skip
    assert [row["id"] for row in data["tables"]["ledger"]] == ["eq-13", "eq-16", "eq-26"]
    assert any("z" in row for row in data["tables"]["comparisons"])


def test_command_returns_one_when_something_of_ours_breaks(monkeypatch: pytest.MonkeyPatch):
    wrong = Claim("wrong", "this work", "2 = 3", "this work", "algebra", lambda: Outcome(stated=(FAIL,)))
    monkeypatch.setattr(ledger, "CLAIMS", (wrong,))
    assert Claims(only=("wrong",)).run() == 1


def test_unknown_and_empty_selections_are_refused():
    with pytest.raises(InputError, match="no claim is called 'eq-99'"):
        ledger.select(ledger.CLAIMS, ("eq-99",))
    with pytest.raises(InputError, match="no claim is left"):
        ledger.select(ledger.CLAIMS, ("eq-13",), "this work")


@pytest.mark.slow
def test_whole_ledger():
    entries = table.evaluate_all(ledger.CLAIMS, lambda index, claim: None)
    assert not [item.claim.id for item in entries if item.ours_broken]
    fails = {item.claim.id for item in entries if item.verdict == "fails"}
    assert {"theorem-1", "theorem-2", "n-fold", "eq-26", "eq-30", "eq-36", "eq-43"} <= fails
    assert all(item.claim.owner == "paper" for item in entries if item.verdict == "fails")
