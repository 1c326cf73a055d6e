"""Closed forms for the toys of model collapse: Gaussian fits, kernel densities, discrete laws.

Generation 1 is the fit to n real points and entry 0 of every curve. Rules: "replace" fits each generation to
n points of the last fit; "accumulate" fits to all generations' points, n new ones each time;
"accumulate-subsample" fits to n points drawn without replacement from all of them. Every formula is this
work's; the settings are those of Kazdan et al. 2025 and Shumailov et al. 2024.
"""

import numpy as np
from scipy.special import digamma, polygamma, xlogy

from theory.errors import InputError
from theory.schedules import check_count, check_real

RULES = ("replace", "accumulate", "accumulate-subsample")
MAX_EXACT_SAMPLES = 3000  # the genealogy matrix holds n^2 float64 entries: 72 MB


def _check(rule: str, n: int, generations: int) -> None:
    if rule not in RULES:
        raise InputError(f"Unknown rule {rule!r}: use replace, accumulate or accumulate-subsample.")
    check_count("n", n)
    check_count("generations", generations)


def variance_curve(rule: str, n: int, generations: int, added: float = 0.0) -> np.ndarray:
    r"""E of the biased (1/n) sample variance behind each fit, in units of the real one; exact for every law.

    A fit of variance C writes n points of variance C + added around its mean. With h^2 = added and N = g n
    points pooled:

        replace:     C_{g+1} = (1 - 1/n) (C_g + h^2), so (1 - 1/n)^g without h, and with it the limit h^2 (n - 1),
            from below or above;
        accumulate:  C_{g+1} = C_g (1 - 1/(n (g+1)^2)) + h^2 (1/(g+1) - 1/(n (g+1)^2)), so prod_j (1 - 1/(n
            j^2)) without h, and about 1 + h^2 (H_g - 1) with it;
        subsample:   C_g = K_g N (n-1)/((N-1) n) for the pool's K_g, which obeys a like recursion.

    It is also the expected heterozygosity 1 - sum_i p_i^2 of a discrete law, in units of the real one (added
    = 0).

    Args:
        rule: one of RULES.
        n: samples a generation.
        generations: number of fits.
        added: h^2, the variance that sampling from the fit adds (the squared bandwidth), in units of the real
            variance.

    Returns:
        float64, shape (generations,).

    Raises:
        InputError: unknown rule, or sizes or `added` out of range.
    """
    _check(rule, n, generations)
    added = check_real("added", added, low=0.0)
    out = np.empty(generations)
    pool = 1 - 1 / n
    for g in range(1, generations + 1):
        points = g * n
        fit = pool
        offset = 0.0
        if rule == "accumulate-subsample" and points > 1:
            fit = pool * points * (n - 1) / ((points - 1) * n)
            offset = pool * (points - n) / ((points - 1) * n)
        out[g - 1] = fit
        drawn = fit + added
        if rule == "replace":
            pool = (1 - 1 / n) * drawn
        else:
            between = g / (g + 1) ** 2 * (offset + drawn / n)
            pool = g / (g + 1) * pool + (1 - 1 / n) * drawn / (g + 1) + between
    return out


def mean_error_curve(rule: str, n: int, generations: int, d: int = 1) -> np.ndarray:
    """Exact E ||fitted mean - mean||^2 of Gaussian fitting, in units of sigma^2: d (1 - variance_curve).

    The second moment about the true mean is a martingale under all three rules, so what the variance loses
    the mean gains.

    Raises:
        InputError: as ``variance_curve``, or d < 1.
    """
    check_count("d", d)
    return d * (1 - variance_curve(rule, n, generations))


def accumulate_limit(n: int) -> float:
    """Limit of `variance_curve("accumulate", n, g)` as g grows: sin(pi/sqrt n)/(pi/sqrt n), by Euler's product."""
    _check("accumulate", n, 1)
    return float(np.sinc(1 / np.sqrt(n)))


def trace_deviation(n: int, d: int, generations: int) -> np.ndarray:
    """Exact standard deviation of the trace ratio under Gaussian replace, float64, shape (generations,).

    From the second moments of a Wishart matrix of m = n - 1 degrees of freedom: with A = E (tr S)^2 and B = E tr S^2
    one generation gives n^2 A' = m^2 A + 2 m B and n^2 B' = m (m + 1) B + m A. The law is skewed: the deviation
    estimated from a hundred runs is often far too small.

    Raises:
        InputError: sizes that are no integers or below 1.
    """
    _check("replace", n, generations)
    check_count("d", d)
    m = n - 1
    step = np.array([[m * m, 2 * m], [m, m * (m + 1)]]) / n**2
    moments, out = np.array([d * d, d], dtype=np.float64), np.empty(generations)
    for g in range(generations):
        moments = step @ moments
        out[g] = moments[0] / d**2
    return np.sqrt(np.maximum(out - variance_curve("replace", n, generations) ** 2, 0))


def log_det_drift(n: int, d: int) -> tuple[float, float]:
    """Mean and variance of the change of log det of the biased covariance in one generation of replace.

    sum_{i=1..d} psi((n-i)/2) + d log(2/n) and sum_{i=1..d} psi'((n-i)/2): each fit multiplies det by det
    W/n^d, W ~ Wishart(n-1), independently of the past. For d = 1 the drift is about -2/n: the typical
    variance falls twice as fast as the mean one.

    Raises:
        InputError: n < d + 1, where the fitted covariance is singular.
    """
    check_count("n", n, low=check_count("d", d) + 1)
    halves = (n - np.arange(1, d + 1)) / 2
    return float(digamma(halves).sum() + d * np.log(2 / n)), float(polygamma(1, halves).sum())


