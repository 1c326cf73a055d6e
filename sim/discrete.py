"""Discrete distributions fitted to their own samples (Kazdan et al. 2025), and sampling from pools of past data."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sim.errors import InputError

RULES = ("replace", "accumulate", "accumulate-subsample")
OUTCOMES = (10, 100, 1_000, 10_000, 100_000)
_BITS = (4, 7, 10, 14, 17)  # enough for each of OUTCOMES: 52 bits, one 64-bit word for all five


def below(key: jax.Array, shape: tuple[int, ...], bound: jax.Array | int) -> jax.Array:
    """Uniform integers in [0, bound), int64; bound <= 2^32, relative bias below bound/2^32."""
    bits = jax.random.bits(key, shape, dtype=jnp.uint32).astype(jnp.uint64)
    return ((bits * jnp.asarray(bound, dtype=jnp.uint64)) >> 32).astype(jnp.int64)


def draw_subset(key: jax.Array, seeds: int, count: int, pool: jax.Array, capacity: int) -> jax.Array:
    """Uniform subsets of `count` of the first `pool` <= capacity places, by Floyd's algorithm.

    Returns:
        int64, (seeds, count): one subset for each seed.
    """
    rows = jnp.arange(seeds)

    def pick(i, state):
        taken, chosen = state
        last = pool - count + i
        place = below(jax.random.fold_in(key, i), (seeds,), last + 1)
        place = jnp.where(taken[rows, place], last, place)
        return taken.at[rows, place].set(True), chosen.at[:, i].set(place)

    taken = jnp.zeros((seeds, capacity), dtype=bool)
    chosen = jnp.zeros((seeds, count), dtype=jnp.int64)
    return jax.lax.fori_loop(0, count, pick, (taken, chosen))[1]


@dataclass(frozen=True)
class DiscreteRun:
    """Measures of the fitted law, shape (generations, seeds); entry 0 is the fit to real samples.

    Attributes:
        heterozygosity: 1 - sum_i p_i^2, float64.
        entropy: nats, float64.
        support: outcomes of positive probability, int64.
    """

    heterozygosity: np.ndarray
    entropy: np.ndarray
    support: np.ndarray


@partial(jax.jit, static_argnames=("rule", "outcomes", "n", "generations", "seeds"))
def _run(key, rule, outcomes, n, generations, seeds):
    capacity = n if rule == "replace" else n * generations
    rows = jnp.arange(seeds)[:, None]

    def step(carry, generation):
        pool, counts = carry
        step_key = jax.random.fold_in(key, generation)
        size = n if rule == "replace" else n * generation
        fitted = counts
        if rule == "accumulate-subsample":
            chosen = draw_subset(jax.random.fold_in(step_key, 1), seeds, n, size, capacity)
            members = jnp.take_along_axis(pool, chosen, axis=1)
            fitted = jnp.zeros((seeds, outcomes)).at[rows, members].add(1.0)
            new = jnp.take_along_axis(members, below(step_key, (seeds, n), n), axis=1)
        else:
            new = jnp.take_along_axis(pool, below(step_key, (seeds, n), size), axis=1)
        p = fitted / fitted.sum(-1, keepdims=True)
        measures = (
            1 - (p**2).sum(-1),
            -jax.scipy.special.xlogy(p, p).sum(-1),
            (p > 0).sum(-1),
        )
        place = 0 if rule == "replace" else jnp.minimum(size, capacity - n)
        keep = generation == generations  # the last generation's samples are not needed and would not fit
        pool = jnp.where(keep, pool, jax.lax.dynamic_update_slice(pool, new, (0, place)))
        added = jnp.zeros((seeds, outcomes)).at[rows, new].add(1.0)
        return (pool, added if rule == "replace" else counts + added), measures

    first = below(jax.random.fold_in(key, 0), (seeds, n), outcomes)
    pool = jnp.zeros((seeds, capacity), dtype=jnp.int64).at[:, :n].set(first)
    counts = jnp.zeros((seeds, outcomes)).at[rows, first].add(1.0)
    return jax.lax.scan(step, (pool, counts), jnp.arange(1, generations + 1))[1]


def run_discrete(rule: str, outcomes: int, n: int, generations: int, seeds: int = 100, seed: int = 0) -> DiscreteRun:
    """Fits the empirical law of n samples to its own samples, from the uniform law on `outcomes`.

    Args:
        rule: "replace" draws n samples from the last samples' empirical law; "accumulate" from that of all
            samples so far; "accumulate-subsample" from n of them chosen without replacement.
        outcomes: K >= 1.
        n: samples a generation, at least 1.
        generations: number of fits, at least 1.
        seeds: replicates.
        seed: of the random numbers.

    Raises:
        InputError: unknown rule or sizes out of range.
    """
    if rule not in RULES:
        raise InputError(f"Unknown rule {rule!r}: use replace, accumulate or accumulate-subsample.")
    if min(outcomes, n, generations, seeds) < 1 or n * generations >= 2**31:
        raise InputError("Discrete toy: outcomes, samples, generations and seeds must be at least 1 (and below 2^31).")
    with jax.enable_x64(True):
        measures = _run(jax.random.key(seed, impl="rbg"), rule, outcomes, n, generations, seeds)
        return DiscreteRun(*(np.asarray(measure) for measure in measures))


@dataclass(frozen=True)
class FixationRun:
    """Generation at which replace is left with one outcome (entropy 0), for K in OUTCOMES, shape (5, seeds).

    Attributes:
        time: float64; where `capped`, the cap plus the expected remainder -2 n sum_i (1-p_i) log(1-p_i) given
            the samples reached.
        capped: bool; the run was stopped at the cap and its time is extrapolated.
        cap: generations simulated at most.
    """

    time: np.ndarray
    capped: np.ndarray
    cap: int


@partial(jax.jit, static_argnames=("steps",))
def _advance(key, state, time, start, steps):
    seeds, n = state.shape
    masks = jnp.asarray(_MASKS)

    def step(i, carry):
        state, time = carry
        parent = below(jax.random.fold_in(key, start + i), (seeds, n), n)
        state = jnp.take_along_axis(state, parent, axis=1)
        return state, _fixed_at(state, time, start + i + 1, masks)

    return jax.lax.fori_loop(0, steps, step, (state, time))


def _fixed_at(state, time, generation, masks):
    """Notes the generation for every field (number of outcomes) in which all individuals now agree."""
    either = jax.lax.reduce(state, np.int64(0), jax.lax.bitwise_or, (1,))
    both = jax.lax.reduce(state, np.int64(-1), jax.lax.bitwise_and, (1,))
    same = ((either ^ both)[None] & masks[:, None]) == 0
    return jnp.where((time == 0) & same, generation, time)


_SHIFTS = np.cumsum((0, *_BITS[:-1]))
_MASKS = np.array([((1 << b) - 1) << int(s) for b, s in zip(_BITS, _SHIFTS, strict=True)], dtype=np.int64)


def run_fixation(n: int, cap: int = 10_000, seeds: int = 20, seed: int = 0) -> FixationRun:
    """Replace with n samples until one outcome is left, for all numbers of outcomes in one run.

    Each of the n first samples carries one uniform outcome for each K, packed into one 64-bit word; what is
    resampled is the individual, so that for each K the process is the literal one (runs for different K share
    their genealogies).

    Args:
        n: samples a generation, at least 2.
        cap: generations after which a run is stopped and its time extrapolated.
        seeds: replicates.
        seed: of the random numbers.

    Raises:
        InputError: sizes out of range.
    """
    if n < 2 or cap < 1 or seeds < 1:
        raise InputError("Fixation runs need n >= 2, cap >= 1 and seeds >= 1.")
    with jax.enable_x64(True):
        key = jax.random.key(seed, impl="rbg")
        state = jnp.zeros((seeds, n), dtype=jnp.int64)
        for i, (outcomes, shift) in enumerate(zip(OUTCOMES, _SHIFTS, strict=True)):
            drawn = below(jax.random.fold_in(key, 2**31 + i), (seeds, n), outcomes)
            state = state | (drawn << int(shift))
        time = _fixed_at(state, jnp.zeros((len(OUTCOMES), seeds), dtype=jnp.int64), 1, jnp.asarray(_MASKS))
        done, block = 1, max(1, min(cap - 1, n // 2, 500))
        while done < cap and np.asarray(time).min() == 0:
            steps = min(block, cap - done)
            state, time = _advance(key, state, time, done, steps)
            done += steps
        time = np.array(time, dtype=np.float64)
        words = np.asarray(state)
    capped = time == 0
    for field, shift in enumerate(_SHIFTS):
        for replicate in np.flatnonzero(capped[field]):
            outcome = (words[replicate] & _MASKS[field]) >> int(shift)
            p = np.unique(outcome, return_counts=True)[1] / n
            time[field, replicate] = done - 2 * n * float(((1 - p) * np.log1p(-p)).sum())
    return FixationRun(time, capped, cap)
