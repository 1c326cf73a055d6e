"""Monte Carlo of residual-threshold editing in the fit-test form: no feature matrix is ever inverted.

For Gaussian features every rule that sees the data only through residuals has
E_test(w^_n)/v = E ||H u_n||^2 / (d sigma^2), H a uniformly random rank-d projection of R^T (fit-test theorem,
this work). H = U U' is drawn as a random orthonormal frame U, many noise replicates share one frame, and one
edit is two matrix products:

    delta = M (E - r),    U'u <- U'u + U' delta,    r <- r + delta - U (U' delta).

Variance reduction. Writing c_n = U'u_n, the increment of the error is
||c_{n+1}||^2 - ||c_n||^2 = 2 (H u_n)' M_n (E_{n+1} - r_n) + ||U' delta_n||^2, in which (H u_n)' M_n E_{n+1}
has conditional mean zero; ||c_1||^2 - d has mean zero too. Both are control variates with known mean.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from theory.errors import InputError
from theory.fittest import haar_frames
from theory.schedules import check_count, check_shape

Selection = Literal["high-confidence", "low-confidence"]

_FEWEST_RUNS = 20  # two control variates are fitted to the runs: of four runs they leave one degree of freedom
_CACHED = 1 << 17  # doubles an array of a block: half a dozen of them stay in a few MiB of cache


def check_selection(selection: Selection) -> None:
    """Require a rule that is known.

    Raises:
        InputError: if it is neither "high-confidence" nor "low-confidence".
    """
    if selection not in ("high-confidence", "low-confidence"):
        raise InputError(f"selection '{selection}' is unknown; choose high-confidence or low-confidence")


@dataclass(frozen=True)
class ResidualRun:
    """Error and edited share by generation of one residual-threshold rule.

    Attributes:
        error: float64 (n,), E ||H u||^2 / (d sigma^2), units of v; entry 0 is the honest fit, exactly 1.
        standard_error: float64 (n,), from the spread of frame means (clustered by H); 0 at entry 0.
        share: float64 (n-1,), mean edited share m_n/T at each edit.
        share_standard_error: float64 (n-1,), clustered by H.
        active: float64 (n-1,), share of replicates in which at least one row is edited at this edit.
        late_slope: float, mean error gained a generation over the last `late` generations.
        late_slope_standard_error: float, of that paired difference, clustered by H.
        late: int, generations that the slope spans.
    """

    error: np.ndarray
    standard_error: np.ndarray
    share: np.ndarray
    share_standard_error: np.ndarray
    active: np.ndarray
    late_slope: float
    late_slope_standard_error: float
    late: int


def _block(
    U: np.ndarray, threshold: float, high: bool, *, generations: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run `width` replicates on one frame; return errors, controls and edit counts, (generations, width)."""
    T, d = U.shape
    u = rng.standard_normal((T, width))
    c = U.T @ u
    g = U @ c
    r = u - g
    error = np.empty((generations, width))
    drift = np.zeros((generations, width))
    count = np.zeros((generations - 1, width))
    error[0] = np.einsum("kb,kb->b", c, c) / d
    alive = np.arange(width)
    for n in range(generations - 1):
        inside = np.abs(r) <= threshold
        mask = inside if high else ~inside
        m = np.count_nonzero(mask, axis=0)
        error[n + 1], drift[n + 1] = error[n], drift[n]
        if not m.all():  # no row edited now: this replicate never changes again
            keep = m > 0
            alive, m = alive[keep], m[keep]
            if not alive.size:
                error[n + 2 :], drift[n + 2 :] = error[n], drift[n]
                break
            r, g, c, mask = r[:, keep], g[:, keep], c[:, keep], mask[:, keep]
        count[n, alive] = m
        noise = np.zeros_like(r)
        noise[mask] = rng.standard_normal(int(m.sum()))
        drift[n + 1, alive] += np.einsum("tb,tb->b", g, noise) * (2 / d)
        noise -= r * mask
        p = U.T @ noise
        c = c + p
        step = U @ p
        g += step
        r += noise
        r -= step
        error[n + 1, alive] = np.einsum("kb,kb->b", c, c) / d
    return error, drift, count


def _adjust(error: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Regress the controls out of each generation's error; shapes (generations, replicates)."""
    first = error[0] - 1.0
    out = np.empty_like(error)
    out[0] = 1.0
    for n in range(1, error.shape[0]):
        controls = np.stack([first, drift[n]]) if drift[n].any() else first[None]
        centred = controls - controls.mean(axis=1, keepdims=True)
        beta = np.linalg.lstsq(centred.T, error[n] - error[n].mean(), rcond=None)[0]
        out[n] = error[n] - beta @ controls
    return out


def residual_rule(
    T: int,
    d: int,
    generations: int,
    threshold: float,
    *,
    selection: Selection = "high-confidence",
    frames: int = 16,
    replicates: int = 128,
    seed: int | np.random.SeedSequence = 0,
    late: int = 10,
) -> ResidualRun:
    """Error by generation when row t is edited iff |r_t| <= threshold (high) or > threshold (low confidence).

    Args:
        T: samples, T >= d + 2.
        d: features, d >= 1.
        generations: fits counted, n >= 2 (n - 1 edits).
        threshold: tau in units of sigma, tau > 0, on the raw residual r_t = y_t - x_t'w^_n.
        selection: "high-confidence" or "low-confidence".
        frames: independent draws of H, >= 2; the standard error is their spread.
        replicates: noise replicates on each frame, >= 2; frames x replicates >= 20.
        seed: seed of NumPy's default generator; frames have their own spawned streams.
        late: generations at the end over which the slope is taken, >= 1; all of them if there are fewer.

    Returns:
        ResidualRun. Coefficients of the two control variates are estimated from the same replicates, a bias
        of order 1/(frames x replicates), below the standard error by the root of that number.

    Raises:
        InputError: if an argument is outside its range.
    """
    check_shape(T, d)
    for name, value in (("generations", generations), ("frames", frames), ("replicates", replicates)):
        check_count(name, value, low=2)
    if not threshold > 0 or not np.isfinite(threshold):
        raise InputError(f"threshold = {threshold} must be a positive number (units of sigma)")
    check_selection(selection)
    check_count("late", late)
    if frames * replicates < _FEWEST_RUNS:
        raise InputError(
            f"{frames} frames x {replicates} replicates are too few runs for two fitted control variates; "
            f"use {_FEWEST_RUNS} or more"
        )
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    high = selection == "high-confidence"
    blocks, owner = [], []
    for index, child in enumerate(sequence.spawn(frames)):
        rng = np.random.default_rng(child)
        U = haar_frames(T, d, 1, rng)[0]
        most = max(16, min(128, _CACHED // T))
        for start in range(0, replicates, most):
            width = min(most, replicates - start)
            blocks.append(_block(U, threshold, high, generations=generations, width=width, rng=rng))
            owner.append(np.full(width, index))
    error, drift, count = (np.concatenate(part, axis=1) for part in zip(*blocks, strict=True))
    group = np.concatenate(owner)

    def clustered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means = np.stack([values[..., group == k].mean(axis=-1) for k in range(frames)])
        return means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(frames)

    adjusted = _adjust(error, drift)
    mean, se = clustered(adjusted)
    share, share_se = clustered(count / T)
    active = (count > 0).mean(axis=1)
    late = min(late, generations - 1)
    slope, slope_se = clustered((adjusted[-1] - adjusted[-1 - late]) / late)
    return ResidualRun(mean, se, share, share_se, active, float(slope), float(slope_se), late)
