"""What the language-model slice says: entries computed from the result of the step lm_iterate.

Generation 0 is trained on human text, generation g on what the model of generation g - 1 made or edited. All
comparisons are of held-out loss in nats per token, every model against generation 0 of its own seed, paired by work.
Seeds are the replications: intervals are those of Student's t with (seeds - 1) degrees of freedom, so two seeds
show only what is 12.7 standard errors large.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from paper.claims.entry import STANDARD_ERRORS, Claim, Comparison, Kind, Outcome, Owner, readable

LEVEL = 0.95
LEAST_RATE = 0.001  # effective edit rate below which an arm is untestable, as in the step lm_iterate
MISSING = "run `make reproduce` first"
TOLERANCE = (
    "95 % t interval over the seeds, each of which is wrong once in 20; against generation 0 also 4 standard errors "
    "over the works of the test text"
)

Check = Callable[[Mapping[str, Any]], Outcome]


class UntestableError(Exception):
    """The result does not hold what the comparison needs; the message says what."""


def changes(data: Mapping[str, Any], rule: str, generation: int, *, error: bool = False) -> dict[int, float]:
    """Return the change of held-out loss against generation 0 by seed (nats per token), or its error over works.

    Raises:
        UntestableError: the result has no such arm, or the arm's edits change too few tokens.
    """
    edits = [row for row in data["tables"]["edits"] if row["rule"] == rule]
    if any(row["effective_rate"] < LEAST_RATE for row in edits):
        rate = min(row["effective_rate"] for row in edits)
        raise UntestableError(f"{rule}: only {rate:.3%} of the tokens change, less than {LEAST_RATE:.1%}")
    rows = [
        row
        for row in data["tables"]["perplexity"]
        if (row["rule"], row["generation"], row["domain"]) == (rule, generation, "all")
    ]
    key = "change_se" if error else "change"
    found = {row["seed"]: row[key] for row in rows if row[key] is not None}
    if not found:
        raise UntestableError(f"the run has no {key} of {rule} in generation {generation}")
    return found


def last_generation(data: Mapping[str, Any]) -> int:
    """Return the number of the last generation."""
    return max(row["generation"] for row in data["tables"]["perplexity"])


def minus(left: Mapping[int, float], right: Mapping[int, float]) -> list[float]:
    """Return differences within a seed, over the seeds that both have."""
    return [left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, standard error and half-width of the 95 % t interval; infinite for a single seed."""
    if len(values) < 2:
        return values[0], inf, inf
    error = stdev(values) / sqrt(len(values))
    return fmean(values), error, error * float(student.ppf((1 + LEVEL) / 2, len(values) - 1))


def _numbers(values: Sequence[float]) -> dict[str, float | int | str]:
    mean, error, half = interval(values)
    numbers = {"value": mean, "standard_error": error, "half_width": half}
    return {"seeds": len(values), **{name: readable(value) for name, value in numbers.items()}}


def rises(name: str, values: Sequence[float]) -> Comparison:
    """Compare with zero from above: contradicted below the interval, without power inside it."""
    mean, _, half = interval(values)
    return Comparison(name, mean > -half, _numbers(values), powered=abs(mean) > half)


def differs(name: str, values: Sequence[float]) -> Comparison:
    """Ask whether zero lies outside the interval; inside it nothing is decided."""
    mean, _, half = interval(values)
    return Comparison(name, True, _numbers(values), powered=abs(mean) > half)


def over_works(name: str, data: Mapping[str, Any], rule: str, generation: int) -> Comparison:
    """Ask whether the change against generation 0 is 4 standard errors over works away from zero, in every seed."""
    values, errors = changes(data, rule, generation), changes(data, rule, generation, error=True)
    ratios = [values[seed] / errors[seed] for seed in errors]
    same_sign = all(ratio > 0 for ratio in ratios) or all(ratio < 0 for ratio in ratios)
    powered = same_sign and min(abs(ratio) for ratio in ratios) > STANDARD_ERRORS
    return Comparison(name, True, {"seeds": len(ratios), "smallest_z": readable(min(ratios, key=abs))}, powered)


def _text(label: str, values: Sequence[float]) -> str:
    mean, error, half = interval(values)
    spread = "" if half == inf else f" +- {error:.4f}"
    return f"{label} {mean:+.4f}{spread}"


def check_replace(data: Mapping[str, Any]) -> Outcome:
    """Replace: loss above generation 0, and still rising after generation 1."""
    last = last_generation(data)
    first, final = changes(data, "replace", 1), changes(data, "replace", last)
    total, later = list(final.values()), minus(final, first)
    return Outcome(
        stated=(
            rises(f"generation {last} minus generation 0, seeds", total),
            over_works(f"generation {last} minus generation 0, works", data, "replace", last),
            rises(f"generation {last} minus generation 1, seeds", later),
        ),
        headline=f"{len(total)} seeds, nats per token: {_text(f'generation {last} against 0', total)}, "
        f"{_text('against generation 1', later)}",
    )


