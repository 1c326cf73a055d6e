"""One draw of X and its noise replicates taken through all generations: the literal process, step by step.

Shapes: T samples, d features, B noise replicates, n generations. Labels are (T, B), fits (d, B): replicates
share X, so that a fit and a prediction are matrix products. Every function here runs in float64 under jit.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sim.noise import normals


class Model(NamedTuple):
    """The parameters of a setting as arrays.

    Attributes:
        root: (d, d), lower Cholesky factor of Sigma.
        w_star: (d,).
        sigma: ().
    """

    root: jax.Array
    w_star: jax.Array
    sigma: jax.Array


class Record(NamedTuple):
    """What one edit leaves behind, per replicate.

    Attributes:
        share: (B,), rows relabelled, over T.
        change: (B,), ||y_{n+1} - y_n||^2 / T over the rows relabelled.
        labels: (T, B), y_{n+1}, or shape (0,) unless the labels are asked for.
        noise: (T, B), E_{n+1} with zeros where nothing is drawn, or shape (0,).
    """

    share: jax.Array
    change: jax.Array
    labels: jax.Array
    noise: jax.Array


class Path(NamedTuple):
    """All generations of one draw of X.

    Attributes:
        error: (n, B), ||w_n - w*||_Sigma^2.
        edits: `Record` with a leading axis n - 1.
        first_labels: (T, B), y_1.
        fits: (n, d, B).
    """

    error: jax.Array
    edits: Record
    first_labels: jax.Array
    fits: jax.Array


class Noise(NamedTuple):
    """Where the label noise of a set of repeats comes from.

    Attributes:
        first: (T, B), E_1 / sigma.
        keys: (n - 1, B), of E_2 .. E_n.
    """

    first: jax.Array
    keys: jax.Array


@partial(jax.jit, static_argnames=("generations", "T"))
def draw_noise(key: jax.Array, designs: jax.Array, replicates: jax.Array, *, generations: int, T: int) -> Noise:
    """One key per (design, generation, replicate), so that no number depends on how many are drawn at once.

    Kept apart from the process because threefry is slow to compile: once here for all rules.

    Args:
        key: of the simulation.
        designs: int (D,).
        replicates: int (B,).
        generations: n.
        T: samples.

    Returns:
        `Noise` with a leading axis D.
    """
    fold = jax.random.fold_in
    by_design = jax.vmap(fold, (None, 0))(key, designs)
    by_generation = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(by_design, jnp.arange(generations))
    keys = jax.vmap(jax.vmap(jax.vmap(fold, (None, 0)), (0, None)), (0, None))(by_generation, replicates)
    first = jax.vmap(jax.vmap(lambda key: normals(key, T), out_axes=1))(keys[:, 0])
    return Noise(first, keys[:, 1:])


def _noise(model: Model, keys: jax.Array, size: int) -> jax.Array:
    """E for B keys, float64 (size, B)."""
    return model.sigma * jax.vmap(lambda key: normals(key, size), out_axes=1)(keys)


def _error(model: Model, w: jax.Array) -> jax.Array:
    """||w - w*||_Sigma^2 per replicate, (B,): eq. 4 of the paper, exact, without test samples."""
    return jnp.sum((model.root.T @ (w - model.w_star[:, None])) ** 2, axis=0)


def _real(model: Model, X: jax.Array, noise: Noise) -> jax.Array:
    """The real labels y_1 = X w* + E_1, (T, B)."""
    return (X @ model.w_star)[:, None] + model.sigma * noise.first


def _record(old: jax.Array, new: jax.Array, share: jax.Array, noise: jax.Array | None, keep: bool) -> Record:
    change = jnp.sum((new - old) ** 2, axis=0) / old.shape[0]
    nothing = jnp.zeros(0)
    return Record(share, change, new if keep else nothing, noise if keep and noise is not None else nothing)


def relabel(
    model: Model, noise: Noise, X: jax.Array, P: jax.Array, *,
    rows: jax.Array, tau: jax.Array, kind: str, keep: bool,
) -> Path:  # fmt: skip
    """Rules that relabel rows of one data set: y_{n+1} = M_n (X w_n + E_{n+1}) + (I - M_n) y_n (eq. 3).

    Args:
        model: the setting.
        noise: the label noise.
        X: (T, d).
        P: (d, T), the map of a fit, w = P y.
        rows: int (n - 1, m), edited rows padded with T; used by "rows".
        tau: (), used by "high" and "low"; of "ranked" the number of rows.
        kind: "replace" (M = I), "rows" (M from `rows`), "high" (|r_t| <= tau sigma), "low" (|r_t| >= tau sigma) or
            "ranked" (the tau rows of smallest |r_t|).
        keep: whether labels and noise are returned.
    """
    first = _real(model, X, noise)
    T = X.shape[0]
    full = jnp.ones(noise.keys.shape[1])

    def edit(y: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple]:
        own, chosen = step
        w = P @ y
        if kind == "rows":
            drawn = _noise(model, own, chosen.shape[0])
            fresh = X.at[chosen].get(mode="clip") @ w + drawn
            old = y.at[chosen].get(mode="clip")
            inside = (chosen < T)[:, None]
            new = y.at[chosen].set(fresh, mode="drop")
            spread = jnp.zeros_like(y).at[chosen].set(drawn, mode="drop") if keep else None
            change = jnp.sum(jnp.where(inside, fresh - old, 0.0) ** 2, axis=0) / T
            record = _record(y, new, full * jnp.sum(inside) / T, spread, keep)._replace(change=change)
        else:
            drawn = _noise(model, own, T)
            fresh = X @ w
            if kind == "replace":
                new, share = fresh + drawn, full
            else:
                size = jnp.abs(y - fresh)
                match kind:
                    case "high":
                        edited = size <= tau * model.sigma
                    case "low":
                        edited = size >= tau * model.sigma
                    case _:
                        edited = size <= jnp.sort(size, axis=0)[tau.astype(int) - 1]
                new, share = jnp.where(edited, fresh + drawn, y), jnp.mean(edited, axis=0, dtype=jnp.float64)
            record = _record(y, new, share, drawn, keep)
        return new, (_error(model, w), w if keep else jnp.zeros(0), record)

    last, (errors, fits, records) = jax.lax.scan(edit, first, (noise.keys, rows))
    w = P @ last
    error = jnp.concatenate([errors, _error(model, w)[None]])
    fits = jnp.concatenate([fits, w[None]]) if keep else fits
    return Path(error, records, first, fits)


def accumulate_same(model: Model, noise: Noise, X: jax.Array, P: jax.Array) -> jax.Array:
    """Errors (n, B) when every generation labels the same X and the fit sees all pairs.

    Least squares on stacked copies of X is the fit to the mean of their labels.

    Args:
        model: the setting.
        noise: the label noise.
        X: (T, d).
        P: (d, T).
    """
    first = _real(model, X, noise)

    def grow(carry: tuple, step: tuple) -> tuple[tuple, jax.Array]:
        total, w = carry
        generation, own = step
        total = total + X @ w + _noise(model, own, X.shape[0])
        w = P @ (total / (generation + 1))
        return (total, w), _error(model, w)

    w = P @ first
    _, errors = jax.lax.scan(grow, (first, w), (jnp.arange(1, noise.keys.shape[0] + 1), noise.keys))
    return jnp.concatenate([_error(model, w)[None], errors])


def accumulate_fresh(
    model: Model,
    noise: Noise,
    X: jax.Array,
    *,
    updates: jax.Array,
    solves: jax.Array,
) -> jax.Array:
    """Errors (n, B) when every generation brings its own X and the fit sees all pairs.

    Args:
        model: the setting.
        noise: the label noise.
        X: (n, T, d).
        updates: (n, d, d + T), see `sim.design.growing_maps`.
        solves: (n, d, d), see there.
    """
    d = X.shape[2]

    def grow(carry: tuple, step: tuple) -> tuple[tuple, jax.Array]:
        c, w = carry
        own, block, update, solve = step
        y = block @ w + _noise(model, own, block.shape[0])
        c = update[:, :d] @ c + update[:, d:] @ y
        w = solve @ c
        return (c, w), _error(model, w)

    c = updates[0][:, d:] @ _real(model, X[0], noise)
    w = solves[0] @ c
    _, errors = jax.lax.scan(grow, (c, w), (noise.keys, X[1:], updates[1:], solves[1:]))
    return jnp.concatenate([_error(model, w)[None], errors])


def accumulate_subsample(model: Model, noise: Noise, X: jax.Array, P: jax.Array, *, picks: jax.Array) -> jax.Array:
    """Errors (n, B) when every generation adds T pairs to a pool and a fit sees T pairs drawn from it.

    Args:
        model: the setting.
        noise: the label noise.
        X: (n, T, d), or (1, T, d) where all generations share it.
        P: (n, d, T), the maps of the fits to the pairs picked; P[0] is that of all real pairs.
        picks: int (n - 1, T), pairs that fits 2..n see (`sim.rules.subsamples`).
    """
    first = _real(model, X[0], noise)
    pool = jnp.zeros((P.shape[0], *first.shape)).at[0].set(first)

    def grow(carry: tuple, step: tuple) -> tuple[tuple, jax.Array]:
        pool, w = carry
        generation, own, pick, fit = step
        block = X[generation % X.shape[0]]
        pool = pool.at[generation].set(block @ w + _noise(model, own, first.shape[0]))
        w = fit @ pool.reshape(-1, first.shape[1])[pick]
        return (pool, w), _error(model, w)

    w = P[0] @ first
    _, errors = jax.lax.scan(grow, (pool, w), (jnp.arange(1, P.shape[0]), noise.keys, picks, P[1:]))
    return jnp.concatenate([_error(model, w)[None], errors])
