"""The paper's tables and figures on synthetic data beside what the committed experiments measured.

Paper's values are differences of log-perplexity, means over the columns that a table prints. Ours are of models a
seventh of that size (17 million parameters) and far smaller ones: what can be compared is the direction.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paper.audit import SHARES, load_cells, mixtures
from paper.contrasts import (
    Contrast,
    change,
    column,
    effective_rate,
    is_testable,
    last_generation,
    rates,
    sources,
)
from paper.words import short_commit

Row = dict[str, Any]
NOT_IN_PAPER = "not in the paper"
EXTREMES = 3  # domains named at either end
VERDICTS = {1: {"rises": "same direction", "falls": "opposite"}, -1: {"falls": "same direction", "rises": "opposite"}}
UNDECIDED, NO_TEST = "not distinguishable at this scale", "untestable"
# Label, tables and condition of `paper.audit.mixtures`, and whether ours is taken half-way through the training.
MIXTURE_TABLES = (
    ("table 1", "1", "", False),
    ("tables 13 and 17, 1 epoch", "13, 17", "epoch 1", True),
    ("tables 13 and 17, 5 epochs", "13, 17", "epoch 5", False),
    ("table 14", "14", "epoch 1", False),
)


def beside(committed: Mapping[str, Any]) -> list[Row]:
    """Return a row for each number or statement.

    Args:
        committed: results by experiment (of mixture, edited, iterate), each with its "commit" and "data".

    Returns:
        Rows with "experiment", "paper" (table or figure, and model), "statement", "paper_value" (nats a token, None
        where the paper prints nothing comparable), "ours" (nats a token unless the statement names a unit; mean over
        seeds), "half_width" (of Student's 95 % interval over seeds), "works_se" (standard error over works), "seeds",
        "verdict" on the statement, and "made" (which commit's code).
    """
    makers = {"mixture": _mixture, "edited": _edited, "iterate": _iterate}
    return [
        {"experiment": name, **row, "made": f"committed {short_commit(whole['commit'])}"}
        for name, whole in committed.items()
        for row in makers[name](whole["data"])
    ]


def _row(
    paper: str, statement: str, ours: Contrast, sign: int, value: float | None = None, testable: bool = True
) -> Row:
    return {
        "paper": paper,
        "statement": statement,
        "paper_value": value,
        "ours": ours.mean,
        "half_width": ours.half_width,
        "works_se": ours.works_se,
        "seeds": len(ours.values),
        "verdict": VERDICTS[sign].get(ours.direction, UNDECIDED) if testable else NO_TEST,
    }


def paper_changes(tables: str, condition: str, share: int) -> dict[str, float]:
    """Return log PPL at a synthetic share minus log PPL at 0 %, nats a token, for each domain of the paper's tables."""
    return {
        name: math.log(by_share[share].value / by_share[0].value)
        for (number, when, name), by_share in mixtures(load_cells()).items()
        if (number, when) == (tables, condition) and not name.startswith("Avg") and share in by_share
    }


def _model(tables: str) -> str:
    first = tables.partition(",")[0]
    return next(cell.model for cell in load_cells() if str(cell.table) == first)


def _mixture(data: Mapping[str, Any]) -> Iterator[Row]:
    external, own = sources(data)
    for label, tables, condition, half_way in MIXTURE_TABLES:
        for share in SHARES[1:]:
            value = statistics.fmean(paper_changes(tables, condition, share).values())
            ours = change(data, f"{external} {share} %", half_way=half_way)
            when = ", half-way through the training" if half_way else ""
            statement = f"loss on human text at {share} % {external} is above that at 0 %{when}"
            yield _row(f"{label}, {_model(tables)}", statement, ours, 1, value)
    for share in SHARES[1:]:
        ours = change(data, f"{own} {share} %")
        yield _row(
            NOT_IN_PAPER, f"loss on human text at {share} % of the model's own text is above that at 0 %", ours, 1
        )
    pure = f"{external} 100 %"
    figures = "figures 2 and 7-9, direction only"
    yield _row(figures, f"loss on human text at 100 % {external} is above that at 0 %", change(data, pure), 1)
    for source, paper in ((external, figures), (own, NOT_IN_PAPER)):
        what = f"training loss at 100 % {source if source == external else 'own text'} is below that at 0 %"
        loss = (column(data, f"{source} {share} %", "final_training_loss") for share in (100, 0))
        yield _row(paper, what, next(loss) - next(loss), -1)
    written = f"loss on synthetic text ({external}) at 100 % of it is below that at 0 %"
    yield _row(NOT_IN_PAPER, written, change(data, pure, external), -1)
    both = change(data, pure, "trained") - change(data, pure, "held-out")
    yield _row(NOT_IN_PAPER, f"100 % {external} costs the domains of the human text more than held-out ones", both, 1)
    yield from _domains(data, pure)


def _domains(data: Mapping[str, Any], arm: str) -> Iterator[Row]:
    """Yield the most and the least harmed domains, beside those of table 1 in the same places."""
    kinds = {row["domain"]: row["kind"] for row in data["tables"]["arms"] if row["kind"] in ("trained", "held-out")}
    ours = _ranked({name: change(data, arm, name).mean for name in kinds})
    theirs = paper_changes("1", "", 100)
    for place, (mine, other) in enumerate(zip(_ends(ours), _ends(_ranked(theirs)), strict=True)):
        number, which = place % EXTREMES + 1, "most" if place < EXTREMES else "least"
        yield _row(
            f"table 1, {_model('1')}: {other}",
            f"100 % synthetic, {which} harmed domain {number}: {mine} ({kinds[mine]}); the paper's is {other}",
            change(data, arm, mine),
            1,
            theirs[other],
        )


def _ranked(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: -values[name])


def _ends(names: Sequence[str]) -> list[str]:
    return [*names[:EXTREMES], *names[: -EXTREMES - 1 : -1]]


def _edited(data: Mapping[str, Any]) -> Iterator[Row]:
    average = {cell.row: cell for cell in load_cells() if cell.table == 2 and cell.column == "Avg"}
    before, after = (average[name] for name in ("PT", "ToEdit"))
    for name in ("paper", "released"):
        statement = (
            f"training on edited text (settings: {name}, effective rate {effective_rate(data, name):.3%}) gives a "
            f"better model than on its source (paper: mean accuracy {before.value} and {after.value} %)"
        )
        yield _row(f"table 2, {before.model}", statement, change(data, name), -1, testable=is_testable(data, name))
    for rate in rates(data):
        confident, random = (f"{kind} {rate:g} %" for kind in ("confident", "random"))
        testable = is_testable(data, confident)
        yield _row(
            NOT_IN_PAPER,
            f"effective rate {rate:g} %: redrawing confident tokens harms less than random ones",
            change(data, confident) - change(data, random),
            -1,
            testable=testable,
        )
    predictions = {
        "share_above_0.9": "fewer human test tokens are above .9 than after random ones (share of the tokens)",
        "rare_nats": "the rarest tenth of the human test tokens is predicted better than after random ones",
    }
    for rate in rates(data)[-2:]:
        for name, what in predictions.items():
            confident, random = (column(data, f"{kind} {rate:g} %", name) for kind in ("confident", "random"))
            statement = f"effective rate {rate:g} %: after confident redraws {what}"
            yield _row(NOT_IN_PAPER, statement, confident - random, -1)


def _iterate(data: Mapping[str, Any]) -> Iterator[Row]:
    last = last_generation(data)
    end = {
        rule: change(data, f"{rule} {last}")
        for rule in dict.fromkeys(row["rule"] for row in data["tables"]["cells"])
        if rule != "human"
    }
    start = {rule: change(data, f"{rule} 1") for rule in end}
    for rule, ours in end.items():
        yield _row(NOT_IN_PAPER, f"{rule}: loss on human text rises over {last} generations", ours, 1)
    yield _row(NOT_IN_PAPER, "replace: the loss still rises after generation 1", end["replace"] - start["replace"], 1)
    for rule in ("accumulate", "accumulate-subsample", "fixed-real-share", "edit"):
        statement = f"{rule} ends below replace, generation {last}"
        yield _row(NOT_IN_PAPER, statement, end[rule] - end["replace"], -1)
    levels = (end["edit"] - change(data, f"edit {last - 1}")) - start["edit"]
    yield _row(NOT_IN_PAPER, "edit levels off: the last generation adds less than the first", levels, -1)
    against = "edit ends below as many random edits"
    yield _row(NOT_IN_PAPER, f"{against}, generation {last}", end["edit"] - end["edit-random"], -1)
    growth = (end["edit"] - start["edit"]) - (end["edit-random"] - start["edit-random"])
    yield _row(NOT_IN_PAPER, "after generation 1 edit grows less than as many random edits", growth, -1)
    for name, what in (("tail_coverage", "coverage of the human text's rare trigrams"),
                       ("distinct_trigram_share", "distinct trigrams over all")):  # fmt: skip
        text = column(data, f"replace {last}", name) - column(data, "human 0", name)
        yield _row(NOT_IN_PAPER, f"replace: {what} falls (share; of the training text)", text, -1)
