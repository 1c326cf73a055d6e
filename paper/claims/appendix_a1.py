"""Appendix A.1: the proof of Theorem 1, line by line, in exact arithmetic."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import sympy

from paper.claims import process
from paper.claims.entry import Claim, Comparison, Outcome, agrees, exact
from paper.claims.exact_process import Rational, Trajectory, design, equal, trajectory
from paper.claims.instances import SEED, disjoint, identity_check, instances, overlapping

ALL_NOISE = "exact rational arithmetic, for every w* and every noise at once: no tolerance"
NO_REPEAT = "no row is ever edited twice (eq. 16)"
OURS = "w^_{n+1} = w* + X^+ [E_1 + sum_i M_i (E_{i+1} - r_i)], r_i the residuals of fit i"


def keep(path: Trajectory, n: int) -> Rational:
    """The diagonal of 1 - M_n."""
    return 1 - path.M[n - 1]


@cache
def redrawn(path: Trajectory, i: int) -> Rational:
    """X w^_i + E_{i+1}: the fresh labels of generation i + 1."""
    return path.design.X @ path.w[i - 1] + path.E[i]


def unrolled(path: Trajectory) -> Rational:
    """The right side of eq. 14."""
    n = len(path.M)
    total = path.y[0]
    for i in range(1, n + 1):
        total = keep(path, i) * total
    for i in range(1, n + 1):
        term = path.M[i - 1] * redrawn(path, i)
        for j in range(i + 1, n + 1):
            term = keep(path, j) * term
        total = total + term
    return total


@cache
def edit_sum(path: Trajectory) -> Rational:
    """sum_i M_i."""
    return sum(path.M[1:], start=path.M[0])


def right_19(path: Trajectory) -> Rational:
    """The right side of eq. 19."""
    rest = (1 - edit_sum(path)) * path.y[0]
    return sum((path.M[i - 1] * redrawn(path, i) for i in range(1, len(path.M) + 1)), start=rest)


def right_20(path: Trajectory) -> Rational:
    """The right side of eq. 20."""
    start = path.design.X @ path.w_star + path.E[0]
    rest = (1 - edit_sum(path)) * start
    return sum((path.M[i - 1] * redrawn(path, i) for i in range(1, len(path.M) + 1)), start=rest)


@cache
def right_21(path: Trajectory) -> Rational:
    """The right side of eq. 21."""
    total = path.design.X @ path.w_star + path.E[0]
    for i in range(1, len(path.M) + 1):
        shift = path.design.X @ (path.w[i - 1] - path.w_star)
        total = total + path.M[i - 1] * (shift + path.E[i] - path.E[0])
    return total


@cache
def right_23(path: Trajectory) -> Rational:
    """The right side of eq. 23."""
    inside = path.E[0]
    for i in range(1, len(path.M) + 1):
        edit = path.M[i - 1]
        inside = inside + edit * (path.design.X @ (path.w[i - 1] - path.w_star)) + edit * (path.E[i] - path.E[0])
    return path.w_star + path.design.pinv @ inside


@cache
def theorem_1(path: Trajectory, n: int) -> Rational:
    """The right side of Theorem 1 (eq. 5, 27, 28, 31) for w^_{n+1}."""
    inside = sum((path.M[i - 1] * path.E[i] for i in range(1, n + 1)), start=path.E[0])
    return path.w_star + path.design.pinv @ inside


def corrected(path: Trajectory, n: int) -> Rational:
    """The right side of the corrected Theorem 1 for w^_{n+1}."""
    residuals = path.residuals
    inside = sum((path.M[i - 1] * (path.E[i] - residuals[i - 1]) for i in range(1, n + 1)), start=path.E[0])
    return path.w_star + path.design.pinv @ inside


@cache
def right_29(path: Trajectory) -> Rational:
    """The right side of eq. 29: the hypothesis (28) put into eq. 23."""
    inside = path.E[0]
    for i in range(1, len(path.M) + 1):
        earlier = sum((path.M[j - 1] * path.E[j] for j in range(1, i)), start=path.E[0])
        inside = inside + path.M[i - 1] * (path.design.P @ earlier) + path.M[i - 1] * (path.E[i] - path.E[0])
    return path.w_star + path.design.pinv @ inside


@cache
def right_30(path: Trajectory) -> Rational:
    """The right side of eq. 30."""
    inside = path.E[0]
    for i in range(1, len(path.M) + 1):
        earlier = sum((path.M[j - 1] * path.E[j] for j in range(1, i)), start=path.E[i])
        inside = inside + path.M[i - 1] * earlier
    return path.w_star + path.design.pinv @ inside


def hypothesis_in_23(path: Trajectory) -> Rational:
    """Eq. 23 with each w^_i replaced by what Theorem 1 says it is."""
    inside = path.E[0]
    for i in range(1, len(path.M) + 1):
        edit = path.M[i - 1]
        shift = theorem_1(path, i - 1) - path.w_star
        inside = inside + edit * (path.design.X @ shift) + edit * (path.E[i] - path.E[0])
    return path.w_star + path.design.pinv @ inside


def theorem_1_all(path: Trajectory) -> bool:
    """Whether Theorem 1 gives every fit of the process."""
    return all(equal(path.w[n], theorem_1(path, n)) for n in range(1, len(path.w)))


@cache
def correction_all() -> Comparison:
    """The corrected Theorem 1 on every instance, for every fit."""
    return identity_check(
        "corrected Theorem 1 gives every fit",
        lambda path: all(equal(path.w[n], corrected(path, n)) for n in range(1, len(path.w))),
    )


def smallest_counterexample() -> tuple[Fraction, Fraction]:
    """Return (the process' w^_2, Theorem 1's) for X = (1,1,1)', M_1 = diag(1,0,0), E_1 = (1,0,0), w* = E_2 = 0."""
    path = trajectory(design([[1], [1], [1]]), [(1, 0, 0)])
    # Basis order: w*, E_1 (three entries), E_2; the noise above switches on the second basis vector alone.
    return path.w[1][0, 1], theorem_1(path, 1)[0, 1]