def check_edit(data: Mapping[str, Any]) -> Outcome:
    """Edit: the growth after generation 1 is smaller than that of replace, and smaller than in generation 1."""
    last = last_generation(data)
    growth = {
        rule: dict(zip(sorted(first), minus(changes(data, rule, last), first), strict=True))
        for rule in ("replace", "edit")
        for first in (changes(data, rule, 1),)
    }
    less = minus(growth["replace"], growth["edit"])
    start, step = changes(data, "edit", 1), minus(changes(data, "edit", last), changes(data, "edit", last - 1))
    flatter = [start[seed] - value for seed, value in zip(sorted(start), step, strict=True)]
    total = list(changes(data, "edit", last).values())
    return Outcome(
        stated=(
            rises(f"growth from generation 1 to {last}: replace minus edit, seeds", less),
            rises(f"first minus last increment of edit (generations 1 and {last}), seeds", flatter),
        ),
        headline=f"{len(total)} seeds, nats per token: {_text(f'generation {last} against 0', total)}, "
        f"{_text('first increment', list(start.values()))}, {_text('last', step)}; "
        f"{_text('replace grows more by', less)}",
    )


def check_edit_source(data: Mapping[str, Any]) -> Outcome:
    """Edit against training on the human text itself."""
    last = last_generation(data)
    total = list(changes(data, "edit", last).values())
    return Outcome(
        stated=(
            differs(f"edit, generation {last} minus generation 0, seeds", total),
            over_works(f"edit, generation {last} minus generation 0, works", data, "edit", last),
        ),
        headline=f"{len(total)} seeds, nats per token: {_text(f'generation {last} against 0', total)}",
    )


def check_two_rules(left: str, right: str, data: Mapping[str, Any]) -> Outcome:
    """Return the last generation's difference of two rules, paired by seed."""
    last = last_generation(data)
    values = minus(changes(data, left, last), changes(data, right, last))
    mean, _, half = interval(values)
    decided = "not distinguishable" if abs(mean) <= half else f"{left} {'worse' if mean > 0 else 'better'}"
    return Outcome(
        stated=(differs(f"{left} minus {right}, generation {last}, seeds", values),),
        headline=f"{len(values)} seeds, nats per token: {_text(f'{left} minus {right}', values)}; {decided}",
    )


def check_small_model(data: Mapping[str, Any]) -> Outcome:
    """The share above .99 of the prior trained on human text, and what p = .99 could change at most."""
    rows = [row for row in data["tables"]["edits"] if row["rule"] == "edit" and row["generation"] == 1]
    if not rows:
        raise UntestableError("the run has no edit of the human text")
    shares = [row["share_above_099"] for row in rows]
    # Temperature 1: a token selected at p changes with probability at most 1 - p.
    rate = 0.01 * max(shares)
    return Outcome(
        stated=(
            Comparison(
                "largest share above .99 times (1 - .99)",
                rate < LEAST_RATE,
                {"seeds": len(shares), "value": rate, "bound": LEAST_RATE},
            ),
        ),
        headline=f"share above .99: {max(shares):.4%} of the tokens at most ({len(shares)} seeds; median probability "
        f"{fmean(row['median_probability'] for row in rows):.3f}); p = .99 would change at most {rate:.4%}",
    )


def _entry(
    data: Mapping[str, Any] | None, name: str, owner: Owner, statement: str, check: Check, kind: Kind = "expectation"
) -> Claim:
    def run() -> Outcome:
        if data is None:
            return Outcome(stated=(), headline=MISSING)
        try:
            return check(data)
        except UntestableError as reason:
            return Outcome(stated=(), headline=str(reason))

    where = "this work" if owner == "this work" else "sections 1 and 5, on small models"
    return Claim(name, where, statement, owner, kind, run, tolerance=TOLERANCE)


def claims(data: Mapping[str, Any] | None) -> tuple[Claim, ...]:
    """Return the entries about language models.

    Args:
        data: of the result of lm_iterate; None where there is none, and the entries are untestable.
    """
    return (
        _entry(
            data,
            "lm-replace",
            "paper",
            "replace: held-out loss rises above that of human text, and on after generation 1",
            check_replace,
        ),
        _entry(
            data,
            "lm-edit-levels-off",
            "paper",
            "edit of the 12.5 % most confident tokens, prior = previous model: the loss grows less than under "
            "replace after generation 1, and less in the last generation than in the first",
            check_edit,
        ),
        _entry(
            data,
            "lm-edit-source",
            "this work",
            "edit: the last generation differs from training on the human text",
            check_edit_source,
        ),
        _entry(
            data,
            "lm-confident-random",
            "this work",
            "edits of confident tokens and random edits that change as many tokens differ in held-out loss",
            partial(check_two_rules, "edit", "edit-random"),
        ),
        _entry(
            data,
            "lm-accumulate-replace",
            "this work",
            "accumulate and replace differ in held-out loss",
            partial(check_two_rules, "accumulate", "replace"),
        ),
        _entry(
            data,
            "token-small-model",
            "this work",
            "in a small model trained for minutes on real text so few tokens are above .99 that p = .99 would change "
            "less than 0.1 % of them: untestable, so thresholds are set by quantile",
            check_small_model,
            kind="bound",
        ),
    )
