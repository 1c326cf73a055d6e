"""What a claim is, what a check measures, and how the verdict follows from the numbers.

Nobody types a verdict. A check returns comparisons of numbers; `verdict` is a function of those alone.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite, sqrt
from typing import Any, Literal

Owner = Literal["paper", "this work"]
Kind = Literal["algebra", "expectation", "assumption", "definition", "bound"]
Verdict = Literal["holds", "holds under a condition", "fails", "untestable here"]
Number = float | int | str

STANDARD_ERRORS = 4.0  # the width of every comparison of estimates in the ledger
FALSE_ALARM = 6.334e-5  # P(|N(0, 1)| > 4)
EXCESS = 0.1  # share of a bound by which an estimate within it must tell its violation


@dataclass(frozen=True)
class Comparison:
    """One comparison of numbers.

    Attributes:
        name: what is compared.
        passed: the outcome, computed by one of the constructors below.
        numbers: the measured numbers.
        powered: the comparison would have rejected the named wrong alternative; an unpowered pass is
            no evidence.
        random: it compares estimates, so it can raise a false alarm.
        level: chance of one.
    """

    name: str
    passed: bool
    numbers: Mapping[str, Number]
    powered: bool = True
    random: bool = False
    level: float = FALSE_ALARM


def readable(value: Any) -> Number:
    """Return a number as JSON has it: fractions as text, NumPy scalars as Python's, infinity as text."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, Fraction):
        return str(value)
    number = float(value)
    return number if isfinite(number) else str(number)


def exact(name: str, instances: int, violations: int, example: str = "") -> Comparison:
    """Compare in exact arithmetic: an identity passes when no instance violates it.

    Args:
        name: the identity.
        instances: how many instances were evaluated; zero instances prove nothing and do not pass.
        violations: in how many of them the two sides differ.
        example: the first violating instance, in full.
    """
    numbers: dict[str, Number] = {"instances": instances, "violations": violations}
    if example:
        numbers["counterexample"] = example
    return Comparison(name, instances > 0 and violations == 0, numbers, powered=instances > 0)


def agrees(
    name: str,
    value: float,
    error: float,
    expected: float,
    *,
    expected_error: float = 0.0,
    alternative: tuple[str, float] | None = None,
) -> Comparison:
    """Compare an estimate with what a formula (or a second estimate) says.

    Args:
        name: what is estimated.
        value: the estimate.
        error: its standard error.
        expected: the other side.
        expected_error: standard error of the other side, zero for a formula.
        alternative: name and value of the wrong formula that the comparison must be able to reject.

    Returns:
        passed when |value - expected| <= 4 standard errors; powered when the alternative is more than
        4 standard errors away from the estimate.
    """
    scale = sqrt(error**2 + expected_error**2)
    if not scale > 0 or not isfinite(scale):
        raise ValueError(f"{name}: a comparison of estimates needs a positive standard error, got {scale}")
    z = (value - expected) / scale
    numbers: dict[str, Number] = {"value": value, "standard_error": scale, "expected": expected, "z": z}
    powered = True
    if alternative is not None:
        z_alternative = (value - alternative[1]) / scale
        numbers |= {
            "rejected_alternative": alternative[0],
            "alternative": alternative[1],
            "z_alternative": z_alternative,
        }
        powered = abs(z_alternative) > STANDARD_ERRORS
    return Comparison(name, abs(z) <= STANDARD_ERRORS, _plain(numbers), powered, random=True)


def close(
    name: str,
    value: float,
    expected: float,
    tolerance: float,
    *,
    alternative: tuple[str, float] | None = None,
) -> Comparison:
    """Compare two deterministic numbers within a stated tolerance (rounding, quadrature, a proved rate)."""
    numbers: dict[str, Number] = {
        "value": value,
        "expected": expected,
        "difference": value - expected,
        "within": tolerance,
    }
    powered = True
    if alternative is not None:
        numbers |= {"rejected_alternative": alternative[0], "alternative": alternative[1]}
        powered = abs(value - alternative[1]) > tolerance
    return Comparison(name, abs(value - expected) <= tolerance, _plain(numbers), powered)


def at_most(name: str, value: float, error: float, bound: float) -> Comparison:
    """Compare an estimate with an upper bound: violated when it lies more than 4 standard errors above.

    Returns:
        passed when it is not violated; powered when it is, or when the value is more than 4 standard errors below the
        bound and a tenth of its size: a bound may be attained, and then no estimate tells on which side it is, but a
        gross violation must show.
    """
    numbers: dict[str, Number] = {"value": value, "standard_error": error, "bound": bound}
    if error > 0:
        numbers["z_above_bound"] = (value - bound) / error
    # Twelve digits: an exact value may sit on its bound up to rounding.
    slack = STANDARD_ERRORS * error + 1e-12 * abs(bound)
    passed = value <= bound + slack
    powered = error == 0 or not passed or value + STANDARD_ERRORS * error < bound + EXCESS * abs(bound)
    return Comparison(name, passed, _plain(numbers), powered, random=error > 0)


