r"""Disjoint edited blocks at finite T, exactly: the error after n blocks as a rational number.

Setting (eq. 16 of the paper taken at its word): block B_i of m_i rows is edited after generation i, blocks
are disjoint. With U a Haar frame, W_i = U_{B_i}' U_{B_i} and P_k = (I + W_k)...(I + W_1),
``engines.fixed_edits`` gives d e_{n+1} = E tr S_n, where S_0 = I and

    S_k = (I + W_k) S_{k-1} (I + W_k) + 2 W_k - (I + W_k) P_{k-1} W_k - W_k P_{k-1}' (I + W_k).

**Moments (orthogonal Weingarten calculus).** A word tr(W_{j_1} ... W_{j_k}) is a product of 2k entries of U.
Call tau the pairing of the 2k row-index slots that the matrix product makes (second slot of a letter with
the first of the next), and let sigma run over all pairings of the slots. Then

    E tr(W_{j_1} ... W_{j_k}) = sum_sigma Phi_k(type(sigma, tau)) g(sigma),

where type is the partition of k formed by half the cycle lengths of sigma union tau, and g(sigma) is the
product over the cycles of sigma union {the two slots of each letter} of m_i if all letters on the cycle are
W_i, of 0 otherwise (the sum over row indices in disjoint blocks). Proof: E of U^(2k) is invariant under left
and right rotations, hence sum_{sigma, pi} Wg_T(sigma, pi) on row pairing sigma and column pairing pi;
contracting the columns by tau gives Phi_k = sum_pi Wg_T(sigma, pi) d^{loops(pi, tau)}, which depends on the
type only. In our words W_i occurs at most twice, so only pairings within letters of equal name count: one
for a single letter, three for a pair.

**Recursion for Phi.** The Gram matrix T^{loops} is, on the orbit of tau, the product of (T + J_{2i-1}), i <=
k, with J_{2i-1} = sum_{j < 2i-1} (j, 2i-1) the odd Jucys-Murphy elements (Matsumoto 2011; Zinn-Justin 2010),
and these commute, so (T + J_{2k-1}) Phi_k = (d + J_{2k-1}) (Phi_{k-1} on the first k-1 letters, pair {2k-1,
2k} kept). Evaluated at a pairing whose cycle through the slot 2k has half-length r this reads, for every
part r of a partition mu of k,

    (T + r - 1) Phi(mu) + sum_{s=1}^{r-1} Phi(mu: r -> s, r-s) + sum_{other parts q} 2q Phi(mu: r, q -> r+q)
        = d Phi(mu without r) if r = 1, and Phi(mu: r -> r-1) otherwise.

For T >= k the solution is unique, as J_{2k-1} has eigenvalues > -k on the orbit. The code solves the
equations of the smallest part of each mu and then checks all the others exactly, which certifies the
solution.

**Assembly.** The words are nested, W_n outermost. A state is (closed cycles, length of the one open path);
wrapping by (I + W_i) on both sides keeps it, lengthens the path by 1 (one letter: weight m_i, twice), by 2
(two letters: weights m_i^2 and m_i) or closes it into a cycle one longer and opens a path of length 1
(weight m_i). Source of the reduction: this work.
"""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from theory.errors import InputError
from theory.schedules import check_count, check_counts, check_shape

Partition = tuple[int, ...]


def partitions(k: int, largest: int | None = None) -> list[Partition]:
    """All partitions of k as non-increasing tuples."""
    if k == 0:
        return [()]
    top = k if largest is None else min(k, largest)
    return [(part, *rest) for part in range(top, 0, -1) for rest in partitions(k - part, part)]


def _replace(mu: Partition, out: tuple[int, ...], into: tuple[int, ...]) -> Partition:
    parts = list(mu)
    for part in out:
        parts.remove(part)
    return tuple(sorted((*parts, *into), reverse=True))


def _equation(T: int, d: int, mu: Partition, r: int) -> tuple[dict[Partition, int], tuple[int, Partition]]:
    """Left side (coefficients of Phi_k) and right side (factor, partition of k - 1) for the part r of mu."""
    left: dict[Partition, int] = defaultdict(int)
    left[mu] += T + r - 1
    for s in range(1, r):
        left[_replace(mu, (r,), (s, r - s))] += 1
    others = list(mu)
    others.remove(r)
    for q in others:
        left[_replace(mu, (r, q), (r + q,))] += 2 * q
    right = (d, _replace(mu, (1,), ())) if r == 1 else (1, _replace(mu, (r,), (r - 1,)))
    return left, right


