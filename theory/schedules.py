"""Edit schedules: how many rows, or which rows, are edited in each generation; and the checks of both."""

import itertools
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from theory.errors import InputError


def check_shape(T: int, d: int) -> None:
    """Require integers with d >= 1 and T >= d + 2, where the honest fit has a finite expected error.

    Raises:
        InputError: if T or d is no integer, d < 1 or T < d + 2.
    """
    if not (isinstance(T, Integral) and isinstance(d, Integral)) or isinstance(T, bool) or isinstance(d, bool):
        raise InputError(f"T and d must be integers, got T={T!r}, d={d!r}: give whole numbers of samples and features.")
    if d < 1:
        raise InputError(f"d must be at least 1, got {d}: give a positive number of features.")
    if T - d < 2:
        raise InputError(f"T={T} samples for d={d} features leave no finite expected error: use T >= d + 2 = {d + 2}.")


def check_real(name: str, value: float, *, low: float, high: float = np.inf, open_low: bool = False) -> float:
    """Return ``value`` as float after requiring a number in [low, high], or in (low, high] if ``open_low``.

    Raises:
        InputError: if the value is no finite real number or lies outside the interval.
    """
    if not isinstance(value, Real) or not np.isfinite(float(value)):
        raise InputError(f"{name} must be a finite number, got {value!r}.")
    value = float(value)
    if value < low or value > high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise InputError(f"{name} must lie in {bracket}{low}, {high}], got {value}: choose a value inside.")
    return value


def check_count(name: str, value: int, *, low: int = 1) -> int:
    """Return ``value`` as int after requiring an integer >= low.

    Raises:
        InputError: if it is no integer or too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise InputError(f"{name} must be an integer of at least {low}, got {value!r}.")
    return int(value)


def check_counts(counts: Sequence[int], T: int) -> tuple[int, ...]:
    """Return the counts m_1..m_{n-1} as Python integers after requiring 0 <= m_i <= T.

    Raises:
        InputError: if a count is no integer (NaN included) or lies outside 0..T.
    """
    checked = []
    for i, m in enumerate(counts, start=1):
        if not isinstance(m, Integral) or isinstance(m, bool):
            raise InputError(f"edit count m_{i} must be an integer, got {m!r}: give whole numbers of rows.")
        if not 0 <= m <= T:
            raise InputError(f"edit count m_{i}={m} is outside 0..T={T}: edit between none and all of the rows.")
        checked.append(int(m))
    return tuple(checked)


def check_blocks(blocks: Sequence[Sequence[int] | np.ndarray], T: int) -> tuple[np.ndarray, ...]:
    """Return sorted integer arrays of row indices; rows within 0..T-1 and no row twice in one block.

    Raises:
        InputError: if an index is no integer, out of range or repeated within its block.
    """
    checked = []
    for i, block in enumerate(blocks, start=1):
        rows = np.asarray(block)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise InputError(f"block {i} must be a list of integer row indices.")
        if rows.size and (rows.min() < 0 or rows.max() >= T):
            raise InputError(f"block {i} names a row outside 0..{T - 1}: use the indices of the T={T} samples.")
        if np.unique(rows).size != rows.size:
            raise InputError(f"block {i} names a row twice: list each edited row once.")
        checked.append(np.sort(rows).astype(np.int64))
    return tuple(checked)


def check_disjoint(blocks: Sequence[Sequence[int] | np.ndarray], T: int) -> tuple[np.ndarray, ...]:
    """``check_blocks`` and eq. 16 of the paper: no row is edited in two generations.

    Raises:
        InputError: as ``check_blocks``, or if two blocks share a row.
    """
    checked = check_blocks(blocks, T)
    owner = np.zeros(T, dtype=np.int64)
    for i, rows in enumerate(checked, start=1):
        shared = rows[owner[rows] > 0]
        if shared.size:
            first = int(shared[0])
            raise InputError(
                f"blocks {owner[first]} and {i} overlap in row {first}: disjoint blocks may not share a row; "
                "use an ordinary fixed schedule if they should."
            )
        owner[rows] = i
    return checked


def consecutive_blocks(counts: Sequence[int], T: int) -> tuple[np.ndarray, ...]:
    """Disjoint blocks of the given sizes: rows 0..m_1-1, then the next m_2, and so on.

    Under a Haar projection every choice of disjoint blocks of these sizes has the same expected curve.

    Raises:
        InputError: if a count is outside 0..T or the counts sum to more than T.
    """
    sizes = check_counts(counts, T)
    if sum(sizes) > T:
        raise InputError(f"disjoint blocks of {sum(sizes)} rows in all do not fit into T={T}: edit fewer rows.")
    ends = np.cumsum((0, *sizes))
    return tuple(np.arange(start, end) for start, end in itertools.pairwise(ends))


def geometric_counts(T: int, share: float, decay: float, generations: int) -> tuple[int, ...]:
    """Counts m_i = round(share T decay^(i-1)), i = 1..generations-1, halves rounded up.

    The paper's decay condition in Theorem 2, second part, read as a decay of the edited share
    (``bounds.decay_bound`` names the readings of its norm).

    Args:
        T: number of samples.
        share: edited share a_1 of the first edit, in [0, 1].
        decay: ratio of successive shares, in the open interval (0, 1).
        generations: number of fits n >= 1; there are n - 1 edits.

    Raises:
        InputError: for a share outside [0, 1], a decay outside (0, 1), generations < 1 or NaN.
    """
    check_count("T", T)
    check_count("generations", generations)
    share = check_real("share", share, low=0.0, high=1.0)
    if not isinstance(decay, Real) or not 0.0 < float(decay) < 1.0:
        raise InputError(f"decay must lie strictly between 0 and 1, got {decay!r}: use constant_counts for decay 1.")
    return tuple(int(np.floor(share * T * float(decay) ** i + 0.5)) for i in range(generations - 1))


def constant_counts(T: int, share: float, generations: int) -> tuple[int, ...]:
    """The same count m = round(share T), halves rounded up, in each of generations - 1 edits.

    Raises:
        InputError: for a share outside [0, 1], generations < 1 or NaN.
    """
    check_count("T", T)
    check_count("generations", generations)
    share = check_real("share", share, low=0.0, high=1.0)
    return (int(np.floor(share * T + 0.5)),) * (generations - 1)
