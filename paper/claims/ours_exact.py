"""This work's identities, in exact rational arithmetic."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np

from paper.claims import engine, literal, process
from paper.claims.appendix_a1 import correction_all, identity_check
from paper.claims.entry import Claim, Outcome, agrees, exact
from paper.claims.exact_process import (
    Design,
    Rational,
    Trajectory,
    designs,
    equal,
    identity,
    is_positive_semidefinite,
    trajectory,
)
from paper.claims.instances import SEED
from paper.claims.section4 import DISJOINT
from theory.closed_forms import disjoint_limit
from theory.disjoint import disjoint_exact

ALL_NOISE = "exact rational arithmetic, for every noise at once: no tolerance"


def noise_covariance(path: Trajectory, n: int) -> Rational:
    """C_n = Cov(u_n | X)/sigma^2 from the coefficients of u_n over the noises."""
    d = path.design.shape[1]
    coefficients = path.noise[n - 1][:, d:]
    return coefficients @ coefficients.T


def check_identity() -> Outcome:
    """The three recursions of the exact identity."""

    def fits(path: Trajectory) -> bool:
        r, pinv = path.residuals, path.design.pinv
        return all(
            equal(path.w[n], path.w[n - 1] + pinv @ (path.M[n - 1] * (path.E[n] - r[n - 1])))
            for n in range(1, len(path.w))
        )

    def residuals(path: Trajectory) -> bool:
        r, Q = path.residuals, path.design.Q
        return all(equal(r[n], r[n - 1] + Q @ (path.M[n - 1] * (path.E[n] - r[n - 1]))) for n in range(1, len(path.w)))

    return Outcome(
        stated=(
            identity_check("w^_{n+1} = w^_n + X^+ M_n (E_{n+1} - r_n)", fits),
            identity_check("r_{n+1} = r_n + Q M_n (E_{n+1} - r_n)", residuals),
            correction_all(),
        ),
        headline="pathwise: data-dependent M_i included",
    )


def check_covariance() -> Outcome:
    """C_{n+1} = (I - M_n Q) C_n (I - Q M_n) + M_n for a fixed schedule."""

    def holds(path: Trajectory) -> bool:
        one, Q = identity(path.design.shape[0]), path.design.Q
        C = one
        for n, edit in enumerate(path.M):
            shrink = one - edit * Q
            C = shrink @ C @ shrink.T + np.diag(edit[:, 0])
            if not equal(C, noise_covariance(path, n + 2)):
                return False
        return True

    return Outcome(stated=(identity_check("covariance recursion", holds),))


def check_residual_bound() -> Outcome:
    """Cov(r_n) <= sigma^2 Q in the Loewner order, and not below, say, 9/10 of it."""

    def below(path: Trajectory, factor: Fraction) -> bool:
        Q = path.design.Q
        return all(
            is_positive_semidefinite(factor * Q - Q @ noise_covariance(path, n) @ Q) for n in range(1, len(path.w) + 1)
        )

    sharp = identity_check("not with 9/10 of it", lambda path: not below(path, Fraction(9, 10)))
    return Outcome(
        stated=(identity_check("Q - R_n is positive semi-definite", lambda path: below(path, Fraction(1))), sharp)
    )


def averaged_error(given: Design, counts: tuple[int, ...]) -> Fraction:
    """tr(H C_{n+1})/d averaged over every choice of the rows, by brute force."""
    T, d = given.shape
    choices = [[tuple(int(t in rows) for t in range(T)) for rows in combinations(range(T), m)] for m in counts]
    total, number = Fraction(0), 0
    for selection in product(*choices):
        path = trajectory(given, selection)
        total += (given.P @ noise_covariance(path, len(counts) + 1)).trace()
        number += 1
    return total / (number * d)


def diagonal_recursion(given: Design, counts: tuple[int, ...], *, wrong: bool = False) -> Fraction:
    """e_{n+1} = e_n + a_n + c_n sum_t h_t (Q D_n Q)_tt/d, D_{n+1} = p_n D_n + c_n diag(Q D_n Q) + a_n I."""
    T, d = given.shape
    h, Q = np.diag(given.P), given.Q
    D, error = np.array([Fraction(1)] * T, dtype=object), Fraction(1)
    for m in counts:
        a = Fraction(m, T)
        c = Fraction(m * (T - m), T * (T - 1))
        p = Fraction((T - m) * (T - m - 1), T * (T - 1))
        middle = np.array([(Q[t] * Q[t] * D).sum() for t in range(T)], dtype=object)
        error += a + c * (h * middle).sum() / d
        D = D * (p if not wrong else (1 - a) ** 2) + c * middle + a
    return error


def check_diagonal_recursion() -> Outcome:
    """The random-edit recursion for given X against the average over all row choices."""
    cases = [
        (given, counts)
        for given, counts in zip(designs(SEED + 1, [(4, 1), (4, 2), (3, 1)]), ((1, 2), (2, 1), (1, 1, 2)), strict=True)
    ]
    truth = [averaged_error(given, counts) for given, counts in cases]
    formula = [diagonal_recursion(given, counts) for given, counts in cases]
    wrong = [diagonal_recursion(given, counts, wrong=True) for given, counts in cases]
    misses = sum(left != right for left, right in zip(truth, formula, strict=True))
    separable = sum(left != right for left, right in zip(truth, wrong, strict=True))
    return Outcome(
        stated=(
            exact("recursion = average over every choice of rows", len(cases), misses),
            exact("with p = (1-a)^2, sampling with replacement, it is rejected", 1, int(separable == 0)),
        ),
        headline=f"e.g. X of 4 rows, d = 1, counts (1, 2): {truth[0]} = {float(truth[0]):.4f}",
    )


def check_martingale() -> Outcome:
    """E||A||^2 = v + sigma^2 sum E tr(G M_i) for a past-dependent rule, by the paired difference."""
    paired, traces = process.martingale(30, 5, 0.6, 4, 30_000, SEED)
    return Outcome(
        stated=(
            agrees(
                "E||A||^2/v - 1 - sum E tr(G M_i)/v, confidence selection, three edits",
                paired.mean,
                paired.error,
                0.0,
                alternative=("without the edit terms", -traces.mean),
            ),
        ),
        headline=f"sum of edit terms {traces.mean:.3f} v",
    )


def check_traces() -> Outcome:
    """The three identities, by independent draws."""
    T, d = 24, 6
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((40_000, T, d))
    inverse = np.linalg.inv(X.transpose(0, 2, 1) @ X)
    pinv = inverse @ X.transpose(0, 2, 1)
    h = np.einsum("btd,bdt->bt", X, pinv)
    G = (pinv**2).sum(axis=1)
    one = process.mean(np.trace(inverse, axis1=1, axis2=2))
    two = process.mean((inverse**2).sum(axis=(1, 2)))
    three = process.mean(((1 - h) * G).sum(axis=1))
    return Outcome(
        stated=(
            agrees(
                "E tr (X'X)^{-1} = d/(T-d-1)",
                one.mean,
                one.error,
                d / (T - d - 1),
                alternative=("d/(T-d)", d / (T - d)),
            ),
            agrees(
                "E tr (X'X)^{-2}",
                two.mean,
                two.error,
                d * (T - 1) / ((T - d) * (T - d - 1) * (T - d - 3)),
                alternative=("d/(T-d-1)^2", d / (T - d - 1) ** 2),
            ),
            agrees(
                "E sum (1-h_t) G_tt = d(T-d)/((T-d-1)(T+2))",
                three.mean,
                three.error,
                d * (T - d) / ((T - d - 1) * (T + 2)),
                alternative=("d(T-d)/((T-d-1)T)", d * (T - d) / ((T - d - 1) * T)),
            ),
        )
    )


def check_certificate() -> Outcome:
    """Disjoint blocks as rational numbers: the closed-walk reduction against engine and literal process."""
    T, d, m = 12, 10, 4
    value = disjoint_exact(T, d, (m, m))[-1]
    computed = engine.disjoint(T, d, (m, m), draws=10_000)[-1]
    ten = float(disjoint_exact(*DISJOINT)[-1])
    sampled, seen = engine.disjoint(*DISJOINT)[-1], literal.disjoint_edits()[-1]
    limit, shape = disjoint_limit(10, 0.1), f"T={DISJOINT[0]}, d={DISJOINT[1]}"
    return Outcome(
        stated=(
            exact("T=12, d=10, two blocks of 4: 5237/3003", 1, int(value != Fraction(5237, 3003)), str(value)),
            # T = d + 2: the literal error has infinite variance there, so only the fit-test form can be compared.
            agrees(
                "the same by the engine (fit-test form)",
                computed.mean,
                computed.error,
                float(value),
                alternative=("the paper's 1 + a_1 + a_2", 1 + 2 * m / T),
            ),
            agrees(f"{shape}, ten blocks: engine", sampled.mean, sampled.error, ten, alternative=("the limit", limit)),
            agrees(f"{shape}, ten blocks: literal", seen.mean, seen.error, ten, alternative=("the limit", limit)),
        ),
        headline=f"{value} = {float(value):.6f}, engine {computed.mean:.5f} +- {computed.error:.5f}; ten blocks "
        f"at {shape}: {ten:.5f}",
    )


def _claim(name: str, statement: str, check: Callable[[], Outcome], **more: Any) -> Claim:
    fields: dict[str, Any] = {"kind": "algebra", "tolerance": ALL_NOISE, "seed": SEED, **more}
    return Claim(id=name, where="this work", statement=statement, owner="this work", check=check, **fields)


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "exact-identity",
        "w^_{n+1} = w^_n + X^+ M_n (E_{n+1} - r_n), r_{n+1} = r_n + Q M_n (E_{n+1} - r_n), for any M_n",
        check_identity,
        latex=r"\hat w_{n+1}=w^*+X^+\bigl[E_1+\sum_i M_i(E_{i+1}-r_i)\bigr]",
    ),
    _claim(
        "covariance-recursion",
        "fixed schedule: C_{n+1} = (I - M_n Q) C_n (I - Q M_n) + sigma^2 M_n",
        check_covariance,
    ),
    _claim(
        "residual-bound", "fixed schedule: Cov(r_n) <= sigma^2 Q in the Loewner order, sharply", check_residual_bound
    ),
    _claim(
        "diagonal-recursion",
        "random rows, given X: e += a + c sum_t h_t (Q D Q)_tt/d, D <- p D + c diag(Q D Q) + a I",
        check_diagonal_recursion,
        tolerance="exact rational arithmetic, every choice of rows enumerated: no tolerance",
    ),
    _claim(
        "martingale-part",
        "A = X^+ (E_1 + sum M_i E_{i+1}) has E||A||^2 = v + sigma^2 sum E tr(G M_i) for past-dependent M_i",
        check_martingale,
        kind="expectation",
        tolerance="4 standard errors of the draw-by-draw difference",
    ),
    _claim(
        "trace-identities",
        "E tr (X'X)^{-1}, E tr (X'X)^{-2} and E sum (1-h_t) G_tt in closed form",
        check_traces,
        kind="expectation",
        tolerance="4 standard errors over 40,000 draws of X",
    ),
    _claim(
        "disjoint-rational",
        "disjoint blocks at finite T have a rational E_test/v: 5237/3003 at T = 12, d = 10, two blocks of 4",
        check_certificate,
        kind="expectation",
        tolerance="exact; 4 standard errors for engine and literal (not at T = d + 2: infinite literal variance)",
        seed=engine.SEED,
    ),
)