def counterexample_text(actual: Fraction, claimed: Fraction) -> str:
    """The smallest counterexample in one line."""
    return f"X = (1,1,1)', M_1 = diag(1,0,0), E_1 = (1,0,0), E_2 = 0, w* = 0: w^_2 = {actual}, claimed {claimed}"


def smallest_comparison() -> Comparison:
    """Theorem 1 on the smallest counterexample."""
    actual, claimed = smallest_counterexample()
    text = counterexample_text(actual, claimed) if actual != claimed else ""
    return exact("Theorem 1 at the smallest instance", 1, int(actual != claimed), text)


def check_theorem_1() -> Outcome:
    """Theorem 1 exactly, by Monte Carlo, and the size of what it drops."""
    actual, claimed = smallest_counterexample()
    run = process.one_random_edit(40, 10, 20, SEED)
    dropped = process.dropped_share(T=40, d=10, m=20)
    return Outcome(
        stated=(
            *_theorem_1_lines().stated,
            identity_check("every fit, disjoint M_i", theorem_1_all, among=disjoint),
            agrees(
                "E ||w^_2 - Theorem 1||^2 / v, T = 40, d = 10, m = 20: zero if it holds",
                run.dropped.mean,
                run.dropped.error,
                0.0,
            ),
        ),
        correction=(
            correction_all(),
            agrees(
                "E ||X^+ M_1 r_1||^2 / v = f m(T-m)/(T(T-1))",
                run.dropped.mean,
                run.dropped.error,
                dropped,
                alternative=("Theorem 1: no such term", 0.0),
            ),
        ),
        headline=f"w^_2 = {actual}, claimed {claimed}; dropped term {run.dropped.mean:.4f} v (exact {dropped:.4f})",
    )