def mean_det_factor(n: int, d: int) -> float:
    """E det of the fitted covariance over det of the law it is fitted to: prod_{i=1..d} (1 - i/n).

    Raises:
        InputError: n < d or d < 1.
    """
    check_count("n", n, low=check_count("d", d))
    return float(np.prod(1 - np.arange(1, d + 1) / n))


def _standard_normal_nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def kde_cross_entropy(rule: str, bandwidth: float, generations: int) -> np.ndarray:
    """Cross-entropy, nats, of N(0, 1) and what kernel estimates of bandwidth h reach with n -> infinity.

    Replace: N(0, 1 + g h^2). Accumulate: a Gaussian mixture over the number of kernels a point has passed
    through, 1 + a sum of independent Bernoulli(1/j), j = 2..g (the records of a random sequence), of mean
    H_g: the pool widens without bound, but only like h^2 log g.

    Raises:
        InputError: another rule, a bandwidth outside (0, 1e150] or generations < 1.
    """
    if rule not in ("replace", "accumulate"):
        raise InputError("The limiting density is known for replace and accumulate.")
    # Above it the variances 1 + g h^2 of the mixture leave the range of float64.
    bandwidth = check_real("bandwidth", bandwidth, low=0.0, high=1e150, open_low=True)
    check_count("generations", generations)
    nodes, weights = _standard_normal_nodes(80)
    counts = np.zeros(generations + 1)
    counts[1] = 1.0
    out = np.empty(generations)
    for g in range(1, generations + 1):
        if g > 1:
            jump = 1.0 if rule == "replace" else 1 / g
            counts = counts * (1 - jump) + np.append(0.0, counts[:-1]) * jump
        variance = 1 + np.arange(generations + 1) * bandwidth**2
        density = (counts * np.exp(-(nodes[:, None] ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)).sum(1)
        out[g - 1] = -(weights * np.log(density)).sum()
    return out


def check_law(probabilities: np.ndarray) -> np.ndarray:
    """Returns a distribution as float64, shape (K,).

    Raises:
        InputError: not one.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or p.size < 1 or not np.all(np.isfinite(p)) or p.min() < 0 or abs(p.sum() - 1) > 1e-9:
        raise InputError("Outcome probabilities must be a vector of nonnegative numbers that sum to 1.")
    return p


def fixation_time_diffusion(probabilities: np.ndarray, n: int) -> float:
    """Mean generations until replace leaves one outcome, large n: -2 n sum_i (1 - p_i) log(1 - p_i).

    From Kingman's coalescent: j lines of descent last 2n/(j(j-1)) generations on average and are of one kind
    with probability sum_i p_i^j. For two outcomes it is the classical -2n (x log x + (1-x) log(1-x)); for
    many rare ones it tends to 2 n.
    """
    p = check_law(probabilities)
    _check("replace", n, 1)
    return float(-2 * n * xlogy(1 - p, 1 - p).sum())


def genealogy(n: int) -> np.ndarray:
    """Transition matrix of the number of ancestors one generation back under replace with n samples.

    Returns:
        float64, shape (n+1, n+1): entry (j, i) is the probability that j points drawn uniformly, with
        replacement, from n have i distinct values: the recursion of the occupancy problem, all terms
        nonnegative.

    Raises:
        InputError: n below 1 or above MAX_EXACT_SAMPLES.
    """
    if check_count("n", n) > MAX_EXACT_SAMPLES:
        raise InputError(f"The exact genealogy covers 1 <= n <= {MAX_EXACT_SAMPLES}: use the diffusion formula.")
    occupied = np.arange(n + 1)
    matrix = np.zeros((n + 1, n + 1))
    matrix[0, 0] = 1.0
    for j in range(1, n + 1):
        matrix[j] = matrix[j - 1] * occupied / n
        matrix[j, 1:] += matrix[j - 1, :-1] * (n - occupied[:-1]) / n
    return matrix


def fixation_time(probabilities: np.ndarray, n: int) -> float:
    """Exact mean generation at which all n samples of replace show one outcome (1: the real samples).

    E T = 1 + sum_j u_j (1 - sum_i p_i^j), u_j the mean number of generations with j ancestors among the n
    first samples.
    """
    p = check_law(probabilities)
    chain = genealogy(n)
    visits = np.zeros(n + 1)
    visits[n] = 1.0
    for j in range(n, 1, -1):
        visits[j] /= 1 - chain[j, j]
        visits[1:j] += visits[j] * chain[j, 1:j]
    lines = np.arange(2, n + 1)
    alike = (p[None, :] ** lines[:, None]).sum(1) if p.size * n <= 10**7 else _uniform_alike(p, lines)
    return float(1 + (visits[2:] * (1 - alike)).sum())


def _uniform_alike(p: np.ndarray, lines: np.ndarray) -> np.ndarray:
    values, counts = np.unique(p, return_counts=True)
    return (counts * values[None, :] ** lines[:, None]).sum(1)


def support_curve(probabilities: np.ndarray, n: int, generations: int) -> np.ndarray:
    """Exact expected number of outcomes still present in each generation of replace, float64, shape (generations,)."""
    p = check_law(probabilities)
    _check("replace", n, generations)
    chain = genealogy(n)
    law = np.zeros(n + 1)
    law[n] = 1.0
    values, counts = np.unique(p, return_counts=True)
    present = (counts * (1 - (1 - values[None, :]) ** np.arange(n + 1)[:, None])).sum(1)
    out = np.empty(generations)
    for g in range(generations):
        out[g] = law @ present
        law = law @ chain
    return out