def above(name: str, value: float, error: float, bound: float) -> Comparison:
    """Compare an estimate with a value that it must exceed.

    Returns:
        passed unless the value is more than 4 standard errors below, or not above where it has no error; powered when
        it is more than 4 standard errors away: in between nothing is decided.
    """
    numbers: dict[str, Number] = {"value": value, "standard_error": error, "exceeds": bound}
    if error > 0:
        numbers["z_above"] = (value - bound) / error
    slack = STANDARD_ERRORS * error
    passed = value + slack > bound
    return Comparison(name, passed, _plain(numbers), not passed or value - slack > bound, random=error > 0)


def _plain(numbers: Mapping[str, Any]) -> dict[str, Number]:
    return {name: readable(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class Outcome:
    """What a check measured.

    Attributes:
        stated: comparisons that decide whether the statement holds as it is written; none when nothing
            can be compared here.
        conditional: comparisons of the statement with the claim's condition added.
        correction: comparisons of the corrected statement.
        headline: the numbers in one line.
    """

    stated: tuple[Comparison, ...]
    conditional: tuple[Comparison, ...] = ()
    correction: tuple[Comparison, ...] = ()
    headline: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement and how it is checked; everything here is known before any number is.

    Attributes:
        id: unique short name.
        where: equation of the paper, or "this work".
        statement: one line.
        owner: whose statement it is.
        kind: what sort of statement.
        check: measures; takes nothing, so that the same claim always gives the same numbers.
        equations: the paper's equation numbers that this entry covers.
        condition: what must be added for the statement to hold, where something must.
        correction: the statement that holds instead, where the claim's own does not.
        tolerance: how close is close, with the reason.
        seed: of every random number drawn by the check; None when it draws none.
        latex: the formula.
    """

    id: str
    where: str
    statement: str
    owner: Owner
    kind: Kind
    check: Callable[[], Outcome]
    equations: tuple[int, ...] = ()
    condition: str = ""
    correction: str = ""
    tolerance: str = "exact arithmetic: no tolerance"
    seed: int | None = None
    latex: str = ""


@dataclass(frozen=True)
class Entry:
    """A claim with its verdict and the numbers behind it.

    Attributes:
        claim: the statement.
        verdict: computed from `outcome`.
        outcome: the comparisons.
        seconds: what the check took.
    """

    claim: Claim
    verdict: Verdict
    outcome: Outcome
    seconds: float = field(compare=False, default=0.0)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons of the entry."""
        return self.outcome.stated + self.outcome.conditional + self.outcome.correction

    @property
    def correction_holds(self) -> bool:
        """Whether every comparison of the corrected statement passed, with power."""
        return convincing(self.outcome.correction)

    @property
    def ours_broken(self) -> bool:
        """Whether something that this work asserts (its own claim or a correction) does not hold."""
        own = self.claim.owner == "this work" and self.verdict not in ("holds", "untestable here")
        return own or (bool(self.outcome.correction) and not self.correction_holds)


def convincing(comparisons: tuple[Comparison, ...]) -> bool:
    """Whether there is at least one comparison and all passed with power."""
    return bool(comparisons) and all(item.passed and item.powered for item in comparisons)


def verdict(outcome: Outcome) -> Verdict:
    """Return the verdict that the numbers give.

    "holds" needs every comparison of the statement to pass with power; a pass without power decides
    nothing. A statement with a failed comparison holds under its condition when all comparisons made
    under that condition pass with power, and fails otherwise.
    """
    if not outcome.stated:
        return "untestable here"
    if all(item.passed for item in outcome.stated):
        return "holds" if convincing(outcome.stated) else "untestable here"
    if convincing(outcome.conditional):
        return "holds under a condition"
    return "fails"


def evaluate(claim: Claim) -> Entry:
    """Run a claim's check and judge it."""
    start = time.perf_counter()
    outcome = claim.check()
    return Entry(claim, verdict(outcome), outcome, time.perf_counter() - start)


def chance_of_false_alarm(comparisons: int) -> float:
    """Return the chance that at least one of so many true comparisons exceeds 4 standard errors.

    Exact for independent comparisons with normal errors; for dependent ones the union bound, `comparisons` times
    6.3e-5, is at most a few per cent larger at the counts met here. Where a standard error comes from few draws, as
    from 24 frames, 4 of them are exceeded more often (9 times, by Student's law).
    """
    return 1.0 - (1.0 - FALSE_ALARM) ** comparisons
