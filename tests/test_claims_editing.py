"""Entries about editing: verdicts follow the committed numbers, and turn when the numbers do."""

import copy
import json

import pytest

from paper.claims import editing
from paper.claims.entry import evaluate
from paper.full_editing import FOLDER


@pytest.fixture
def data():
    return {
        "edit": json.loads((FOLDER / "summary.json").read_text(encoding="utf-8")),
        "again": json.loads((FOLDER / "again.json").read_text(encoding="utf-8")),
    }


def _verdicts(data):
    return {claim.id: evaluate(claim).verdict for claim in editing.claims(data)}


def test_the_committed_run_was_verified(data):
    assert data["edit"]["verified"]["differences"] == 0
    assert data["edit"]["summary"]["total"]["tokens"] > 300_000


def test_verdicts_turn_when_the_numbers_do(data):
    before, changed = _verdicts(data), copy.deepcopy(data)
    for scores in changed["edit"]["summary"]["sample"]["domains"].values():
        scores["probability"]["before"]["deciles"] = [0.05, 0.55] + [0.05] * 8
    changed["edit"]["summary"]["sample"]["total"]["mean_log_probability"]["change"]["value"] = 1.0
    for setting in changed["again"]["result"]["settings"].values():
        setting["least_same"] = 0.5
        for row in setting["generations"]:
            row["more_than_predicted"] = {"value": row["selected_share"]["value"], "standard_error": 1e-9}
            if "edit" in row:
                row["edit"]["ratio"] = {"value": 1.5, "standard_error": 0.01}
                row["edit"]["redrawn"] = {"value": 0.5, "standard_error": 1e-3}
    after = _verdicts(changed)
    assert set(before) == set(after)
    assert all(verdict == "fails" for verdict in after.values()), after


def test_a_domain_without_a_sampled_document_says_nothing(data):
    domains = data["edit"]["summary"]["sample"]["domains"]
    assert domains["sotu"]["documents"] == 0
    outcome = editing.check_u_shape(data)
    assert {one.name.partition(":")[0] for one in outcome.stated} == domains.keys() - {"sotu"}
    assert "sotu not in the sample" in outcome.headline
    for scores in domains.values():
        scores["documents"] = 0
    assert _verdicts(data)["edit-u-shape"] == "untestable here"


def test_nothing_measured_is_untestable():
    assert set(_verdicts(None).values()) == {"untestable here"}
