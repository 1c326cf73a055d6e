"""The editing process in exact rational arithmetic, for all noise at once.

Every vector of the process is linear in (w*, E_1, ..., E_n). It is stored as the matrix of its
coefficients over that basis, entries in the rationals, so an identity that holds for these matrices
holds for **every** w* and every noise; only X and the M_i are particular. X has integer entries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product

import numpy as np

Rational = np.ndarray  # dtype object, entries fractions.Fraction


def fractions(values: object) -> Rational:
    """Return an integer array as fractions."""
    integers = np.asarray(values)
    return np.array([Fraction(int(value)) for value in integers.ravel()], dtype=object).reshape(integers.shape)


def identity(size: int) -> Rational:
    """Return the identity matrix of fractions."""
    return fractions(np.eye(size, dtype=int))


def inverse(matrix: Rational) -> Rational:
    """Return the inverse by Gauss-Jordan elimination.

    Raises:
        ZeroDivisionError: the matrix is singular.
    """
    size = matrix.shape[0]
    work = np.concatenate([matrix, identity(size)], axis=1)
    for column in range(size):
        pivot = next((row for row in range(column, size) if work[row, column] != 0), None)
        if pivot is None:
            raise ZeroDivisionError("the matrix is singular")
        work[[column, pivot]] = work[[pivot, column]]
        work[column] = work[column] / work[column, column]
        for row in range(size):
            if row != column:
                work[row] = work[row] - work[row, column] * work[column]
    return work[:, size:]


def is_positive_semidefinite(matrix: Rational) -> bool:
    """Whether a symmetric rational matrix is positive semi-definite, by exact elimination."""
    work = matrix.copy()
    for k in range(work.shape[0]):
        pivot = work[k, k]
        if pivot < 0:
            return False
        if pivot == 0:
            if any(value != 0 for value in work[k, k:]):
                return False
            continue
        work[k + 1 :, k + 1 :] = work[k + 1 :, k + 1 :] - np.outer(work[k + 1 :, k], work[k, k + 1 :]) / pivot
    return True


def equal(left: Rational, right: Rational) -> bool:
    """Whether two rational arrays are the same in shape and in every entry."""
    return left.shape == right.shape and bool((left == right).all())


@dataclass(frozen=True)
class Design:
    """A full-rank integer X with the matrices that the paper derives from it.

    Attributes:
        X: (T, d).
        pinv: X^+ = (X'X)^{-1} X', (d, T).
        P: X X^+, the projection called H in `theory`, (T, T).
        Q: I - P.
        gram_inverse: (X'X)^{-1}, (d, d).
        G: X (X'X)^{-2} X', (T, T).
    """

    X: Rational
    pinv: Rational
    P: Rational
    Q: Rational
    gram_inverse: Rational
    G: Rational

    @property
    def shape(self) -> tuple[int, int]:
        """T and d."""
        return self.X.shape[0], self.X.shape[1]


def design(rows: object) -> Design:
    """Return the derived matrices of an integer X of full column rank."""
    X = fractions(rows)
    gram_inverse = inverse(X.T @ X)
    pinv = gram_inverse @ X.T
    P = X @ pinv
    return Design(X, pinv, P, identity(X.shape[0]) - P, gram_inverse, pinv.T @ pinv)


def designs(seed: int, shapes: Sequence[tuple[int, int]]) -> tuple[Design, ...]:
    """Return one design of each shape with integer entries drawn from -3..3, redrawn until of full rank."""
    generator = np.random.default_rng(seed)
    found: list[Design] = []
    for T, d in shapes:
        while True:
            try:
                found.append(design(generator.integers(-3, 4, size=(T, d))))
                break
            except ZeroDivisionError:
                continue
    return tuple(found)


def selections(T: int, generations: int, *, disjoint: bool = False) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every sequence M_1, ..., M_generations of 0/1 diagonals, optionally only those with (16)."""
    for sequence in product(product((0, 1), repeat=T), repeat=generations):
        if not disjoint or all(sum(column) <= 1 for column in zip(*sequence, strict=True)):
            yield sequence


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Coefficients of every vector over the basis (w*, E_1, ..., E_{n+1}); index 0 is generation 1.

    Attributes:
        design: X and what follows from it.
        M: the diagonals of M_1..M_n as columns of 0 and 1, each (T, 1): a product with M_i is elementwise.
        w_star: coefficients of w*, (d, B).
        E: coefficients of E_1..E_{n+1}, each (T, B).
        y: edited labels Y~_1..Y~_{n+1}, each (T, B).
        w: fits w^_1..w^_{n+1}, each (d, B).
    """

    design: Design
    M: tuple[Rational, ...]
    w_star: Rational
    E: tuple[Rational, ...]
    y: tuple[Rational, ...]
    w: tuple[Rational, ...]

    @cached_property
    def residuals(self) -> tuple[Rational, ...]:
        """r_n = Y~_n - X w^_n."""
        return tuple(y - self.design.X @ w for y, w in zip(self.y, self.w, strict=True))

    @cached_property
    def noise(self) -> tuple[Rational, ...]:
        """u_n = Y~_n - X w*."""
        return tuple(y - self.design.X @ self.w_star for y in self.y)


def trajectory(given: Design, selection: Sequence[Sequence[int]]) -> Trajectory:
    """Run eq. 3 literally: Y~_{n+1} = M_n (X w^_n + E_{n+1}) + (1 - M_n) Y~_n, w^_n = X^+ Y~_n."""
    T, d = given.shape
    generations = len(selection) + 1
    basis = identity(d + generations * T)
    w_star = basis[:d]
    E = tuple(basis[d + i * T : d + (i + 1) * T] for i in range(generations))
    M = tuple(np.array(row, dtype=object)[:, None] for row in selection)
    y = [given.X @ w_star + E[0]]
    w = [given.pinv @ y[0]]
    for n, edit in enumerate(M):
        fresh = given.X @ w[n] + E[n + 1]
        y.append(edit * fresh + (1 - edit) * y[n])
        w.append(given.pinv @ y[n + 1])
    return Trajectory(given, M, w_star, E, tuple(y), tuple(w))


def describe(given: Design, selection: Sequence[Sequence[int]]) -> str:
    """Return an instance in one line."""
    X = given.X.astype(int).tolist()
    edits = ", ".join(f"M_{i + 1} = diag{tuple(row)}" for i, row in enumerate(selection))
    return f"X = {X}, {edits}"
