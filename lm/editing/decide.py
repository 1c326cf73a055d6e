"""Algorithm 1 for single positions: from the prior's logits to decisions, one pure function.

The context of every position is the original text: decisions do not depend on one another.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.editing.config import Numbers, Rule
from lm.editing.redraw import selects
from lm.generation.sampling import pick, uniforms

Array = jax.Array

SORTED = 128  # ids of a block of `likeliest`
# Number of an edit's draws, "edit" in ASCII. Text that a model wrote is edited under the ids and perhaps the seed of
# its generation, whose draws are numbered from 0: with these numbers each token would be drawn again as it is.
DRAW = 0x65646974


class Decisions(NamedTuple):
    """What happens at each of M positions.

    Attributes:
        probability: P of the original token, float32; NaN where a bound ruled the position out and P is not known.
        selected: whether the token is redrawn, bool.
        deleted: whether it is deleted, bool.
        token: the token after: the draw where selected, else the original, int32.
        new_probability: P of the draw, float32; NaN where none was drawn.
        entropy: of the prior's distribution, nats, float32; NaN where it is not known.
    """

    probability: Any
    selected: Any
    deleted: Any
    token: Any
    new_probability: Any
    entropy: Any

    def changed(self, original: np.ndarray) -> np.ndarray:
        """Return which tokens end up different: deleted, or redrawn to another token; bool, shape (M,)."""
        return np.asarray(self.deleted) | (np.asarray(self.token) != original)


@functools.partial(jax.jit, static_argnames="rule")
def decide(
    logits_NxV: Array,
    token_N: Array,
    editable_N: Array,
    drawable_V: Array,
    words_Nx2: Array,
    position_N: Array,
    numbers: Numbers,
    *,
    rule: Rule,
) -> Decisions:
    """Apply Algorithm 1 (section 4.1 of the paper) to N positions.

    Args:
        logits_NxV: of the prior given the original text before each position, float32.
        token_N: original ids, int32.
        editable_N: False where a token must stay whatever its probability.
        drawable_V: False for ids that are never drawn.
        words_Nx2: of `lm.generation.sampling.document_words`, of each position's document.
        position_N: of the token in its document, int32; with the seed and the document it keys the draw.
        numbers: of the configuration.
        rule: of the configuration, static.
    """
    log_total = jax.nn.logsumexp(logits_NxV, axis=1)
    chosen = jnp.take_along_axis(logits_NxV, token_N[:, None], axis=1)[:, 0]
    # Rounding may put the logit of a certain token above the sum's.
    probability = jnp.minimum(jnp.exp(chosen - log_total), 1.0)
    selected = selects(probability, numbers, rule) & editable_N
    deleted = (probability < numbers.delete_below) & editable_N & ~selected
    uniform = uniforms(numbers.seed, words_Nx2, position_N, DRAW)
    drawn = _draw(logits_NxV, token_N, drawable_V, uniform, numbers, rule)
    drawn_probability = jnp.exp(jnp.take_along_axis(logits_NxV, drawn[:, None], axis=1)[:, 0] - log_total)
    share = jnp.exp(logits_NxV - log_total[:, None])
    # A logit of -inf has no share of the entropy.
    entropy = log_total - jnp.sum(jnp.where(share > 0, share * logits_NxV, 0.0), axis=1)
    return Decisions(
        probability,
        selected,
        deleted,
        jnp.where(selected, drawn, token_N),
        jnp.where(selected, jnp.minimum(drawn_probability, 1.0), jnp.nan),
        entropy,
    )


def _draw(
    logits_NxV: Array, token_N: Array, drawable_V: Array, uniform_N: Array, numbers: Numbers, rule: Rule
) -> Array:
    """Draw one candidate for each position, int32, shape (N,)."""
    is_original = jnp.arange(logits_NxV.shape[1]) == token_N[:, None]
    drawable = drawable_V if rule.keep_original else drawable_V & ~is_original
    logits = jnp.where(drawable, logits_NxV, -jnp.inf)
    if rule.candidates == "top-k":
        return _draw_top(logits, logits_NxV, token_N, uniform_N, numbers, rule)
    top = jnp.max(logits, axis=1, keepdims=True)
    weight = jnp.exp((logits - top) / numbers.temperature)
    if rule.candidates == "top-p":
        kept = weight >= _cut(weight, numbers.top_p)[:, None]
        kept = (kept | is_original) if rule.keep_original else kept
        weight = jnp.where(kept, weight, 0.0)
    return pick(weight, uniform_N)


def _draw_top(
    drawable_logits: Array, logits_NxV: Array, token_N: Array, uniform_N: Array, numbers: Numbers, rule: Rule
) -> Array:
    """Draw from the top_k likeliest, of equals the lower ids, and the original where it is always a candidate."""
    top, ids = likeliest(drawable_logits, min(rule.top_k, drawable_logits.shape[1]))
    if rule.keep_original:
        among = jnp.any(ids == token_N[:, None], axis=1, keepdims=True)
        original = jnp.take_along_axis(logits_NxV, token_N[:, None], axis=1)
        top = jnp.concatenate([top, jnp.where(among, -jnp.inf, original)], axis=1)
        ids = jnp.concatenate([ids, token_N[:, None].astype(ids.dtype)], axis=1)
    weight = jnp.exp((top - jnp.max(top, axis=1, keepdims=True)) / numbers.temperature)
    chosen = pick(weight, uniform_N)
    return jnp.take_along_axis(ids, chosen[:, None], axis=1)[:, 0].astype(jnp.int32)


def likeliest(logits_NxV: Array, number: int) -> tuple[Array, Array]:
    """Return what `jax.lax.top_k` does: the largest values, of equals the lower ids, and these; shapes (N, number).

    They all lie in the `number` blocks with the largest maxima (of equals the lower blocks), so that only these are
    sorted: on a CPU a sort of the vocabulary would cost more than the logits.
    """
    N, V = logits_NxV.shape
    if number * SORTED > V:
        return jax.lax.top_k(logits_NxV, number)
    blocks = jnp.pad(logits_NxV, ((0, 0), (0, -V % SORTED)), constant_values=-jnp.inf).reshape(N, -1, SORTED)
    chosen = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=2), number)[1], axis=1)
    inside = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1).reshape(N, -1)
    top, place = jax.lax.top_k(inside, number)
    return top, jnp.take_along_axis(chosen, place // SORTED, axis=1) * SORTED + place % SORTED


def _cut(weight_NxV: Array, share: Array) -> Array:
    """Return the least weight kept by top-p: those with strictly larger weights of less than `share` of the total.

    Bisection on the bit patterns of the weights, which for non-negative floats are in the order of the numbers:
    exact after 31 sums, where sorting a vocabulary costs more.
    """
    limit = share * jnp.sum(weight_NxV, axis=1)

    def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) // 2
        value = jax.lax.bitcast_convert_type(middle, jnp.float32)
        above = jnp.sum(jnp.where(weight_NxV > value[:, None], weight_NxV, 0.0), axis=1)
        enough = above < limit
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # The largest weight is 1 and nothing is above it: the answer lies at or below it.
    zeros = jnp.zeros(len(weight_NxV), jnp.int32)
    ones = jnp.full_like(zeros, np.float32(1.0).view(np.int32))
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halve, (zeros, ones))[1], jnp.float32)