def _verify(T: int, d: int, order: int, moments: dict[Partition, Fraction], below: dict[Partition, Fraction]) -> None:
    for mu in moments:
        for r in set(mu):
            left, (factor, lower) = _equation(T, d, mu, r)
            if sum(value * moments[nu] for nu, value in left.items()) != factor * below[lower]:
                raise ArithmeticError(f"moment equation of part {r} in {mu}, order {order}, fails at T={T}, d={d}")


def frame_moments(T: int, d: int, k: int) -> list[dict[Partition, Fraction]]:
    """Phi_0..Phi_k of the module docstring for a T x d Haar frame, exact.

    Raises:
        InputError: for a bad shape or T < k, where the recursion is singular.
        ArithmeticError: if an equation fails, which would be a defect of this module.
    """
    check_shape(T, d)
    if check_count("k", k, low=0) > T:
        raise InputError(f"moments of order {k} need T >= {k}, got T={T}: use fewer blocks or the sampling engine.")
    levels: list[dict[Partition, Fraction]] = [{(): Fraction(1)}]
    for order in range(1, k + 1):
        # Partitions with many ones first: their rows express them by partitions with fewer, and a dense
        # system remains only for the partitions without ones.
        unknowns = sorted(partitions(order), key=lambda mu: (-mu.count(1), mu))
        rows: list[tuple[Partition, dict[Partition, Fraction], Fraction]] = []
        for mu in unknowns:
            left, (factor, lower) = _equation(T, d, mu, mu[-1])
            row = {nu: Fraction(value) for nu, value in left.items()}
            value = factor * levels[-1][lower]
            for pivot, pivot_row, pivot_value in rows:
                scale = row.pop(pivot, None)
                if not scale:
                    continue
                for nu, entry in pivot_row.items():
                    row[nu] = row.get(nu, Fraction(0)) - scale * entry
                value -= scale * pivot_value
            lead = row.pop(mu)
            rows.append((mu, {nu: entry / lead for nu, entry in row.items() if entry}, value / lead))
        solution: dict[Partition, Fraction] = {}
        for mu, row, value in reversed(rows):
            solution[mu] = value - sum((entry * solution[nu] for nu, entry in row.items()), Fraction(0))
        _verify(T, d, order, solution, levels[-1])
        levels.append(solution)
    return levels


_State = tuple[Partition, int]


def _both_letters(states: dict[_State, int], m: int, result: dict[_State, int]) -> None:
    for (cycles, path), weight in states.items():
        result[cycles, path + 2] += weight * (m * m + m)
        result[tuple(sorted((*cycles, path + 1), reverse=True)), 1] += weight * m


def disjoint_exact(T: int, d: int, counts: Sequence[int]) -> list[Fraction]:
    """Exact expected error, in units of v, by generation when disjoint blocks of these sizes are edited.

    Args:
        T: samples, T >= d + 2 and T >= 2 len(counts).
        d: features.
        counts: block sizes m_1..m_{n-1}, their sum at most T.

    Returns:
        n fractions, the first 1; e.g. T=12, d=10, (4, 4): 5237/3003 after two edits.

    Raises:
        InputError: for a bad shape, a count outside 0..T, more than T rows in all or T < 2 len(counts).
    """
    check_shape(T, d)
    counts = check_counts(counts, T)
    if sum(counts) > T:
        raise InputError(f"disjoint blocks of {sum(counts)} rows in all do not fit into T={T}: edit fewer rows.")
    phi = frame_moments(T, d, 2 * len(counts))
    states: dict[_State, int] = {((), 0): 1}
    product = [1]  # product[j]: weight of j letters in P_{k-1}, an elementary symmetric polynomial
    curve = [Fraction(1)]
    for m in counts:
        new: dict[_State, int] = defaultdict(int)
        for (cycles, path), weight in states.items():
            new[cycles, path] += weight
            new[cycles, path + 1] += 2 * m * weight
        _both_letters(states, m, new)
        new[(), 1] += 2 * m
        chain = {((), j): -2 * weight for j, weight in enumerate(product)}
        for (cycles, path), weight in chain.items():
            new[cycles, path + 1] += m * weight
        _both_letters(chain, m, new)
        states = new
        product = [a + m * b for a, b in zip((*product, 0), (0, *product), strict=True)]
        total = Fraction(0)
        for (cycles, path), weight in states.items():
            closed = tuple(sorted((*cycles, path), reverse=True)) if path else cycles
            total += weight * (phi[sum(closed)][closed] if path else Fraction(d))
        curve.append(total / d)
    return curve
