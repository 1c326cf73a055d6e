"""The audit of the paper's tables: known faults are found, planted ones are noticed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from paper import audit
from paper.audit import Cell, load_cells, load_tasks
from paper.audit import audit as run_audit
from paper.steps import audit as step

CELLS, TASKS = load_cells(), load_tasks()


def change(where: Mapping[str, Any], value: float, *, se: float | None = None) -> list[Cell]:
    """Return the cells with one of them altered."""
    hits = [cell for cell in CELLS if all(getattr(cell, name) == wanted for name, wanted in where.items())]
    assert len(hits) == 1, f"{where} names {len(hits)} cells"
    return [replace(cell, value=value, se=se or cell.se) if cell is hits[0] else cell for cell in CELLS]


def faults(cells: Sequence[Cell]) -> dict[str, int]:
    return run_audit(cells, TASKS)["faults"]


def verdict(cells: Sequence[Cell], name: str) -> str:
    rows = run_audit(cells, TASKS)["tables"]["claims"]
    return next(row["verdict"] for row in rows if row["claim"] == name)


def test_all_printed_numbers_are_read():
    assert len(CELLS) == 792


def test_binomial_standard_error_against_the_papers_own():
    # Table 11 prints 26.81 +- 1.550 for the 817 questions of TruthfulQA.
    assert audit.standard_error(26.81, 817) == pytest.approx(1.550, abs=1e-3)


def test_known_faults():
    rows = audit.averages(CELLS)
    wrong = {(row["table"], row["row"]) for row in rows if not row["agrees"]}
    assert {(4, "OSS-Instruct|source"), (4, "Evol-Instruct|ToEdit"), (3, "base"), (1, "synthetic 0%")} <= wrong
    assert not [row for row in rows if row["table"] in (2, 5, 9, 11, 16) and not row["agrees"]]
    printed = [row for row in audit.standard_errors(CELLS, TASKS) if row["printed_se_agrees"] is False]
    assert {(row["row"], row["task"]) for row in printed} == {
        ("synthetic 50%", "LogiQA"), ("synthetic 50%", "Winogrande"), ("synthetic 50%", "PIQA")
    }  # fmt: skip


def test_one_missing_column_would_explain_the_code_averages():
    # Four averages of Table 4 that each imply a fifth score near 39, as one dropped column would.
    missing = [row["entry_missing"] for row in audit.averages(CELLS) if row["table"] == 4 and not row["agrees"]]
    assert len(missing) == 4
    assert all(38 < value < 40 for value in missing)


def test_shared_cells_of_tables_5_7_8_and_16_agree_but_not_3_and_5():
    rows = audit.contradictions(CELLS, TASKS)
    apart = {(row["first"], row["second"]) for row in rows if not row["same"]}
    assert apart == {("Table 3, ToEdit", "Table 5, p >= 0.99")}


def test_best_ablation_is_below_the_baseline_of_table_3():
    rows = audit.above_baseline(CELLS)
    assert max(row["minus_CPT"] for row in rows) < 0


def test_table_15_ratios():
    ratios = [row["ratio"] for row in audit.edited_tokens(CELLS) if row["ratio"]]
    assert ratios == [pytest.approx(549519 / 584103, abs=1e-4), pytest.approx(517433 / 549519, abs=1e-4)]


def test_table_6_has_60_and_not_75_percent_below_six_tenths():
    last = audit.token_probabilities(CELLS)[-1]
    assert last["printed_percent"] == pytest.approx(60.0, abs=1e-9)
    assert not last["agrees"]


PLANTED: list[tuple[str, dict[str, Any], float]] = [
    ("averages", {"table": 2, "row": "PT", "column": "PIQA"}, 55.97),
    ("grid", {"table": 2, "row": "PT", "column": "OBQA"}, 12.31),
    ("contradictions", {"table": 8, "row": "k = 8", "column": "MedQA"}, 24.9),
    ("below_chance", {"table": 4, "row": "CoT|source", "column": "WG"}, 40.0),
    ("totals", {"table": 18, "row": "Total", "column": "Documents"}, 5367.0),
    ("edited_tokens", {"table": 15, "row": "Gen 2", "unit": "%"}, 11.9),
]


@pytest.mark.parametrize(("name", "where", "value"), PLANTED)
def test_planted_errors_are_noticed(name: str, where: dict[str, Any], value: float):
    assert faults(change(where, value))[name] == faults(CELLS)[name] + 1


def test_planted_standard_error_is_noticed():
    where = {"table": 11, "row": "synthetic 0%", "column": "PIQA"}
    assert faults(change(where, 56.69, se=1.656))["standard_errors"] == faults(CELLS)["standard_errors"] + 1


def test_verdicts_follow_from_the_numbers():
    assert verdict(CELLS, "C2") == "holds"
    assert verdict(change({"table": 1, "row": "synthetic 75%", "column": "ArXiv"}, 99.0), "C2") == "fails"
    assert verdict(CELLS, "C1") == "holds under a condition"
    assert verdict(change({"table": 1, "row": "synthetic 100%", "column": "ArXiv"}, 9.0), "C1") == "fails"
    assert verdict(CELLS, "C15") == "holds"
    assert verdict(change({"table": 15, "row": "Gen 3", "unit": "tokens"}, 600_000), "C15") == "fails"
    assert verdict(CELLS, "C12") == "untestable here"


def test_a_large_gain_would_have_been_seen():
    # Ten points more on every ToEdit score: the verdict on C12 must be able to change.
    raised = [replace(cell, value=cell.value + 10) if cell.row.endswith("ToEdit") else cell for cell in CELLS]
    assert verdict(raised, "C12") == "holds"


@pytest.mark.parametrize(
    ("value", "size", "possible"),
    [(12.20, 500, True), (12.31, 500, False), (28.59, 500, True), (53.97, 1838, True), (24.23, 448, False)],
)
def test_whole_number_of_right_answers(value: float, size: int, possible: bool):
    assert audit.on_grid(value, 2, size) == possible


def test_sizes_all_have_a_source():
    lines = audit.SIZES.read_text().splitlines()
    assert all(line.rsplit(",", 1)[-1].strip('" ') for line in lines)


def test_step_returns_tables_of_flat_rows(tmp_path):
    seen: list[str] = []
    progress: Callable[[float, str], None] = lambda fraction, message: seen.append(message)  # noqa: E731
    data = step.run(step.CONFIG, {}, tmp_path, progress)
    plain = (str, int, float, bool, type(None))
    assert all(isinstance(value, plain) for rows in data["tables"].values() for row in rows for value in row.values())
    assert [row["claim"] for row in data["tables"]["claims"]] == [f"C{n}" for n in range(1, 26)]
    assert seen
