"""Entries as the rows, counts and sentences that `toedit claims` and the report print."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
            f"at all, about {sum(item.level for item in wider):.1f} of them would be taken for one by chance."
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
        },
    }
