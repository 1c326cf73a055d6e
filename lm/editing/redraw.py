"""What a redraw gives, as probabilities instead of a draw: the exact twin of `lm.editing.decide`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.editing.config import EditConfig, Numbers, Rule

Array = jax.Array


class Chances(NamedTuple):
    """Chances of a redraw at each of N positions, float32.

    Attributes:
        same: that it gives the original token (theory's q).
        again: that it gives a token that would be selected in the same context.
        level: no probability but the mean log P of the token that it gives, nats.
    """

    same: Any
    again: Any
    level: Any


@functools.partial(jax.jit, static_argnames="rule")
def chances(logits_NxV: Array, token_N: Array, drawable_V: Array, numbers: Numbers, *, rule: Rule) -> Chances:
    """Return what redraws give, summed over all candidates.

    Args:
        logits_NxV: of the prior given the text before each position, float32.
        token_N: original ids, int32.
        drawable_V: False for ids that are never drawn.
        numbers: of the configuration.
        rule: of the configuration, static.
    """
    total = jax.nn.logsumexp(logits_NxV, axis=1, keepdims=True)
    original = jnp.arange(logits_NxV.shape[1]) == token_N[:, None]
    logits = jnp.where(drawable_V if rule.keep_original else drawable_V & ~original, logits_NxV, -jnp.inf)
    if rule.candidates == "top-k":
        logits, ids = jax.lax.top_k(logits, min(rule.top_k, logits.shape[1]))
        original = ids == token_N[:, None]
        if rule.keep_original:  # one more where it is not among the likeliest
            own = jnp.take_along_axis(logits_NxV, token_N[:, None], axis=1)
            missing = ~jnp.any(original, axis=1, keepdims=True)
            logits = jnp.concatenate([logits, jnp.where(missing, own, -jnp.inf)], axis=1)
            original = jnp.concatenate([original, missing], axis=1)
    elif rule.candidates == "top-p":
        kept = _nucleus(logits / numbers.temperature, numbers.top_p)
        logits = jnp.where(kept | (original & rule.keep_original), logits, -jnp.inf)
    weight = jax.nn.softmax(logits / numbers.temperature, axis=1)
    level = jnp.minimum(logits - total, 0.0)  # log P
    selected = selects(jnp.exp(level), numbers, rule)
    return Chances(
        jnp.sum(jnp.where(original, weight, 0.0), axis=1),
        jnp.sum(jnp.where(selected, weight, 0.0), axis=1),
        jnp.sum(jnp.where(weight > 0, weight * level, 0.0), axis=1),
    )


def selects(share: Any, numbers: Numbers, rule: Rule) -> Any:
    """Return at which probabilities a token is selected, bool, shape as `share` (JAX or NumPy)."""
    match rule.select:
        case "at-least":
            return share >= numbers.threshold
        case "above":
            return share > numbers.threshold
        case "at-most":
            return share <= numbers.threshold
        case "band":
            return (share >= numbers.threshold) & (share <= numbers.upper)


def _nucleus(logits_NxV: Array, top_p: Array) -> Array:
    """Return which tokens have strictly likelier ones of less than a share top_p, bool, (N, V)."""
    order = jnp.argsort(-logits_NxV, axis=1)
    weight = jnp.take_along_axis(jax.nn.softmax(logits_NxV, axis=1), order, axis=1)
    before = jnp.cumsum(weight, axis=1) - weight
    # Of equal weights the first one's place counts for all.
    new = jnp.concatenate([jnp.ones_like(weight[:, :1], bool), weight[:, 1:] != weight[:, :-1]], axis=1)
    before = jax.lax.cummax(jnp.where(new, before, 0.0), axis=1)
    return jnp.take_along_axis(before < top_p, jnp.argsort(order, axis=1), axis=1)


def least_same(config: EditConfig, vocabulary: int) -> float | None:
    """Return a lower bound of the chance that a redraw gives the original back, over all priors (this work).

    Let p >= 1/2 be the threshold, so that no token is likelier than a selected one, and n the other candidates, of
    probability 1 - p together at most. The original comes back with chance p^a / (p^a + sum_c P(c)^a), a = 1 / t.
    It grows with p, and the sum is largest where the rest is spread evenly over all n for t >= 1 (concave), or lies
    on one candidate for t < 1 (convex).

    Args:
        config: of the edit.
        vocabulary: V.

    Returns:
        None where a selected token need not be the likeliest one, or is no candidate.
    """
    if config.select == "at-most" or config.threshold < 0.5 or not config.keep_original:
        return None
    others = min(config.top_k, vocabulary) - 1 if config.candidates == "top-k" else vocabulary - 1
    power, rest = 1 / config.temperature_drawn, 1 - config.threshold
    if not others or not rest:
        return 1.0
    spread = others * (rest / others) ** power if power <= 1 else rest**power
    return config.threshold**power / (config.threshold**power + spread)
