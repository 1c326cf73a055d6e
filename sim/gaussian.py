"""Gaussians fitted to their own samples with the biased covariance (Kazdan et al. 2025, Shumailov et al. 2024)."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sim.discrete import RULES, draw_subset
from sim.errors import InputError


@dataclass(frozen=True)
class GaussianRun:
    """Measures of the fit, float64, shape (generations, seeds); the real law is N(0, I_d).

    Attributes:
        mean_error: ||fitted mean||^2.
        trace_ratio: tr of the fitted covariance over d.
        log_det: log det of the fitted covariance, nats.
    """

    mean_error: np.ndarray
    trace_ratio: np.ndarray
    log_det: np.ndarray


def _measures(mean, factor):
    d = mean.shape[-1]
    return (
        (mean**2).sum(-1),
        (factor**2).sum((-2, -1)) / d,
        2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1),
    )


@jax.jit
def _run(key, chi, n, accumulate):
    """Both rules in one program, `accumulate` a traced flag: compilation costs more than the run.

    With the last fit N(m, LL'), a batch's mean and covariance factor are m + L z/sqrt(n) and L A/sqrt(n), A
    the Bartlett factor of a Wishart matrix of n - 1 degrees of freedom (Cochran, Bartlett), so every new
    factor is L times a well-conditioned one.
    """
    generations, seeds, d = chi.shape

    def pool(z, bartlett, generation):
        old = generation / (generation + 1)
        scatter = bartlett @ jnp.swapaxes(bartlett, -1, -2) + old * z[:, :, None] * z[:, None]
        return (1 - old) * z, jnp.linalg.cholesky(old * jnp.eye(d) + (1 - old) * scatter)

    def step(carry, inputs):
        mean, factor = carry
        generation, chi_now = inputs
        first, second = jax.random.split(jax.random.fold_in(key, generation))
        z = jax.random.normal(first, (seeds, d)) / jnp.sqrt(n)
        lower = jnp.tril(jax.random.normal(second, (seeds, d, d)), -1)
        bartlett = (lower + jnp.eye(d) * chi_now[:, None]) / jnp.sqrt(n)
        move, growth = jax.lax.cond(accumulate, lambda: pool(z, bartlett, generation), lambda: (z, bartlett))
        carry = (mean + (factor @ move[..., None])[..., 0], factor @ growth)
        return carry, _measures(*carry)

    real = (jnp.zeros((seeds, d)), jnp.broadcast_to(jnp.eye(d), (seeds, d, d)))
    return jax.lax.scan(step, real, (jnp.arange(generations), chi))[1]


@partial(jax.jit, static_argnames=("d", "n", "generations", "seeds"))
def _run_subsample(key, d, n, generations, seeds):
    capacity = n * generations

    def step(pool, generation):
        step_key = jax.random.fold_in(key, generation)
        chosen = draw_subset(jax.random.fold_in(step_key, 1), seeds, n, n * generation, capacity)
        points = jnp.take_along_axis(pool, chosen[:, :, None], axis=1)
        mean = points.mean(1)
        centred = points - mean[:, None]
        factor = jnp.linalg.cholesky(jnp.swapaxes(centred, 1, 2) @ centred / n)
        new = mean[:, None] + jax.random.normal(step_key, (seeds, n, d)) @ jnp.swapaxes(factor, 1, 2)
        place = jnp.minimum(n * generation, capacity - n)
        pool = jax.lax.cond(
            generation == generations,
            lambda: pool,
            lambda: jax.lax.dynamic_update_slice(pool, new, (0, place, 0)),
        )
        return pool, _measures(mean, factor)

    first = jax.random.normal(jax.random.fold_in(key, 0), (seeds, n, d))
    pool = jnp.zeros((seeds, capacity, d)).at[:, :n].set(first)
    return jax.lax.scan(step, pool, jnp.arange(1, generations + 1))[1]


def run_gaussian(rule: str, d: int, n: int, generations: int = 100, seeds: int = 100, seed: int = 0) -> GaussianRun:
    """Fits mean and biased covariance to n points of the last fit, again and again, from N(0, I_d).

    Replace and accumulate draw each batch's mean and covariance from their exact joint law instead of the n
    points (they are sufficient for the fit); accumulate-subsample keeps every point, seeds * generations * n
    * d of them.

    Args:
        rule: "replace", "accumulate" (fits all batches) or "accumulate-subsample" (fits n of all points).
        d: dimension.
        n: points a generation, at least d + 1.
        generations: number of fits.
        seeds: replicates.
        seed: of the random numbers.

    Raises:
        InputError: unknown rule, sizes out of range, or a pool above 4e8 numbers.
    """
    if rule not in RULES:
        raise InputError(f"Unknown rule {rule!r}: use replace, accumulate or accumulate-subsample.")
    if min(d, generations, seeds) < 1 or n < d + 1:
        raise InputError(f"Gaussian fitting needs d, generations, seeds >= 1 and n >= d + 1, got d = {d}, n = {n}.")
    if rule == "accumulate-subsample" and seeds * generations * n * d > 4e8:
        raise InputError("The pool of all points would exceed 3.2 GB: lower d, n, seeds or generations.")
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        if rule == "accumulate-subsample":
            measures = _run_subsample(key, d, n, generations, seeds)
        else:
            # from NumPy: compiling a rejection sampler would take seconds for each shape
            freedom = n - 1 - np.arange(d)
            chi = np.sqrt(np.random.default_rng([seed, 1]).chisquare(freedom, (generations, seeds, d)))
            measures = _run(key, jnp.asarray(chi), float(n), rule == "accumulate")
        return GaussianRun(*(np.asarray(measure) for measure in measures))
