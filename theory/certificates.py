r"""Certificates in rational arithmetic: what holds and what fails on small integer instances.

An instance is an integer X with full column rank and integer noise vectors E_1..E_{n+1}; every quantity is
then a ``fractions.Fraction`` and an equality is an equality. One exact counterexample refutes an identity
claimed for all X.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from theory.errors import InputError
from theory.moments import increment_moments, leverage_energy, mean_residual_leverage
from theory.schedules import check_counts

Vector = tuple[Fraction, ...]
Matrix = tuple[Vector, ...]

EXAMPLE_X = ((1, 0), (1, 1), (1, 2), (1, 4))
"""Straight-line design with T = 4, d = 2; all leverages lie strictly between 0 and 1."""
EXAMPLE_W = (1, 2)
EXAMPLE_NOISE = ((1, -1, 2, 0), (0, 1, 1, -1), (2, 0, -1, 1))
EXAMPLE_BLOCKS = ((0, 1), (2,))
"""Rows edited after generations 1 and 2: disjoint, as eq. 16 of the paper wants."""


def _matrix(rows: Sequence[Sequence[int | Fraction]]) -> Matrix:
    return tuple(tuple(Fraction(entry) for entry in row) for row in rows)


def _transpose(A: Matrix) -> Matrix:
    return tuple(zip(*A, strict=True))


def _product(A: Matrix, B: Matrix) -> Matrix:
    columns = _transpose(B)
    return tuple(
        tuple(sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns) for row in A
    )


def _apply(A: Matrix, x: Vector) -> Vector:
    return tuple(sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in A)


def _add(*vectors: Vector) -> Vector:
    return tuple(sum(entries, Fraction(0)) for entries in zip(*vectors, strict=True))


def _minus(x: Vector, y: Vector) -> Vector:
    return tuple(a - b for a, b in zip(x, y, strict=True))


def _select(x: Vector, block: Sequence[int]) -> Vector:
    return tuple(entry if t in block else Fraction(0) for t, entry in enumerate(x))


def _inverse(A: Matrix) -> Matrix:
    """Gauss-Jordan inverse; InputError if A is singular."""
    n = len(A)
    work = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(A)]
    for column in range(n):
        pivot = next((i for i in range(column, n) if work[i][column]), None)
        if pivot is None:
            raise InputError("X does not have full column rank: give linearly independent columns.")
        work[column], work[pivot] = work[pivot], work[column]
        lead = work[column][column]
        work[column] = [entry / lead for entry in work[column]]
        for i in range(n):
            if i != column and work[i][column]:
                scale = work[i][column]
                work[i] = [a - scale * b for a, b in zip(work[i], work[column], strict=True)]
    return tuple(tuple(row[n:]) for row in work)


def pseudo_inverse(X: Sequence[Sequence[int | Fraction]]) -> Matrix:
    """X^+ = (X'X)^{-1} X' in fractions, d x T.

    Raises:
        InputError: if X does not have full column rank.
    """
    A = _matrix(X)
    transposed = _transpose(A)
    return _product(_inverse(_product(transposed, A)), transposed)


def penrose_conditions(X: Sequence[Sequence[int | Fraction]]) -> tuple[bool, bool, bool, bool]:
    """The four Penrose conditions of ``pseudo_inverse``: X P X = X, P X P = P, X P and P X symmetric."""
    A, P = _matrix(X), pseudo_inverse(X)
    XP, PX = _product(A, P), _product(P, A)
    return _product(XP, A) == A, _product(PX, P) == P, _transpose(XP) == XP, _transpose(PX) == PX


@dataclass(frozen=True)
class EditRun:
    """The literal process (3) on one instance.

    Attributes:
        fits: w^_1..w^_{n+1}, each d fractions.
        labels: Y_1..Y_{n+1}, each T fractions.
        residuals: r_n = Y_n - X w^_n.
    """

    fits: tuple[Vector, ...]
    labels: tuple[Vector, ...]
    residuals: tuple[Vector, ...]


def run_edits(
    X: Sequence[Sequence[int]],
    w_star: Sequence[int],
    noise: Sequence[Sequence[int]],
    blocks: Sequence[Sequence[int]],
) -> EditRun:
    """Run (3) of the paper word for word: fit, relabel the rows of blocks[n-1] with noise[n], keep the rest.

    Raises:
        InputError: if the shapes do not fit or X does not have full column rank.
    """
    A, P = _matrix(X), pseudo_inverse(X)
    if len(noise) != len(blocks) + 1 or any(len(e) != len(A) for e in noise) or len(w_star) != len(A[0]):
        raise InputError("give one noise vector of length T per fit (one more than blocks) and w_star of length d.")
    E = _matrix(noise)
    y = _add(_apply(A, _matrix([w_star])[0]), E[0])
    fits, labels, residuals = [], [], []
    for n in range(len(E)):
        fit = _apply(P, y)
        fitted = _apply(A, fit)
        fits.append(fit)
        labels.append(y)
        residuals.append(_minus(y, fitted))
        if n < len(blocks):
            fresh = _add(fitted, E[n + 1])
            y = tuple(fresh[t] if t in blocks[n] else y[t] for t in range(len(A)))
    return EditRun(tuple(fits), tuple(labels), tuple(residuals))


@dataclass(frozen=True)
class IdentityCertificate:
    """The identity of this work and the paper's Theorem 1 on one exact instance.

    Attributes:
        steps_hold: w^_{n+1} = w^_n + X^+ M_n (E_{n+1} - r_n) for every n, exactly.
        residuals_hold: r_{n+1} = r_n + Q M_n (E_{n+1} - r_n) for every n, exactly.
        sum_holds: w^_{n+1} = w* + X^+ [E_1 + sum M_i (E_{i+1} - r_i)], exactly.
        theorem_1_holds: eq. 5 (27, 28, 31) of the paper at the last generation, exactly.
        gap: w^_{n+1} less the right side of eq. 5, at the last generation.
        gap_is_residuals: the gap equals -X^+ sum M_i r_i, exactly.
    """

    steps_hold: bool
    residuals_hold: bool
    sum_holds: bool
    theorem_1_holds: bool
    gap: Vector
    gap_is_residuals: bool


def certify_identity(
    X: Sequence[Sequence[int]] = EXAMPLE_X,
    w_star: Sequence[int] = EXAMPLE_W,
    noise: Sequence[Sequence[int]] = EXAMPLE_NOISE,
    blocks: Sequence[Sequence[int]] = EXAMPLE_BLOCKS,
) -> IdentityCertificate:
    """Run the process and compare the exact identity and Theorem 1 of the paper with it; blocks may overlap.

    Raises:
        InputError: as ``run_edits``.
    """
    run = run_edits(X, w_star, noise, blocks)
    A, P, E = _matrix(X), pseudo_inverse(X), _matrix(noise)
    steps = residuals = True
    correct, paper = E[0], E[0]
    for n, block in enumerate(blocks):
        move = _select(_minus(E[n + 1], run.residuals[n]), block)
        moved = _apply(P, move)
        steps &= run.fits[n + 1] == _add(run.fits[n], moved)
        residuals &= run.residuals[n + 1] == _minus(_add(run.residuals[n], move), _apply(A, moved))
        correct = _add(correct, move)
        paper = _add(paper, _select(E[n + 1], block))
    start = _matrix([w_star])[0]
    truth = run.fits[-1]
    gap = _minus(truth, _add(start, _apply(P, paper)))
    return IdentityCertificate(
        steps_hold=steps,
        residuals_hold=residuals,
        sum_holds=truth == _add(start, _apply(P, correct)),
        theorem_1_holds=not any(gap),
        gap=gap,
        gap_is_residuals=gap == _apply(P, _minus(correct, paper)),
    )


@dataclass(frozen=True)
class StepCertificate:
    """One step of the paper's proof: left and right side on an exact instance.

    Attributes:
        left: left side minus w*, d fractions.
        right: right side minus w*.
        holds: equality.
        gap: left - right.
    """

    left: Vector
    right: Vector
    holds: bool
    gap: Vector


def _step(left: Vector, right: Vector) -> StepCertificate:
    gap = _minus(left, right)
    return StepCertificate(left, right, not any(gap), gap)


def certify_step_25_26(
    X: Sequence[Sequence[int]] = EXAMPLE_X,
    noise: Sequence[Sequence[int]] = EXAMPLE_NOISE,
    block: Sequence[int] = EXAMPLE_BLOCKS[0],
) -> StepCertificate:
    """(25) -> (26): X^+ [M_1 P E_1 + M_1 E_2 + (1-M_1) E_1] against X^+ (E_1 + M_1 E_2), P = X X^+."""
    A, plus, E = _matrix(X), pseudo_inverse(X), _matrix(noise)
    PE = _apply(A, _apply(plus, E[0]))
    kept = _minus(E[0], _select(E[0], block))
    new = _select(E[1], block)
    return _step(_apply(plus, _add(_select(PE, block), new, kept)), _apply(plus, _add(E[0], new)))


def certify_step_29_30(
    X: Sequence[Sequence[int]] = EXAMPLE_X,
    noise: Sequence[Sequence[int]] = EXAMPLE_NOISE,
    blocks: Sequence[Sequence[int]] = EXAMPLE_BLOCKS,
) -> StepCertificate:
    """(29) -> (30): P = X X^+ between the M's against the identity in its place; eq. 16 granted."""
    A, plus, E = _matrix(X), pseudo_inverse(X), _matrix(noise)
    with_P, without = E[0], E[0]
    past = E[0]
    for i, block in enumerate(blocks):
        new = _select(E[i + 1], block)
        projected = _apply(A, _apply(plus, past))
        with_P = _add(with_P, _select(projected, block), _minus(new, _select(E[0], block)))
        without = _add(without, new, _select(_minus(past, E[0]), block))
        past = _add(past, new)
    return _step(_apply(plus, with_P), _apply(plus, without))


def cross_term(X: Sequence[Sequence[int]], first: Sequence[int], second: Sequence[int]) -> Fraction:
    """||M_2 H M_1||_F^2, which (29) -> (30) takes for zero; positive in general for disjoint blocks."""
    H = _product(_matrix(X), pseudo_inverse(X))
    return sum((H[s][t] ** 2 for s in second for t in first), Fraction(0))


@dataclass(frozen=True)
class ErrorCertificate:
    """Exact noise-averaged error tr(G C_n) on one X with Sigma = I, sigma = 1, against the paper's.

    Attributes:
        true: E ||w^_n - w*||^2 over the noise, by generation.
        paper: tr G + sum tr(G M_i), eq. 36 read with matching sizes.
    """

    true: tuple[Fraction, ...]
    paper: tuple[Fraction, ...]


def certify_error(
    X: Sequence[Sequence[int]] = EXAMPLE_X, blocks: Sequence[Sequence[int]] = EXAMPLE_BLOCKS
) -> ErrorCertificate:
    """C_{n+1} = (I - M Q) C_n (I - Q M) + M in fractions, and eq. 36 beside it, for one given X."""
    A, plus = _matrix(X), pseudo_inverse(X)
    T = len(A)
    G, H = _product(_transpose(plus), plus), _product(A, plus)
    identity = _matrix([[int(i == j) for j in range(T)] for i in range(T)])

    def trace(C: Matrix) -> Fraction:
        return sum((G[i][j] * C[j][i] for i in range(T) for j in range(T)), Fraction(0))

    C = identity
    true = [trace(C)]
    paper = [true[0]]
    for block in blocks:
        step = tuple(H[t] if t in block else identity[t] for t in range(T))
        C = _product(_product(step, C), _transpose(step))
        C = tuple(tuple(C[s][t] + int(s == t and t in block) for t in range(T)) for s in range(T))
        true.append(trace(C))
        paper.append(paper[-1] + sum((G[t][t] for t in block), Fraction(0)))
    return ErrorCertificate(tuple(true), tuple(paper))


def one_random_edit_exact(T: int, d: int, m: int) -> Fraction:
    """``closed_forms.one_random_edit`` as a fraction, in units of v."""
    f = mean_residual_leverage(T, d)
    (m,) = check_counts((m,), T)
    return 1 + Fraction(m, T) + f * Fraction(m * (T - m), T * (T - 1))


def two_random_edits_exact(T: int, d: int, m1: int, m2: int) -> Fraction:
    """``closed_forms.two_random_edits`` as a fraction, in units of v."""
    f = mean_residual_leverage(T, d)
    counts = check_counts((m1, m2), T)
    a1, a2 = (Fraction(m, T) for m in counts)
    c1, c2 = (Fraction(m * (T - m), T * (T - 1)) for m in counts)
    return 1 + a1 + a2 + (c1 + c2) * f - c1 * c2 * leverage_energy(T, d) / d


def random_edits_exact(T: int, d: int, counts: Sequence[int]) -> tuple[Fraction, ...]:
    """The curve of up to three random edits as fractions, in units of v.

    ``engines.random_edits`` integrates S = sum c_i g_i, of degree at most 2 for three edits, against nu,
    whose first three moments are rational (``moments.increment_moments``).

    Raises:
        InputError: for a bad shape, a count outside 0..T or more than three counts.
    """
    moments = increment_moments(T, d)
    counts = check_counts(counts, T)
    if len(counts) > len(moments):
        raise InputError(f"the exact form covers three random edits, got {len(counts)}: use engines.random_edits.")
    curve, g = [Fraction(1)], [Fraction(1)]
    for m in counts:
        a, c = Fraction(m, T), Fraction(m * (T - m), T * (T - 1))
        curve.append(curve[-1] + a + c * sum(g_j * nu for g_j, nu in zip(g, moments, strict=False)))
        g = [(1 - a - c) * low + c * high for low, high in zip((*g, 0), (0, *g), strict=True)]
        g[0] += a
    return tuple(curve)


@dataclass(frozen=True)
class ConstantCertificate:
    """Theorem 2 of the paper, E_test <= 2 v, against an exact counterexample under its own eq. 16.

    Attributes:
        T: samples, 4.
        d: features, 1.
        counts: sizes of the disjoint blocks, (2, 2).
        polynomial: coefficients, by power of B, of the error given B.
        error: its exact expectation in units of v, 37/15.
        claimed: the paper's constant, 2.
        holds: whether error <= claimed.
    """

    T: int
    d: int
    counts: tuple[int, int]
    polynomial: tuple[int, ...]
    error: Fraction
    claimed: Fraction
    holds: bool


def certify_constant_two() -> ConstantCertificate:
    r"""Refute (6) and (43) by hand: T = 4, d = 1, rows 1-2 edited after fit 1 and rows 3-4 after fit 2.

    At d = 1, W_1 = B and W_2 = 1 - B with B ~ Beta(2/2, 2/2), uniform on [0, 1] (``disjoint``). With P =
    (2-B)(1+B) the error given B is P^2 + 2 (2-B)^2 B - 2 P B (2-B) + 2 (1-B) - 2 P (1-B) = (2-B)^2 (1 + 2B -
    B^2) - 2 (1-B)(1 + B - B^2), whose integral over [0, 1] is 37/15 > 2.
    """

    def times(p: Sequence[int], q: Sequence[int]) -> tuple[int, ...]:
        out = [0] * (len(p) + len(q) - 1)
        for i, a in enumerate(p):
            for j, b in enumerate(q):
                out[i + j] += a * b
        return tuple(out)

    first = times(times((2, -1), (2, -1)), (1, 2, -1))
    second = (*times((2, -2), (1, 1, -1)), 0)
    polynomial = tuple(a - b for a, b in zip(first, second, strict=True))
    error = sum((Fraction(a, k + 1) for k, a in enumerate(polynomial)), Fraction(0))
    return ConstantCertificate(4, 1, (2, 2), polynomial, error, Fraction(2), error <= 2)
