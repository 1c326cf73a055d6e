"""Ledger entries about language models, computed from a made-up result of the step lm_iterate."""

import json
from typing import Any

import pytest

from paper.claims import ledger, lm
from paper.claims.entry import Entry, evaluate
from paper.claims.table import row
from paper.commands.claims import Claims, read_lm
from paper.errors import InputError
from paper.full_editing import FOLDER
from paper.steps import claims as claims_step
from paper.steps import lm_claims

RULES = ("replace", "accumulate", "edit", "edit-random")
SLOPES = {"replace": 0.3, "accumulate": 0.1, "edit": 0.02, "edit-random": 0.05}
NOISE = (0.0, 0.001, -0.001)


def result(seeds: int = 3, noise: float = 1.0, rate: float = 0.05, share: float = 0.0001) -> dict[str, Any]:
    """Loss grows by the rule's slope, edit and edit-random only in generation 1; each seed is off by its noise."""
    perplexity, edits = [], []
    for seed in range(seeds):
        for rule in RULES:
            for generation in (1, 2, 3):
                steps = generation if not rule.startswith("edit") else 1
                offset = noise * NOISE[seed] * (1 + generation * RULES.index(rule))
                perplexity.append(
                    {
                        "seed": seed,
                        "rule": rule,
                        "generation": generation,
                        "domain": "all",
                        "change": SLOPES[rule] * steps + offset,
                        "change_se": 0.001,
                    }
                )
                if rule.startswith("edit"):
                    edits.append(
                        {
                            "seed": seed,
                            "rule": rule,
                            "generation": generation,
                            "effective_rate": rate,
                            "share_above_099": share,
                            "median_probability": 0.05,
                        }
                    )
    return {"tables": {"perplexity": perplexity, "edits": edits}}


def _needs(data: dict[str, Any]) -> dict[str, Any]:
    committed = {"lm_edit": "summary.json", "lm_edit_again": "again.json"}
    files = {name: json.loads((FOLDER / file).read_text(encoding="utf-8")) for name, file in committed.items()}
    assert set(lm_claims.NEEDS) == {"lm_iterate", *files}
    return {"lm_iterate": {"data": data}, **{name: {"data": {"committed": file}} for name, file in files.items()}}


def entries(data: dict[str, Any] | None) -> dict[str, Entry]:
    return {claim.id: evaluate(claim) for claim in lm.claims(data)}


def test_clear_differences_hold():
    found = entries(result())
    assert {entry.verdict for entry in found.values()} == {"holds"}
    assert "edit better" in found["lm-confident-random"].outcome.headline


def test_student_interval_by_hand():
    # Three seeds, values 1, 2, 3: standard error 1/sqrt 3, and t_{2, .975} = 4.302653 (tables).
    mean, error, half = lm.interval([1.0, 2.0, 3.0])
    assert (mean, error) == (2.0, pytest.approx(3**-0.5))
    assert half == pytest.approx(4.302653 * 3**-0.5, rel=1e-6)


def test_noise_between_seeds_makes_it_untestable():
    found = entries(result(noise=100.0))
    assert found["lm-confident-random"].verdict == "untestable here"
    assert "not distinguishable" in found["lm-confident-random"].outcome.headline
    assert not any(entry.ours_broken for entry in found.values())


def test_two_seeds_need_twelve_standard_errors():
    # Mean .3 with standard error .02 and .03: 15 and 10 standard errors, t_{1, .975} = 12.7.
    assert lm.differs("", [0.28, 0.32]).powered
    assert not lm.differs("", [0.27, 0.33]).powered


def test_one_seed_decides_nothing():
    found = entries(result(seeds=1))
    assert {name for name, entry in found.items() if entry.verdict != "untestable here"} == {"token-small-model"}


def test_replace_that_falls_is_a_failure():
    data = result()
    for line in data["tables"]["perplexity"]:
        if line["rule"] == "replace":
            line["change"] *= -1
    assert entries(data)["lm-replace"].verdict == "fails"


def test_hardly_any_edit_is_untestable():
    found = entries(result(rate=0.0005))
    for name in ("lm-edit-levels-off", "lm-edit-source", "lm-confident-random"):
        assert found[name].verdict == "untestable here"
        assert "0.050%" in found[name].outcome.headline
    assert found["lm-replace"].verdict == "holds"


def test_many_confident_tokens_contradict_the_small_model_entry():
    assert entries(result(share=0.2))["token-small-model"].ours_broken


def test_missing_arms_and_missing_result_are_untestable():
    data = result()
    data["tables"]["perplexity"] = [line for line in data["tables"]["perplexity"] if line["rule"] != "edit-random"]
    assert entries(data)["lm-confident-random"].verdict == "untestable here"
    assert {entry.outcome.headline for entry in entries(None).values()} == {"run `make reproduce` first"}


def test_step_has_the_columns_of_the_claims_step(tmp_path):
    data = lm_claims.run(lm_claims.CONFIG, _needs(result()), tmp_path, lambda share, name: None)
    first = next(claim for claim in ledger.CLAIMS if claim.id == "eq-13")
    assert [list(line) for line in data["tables"]["ledger"]] == [list(row(evaluate(first)))] * 12
    assert not set(claims_step.CONFIG["claims"]) & {line["id"] for line in data["tables"]["ledger"]}
    json.dumps(data, allow_nan=False)


def test_single_seed_writes_no_infinity(tmp_path):
    data = lm_claims.run({}, _needs(result(seeds=1)), tmp_path, lambda share, name: None)
    json.dumps(data, allow_nan=False)


def test_command_reads_the_result_where_there_is_one(tmp_path):
    where = tmp_path / "lm_iterate" / "result.json"
    assert read_lm(tmp_path) is None
    where.parent.mkdir()
    where.write_text(json.dumps({"data": result(share=0.2)}))
    assert Claims(only=("token-small-model",), results=tmp_path).run() == 1
    where.write_text(json.dumps({"data": result()}))
    assert Claims(only=("token-small-model",), results=tmp_path).run() == 0
    where.write_text('{"data": {')
    with pytest.raises(InputError, match="damaged"):
        Claims(only=("token-small-model",), results=tmp_path).run()
