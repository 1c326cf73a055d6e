"""Gaussian-kernel density estimates fitted to their own samples (Kazdan et al. 2025), in one dimension."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sim.discrete import below
from sim.errors import InputError


@dataclass(frozen=True)
class KdeRun:
    """Measures of the estimate, float64, shape (generations, seeds); the real law is N(0, 1).

    Attributes:
        variance: of the estimated density: the data's biased variance plus the squared bandwidth.
        cross_entropy: -E_{x ~ N(0, 1)} log density(x), nats, by Gauss-Hermite quadrature.
    """

    variance: np.ndarray
    cross_entropy: np.ndarray


@partial(jax.jit, static_argnames=("accumulate", "n", "generations", "seeds"))
def _run(key, bandwidth, nodes, weights, accumulate, n, generations, seeds):
    capacity = n * generations if accumulate else n

    def sums(points):
        kernel = jnp.exp(-0.5 * ((nodes - points[..., None]) / bandwidth) ** 2).sum(1)
        return points.sum(1), (points**2).sum(1), kernel / (bandwidth * jnp.sqrt(2 * jnp.pi))

    def step(carry, generation):
        pool, totals = carry
        size = n * generation if accumulate else n
        first, second, kernel = (total / size for total in totals)
        measures = (
            second - first**2 + bandwidth**2,
            -(weights * jnp.log(jnp.maximum(kernel, 1e-300))).sum(-1),
        )
        centre, noise = jax.random.split(jax.random.fold_in(key, generation))
        new = jnp.take_along_axis(pool, below(centre, (seeds, n), size), axis=1)
        new = new + bandwidth * jax.random.normal(noise, (seeds, n))
        if accumulate:
            pool = jax.lax.cond(
                generation == generations,
                lambda: pool,
                lambda: jax.lax.dynamic_update_slice(pool, new, (0, jnp.minimum(size, capacity - n))),
            )
            totals = tuple(old + more for old, more in zip(totals, sums(new), strict=True))
        else:
            pool, totals = new, sums(new)
        return (pool, totals), measures

    first = jax.random.normal(jax.random.fold_in(key, 0), (seeds, n))
    pool = jnp.zeros((seeds, capacity)).at[:, :n].set(first)
    return jax.lax.scan(step, (pool, sums(first)), jnp.arange(1, generations + 1))[1]


def run_kde(
    rule: str, bandwidth: float, n: int = 100, generations: int = 100, seeds: int = 100, seed: int = 0
) -> KdeRun:
    """Estimates a density from the last estimate's n points or from all points so far.

    Args:
        rule: "replace" or "accumulate".
        bandwidth: h > 0, the standard deviation of the Gaussian kernel.
        n: new points a generation, at least 1.
        generations: number of estimates.
        seeds: replicates.
        seed: of the random numbers.

    Raises:
        InputError: unknown rule or sizes out of range.
    """
    if rule not in ("replace", "accumulate"):
        raise InputError(f"Unknown rule {rule!r}: use replace or accumulate.")
    if min(n, generations, seeds) < 1 or not (np.isfinite(bandwidth) and bandwidth > 0):
        raise InputError("KDE runs need n, generations, seeds >= 1 and a positive bandwidth.")
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    with jax.enable_x64(True):
        measures = _run(
            jax.random.key(seed), bandwidth, jnp.asarray(nodes), jnp.asarray(weights / weights.sum()),
            rule == "accumulate", n, generations, seeds,
        )  # fmt: skip
        return KdeRun(*(np.asarray(measure) for measure in measures))