def check_16() -> Outcome:
    """How often rows are edited twice."""
    random, confident = process.overlap("random"), process.overlap("high-confidence")
    return Outcome(
        stated=(
            identity_check("M_i M_j = 0 for any 0/1 diagonals", _products_vanish),
            agrees("share of first-edited rows edited again, random", random.mean, random.error, 0.0),
            agrees("share of first-edited rows edited again, confident", confident.mean, confident.error, 0.0),
        ),
        conditional=(identity_check("M_i M_j = 0 for disjoint blocks", _products_vanish, among=disjoint),),
        headline=f"edited again at once: random {random.mean:.3f}, confident {confident.mean:.3f} of the edited rows",
    )


def _products_vanish(path: Trajectory) -> bool:
    return all(not (path.M[i] * path.M[j]).any() for i in range(len(path.M)) for j in range(i))


def _pairs_17(path: Trajectory) -> bool:
    return all(
        equal((1 - path.M[i]) * (1 - path.M[j]), 1 - path.M[i] - path.M[j])
        for i in range(len(path.M))
        for j in range(i)
    )


def check_25() -> Outcome:
    """Eq. 25 in exact arithmetic, and symbolically in X at T = 3, d = 1."""

    def holds(path: Trajectory) -> bool:
        edit, noise = path.M[0], path.E[0]
        inside = edit * (path.design.P @ noise) + edit * path.E[1] + keep(path, 1) * noise
        return equal(path.w[1], path.w_star + path.design.pinv @ inside)

    return Outcome(
        stated=(identity_check("eq. 25", holds), _symbolic_25()), headline="also symbolic in X at T = 3, d = 1"
    )


def _symbolic_25() -> Comparison:
    x, e, f, edit, w = _symbols()
    fits = _symbolic_second_fit(x, e, f, edit, w)
    P = x * x.T / x.dot(x)
    right = w + (x.T * (edit * P * e + edit * f + (sympy.eye(3) - edit) * e))[0] / x.dot(x)
    return exact("eq. 25 for symbolic X, M_1, noise (T = 3, d = 1)", 1, int(sympy.simplify(fits - right) != 0))


def _symbols() -> tuple[sympy.Matrix, sympy.Matrix, sympy.Matrix, sympy.Matrix, sympy.Symbol]:
    x = sympy.Matrix(sympy.symbols("x1:4", real=True))
    e = sympy.Matrix(sympy.symbols("e1:4", real=True))
    f = sympy.Matrix(sympy.symbols("f1:4", real=True))
    edit = sympy.diag(*sympy.symbols("m1:4", real=True))
    return x, e, f, edit, sympy.Symbol("w", real=True)


def _symbolic_second_fit(x, e, f, edit, w):
    """w^_2 of the process at d = 1."""
    first = w + x.dot(e) / x.dot(x)
    labels = edit * (x * first + f) + (sympy.eye(3) - edit) * (x * w + e)
    return x.dot(labels) / x.dot(x)


def check_26() -> Outcome:
    """Eq. 26 and the term that it misses."""
    actual, claimed = smallest_counterexample()
    x, e, f, edit, w = _symbols()
    missing = sympy.simplify(_symbolic_second_fit(x, e, f, edit, w) - w - x.dot(e + edit * f) / x.dot(x))
    residual = e - x * x.dot(e) / x.dot(x)
    difference = sympy.simplify(missing + x.dot(edit * residual) / x.dot(x))
    return Outcome(
        stated=(
            smallest_comparison(),
            identity_check("eq. 26", lambda path: equal(path.w[1], theorem_1(path, 1))),
            exact("eq. 26 for symbolic X, M_1, noise", 1, int(missing != 0), "the difference is no zero polynomial"),
        ),
        correction=(
            identity_check(
                "w^_2 = (26) - X^+ M_1 (I - P) E_1",
                lambda path: equal(
                    path.w[1], theorem_1(path, 1) - path.design.pinv @ (path.M[0] * (path.design.Q @ path.E[0]))
                ),
            ),
            exact("the same, symbolic at T = 3, d = 1", 1, int(difference != 0)),
        ),
        headline=counterexample_text(actual, claimed),
    )


