"""Entries as the rows, counts and sentences that `toedit claims` and the report print."""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from scipy.stats import t as student

from paper.claims.entry import FALSE_ALARM, Claim, Comparison, Entry, Number, Verdict, chance_of_false_alarm, evaluate

VERDICTS: tuple[Verdict, ...] = ("holds", "holds under a condition", "fails", "untestable here")


def evaluate_all(claims: Iterable[Claim], before: Callable[[int, Claim], None]) -> list[Entry]:
    """Evaluate claims in order, calling `before(index, claim)` ahead of each."""
    entries = []
    for index, claim in enumerate(claims):
        before(index, claim)
        entries.append(evaluate(claim))
    return entries


def estimates(entries: Iterable[Entry]) -> tuple[list[Comparison], list[Comparison]]:
    """Return the distinct comparisons of estimates: at 4 standard errors, and at wider chances of a false alarm.

    Claims that share a measurement count it once.
    """
    distinct: dict[tuple[str, tuple[tuple[str, Number], ...]], Comparison] = {}
    for entry in entries:
        for item in entry.comparisons:
            if item.random:
                distinct[item.name, tuple(item.numbers.items())] = item
    strict = [item for item in distinct.values() if item.level == FALSE_ALARM]
    return strict, [item for item in distinct.values() if item.level != FALSE_ALARM]


def corrected(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the comparisons at Student's interval over seeds with their chances, alone and of so many, smallest first.

    `p_holm` is the smallest family-wise level at which the comparison tells a difference (Holm 1979): the chance that
    any of all of them does were there none.
    """
    rows: dict[tuple[str, tuple[tuple[str, Number], ...]], dict[str, Any]] = {}
    for entry in entries:
        for item in entry.comparisons:
            if item.random and item.level != FALSE_ALARM and int(item.numbers["seeds"]) > 1:
                value, half, seeds = (float(item.numbers[name]) for name in ("value", "half_width", "seeds"))
                # The interval's half is its quantile times the standard error.
                t = abs(value) / half * float(student.ppf(1 - item.level / 2, seeds - 1)) if half else inf
                row = {"id": entry.claim.id, "comparison": item.name, "value": value, "half_width": half}
                rows[item.name, tuple(item.numbers.items())] = row | {"p": 2 * float(student.sf(t, seeds - 1))}
    ordered = sorted(rows.values(), key=lambda row: row["p"])
    largest = 0.0
    for number, row in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - number) * row["p"]))
        row["p_holm"] = largest
    return ordered


def _told_of_many(entries: Sequence[Entry]) -> str:
    """Return what Holm's correction leaves of the comparisons at Student's interval."""
    rows = corrected(entries)
    level = max((item.level for item in estimates(entries)[1]), default=0.0)
    lost = {row["id"] for row in rows if row["p_holm"] > level}
    holding = [entry.claim.id for entry in entries if entry.verdict == "holds" and entry.claim.id in lost]
    told = sum(row["p_holm"] <= level for row in rows)
    text = f"Of all {len(rows)} together (Holm's correction) {told} tell a difference"
    return text + (f"; of the entries that hold, {', '.join(holding)} do so alone only." if holding else ".")


def summary(entries: Sequence[Entry]) -> str:
    """Return the counts, and what the tests could have got wrong by chance, in a few sentences."""
    parts = []
    for owner in ("paper", "this work"):
        chosen = [entry for entry in entries if entry.claim.owner == owner]
        counts = ", ".join(
            f"{sum(entry.verdict == verdict for entry in chosen)} {verdict}"
            for verdict in VERDICTS
            if any(entry.verdict == verdict for entry in chosen)
        )
        if chosen:
            parts.append(f"{'The paper' if owner == 'paper' else 'This work'}: {len(chosen)} entries, {counts}.")
    strict, wider = estimates(entries)
    if strict:
        parts.append(
            f"{len(strict)} distinct comparisons of estimates at 4 standard errors: were all statements true and all "
            f"errors normal, the chance of at least one false alarm would be "
            f"{chance_of_false_alarm(len(strict)):.2%}."
        )
    if wider:
        parts.append(
            f"{len(wider)} distinct comparisons at Student's 95 % interval over the seeds: were there no differences "
            f"at all, about {sum(item.level for item in wider):.1f} of them would be taken for one by chance. "
            + _told_of_many(entries)
        )
    broken = [entry.claim.id for entry in entries if entry.ours_broken]
    if broken:
        parts.append(f"NOT HOLDING, of what this work asserts: {', '.join(broken)}.")
    return " ".join(parts)


def alternative(entry: Entry) -> tuple[str, float | None]:
    """Return the wrong formula that the entry rejects least clearly, with its z-score."""
    found = [
        (str(item.numbers["rejected_alternative"]), abs(float(item.numbers["z_alternative"])))
        for item in entry.comparisons
        if "z_alternative" in item.numbers
    ]
    return min(found, key=lambda pair: pair[1]) if found else ("", None)


def counterexample(entry: Entry) -> str:
    """Return the first counterexample among the comparisons that failed."""
    for item in entry.comparisons:
        if not item.passed and "counterexample" in item.numbers:
            return str(item.numbers["counterexample"])
    return ""


def row(entry: Entry) -> dict[str, Any]:
    """Return one flat row of the ledger's table."""
    claim = entry.claim
    wrong, z = alternative(entry)
    return {
        "id": claim.id,
        "where": claim.where,
        "owner": claim.owner,
        "kind": claim.kind,
        "statement": claim.statement,
        "verdict": entry.verdict,
        "numbers": entry.outcome.headline,
        "condition": claim.condition if entry.verdict == "holds under a condition" else "",
        "counterexample": counterexample(entry) if entry.verdict == "fails" else "",
        "correction": claim.correction if entry.verdict == "fails" else "",
        "correction_holds": entry.correction_holds if entry.outcome.correction else None,
        "rejected_alternative": wrong,
        "rejected_at_z": None if z is None else round(z, 1),
        "tolerance": claim.tolerance,
        "seed": claim.seed,
        "seconds": round(entry.seconds, 2),
    }


def detail(entry: Entry) -> list[dict[str, Any]]:
    """Return one row for every comparison of an entry, numbers included."""
    roles = (
        ("as stated", entry.outcome.stated),
        ("under the condition", entry.outcome.conditional),
        ("corrected", entry.outcome.correction),
    )
    return [
        {"id": entry.claim.id, "role": role, "comparison": item.name, "passed": item.passed, "powered": item.powered}
        | dict(item.numbers)
        for role, comparisons in roles
        for item in comparisons
    ]


def as_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the whole ledger for a result file."""
    strict, wider = estimates(entries)
    return {
        "summary": summary(entries),
        "counts": {
            owner: {
                verdict: sum(entry.verdict == verdict and entry.claim.owner == owner for entry in entries)
                for verdict in VERDICTS
            }
            for owner in ("paper", "this work")
        },
        "estimates": len(strict),
        "chance_of_false_alarm": chance_of_false_alarm(len(strict)),
        "interval_estimates": len(wider),
        "broken": [entry.claim.id for entry in entries if entry.ours_broken],
        "latex": {entry.claim.id: entry.claim.latex for entry in entries if entry.claim.latex},
        "tables": {
            "ledger": [row(entry) for entry in entries],
            "comparisons": [line for entry in entries for line in detail(entry)],
            **({"corrected": rows} if (rows := corrected(entries)) else {}),
        },
    }
