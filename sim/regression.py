"""The literal process of section 4.2, for every rule: mean error by generation with its standard error.

This is the independent witness against the closed forms and engines of theory: labels are drawn, replaced row
by row and refitted exactly as the paper writes it, y_{n+1} = M_n (X w_n + E_{n+1}) + (I - M_n) y_n and
w_n = X^+ y_n.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sim import process
from sim.design import Setting, draw, fit_map, growing_maps, minimum_norm_map
from sim.errors import InputError
from sim.rules import (
    Accumulate,
    AccumulateSubsample,
    ConfidenceEdits,
    DisjointEdits,
    FixedRealShare,
    RandomEdits,
    RankedEdits,
    Replace,
    RowEdits,
    Rule,
    edited_rows,
    subsamples,
    validate,
)

__all__ = [
    "Accumulate",
    "AccumulateSubsample",
    "ConfidenceEdits",
    "DisjointEdits",
    "FixedRealShare",
    "RandomEdits",
    "RankedEdits",
    "Replace",
    "Result",
    "RowEdits",
    "Rule",
    "Setting",
    "Trace",
    "simulate",
    "trace",
]

# Label matrices of about 4 MB each stay in cache; larger batches gain nothing (measured, benchmarks/).
CACHE_ENTRIES = 2**19


@dataclass(frozen=True, eq=False)
class Result:
    """Averages over `designs` draws of X, each with `noise_replicates` draws of all label noise.

    The draws of X are the clusters: replicates that share X are not independent, so every standard error is
    that of the mean of the per-draw means. It means nothing where the error has infinite variance (T < d + 4
    for ridgeless fits; use T >= d + 8).

    Attributes:
        error: float64 (n,), mean of E_test(w_n) = ||w_n - w*||_Sigma^2 (eq. 4), in units of y^2; [0] is
            generation 1, the honest fit.
        standard_error: float64 (n,), of `error`.
        edited_share: float64 (n - 1,), mean share of rows relabelled by edit 1 .. n - 1 (0 for the accumulate
            rules, which append and never relabel).
        edited_share_se: float64 (n - 1,).
        effective_noise: float64 (n - 1,), E ||y_{n+1} - y_n||^2 / T = E ||M_n (E_{n+1} - r_n)||^2 / T, the
            mean squared change that an edit makes to a label, in units of y^2 (0 for the accumulate rules).
        effective_noise_se: float64 (n - 1,).
        cluster_error: float64 (designs, n), mean error of each draw of X.
    """

    error: np.ndarray
    standard_error: np.ndarray
    edited_share: np.ndarray
    edited_share_se: np.ndarray
    effective_noise: np.ndarray
    effective_noise_se: np.ndarray
    cluster_error: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one repeat of a relabelling rule drew and computed, for checks sample by sample.

    Attributes:
        X: float64 (T, d).
        noise: float64 (n, T), E_1 .. E_n; zero where a rule drew nothing (rows it left alone).
        labels: float64 (n, T), y_1 .. y_n.
        fits: float64 (n, d), w_1 .. w_n.
        error: float64 (n,).
    """

    X: np.ndarray
    noise: np.ndarray
    labels: np.ndarray
    fits: np.ndarray
    error: np.ndarray


