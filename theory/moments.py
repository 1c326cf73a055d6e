r"""Rational moments of a Haar projection: the leverages and the spectral measure of Q o Q.

H is a uniformly random rank-d projection in R^T, Q = I - H, h_t = H_tt ~ Beta(d/2, (T-d)/2), and K = Q o Q
is the entrywise square, symmetric, positive semidefinite (Schur product), with non-negative entries and row
sums K 1 = diag(Q Q) = diag(Q) = 1 - h <= 1, so its eigenvalues lie in [0, 1]. Its spectral measure at the
unit vector 1/sqrt(T) has the mean mu; its moments mu_j = E[1'K^j 1]/T are rational numbers. Source: this
work.
"""

from fractions import Fraction

from theory.schedules import check_shape


def beta_moment(T: int, d: int, j: int, k: int) -> Fraction:
    """E h^j (1-h)^k, h ~ Beta(d/2, (T-d)/2): rising factorials of the two shapes over that of T/2.

    Raises:
        InputError: if T < d + 2 or d < 1.
    """
    check_shape(T, d)

    def rising(twice: int, power: int) -> Fraction:
        product = Fraction(1)
        for i in range(power):
            product *= Fraction(twice, 2) + i
        return product

    return rising(d, j) * rising(T - d, k) / rising(T, j + k)


def mean_residual_leverage(T: int, d: int) -> Fraction:
    """Mean f = E sum_t h_t (1-h_t) / d = (T-d)/(T+2)."""
    check_shape(T, d)
    return Fraction(T - d, T + 2)


def leverage_energy(T: int, d: int) -> Fraction:
    r"""S = E h'(Q o Q) h = E sum_{s,t} h_s Q_st^2 h_t, what two random edits need beyond f.

    Proof. Row 1 of H is (h, sqrt(h(1-h)) w') with w uniform on the sphere of R^(T-1), independent of h. The
    range of H is spanned by H e_1 and a subspace orthogonal to e_1 and to w, whose projection H' is Haar of
    rank d-1 in dimension T-2; hence h_s = (1-h) w_s^2 + H'_ss for s > 1. With E sum w_s^4 = 3/(T+1) and E[H'
    | w] = (d-1)/(T-2) (I - w w'), E sum w_s^2 H'_ss = (d-1)/(T+1). The diagonal terms give T E h^2(1-h)^2,
    the others T E h h(1-h) [3(1-h) + (d-1)]/(T+1).
    """
    square = beta_moment(T, d, 2, 2)
    return T * square + T * (3 * square + (d - 1) * beta_moment(T, d, 2, 1)) / Fraction(T + 1)


def _square_norm_moment(T: int, d: int) -> Fraction:
    r"""mu_4 = E (K(1-h))_1^2, K = Q o Q.

    Proof, continuing ``leverage_energy`` with Q in place of H: q = Q_11 ~ Beta(r/2, d/2) with r = T - d, row
    1 of Q is (q, sqrt(q(1-q)) w'), Q_ss = (1-q) w_s^2 + Q'_ss, Q' a Haar projection of rank r-1 in the
    orthogonal complement of w in R^(T-1), whose projection is Pi = I - w w'. So (K(1-h))_1 = q^3 +
    q(1-q)[(1-q) P_4 + Y], P_k = sum_s w_s^k, Y = sum_s w_s^2 Q'_ss. Second moments of Q' are E Q'_ss Q'_tt =
    b_11 Pi_ss Pi_tt + 2 b_2 Pi_st^2 with b_11, b_2 those of a Haar projection of rank r-1 in dimension N =
    T-2 (from N b_11 + 2 b_2 = (r-1) b_1, (N+1) b_2 + b_11 = b_1, b_1 = (r-1)/N), so E[Y | w] = b_1 (1 - P_4)
    and E[Y^2 | w] = b_11 (1-P_4)^2 + 2 b_2 (P_4 - 2 P_6 + P_4^2).
    """
    N, rank = T - 2, T - d - 1
    b1 = Fraction(rank, N)
    # In one dimension (T = 3) Q' is a number and any split with b_11 + 2 b_2 = b_1 will do.
    b2 = (N - rank) * b1 / (N * (N + 1) - 2) if N > 1 else Fraction(0)
    b11 = b1 - (N + 1) * b2
    p4 = Fraction(3, T + 1)
    p6 = Fraction(15, (T + 1) * (T + 3))
    p44 = Fraction(105 + 9 * (T - 2), (T + 1) * (T + 3) * (T + 5))
    y, p4y = b1 * (1 - p4), b1 * (p4 - p44)
    yy = b11 * (1 - 2 * p4 + p44) + 2 * b2 * (p4 - 2 * p6 + p44)

    def q(j: int, k: int) -> Fraction:
        return beta_moment(T, d, k, j)

    cross = 2 * (q(4, 2) * p4 + q(4, 1) * y)
    return q(6, 0) + cross + q(2, 4) * p44 + 2 * q(2, 3) * p4y + q(2, 2) * yy


def spectral_moments(T: int, d: int) -> tuple[Fraction, ...]:
    """mu_0..mu_4 of the mean spectral measure of K = Q o Q at 1/sqrt(T).

    mu_1 = 1 - d/T, mu_2 = E (1-h)^2, S/T = mu_1 - 2 mu_2 + mu_3 since h = (I - K) 1, and mu_4 = E (K
    (1-h))_1^2.
    """
    mu1 = 1 - Fraction(d, T)
    mu2 = beta_moment(T, d, 0, 2)
    mu3 = leverage_energy(T, d) / T - mu1 + 2 * mu2
    return Fraction(1), mu1, mu2, mu3, _square_norm_moment(T, d)


def increment_moments(T: int, d: int) -> tuple[Fraction, Fraction, Fraction]:
    """Moments nu_0 = f, nu_1, nu_2 of nu(dx) = (T/d) x (1-x) mu(dx), which random edits integrate against.

    nu_j = (T/d) (mu_{j+1} - mu_{j+2}).
    """
    mu = spectral_moments(T, d)
    first, second, third = (Fraction(T, d) * (mu[j + 1] - mu[j + 2]) for j in range(3))
    return first, second, third