def check_30() -> Outcome:
    """The step from (29) to (30) and the two terms that it drops."""

    def dropped(path: Trajectory) -> Rational:
        inside = path.E[0] * Fraction(0)
        for i in range(1, len(path.M) + 1):
            earlier = sum((path.M[j - 1] * path.E[j] for j in range(1, i)), start=path.E[0])
            inside = inside + path.M[i - 1] * (path.design.Q @ earlier)
        return path.design.pinv @ inside

    cross = [
        item
        for item in instances()
        if item.disjoint and any((item.path.M[1] * item.path.design.P * item.path.M[0].T != 0).ravel())
    ]
    return Outcome(
        stated=(
            identity_check("(29) = (30), any M_i", lambda path: equal(right_29(path), right_30(path))),
            identity_check(
                "(29) = (30), disjoint M_i", lambda path: equal(right_29(path), right_30(path)), among=disjoint
            ),
            exact("M_2 P M_1 = M_2 M_1 = 0 for disjoint blocks", len(instances()), len(cross), cross[0].text),
        ),
        correction=(
            identity_check(
                "(30) - (29) = X^+ sum_i M_i (I - P)(E_1 + sum_{j<i} M_j E_{j+1})",
                lambda path: equal(right_30(path) - right_29(path), dropped(path)),
            ),
        ),
        headline=f"M_2 P M_1 is nonzero on {len(cross)} instances with disjoint blocks",
    )


def _line(name: str, holds: Callable[[Trajectory], bool]) -> Outcome:
    return Outcome(stated=(identity_check(name, holds),))


def _under_16(name: str, holds: Callable[[Trajectory], bool]) -> Outcome:
    comparison = identity_check(name, holds)
    restricted = identity_check(f"{name}, disjoint M_i", holds, among=disjoint)
    return Outcome(stated=(comparison,), conditional=(restricted,))


def check_9() -> Outcome:
    """Eq. 9 in both printed forms."""

    def holds(path: Trajectory) -> bool:
        second, third = path.M[1], redrawn(path, 2)
        short = second * third + keep(path, 2) * path.y[1]
        long = second * third + keep(path, 2) * (path.M[0] * redrawn(path, 1) + keep(path, 1) * path.y[0])
        return equal(path.y[2], short) and equal(path.y[2], long)

    return _line("eq. 9, both forms", holds)


def _tail(path: Trajectory, *, expanded: bool) -> Rational:
    n = len(path.M)
    last, before = path.M[n - 1] * redrawn(path, n), path.M[n - 2] * redrawn(path, n - 1)
    if expanded:
        return last + keep(path, n) * before + keep(path, n) * keep(path, n - 1) * path.y[n - 2]
    return last + keep(path, n) * (before + keep(path, n - 1) * path.y[n - 2])


def claim(number: int, statement: str, check: Callable[[], Outcome], **more: Any) -> Claim:
    """Return a claim of the paper about one of its numbered equations, checked exactly."""
    fields: dict[str, Any] = {"kind": "algebra", "tolerance": ALL_NOISE, "seed": SEED, **more}
    return Claim(
        id=f"eq-{number:02d}",
        where=f"eq. {number}",
        statement=statement,
        owner="paper",
        check=check,
        equations=(number,),
        **fields,
    )


