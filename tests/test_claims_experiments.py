"""Ledger entries about the experiments, computed from made-up results."""

import json

import pytest
from made_up_experiments import committed, edited_change, iterate_change, mixture_change

from paper.claims import experiments, ledger
from paper.claims.entry import evaluate
from paper.claims.table import row
from paper.commands.claims import Claims
from paper.errors import InputError
from paper.full_editing import FOLDER
from paper.steps import claims as claims_step
from paper.steps import lm_claims, lm_experiments


def entries(**chosen):
    return {claim.id: evaluate(claim) for claim in experiments.claims(committed(**chosen))}


def test_clear_differences_are_decided():
    found = entries()
    verdicts = {name: entry.verdict for name, entry in found.items()}
    # The made-up random edits harm rare tokens more and confidence less, as is claimed.
    assert verdicts == dict.fromkeys(found, "holds")
    assert "3 seeds" in found["lm-replace"].outcome.headline
    # The setting that changes .04 % of the tokens is told, not compared.
    assert [one.name for one in found["edited-presets"].outcome.stated] == ["released (rate 0.400%)"]
    assert "paper: under 0.1%, untestable" in found["edited-presets"].outcome.headline


def test_the_numbers_are_paired_by_seed():
    # Arms 4 (external, 100 %) and 9 (own): .4 - .3; the seeds differ by (5 - 10) (0, .001, -.001).
    (item,) = entries()["mixture-source"].outcome.stated
    assert item.numbers["value"] == pytest.approx(0.1)
    assert item.numbers["half_width"] == pytest.approx(4.302653 * 0.005 / 3**0.5, rel=1e-6)


def test_contrary_results_fail_and_a_fall_at_one_step_only_the_entry_on_steps():
    found = entries(
        mixture=lambda about, domain: -mixture_change(about, domain),
        edited=lambda about, domain: -edited_change(about, domain),
        iterate=lambda about, domain: -iterate_change(about, domain),
    )
    for name in ("mixture-perplexity", "edited-presets", "edited-dose", "lm-replace", "lm-accumulate-replace"):
        assert found[name].verdict == "fails"
    assert found["mixture-training-loss"].verdict == "holds"
    bump = entries(mixture=lambda about, domain: mixture_change(about, domain) + 0.3 * (about["share"] == 50))
    assert (bump["mixture-perplexity-steps"].verdict, bump["mixture-perplexity"].verdict) == ("fails", "holds")


def test_one_seed_decides_nothing():
    found = entries(seeds=1)
    assert {name for name, entry in found.items() if entry.verdict != "untestable here"} == {"token-small-model"}


def test_small_effects_are_untestable_not_failures():
    found = entries(
        mixture=lambda about, domain: 0.0, edited=lambda about, domain: 0.0, iterate=lambda about, domain: 0.0
    )
    decided = {name for name, entry in found.items() if entry.verdict != "untestable here"}
    columns = {"mixture-training-loss", "mixture-training-loss-steps", "edited-underconfident", "edited-rare-tokens"}
    assert decided == {*columns, "token-small-model"}


def test_hardly_any_edit_is_untestable():
    data = committed()
    for line in [*data["iterate"]["data"]["tables"]["edits"], *data["edited"]["data"]["tables"]["edits"]]:
        line["effective_rate"] = 0.0005
    found = {claim.id: evaluate(claim) for claim in experiments.claims(data)}
    for name in ("lm-edit-levels-off", "lm-edit-source", "lm-confident-random", "edited-presets", "edited-dose"):
        assert found[name].verdict == "untestable here"
    assert "0.050%" in found["lm-edit-source"].outcome.headline
    assert found["lm-replace"].verdict == "holds"


def test_many_confident_tokens_contradict_the_small_model_entry_and_missing_arms_are_untestable():
    data = committed()
    tables = data["iterate"]["data"]["tables"]
    tables["edits"][0]["share_above_0.99"] = 0.2
    tables["perplexity"] = [line for line in tables["perplexity"] if line["rule"] != "accumulate"]
    found = {claim.id: evaluate(claim) for claim in experiments.claims(data)}
    assert found["token-small-model"].ours_broken
    assert found["lm-accumulate-replace"].verdict == "untestable here"
    assert "accumulate" in found["lm-accumulate-replace"].outcome.headline


@pytest.mark.parametrize("seeds", [1, 3])
def test_step_has_the_columns_of_the_claims_step(tmp_path, seeds):
    files = {"lm_edit": "summary.json", "lm_edit_again": "again.json"}
    read = {name: json.loads((FOLDER / file).read_text(encoding="utf-8")) for name, file in files.items()}
    assert set(lm_claims.NEEDS) == {"lm_experiments", *files}
    made = committed(seeds)
    larger = {"size": "17M", "committed": {name: made[name] for name in ("mixture", "edited")}}
    needs = {name: {"data": {"committed": one}} for name, one in read.items()}
    needs["lm_experiments"] = {"data": {"committed": made, "larger": larger}}
    data = lm_claims.run(lm_claims.CONFIG, needs, tmp_path, lambda share, name: None)
    first = next(claim for claim in ledger.CLAIMS if claim.id == "eq-13")
    assert [list(line) for line in data["tables"]["ledger"]] == [list(row(evaluate(first)))] * 37
    by_id = {line["id"]: line for line in data["tables"]["ledger"]}
    small, large = by_id["mixture-perplexity"], by_id["mixture-perplexity-17m"]
    assert large["statement"] == f"17M parameters: {small['statement']}"
    assert "mean over 6 domains" in small["statement"]
    assert (large["where"], large["verdict"]) == (
        "tables 1, 13, 14, 17, on models of 17M parameters",
        small["verdict"],
    )
    assert not set(claims_step.CONFIG["claims"]) & {line["id"] for line in data["tables"]["ledger"]}
    json.dumps(data, allow_nan=False)


def test_command_reads_the_committed_results(tmp_path, monkeypatch):
    monkeypatch.setattr(lm_experiments, "ROOT", tmp_path)
    monkeypatch.setattr(lm_experiments, "COMMITTED", tmp_path)
    command = Claims(only=("token-small-model",))
    with pytest.raises(InputError, match=r"mixture\.json cannot be read"):
        command.run()
    results = committed()

    def write():
        for name, result in results.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(result))

    write()
    assert command.run() == 0
    results["iterate"]["data"]["tables"]["edits"][0]["share_above_0.99"] = 0.2
    write()
    assert command.run() == 1