def simulate(
    setting: Setting,
    rule: Rule,
    *,
    generations: int,
    designs: int,
    noise_replicates: int,
    seed: int,
    memory_limit: int = 2**30,
) -> Result:
    """Runs the literal process `designs` * `noise_replicates` times.

    Replicates of one design share X and, for rules that fix rows or subsamples beforehand, those as well;
    label noise is their own. Every number comes from a key folded from (seed, design, replicate, generation),
    so the memory limit changes results only by the rounding of matrix products of another width.

    Args:
        setting: the linear model.
        rule: a dataclass of `sim.rules`.
        generations: number of fits n, at least 1.
        designs: draws of X, at least 2 (they give the standard error).
        noise_replicates: draws of the label noise for each X, at least 1.
        seed: of all draws, 0 .. 2^32 - 1.
        memory_limit: bytes that the arrays of one chunk may take.

    Returns:
        float64 averages, see `Result`.

    Raises:
        InputError: an argument is outside its range, or one repeat alone exceeds the memory limit.
    """
    integers = {"generations": generations, "designs": designs, "noise_replicates": noise_replicates}
    _validate(setting, rule, {**integers, "seed": seed, "memory_limit": memory_limit})
    sums = np.zeros((designs, 3 * generations - 2))
    chunk = _chunk(
        setting, rule, generations=generations, designs=designs, replicates=noise_replicates,
        memory_limit=memory_limit,
    )  # fmt: skip
    with jax.enable_x64(True):
        size = -(-designs // -(-designs // chunk[0]))
        for first in range(0, designs, size):
            # The last chunk is as long as the others, so that nothing compiles twice; its surplus is dropped.
            block = range(first, first + size)
            each = [_prepare(setting, rule, generations, seed, design) for design in block]
            data = tuple(np.stack(part) for part in zip(*each, strict=True))
            for low, high in _ranges(noise_replicates, chunk[1]):
                noise = process.draw_noise(
                    _key(seed), np.asarray(block), np.arange(low, high), generations=generations, T=setting.T
                )
                batch = _sums(_model(setting), noise, data, tau=_tau(rule), kind=_kind(rule))
                sums[first : first + size] += np.asarray(batch)[: designs - first]
    clusters = sums / noise_replicates
    mean = clusters.mean(axis=0)
    standard_error = clusters.std(axis=0, ddof=1) / np.sqrt(designs)
    n, m = generations, 2 * generations - 1
    return Result(
        error=mean[:n], standard_error=standard_error[:n],
        edited_share=mean[n:m], edited_share_se=standard_error[n:m],
        effective_noise=mean[m:], effective_noise_se=standard_error[m:],
        cluster_error=clusters[:, :n],
    )  # fmt: skip


def trace(setting: Setting, rule: Rule, *, generations: int, seed: int, design: int = 0, replicate: int = 0) -> Trace:
    """Reruns one repeat of `simulate` and returns what it drew and computed.

    Raises:
        InputError: as `simulate`, and for the accumulate rules, whose data sets grow.
    """
    numbers = {"generations": generations, "seed": seed, "design": design, "replicate": replicate}
    _validate(setting, rule, numbers)
    kind = _kind(rule)
    if kind not in ("replace", "rows", "high", "low", "ranked"):
        raise InputError(f"{rule!r} appends data: trace one of the rules that relabel rows")
    with jax.enable_x64(True):
        X, P, rows = _prepare(setting, rule, generations, seed, design)
        noise = process.draw_noise(
            _key(seed), np.asarray([design]), np.asarray([replicate]), generations=generations, T=setting.T
        )
        own = jax.tree.map(lambda part: part[0], noise)
        path = _traced(_model(setting), own, X, P, rows=rows, tau=_tau(rule), kind=kind)
        first_noise = setting.sigma * np.asarray(own.first)
        path = jax.tree.map(np.asarray, path)
    return Trace(
        X=X,
        noise=np.concatenate([first_noise.T, path.edits.noise[:, :, 0]]),
        labels=np.concatenate([path.first_labels[None, :, 0], path.edits.labels[:, :, 0]]),
        fits=path.fits[:, :, 0],
        error=path.error[:, 0],
    )


_traced = jax.jit(partial(process.relabel, keep=True), static_argnames=("kind",))


def _kind(rule: Rule) -> str:
    match rule:
        case Replace():
            return "replace"
        case ConfidenceEdits(_, side):
            return side
        case RankedEdits():
            return "ranked"
        case Accumulate(fresh_x):
            return "accumulate-fresh" if fresh_x else "accumulate"
        case AccumulateSubsample():
            return "subsample"
        case _:
            return "rows"


def _model(setting: Setting) -> process.Model:
    return process.Model(
        jnp.asarray(setting.root()),
        jnp.asarray(setting.parameter()),
        jnp.asarray(float(setting.sigma)),
    )


def _tau(rule: Rule) -> jax.Array:
    match rule:
        case ConfidenceEdits(tau):
            return jnp.asarray(float(tau))
        case RankedEdits(count):
            return jnp.asarray(float(count))
        case _:
            return jnp.asarray(0.0)


def _key(seed: int) -> jax.Array:
    return jax.random.key(seed, impl="threefry2x32")


def _prepare(setting: Setting, rule: Rule, generations: int, seed: int, design: int) -> tuple[np.ndarray, ...]:
    """What one draw of X fixes before any label is drawn: the data arguments of the rule's process."""
    edits = generations - 1
    fresh = isinstance(rule, Accumulate | AccumulateSubsample) and rule.fresh_x
    X = draw(setting, generations if fresh else 1, seed, design)
    if isinstance(rule, AccumulateSubsample):
        picks = subsamples(setting.T, edits, seed, design)
        pool = X.reshape(-1, setting.d)
        seen = [pool[pick if fresh else pick % setting.T] for pick in picks]
        P = [fit_map(X[0], setting.ridge), *(minimum_norm_map(block, setting.ridge) for block in seen)]
        return X, np.stack(P), picks
    if fresh:
        return X, *growing_maps(X, setting.ridge)
    rows = edited_rows(rule, setting.T, edits, seed, design)
    unused = np.zeros((edits, 1), dtype=np.int32)
    return X[0], fit_map(X[0], setting.ridge), unused if rows is None else rows


@partial(jax.jit, static_argnames="kind")
def _sums(model: process.Model, noise: process.Noise, data: tuple, *, tau: jax.Array, kind: str) -> jax.Array:
    """Sums over replicates of error, edited share and label change, float64 (designs, 3n - 2)."""

    def one(noise: process.Noise, data: tuple) -> jax.Array:
        unchanged = jnp.zeros((2 * noise.keys.shape[0], 1))
        match kind:
            case "accumulate":
                error = process.accumulate_same(model, noise, data[0], data[1])
            case "accumulate-fresh":
                error = process.accumulate_fresh(model, noise, data[0], updates=data[1], solves=data[2])
            case "subsample":
                error = process.accumulate_subsample(model, noise, data[0], data[1], picks=data[2])
            case _:
                path = process.relabel(model, noise, data[0], data[1], rows=data[2], tau=tau, kind=kind, keep=False)
                error, unchanged = path.error, jnp.concatenate([path.edits.share, path.edits.change])
        return jnp.concatenate([error.sum(axis=1), unchanged.sum(axis=1)])

    return jax.vmap(one)(noise, data)


def _chunk(
    setting: Setting, rule: Rule, *, generations: int, designs: int, replicates: int, memory_limit: int
) -> tuple[int, int]:
    """How many draws of X and how many replicates of each one call takes.

    Raises:
        InputError: one replicate of one draw does not fit.
    """
    design, replicate = _bytes(setting, rule, generations)
    if design + replicate > memory_limit:
        raise InputError(f"one repeat needs {design + replicate} bytes: raise the memory limit of {memory_limit} bytes")
    width = max(1, CACHE_ENTRIES // setting.T)
    at_once = min(replicates, width, (memory_limit - design) // replicate)
    per_design = design + at_once * replicate
    return min(designs, max(1, width // at_once), memory_limit // per_design), at_once


def _bytes(setting: Setting, rule: Rule, generations: int) -> tuple[int, int]:
    """Upper estimates of the bytes taken per draw of X and per replicate, temporaries included."""
    T, d, n = setting.T, setting.d, generations
    design = 8 * (4 * T * d + 4 * d * d + (n + 1) * (T + 1) + 4 * n)
    replicate = 8 * (7 * T + 6 * d + 4 * n + 100)
    if isinstance(rule, AccumulateSubsample):
        design += 8 * n * T * (2 * d + (2 * d if rule.fresh_x else 0))
        replicate += 8 * 2 * n * T
    elif isinstance(rule, Accumulate) and rule.fresh_x:
        design += 8 * 2 * n * d * (2 * T + 2 * d)
    return design, replicate


def _ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of nearly equal length, at most two lengths, hence at most two compilations."""
    parts = -(-total // size)
    edges = [total * part // parts for part in range(parts + 1)]
    return itertools.pairwise(edges)


def _validate(setting: Setting, rule: Rule, integers: dict[str, int]) -> None:
    least = {"designs": 2, "seed": 0, "design": 0, "replicate": 0}
    for name, value in integers.items():
        low = least.get(name, 1)
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low:
            raise InputError(f"{name} is {value!r}: give an integer of at least {low}")
    if integers["seed"] >= 2**32:
        raise InputError(f"seed is {integers['seed']}: give an integer below 2^32")
    validate(rule, setting.T, integers["generations"] - 1)
