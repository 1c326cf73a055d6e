r"""Bounds: the paper's claims as they are read here, and the sharp ones that hold. Units of v.

A value of the paper's is a *claim* to be tested, not a truth; its docstring says what is wrong with it.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from theory.closed_forms import honest_error, paper_sum, trace_inverse_gram_squared
from theory.errors import InputError
from theory.moments import increment_moments, mean_residual_leverage
from theory.schedules import check_counts, check_real, check_shape, consecutive_blocks

PAPER_CONSTANT = 2.0
"""Theorem 2 of the paper, (6) and (43): E_test <= 2 v for all n. Fails (``closed_forms.disjoint_limit``)."""


def paper_error(T: int, counts: Sequence[int]) -> np.ndarray:
    """1 + sum_{i<n} a_i, the reading of eq. 36 of the paper.

    Its ill-typed trace is read as E tr(X^+ M_i X^{+T}), which is a_i v/sigma^2 for row-exchangeable M_i.

    In truth the part of the error from A = X^+(E_1 + sum M_i E_{i+1}) alone; the residuals -M_i r_i are
    missing.
    """
    return paper_sum(T, counts)


def cauchy_schwarz_bound(T: int, d: int, counts: Sequence[int]) -> np.ndarray:
    """1 + sqrt(E tr (X'X)^{-2}) sum_{i<n} sqrt(m_i) (T-d-1)/d: eq. 37, 41 of the paper; infinite at T < d+4.

    **Proposition (this work).** For random edits and T >= d + 4 it is a true bound, though not by the paper's
    proof: each true increment is at most half the paper's term, and the half cannot be improved. With s = 1
    - d/T the increment is at most a + c f <= a + a(1-a) s (``random_edit_bounds``; T^2 <= (T-1)(T+2)), and
    the paper's term is at least sqrt(a/(s(1-s))), as (T-1)(T-d-1) >= T(T-d-3). Then 2 sqrt(a) (1 + (1-a) s)
    sqrt(s(1-s)) <= 1 on the unit square: for s >= 1/2 the maximum over a, at a = (1+s)/(3s), is (4/3)
    sqrt((1+s)^3 (1-s)/3), greatest at s = 1/2, where a = 1 and the value is 1; for s < 1/2 it increases in a
    up to a = 1, where it is 2 sqrt(s(1-s)) < 1.
    """
    root = np.sqrt(trace_inverse_gram_squared(T, d)) / honest_error(T, d)
    steps = [0.0 if m == 0 else root * np.sqrt(m) for m in check_counts(counts, T)]
    return 1 + np.cumsum([0.0, *steps])


def decay_bound(T: int, d: int, m1: int, eta: float, norm: Literal["frobenius", "trace"] = "frobenius") -> float:
    """Eq. 42 of the paper, the sum of (41) under ||M_i|| = eta ||M_{i-1}||; infinite at T < d + 4.

    1 + sqrt(E tr (X'X)^{-2}) sqrt(m_1)/(1 - r) (T-d-1)/d. The sum in (41) is over sqrt(m_i). The Frobenius
    norm of a 0/1 diagonal matrix is sqrt(m): m_i = eta^2 m_{i-1} and r = eta, the paper's formula. The trace
    norm is m: m_i = eta m_{i-1} and r = sqrt(eta), so that the paper's formula is less than the sum it
    stands for. The spectral norm is 0 or 1 and admits no eta in (0, 1).

    Args:
        T: samples.
        d: features.
        m1: rows of the first edit.
        eta: ratio of norms, in (0, 1).
        norm: the reading.

    Raises:
        InputError: for a bad shape, count or eta, or another norm.
    """
    if norm not in ("frobenius", "trace"):
        raise InputError(f"norm '{norm}' has no ratio eta in (0, 1) here; choose frobenius or trace")
    check_shape(T, d)
    (m1,) = check_counts((m1,), T)
    eta = check_real("eta", eta, low=0.0, high=1.0 - 1e-15, open_low=True)
    ratio = eta if norm == "frobenius" else np.sqrt(eta)
    if m1 == 0:
        return 1.0
    return float(1 + np.sqrt(trace_inverse_gram_squared(T, d) * m1) / (1 - ratio) / honest_error(T, d))


def random_edit_bounds(T: int, d: int, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    r"""Sharp sandwich for random edits, T >= d + 2 (this work).

    1 + sum (a_i + c_i delta_i f) <= e_{n+1} <= 1 + sum (a_i + c_i f),
    delta_1 = 1, delta_{i+1} = p_i delta_i + a_i.

    *Proof.* In the spectral form of ``engines.random_edits`` the measure lives on [0, 1], and for x there
    delta_i = g_i(0) <= g_i(x) <= g_i(1) = 1, as g_{i+1} = (p + c x) g_i + a has non-negative coefficients and
    p + c + a = 1; (T/d) int (1-x) x mu(dx) = f. Both sides are equal, hence exact, for one edit.

    Returns:
        lower and upper bound, float64 (n,).
    """
    f = float(mean_residual_leverage(T, d))
    lower, upper, delta = [1.0], [1.0], 1.0
    for m in check_counts(counts, T):
        a, c = m / T, m * (T - m) / (T * (T - 1))
        lower.append(lower[-1] + a + c * delta * f)
        upper.append(upper[-1] + a + c * f)
        delta = (1 - a - c) * delta + a
    return np.array(lower), np.array(upper)


def random_edit_bracket(T: int, d: int, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    r"""Rigorous two-sided bounds for random edits from three rational moments, without sampling (this work).

    **Theorem.** e_{n+1} = 1 + sum a_i + int S dnu, S = sum c_i g_i(x), nu(dx) = (T/d) x (1-x) mu(dx) on [0,
    1] (``engines.random_edits``), and with the moments nu_0, nu_1, nu_2 of ``moments.increment_moments``

        w S(u) + (nu_0 - w) S(0) <= int S dnu <= w' S(u') + (nu_0 - w') S(1),
        u = nu_2/nu_1, w = nu_1/u;   u' = (nu_1 - nu_2)/(nu_0 - nu_1), w' = (nu_0 - nu_1)/(1 - u').

    *Proof.* S is a polynomial with non-negative coefficients, so S^(3) >= 0 on [0, 1]. The quadratic q that
    meets S at 0 and twice at u has S - q = S^(3)(.) x (x-u)^2/6 >= 0, and int q dnu is the Gauss-Radau rule
    on the left, exact for quadratics; with 1 in place of 0, S - q' = S^(3)(.) (x-1)(x-u')^2/6 <= 0.  QED

    Equal, hence exact, for up to three edits. The relative width was at most 5e-5 at T=1000, d=100 (shares
    0.05 to 0.7, 300 edits), 2e-4 at T=200, d=10 and 2.2e-3 at T=14, d=1.

    Returns:
        lower and upper bound, float64 (n,).
    """
    nu0, nu1, nu2 = increment_moments(T, d)
    low_node, high_node = nu2 / nu1, (nu1 - nu2) / (nu0 - nu1)
    low_weight, high_weight = nu1 / low_node, (nu0 - nu1) / (1 - high_node)
    x = np.array([float(low_node), 0.0, float(high_node), 1.0])
    weights = np.array([float(w) for w in (low_weight, nu0 - low_weight, high_weight, nu0 - high_weight)])
    g, S = np.ones(4), np.zeros(4)
    lower, upper, base = [1.0], [1.0], 1.0
    for m in check_counts(counts, T):
        a, c = m / T, m * (T - m) / (T * (T - 1))
        S = S + c * g
        g = (1 - a - c + c * x) * g + a
        base += a
        terms = weights * S
        lower.append(base + terms[0] + terms[1])
        upper.append(base + terms[2] + terms[3])
    return np.array(lower), np.array(upper)


def simple_bounds(T: int, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1 + sum a_i <= e_{n+1} <= 1 + sum a_i (2 - a_i) <= 1 + 2 sum a_i for random edits (this work).

    From ``random_edit_bounds``: c f = a (1-a) (T/(T-1)) (T-d)/(T+2) <= a (1 - a) for d >= 1. So the error is
    bounded in n if and only if sum a_i is finite.

    Returns:
        the three bounds, float64 (n,).
    """
    shares = [m / T for m in check_counts(counts, T)]
    upper = 1 + np.cumsum([0.0, *(a * (2 - a) for a in shares)])
    return paper_sum(T, counts), upper, 1 + 2 * np.cumsum([0.0, *shares])


def geometric_bound(share: float, decay: float) -> float:
    """1 + 2 a_1/(1 - rho) for random edits with a_i <= a_1 rho^(i-1): finite, but not 2 (this work).

    Raises:
        InputError: for a share outside [0, 1] or a decay outside (0, 1).
    """
    share = check_real("share", share, low=0.0, high=1.0)
    return 1 + 2 * share / (1 - check_real("decay", decay, low=0.0, high=1.0 - 1e-15, open_low=True))


def constant_share_slope(a: float) -> float:
    """Growth a (2 - a) a generation at a constant random share: linear collapse, T/d -> infinity.

    In ``engines.random_edits`` the spectral measure tends to a unit mass at 1, where g = 1, so that each
    step adds a + c f -> a + a (1 - a) (this work).
    """
    a = check_real("share a", a, low=0.0, high=1.0)
    return a * (2 - a)


def schedule_bound(T: int, d: int, counts: Sequence[int]) -> np.ndarray:
    r"""Bound for every schedule that does not look at the data, with whatever overlaps (this work).

    **Theorem.** e_{n+1} <= e_n + a + f c + 2 sqrt(e_n f c), a = m_n/T, c = m_n(T-m_n)/(T(T-1)), f =
    (T-d)/(T+2), e_1 = 1. Hence sqrt(e_{n+1}) <= 1 + 2 sum sqrt(a_i): the condition of the paper's (41), sum
    sqrt(m_i) finite, does suffice for every data-independent schedule.

    *Proof.* Condition on the schedule. u_{n+1} = u_n + M (E - r_n), so that d e_{n+1} = d e_n + E tr(H M) +
    E tr(H M R_n M) - 2 E<H u_n, M r_n>, R_n = Cov(r_n | H)/sigma^2. (i) R_n <= Q in the Loewner
    order: R_1 = Q, and R <= Q gives (I-QM) R (I-MQ) + QMQ <= Q - QMHMQ <= Q. (ii) E tr(H M) = a d, and since
    a Haar projection makes all sets of m rows alike, E tr(H M Q M) is its mean over random sets, c E sum h_t
    (1-h_t) = c f d (E M A M = (a-c) A + c diag A, and HQ = 0). (iii) By Cauchy-Schwarz with H = U U', E<H
    u_n, M r_n>^2 <= E||U'u_n||^2 E||U'M r_n||^2 <= d e_n c f d. For the last statement e + a + f c + 2
    sqrt(e f c) <= (sqrt(e) + sqrt(f c) + sqrt(a))^2 and f c <= a.  QED

    Args:
        T: samples.
        d: features.
        counts: rows edited after each generation.

    Returns:
        float64 (n,).

    Raises:
        InputError: for a bad shape or count.
    """
    f = float(mean_residual_leverage(T, d))
    curve = [1.0]
    for m in check_counts(counts, T):
        quadratic = f * m * (T - m) / (T * (T - 1))
        curve.append(curve[-1] + m / T + quadratic + 2 * np.sqrt(curve[-1] * quadratic))
    return np.array(curve)


def disjoint_bound(T: int, d: int, counts: Sequence[int]) -> np.ndarray:
    r"""Bound for disjoint blocks (eq. 16 of the paper) that stays finite over all rows (this work).

    **Theorem.** With V rows not yet edited, x = V/T, c_V = V (T-V)/(T(T-1)) and the notation of
    ``schedule_bound``, e_{n+1} <= e_n + a + f c + 2 (a/x) sqrt(e_n f c_V); equal for one block.

    *Proof.* As for ``schedule_bound``, but (iii): permuting the V unedited rows leaves the law of (H, noise)
    and all that was done before unchanged, so E<H u_n, M r_n> = (m/V) E<H u_n, 1_V r_n>, whose square
    Cauchy-Schwarz bounds by (m/V)^2 d e_n E tr(H 1_V R_n 1_V) <= (m/V)^2 d e_n d f c_V.  QED

    ``disjoint_uniform_bound`` is its closed form. The note in paper/ proves e_n <= 5 for all disjoint blocks
    and e_{n+1} <= 2 (1+a)^n - 1 <= 2 e - 1 for n equal ones. Conjecture: e_{n+1} <=
    ``closed_forms.disjoint_limit``; confirmed by ``disjoint.disjoint_exact`` in all 9,206 cases with even
    T <= 30, 1 <= d <= T-2 and up to four equal blocks, where the error also falls with d.

    Args:
        T: samples.
        d: features.
        counts: block sizes, their sum at most T.

    Returns:
        float64 (n,).

    Raises:
        InputError: for a bad shape, a count outside 0..T or blocks that do not fit.
    """
    f = float(mean_residual_leverage(T, d))
    curve, V = [1.0], T
    for block in consecutive_blocks(counts, T):
        m, e = block.size, curve[-1]
        if m:
            quadratic = f * m * (T - m) / (T * (T - 1))
            cross = m / V * np.sqrt(e * f * V * (T - V) / (T * (T - 1)))
            e = e + m / T + quadratic + 2 * cross
        curve.append(e)
        V -= m
    return np.array(curve)


def disjoint_uniform_bound(A: float) -> float:
    r"""(sqrt(1+2A) + arcsin sqrt(A) - sqrt(A(1-A)))^2, for disjoint blocks covering a share A (this work).

    For all T, d and numbers of blocks; 10.9 at A = 1, (sqrt 3 + pi/2)^2. So the paper's constant 2 is false
    under the proof's own assumption (16), but a finite constant is true; the largest known value is 2 e - 1
    = 4.44.

    *Proof.* f c <= a and (a/x) sqrt(f c_V) <= a g, g(A) = sqrt(A/(1-A)), in ``disjoint_bound`` (f T/(T-1) <=
    1). The step e + a (2 + 2 g sqrt(e)), increasing in e and A, is an Euler step from the left and stays
    below the solution of de/dA = 2 + 2 g sqrt(e). For y = sqrt(e), y' = 1/y + g; z = y - int g has z' = 1/y
    <= 1/z, z^2 <= 1 + 2A, and int_0^A g = arcsin sqrt(A) - sqrt(A(1-A)).  QED

    Raises:
        InputError: if A is outside [0, 1].
    """
    A = check_real("covered share A", A, low=0.0, high=1.0)
    return float((np.sqrt(1 + 2 * A) + np.arcsin(np.sqrt(A)) - np.sqrt(A * (1 - A))) ** 2)
