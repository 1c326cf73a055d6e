r"""Exact engines: the noise, and for random edits the choice of rows, integrated out; only H is averaged.

All work on the fit-test form (``theory.fittest``): the error in units of v is E tr(H C_n)/d with C_n =
Cov(u_n | H)/sigma^2, H a Haar projection. They return value and standard error over independent draws of H.
"""

from collections.abc import Sequence

import numpy as np

from theory.closed_forms import paper_sum, spectral_integrand, two_point_rule
from theory.curve import Curve
from theory.fittest import haar_frames
from theory.schedules import check_blocks, check_count, check_counts, check_disjoint, check_shape

_LANCZOS_STEPS = 5


def _mean_and_error(samples: np.ndarray) -> Curve:
    return Curve(samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(samples.shape[0]))


def _schur_square_nodes(V: np.ndarray, complement: bool, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights of the spectral measure of K = Q o Q at 1/sqrt(T), by Lanczos.

    Args:
        V: orthonormal frames (draws, T, k) of Q, or of H = I - Q if ``complement``.
        complement: V spans the range of H rather than that of Q.
        steps: Lanczos steps; polynomials of degree 2 steps - 1 are integrated exactly.

    Returns:
        nodes and weights, float64 (draws, steps); spare nodes of an invariant subspace have weight 0.
    """
    draws, T, _ = V.shape
    steps = min(steps, T)

    def product(x: np.ndarray) -> np.ndarray:
        Vx = V.transpose(0, 2, 1) @ (V * x[:, :, None])
        quadratic = np.einsum("ntk,ntk->nt", V @ Vx, V)
        return x - 2 * leverage * x + quadratic if complement else quadratic

    leverage = np.einsum("ntk,ntk->nt", V, V)
    basis = np.zeros((steps, draws, T))
    diagonal, off = np.zeros((draws, steps)), np.zeros((draws, steps))
    x = np.full((draws, T), T**-0.5)
    for j in range(steps):
        basis[j] = x
        x = product(x)
        diagonal[:, j] = np.einsum("nt,nt->n", basis[j], x)
        for _ in range(2):  # once loses orthogonality when the remainder is near rounding
            overlap = np.einsum("jnt,nt->jn", basis[: j + 1], x)
            x = x - np.einsum("jnt,jn->nt", basis[: j + 1], overlap)
        norm = np.linalg.norm(x, axis=1)
        # Below this the remainder is rounding: the Krylov space is invariant and the recursion has ended.
        norm[norm < 1e-13] = 0.0
        off[:, j] = norm
        x = np.divide(x, norm[:, None], out=np.zeros_like(x), where=norm[:, None] > 0)
    tridiagonal = np.zeros((draws, steps, steps))
    index = np.arange(steps)
    tridiagonal[:, index, index] = diagonal
    tridiagonal[:, index[1:], index[:-1]] = tridiagonal[:, index[:-1], index[1:]] = off[:, : steps - 1]
    nodes, vectors = np.linalg.eigh(tridiagonal)
    return nodes, vectors[:, 0, :] ** 2


def random_edits(T: int, d: int, counts: Sequence[int], *, draws: int = 4, seed: int = 0) -> Curve:
    r"""Expected error when m_n rows, drawn uniformly and afresh, are edited after generation n.

    **Theorem (this work).** With a_n = m_n/T, c_n = m_n(T-m_n)/(T(T-1)), p_n = 1 - a_n - c_n, K = Q o Q and
    mu the mean spectral measure of K at 1/sqrt(T), in units of v, exactly,

        e_{n+1} = 1 + sum_{i<=n} a_i + (T/d) int sum_{i<=n} c_i (1-x) x g_i(x) mu(dx),
        g_1 = 1,   g_{i+1}(x) = (p_i + c_i x) g_i(x) + a_i.

    *Proof.* u_{n+1} = (I - M Q) u_n + M E, so C_{n+1} = E[(I - M Q) C_n (I - Q M)] + a I. For a uniformly
    random set of m rows, E M A M = (a-c) A + c diag(A). As Q H = 0, tr(H C_{n+1}) = tr(H C_n) + c sum_t h_t
    (Q C_n Q)_tt + a d. R_n = Q C_n Q obeys R_{n+1} = (1-a-c) R_n + c Q diag(R_n) Q + a Q and starts as Q:
    R_n = Q D_n Q with D_n diagonal, D_1 = I, D_{n+1} = p D_n + c diag(Q D_n Q) + a I. On diagonals as
    vectors x -> diag(Q diag(x) Q) is K, so D_n = g_n(K) 1, and the increment is c h'K g_n(K) 1/d with h = (I
    - K) 1.  QED

    Five Lanczos steps give a draw's measure at O(T d^2) a step, whatever the number of generations: the
    quadrature is exact for up to 8 edits, and beyond them its relative error is below 1e-10 (measured
    against 12 steps), as K is nearly a multiple of the identity on the Krylov space of 1. The cubic that
    interpolates the integrand twice at the two Gauss nodes of mu has a known mean (mu_0..mu_3 are rational,
    ``theory.moments``) and is used as a control variate; for one and two edits it is the integrand itself,
    and the value is exact.

    Args:
        T: samples, T >= d + 2.
        d: features.
        counts: m_1..m_{n-1}, rows edited after each generation, each in 0..T.
        draws: independent projections, at least 2.
        seed: seed of the projections.

    Returns:
        Curve of n values in units of v, and standard errors over the draws.

    Raises:
        InputError: for a bad shape, a count outside 0..T or draws < 2.
    """
    check_shape(T, d)
    counts = check_counts(counts, T)
    check_count("draws", draws, low=2)
    rng = np.random.default_rng(seed)
    complement = d <= T - d
    k = d if complement else T - d
    (low, high), weights = two_point_rule(T, d)
    F_node, dF_node = spectral_integrand(T, d, counts, np.array([low, high]))
    slope = (F_node[:, 1] - F_node[:, 0]) / (high - low)
    second = (slope - dF_node[:, 0]) / (high - low)
    third = (dF_node[:, 1] - 2 * slope + dF_node[:, 0]) / (high - low) ** 2
    samples = []
    for size in _batches(draws, T * (k + _LANCZOS_STEPS)):
        x, w = _schur_square_nodes(haar_frames(T, k, size, rng), complement, _LANCZOS_STEPS)
        F, _ = spectral_integrand(T, d, counts, x)
        y, z = x - low, x - high
        cubic = F_node[:, 0, None, None] + y * (
            dF_node[:, 0, None, None] + y * (second[:, None, None] + z * third[:, None, None])
        )
        samples.append(np.einsum("nbk,bk->bn", F - cubic, w))
    known = paper_sum(T, counts) + F_node @ weights
    residual = _mean_and_error(np.concatenate(samples))
    return Curve(known + residual.error, residual.standard_error)


def _batches(draws: int, doubles_per_draw: int) -> list[int]:
    """Sizes of the batches of draws, each of about 16 MB."""
    size = max(1, min(draws, 2_000_000 // doubles_per_draw))
    return [min(size, draws - start) for start in range(0, draws, size)]


def _disjoint_samples(U: np.ndarray, blocks: tuple[np.ndarray, ...]) -> np.ndarray:
    """Curves (draws, n) for disjoint blocks from d x d matrices, by the recursion in ``fixed_edits``."""
    draws, _, d = U.shape
    identity = np.eye(d)
    S = P = np.broadcast_to(identity, (draws, d, d))
    curve = [np.ones(draws)]
    for rows in blocks:
        B = U[:, rows]
        W = B.transpose(0, 2, 1) @ B
        step = identity + W
        cross = step @ P @ W
        S = step @ S @ step + 2 * W - cross - cross.transpose(0, 2, 1)
        P = step @ P
        curve.append(np.trace(S, axis1=1, axis2=2) / d)
    return np.stack(curve, axis=1)


def _fixed_samples(U: np.ndarray, blocks: tuple[np.ndarray, ...]) -> np.ndarray:
    """Curves (draws, n) for any row sets from the T x T covariance of u."""
    draws, T, d = U.shape
    C = np.broadcast_to(np.eye(T), (draws, T, T)).copy()
    curve = [np.ones(draws)]
    Ut = U.transpose(0, 2, 1)
    for rows in blocks:
        B = U[:, rows]
        image = B @ (Ut @ C)
        C[:, rows, :] = image
        C[:, :, rows] = image.transpose(0, 2, 1)
        C[:, rows[:, None], rows] = (image @ U) @ B.transpose(0, 2, 1) + np.eye(rows.size)
        curve.append(np.einsum("ntd,ntd->n", C @ U, U) / d)
    return np.stack(curve, axis=1)


def fixed_edits(
    T: int, d: int, blocks: Sequence[Sequence[int] | np.ndarray], *, draws: int = 200, seed: int = 0
) -> Curve:
    r"""Expected error when the given rows are edited: blocks[n-1] after generation n, with any overlaps.

    Given H the label errors u_n are Gaussian with covariance sigma^2 C_n,

        C_1 = I,   C_{n+1} = (I - M_n Q) C_n (I - Q M_n) + M_n,   e_n = E tr(H C_n)/d,

    in O(m T d + T^2 d) a generation. When no row is edited twice (eq. 16 of the paper) d x d matrices
    suffice: with b_n = U'u_n, W_n = U_B' U_B for the block B of generation n, an edited row still carries
    its first noise, so

        b_{n+1} = (I + W_n) b_n + U_B'(E_{n+1} - E_1)_B,   Cov(b_n, E_{1,B}) = P_{n-1} U_B',   P_n = (I +
        W_n) P_{n-1}, Cov b_{n+1} = (I + W) Cov(b_n) (I + W) + 2 W - (I + W) P_{n-1} W - W P_{n-1}' (I + W),

    in O(m d^2 + d^3). Source: this work (the paper's recursion (3), (14)).

    Args:
        T: samples, T >= d + 2.
        d: features.
        blocks: row indices in 0..T-1, one array per edit.
        draws: independent projections, at least 2.
        seed: seed of the projections.

    Returns:
        Curve of len(blocks) + 1 values in units of v, and standard errors over the draws.

    Raises:
        InputError: for a bad shape, row index or number of draws.
    """
    check_shape(T, d)
    blocks = check_blocks(blocks, T)
    check_count("draws", draws, low=2)
    rng = np.random.default_rng(seed)
    disjoint = bool((np.bincount(np.concatenate([*blocks, np.arange(0)]), minlength=T) <= 1).all())
    sampler = _disjoint_samples if disjoint else _fixed_samples
    samples = [
        sampler(haar_frames(T, d, size, rng), blocks)
        for size in _batches(draws, T * d + 4 * d * d if disjoint else T * (3 * T + d))
    ]
    return _mean_and_error(np.concatenate(samples))


def disjoint_edits(
    T: int, d: int, blocks: Sequence[Sequence[int] | np.ndarray], *, draws: int = 200, seed: int = 0
) -> Curve:
    """``fixed_edits`` after requiring eq. 16 of the paper, disjoint blocks.

    Raises:
        InputError: as ``fixed_edits``, or if two blocks share a row.
    """
    check_shape(T, d)
    return fixed_edits(T, d, check_disjoint(blocks, T), draws=draws, seed=seed)


def fixed_real_share(
    T: int, d: int, m: int, generations: int, *, redraw: bool = False, draws: int = 200, seed: int = 0
) -> Curve:
    r"""Expected error when each generation relabels m rows by the last model; the others keep real labels.

    y_{n+1} = M_n (X w^_n + E_{n+1}) + (I - M_n) y_1 with tr M_n = m. Two exact forms (this work):

    The same rows every time, W = U_B' U_B for the relabelled block: b_{n+1} = W b_n + U_B'E_{n+1} + U_R'E_1,
    so e_n = E tr f_n(W)/d, f_n(w) = sum_{j<n} w^{2j+1} + (1-w) (sum_{j<n} w^j)^2; this is also
    ``fixed_edits`` with one block repeated. It settles if and only if T - m >= d real rows are left.

    Rows redrawn uniformly each time: H Cov(u_n, E_1) = H throughout, E M A (I-M) = c (A - diag A), and
    H C_n H = H D_n H with D_{n+1} = (a-c) D_n + c diag(H D_n H) + (1+2c) I - 2c diag(h), D_1 = I. In the
    spectral measure nu of H o H at 1/sqrt(T): e_n = (T/d) E int x g_n(x) nu(dx), g_1 = 1,
    g_{n+1}(x) = (a - c + c x) g_n(x) + 1 + 2c (1 - x).

    Args:
        T: samples, T >= d + 2.
        d: features.
        m: relabelled rows, 0..T; the real share is 1 - m/T.
        generations: fits n >= 1.
        redraw: draw the relabelled rows afresh in each generation.
        draws: independent projections, at least 2.
        seed: their seed.

    Returns:
        Curve of n values in units of v, and standard errors over the draws.

    Raises:
        InputError: for a bad shape, count, generations or draws.
    """
    check_shape(T, d)
    (m,) = check_counts((m,), T)
    check_count("generations", generations)
    check_count("draws", draws, low=2)
    rng = np.random.default_rng(seed)
    a, c = m / T, m * (T - m) / (T * (T - 1))
    samples = []
    for size in _batches(draws, T * (d + _LANCZOS_STEPS)):
        U = haar_frames(T, d, size, rng)
        curve = []
        if redraw:
            x, weight = _schur_square_nodes(U, complement=False, steps=_LANCZOS_STEPS)
            g = np.ones_like(x)
            for _ in range(generations):
                curve.append((T / d) * np.sum(weight * x * g, axis=1))
                g = (a - c + c * x) * g + 1 + 2 * c * (1 - x)
        else:
            B = U[:, :m]
            w = np.linalg.eigvalsh(B.transpose(0, 2, 1) @ B)
            odd, even, power = np.zeros_like(w), np.zeros_like(w), np.ones_like(w)
            for _ in range(generations):
                even, odd = even + power, odd + w * power**2
                curve.append(np.mean(odd + (1 - w) * even**2, axis=1))
                power = power * w
        samples.append(np.stack(curve, axis=1))
    return _mean_and_error(np.concatenate(samples))
