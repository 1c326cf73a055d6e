"""Numbers that the note's own theorems give without any simulation: exact rational arithmetic.

They stand beside the proofs in `paper/note/*.tex` under keys that begin with "exact".
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from paper.errors import InputError


def decaying_counts(first: int, ratio: Fraction, edits: int) -> list[int]:
    """Return first * ratio^(i-1) for i = 1..edits, each rounded to an integer (halves to even)."""
    return [round(first * ratio**i) for i in range(edits)]


def bracket(T: int, d: int, counts: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Return the bounds of the note's theorem on random edits, in units of v.

    1 + sum(a_i + c_i max(f delta_i, f - gamma_i (1 - f))) <= e_{n+1} <= 1 + sum(a_i + c_i f), this work.

    Args:
        T: samples, at least d + 2.
        d: features, at least 1.
        counts: edited rows in each generation, each in 0..T.

    Raises:
        InputError: sizes outside these ranges.
    """
    if d < 1 or d + 2 > T or any(not 0 <= m <= T for m in counts):
        raise InputError(f"need d >= 1, T >= d + 2 and counts in 0..T, got T = {T}, d = {d}; change them")
    f = Fraction(T - d, T + 2)
    lower = upper = Fraction(1)
    delta, gamma = Fraction(1), Fraction(0)
    for m in counts:
        a = Fraction(m, T)
        c = Fraction(m * (T - m), T * (T - 1))
        lower += a + c * max(f * delta, f - gamma * (1 - f))
        upper += a + c * f
        delta = (1 - a - c) * delta + a
        gamma = (1 - a) * gamma + c
    return lower, upper


def _beta_moment(T: int, d: int, powers: tuple[int, int]) -> Fraction:
    """Return E h^i (1-h)^j for h ~ Beta(d/2, (T-d)/2)."""
    i, j = powers
    value = Fraction(1)
    for k in range(i):
        value *= Fraction(d + 2 * k)
    for k in range(j):
        value *= Fraction(T - d + 2 * k)
    for k in range(i + j):
        value /= T + 2 * k
    return value


def two_blocks(T: int, d: int, m1: int, m2: int) -> Fraction:
    """Return the error after edits of two disjoint blocks, in units of v, exactly.

    Closed walks of length up to four on the rows of a random projection, this work.

    Args:
        T: samples, at least 4 and at least d + 2.
        d: features, at least 1.
        m1: rows in the first block.
        m2: rows in the second block, m1 + m2 <= T.

    Raises:
        InputError: sizes outside these ranges.
    """
    if d < 1 or max(4, d + 2) > T or min(m1, m2) < 0 or m1 + m2 > T:
        got = f"T = {T}, d = {d}, blocks of {m1} and {m2}"
        raise InputError(f"need d >= 1, T >= max(4, d + 2) and blocks within T, got {got}; change them")
    square = _beta_moment(T, d, (2, 0))
    edge = _beta_moment(T, d, (1, 1)) / (T - 1)
    k, g = _beta_moment(T, d, (2, 2)), _beta_moment(T, d, (2, 1))
    loop_edge = g / (T - 1)
    loops_edge = (3 * k + (d - 1) * g) / ((T - 1) * (T + 1))
    double_loop_edge = _beta_moment(T, d, (3, 1)) / (T - 1)
    path = k / ((T - 1) * (T + 1))
    triangle = (edge - 2 * loop_edge) / (T - 2)
    loop_triangle = (loop_edge - loops_edge - double_loop_edge) / (T - 2)
    square_walk = (triangle - 2 * loop_triangle - path) / (T - 3)
    pair = m1 * m2
    traces = (
        sum(m * square + m * (m - 1) * edge for m in (m1, m2))
        - 2 * pair * edge
        + 2 * pair * (loop_edge + (m1 - 1) * triangle)
        + pair * (loops_edge + (m1 + m2 - 2) * loop_triangle + (m1 - 1) * (m2 - 1) * square_walk)
    )
    return 1 + Fraction(2 * (m1 + m2), T) - traces / d


def accumulate(T: int, d: int, generations: int) -> tuple[Fraction, Fraction]:
    """Return the errors of accumulation, same design and fresh designs, in units of v.

    sum 1/i^2 and sum (T-d-1)/(i (iT-d-1)), i = 1..generations, this work.
    """
    indices = range(1, generations + 1)
    same = sum((Fraction(1, i * i) for i in indices), Fraction(0))
    fresh = sum((Fraction(T - d - 1, i * (i * T - d - 1)) for i in indices), Fraction(0))
    return same, fresh


def numbers() -> dict[str, Any]:
    """Return the numbers that the note quotes from its own theorems, with the parameters named there."""
    T, d = 200, 10
    counts = decaying_counts(100, Fraction(9, 10), 15)
    lower, upper = bracket(T, d, counts)
    share = Fraction(sum(counts), T)
    same, fresh = accumulate(30, 10, 8)
    return {
        "decay": {
            "lower": float(lower),
            "upper": float(upper),
            "shares": float(share),
            "paper": float(1 + share),
        },
        "two": {"small": str(two_blocks(12, 10, 4, 4)), "large": float(two_blocks(T, d, T // 2, T // 2))},
        "accumulate": {"same": float(same), "fresh": float(fresh)},
    }