@cache
def _theorem_1_lines() -> Outcome:
    return Outcome(
        stated=(smallest_comparison(), identity_check("every fit", theorem_1_all)),
        correction=(correction_all(),),
        headline=counterexample_text(*smallest_counterexample()),
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="theorem-1",
        where="Theorem 1, eq. 5",
        statement="for all n >= 1: w^_{n+1} = w* + X^+ (E_1 + sum_{i<=n} M_i E_{i+1})",
        owner="paper",
        kind="algebra",
        check=check_theorem_1,
        equations=(5,),
        correction=OURS,
        tolerance=f"{ALL_NOISE}; Monte Carlo within 4 standard errors over independent X",
        seed=SEED,
        latex=r"\hat w_{n+1}=w^*+X^+\bigl(E_1+\sum_{i=1}^n M_iE_{i+1}\bigr)",
    ),
    Claim(
        id="first-fit",
        where="A.1, unnumbered",
        statement="w^_1 = X^+ (X w* + E_1) = w* + X^+ E_1",
        owner="paper",
        kind="algebra",
        check=lambda: _line("first fit", lambda path: equal(path.w[0], path.w_star + path.design.pinv @ path.E[0])),
        tolerance=ALL_NOISE,
        seed=SEED,
    ),
    Claim(
        id="recursion",
        where="A.1, unnumbered",
        statement="Y~_1 = X w* + E_1; Y~_i = M_{i-1}(X w^_{i-1} + E_i) + (1 - M_{i-1}) Y~_{i-1}; w^_i = X^+ Y~_i",
        owner="paper",
        kind="definition",
        check=lambda: _line("edited rows are fresh, the others bitwise unchanged", _rows_as_in_3),
        tolerance=ALL_NOISE,
        seed=SEED,
    ),
    claim(
        8,
        "Y~_2 = M_1 (X w^_1 + E_2) + (1 - M_1) Y~_1",
        lambda: _line("eq. 8", lambda path: equal(path.y[1], path.M[0] * redrawn(path, 1) + keep(path, 1) * path.y[0])),
    ),
    claim(9, "Y~_3 = M_2 (X w^_2 + E_3) + (1 - M_2) Y~_2, expanded with (8)", check_9),
    claim(
        10,
        "Y~_{n+1} = M_n (X w^_n + E_{n+1}) + (1 - M_n) Y~_n",
        lambda: _line(
            "eq. 10 for every n",
            lambda path: all(
                equal(path.y[n], path.M[n - 1] * redrawn(path, n) + keep(path, n) * path.y[n - 1])
                for n in range(1, len(path.y))
            ),
        ),
    ),
    claim(
        11,
        "(10) with Y~_n written out",
        lambda: _line("eq. 11", lambda path: equal(path.y[-1], _tail(path, expanded=False))),
    ),
    claim(
        12, "(11) multiplied out", lambda: _line("eq. 12", lambda path: equal(path.y[-1], _tail(path, expanded=True)))
    ),
    claim(13, "a line of dots: a number without a formula", lambda: Outcome(stated=()), kind="definition", seed=None),
    claim(
        14,
        "Y~_{n+1} = sum_i [prod_{j>i} (1 - M_j)] M_i (X w^_i + E_{i+1}) + [prod_j (1 - M_j)] Y~_1",
        lambda: _line("eq. 14, any M_i", lambda path: equal(path.y[-1], unrolled(path))),
    ),
    claim(
        15,
        "M_i (1 - M_i) = (1 - M_i) M_i = 0",
        lambda: _line(
            "eq. 15", lambda path: all(not (edit * keep(path, n + 1)).any() for n, edit in enumerate(path.M))
        ),
    ),
    claim(
        16,
        "M_i M_j = 0 for i != j, called a property of M_i",
        check_16,
        kind="assumption",
        condition="assumed, not stated in either theorem: no row is ever edited twice; then sum_i tr M_i <= T",
        tolerance="exact for the algebra; frequencies within 4 standard errors over independent X",
    ),
    claim(
        17,
        "(1 - M_i)(1 - M_j) = 1 - M_i - M_j for i != j",
        lambda: Outcome(
            stated=(identity_check("eq. 17, any M_i", _pairs_17),),
            conditional=(
                identity_check("eq. 17, disjoint M_i", _pairs_17, among=disjoint),
                identity_check("eq. 17 implies eq. 16", lambda path: not _pairs_17(path), among=overlapping),
            ),
            headline="equivalent to (16)",
        ),
        condition=NO_REPEAT,
    ),
    claim(18, "a number without a formula", lambda: Outcome(stated=()), kind="definition", seed=None),
    claim(
        19,
        "Y~_{n+1} = sum_i M_i (X w^_i + E_{i+1}) + (1 - sum_i M_i) Y~_1",
        lambda: _under_16("eq. 19", lambda path: equal(path.y[-1], right_19(path))),
        condition=NO_REPEAT,
    ),
    claim(
        20,
        "(19) with Y~_1 = X w* + E_1",
        lambda: _under_16("eq. 20", lambda path: equal(path.y[-1], right_20(path))),
        condition=NO_REPEAT,
    ),
    claim(
        21,
        "Y~_{n+1} = X w* + E_1 + sum_i M_i (X (w^_i - w*) + E_{i+1} - E_1)",
        lambda: _under_16("eq. 21", lambda path: equal(path.y[-1], right_21(path))),
        condition=NO_REPEAT,
    ),
    claim(
        22,
        "w^_{n+1} = X^+ [right side of (21)]",
        lambda: _under_16("eq. 22", lambda path: equal(path.w[-1], path.design.pinv @ right_21(path))),
        condition=NO_REPEAT,
    ),
    claim(
        23,
        "w^_{n+1} = w* + X^+ [E_1 + sum_i M_i X (w^_i - w*) + sum_i M_i (E_{i+1} - E_1)]",
        lambda: _under_16("eq. 23", lambda path: equal(path.w[-1], right_23(path))),
        condition=NO_REPEAT,
    ),
    claim(
        24,
        "w^_1 = X^+ (X w* + E_1) = w* + X^+ E_1",
        lambda: _line("eq. 24", lambda path: equal(path.w[0], path.w_star + path.design.pinv @ path.E[0])),
    ),
    claim(25, "w^_2 = w* + X^+ [M_1 X X^+ E_1 + M_1 E_2 + (1 - M_1) E_1]", check_25),
    claim(
        26,
        "w^_2 = w* + X^+ (E_1 + M_1 E_2), from (25)",
        check_26,
        correction="w^_2 = w* + X^+ (E_1 + M_1 E_2) - X^+ M_1 (I - P) E_1: the edited rows' old residuals leave too",
    ),
    claim(27, "(5) as induction hypothesis, written out", _theorem_1_lines, correction=OURS),
    claim(28, "(27) as a sum", _theorem_1_lines, correction=OURS),
    claim(
        29,
        "(28) substituted into (23)",
        lambda: Outcome(
            stated=(
                identity_check(
                    "the substitution itself (not that either side is the process)",
                    lambda path: equal(hypothesis_in_23(path), right_29(path)),
                ),
            ),
            headline="the substitution is right; what is substituted, (28), is not",
        ),
    ),
    claim(
        30,
        "(29) = w* + X^+ [E_1 + sum_i M_i (E_{i+1} + sum_{j<i} M_j E_{j+1})]",
        check_30,
        correction="(30) - (29) = X^+ sum_i M_i (I - P)(E_1 + sum_{j<i} M_j E_{j+1}), nonzero for T > d even with (16)",
    ),
    claim(
        31,
        "(30) = w* + X^+ (E_1 + sum_i M_i E_{i+1})",
        lambda: _under_16("(30) = (31)", lambda path: equal(right_30(path), theorem_1(path, len(path.M)))),
        condition=NO_REPEAT,
    ),
    claim(
        32,
        "P = X (X'X)^{-1} X' (a projection of rank d)",
        lambda: _line(
            "P' = P, P^2 = P, tr P = d",
            lambda path: (
                equal(path.design.P, path.design.P.T)
                and equal(path.design.P @ path.design.P, path.design.P)
                and path.design.P.trace() == path.design.shape[1]
            ),
        ),
    ),
)


def _rows_as_in_3(path: Trajectory) -> bool:
    for n, edit in enumerate(path.M):
        for t in range(path.design.shape[0]):
            fresh = path.design.X[t] @ path.w[n] + path.E[n + 1][t]
            expected = fresh if edit[t, 0] == 1 else path.y[n][t]
            if not equal(path.y[n + 1][t], expected):
                return False
    return True
