"""Positions that cannot reach a threshold, found with a small part of the head: an upper bound of P.

With logits l, the token x and any set S of other ids,

    P(x) = exp(l_x) / sum_j exp(l_j) <= 1 / (1 + s),    s = sum_{j in S} exp(l_j - l_x).

The bound is on exact numbers, the threshold is compared with a rounded P, and the bound is rounded itself. With the
unit roundoff u = 2^-24, a logit of D exact products summed in float32, in any order, is off by at most D u |h| |w_j|
(Cauchy and Schwarz), in the bound as in the full pass: each exp(l_j - l_x) of the one is at least exp(-4 D u |h|
max |w_j|) times that of the other. A matrix unit that cuts instead of rounding, which is off by up to 2 u of a partial
sum, stays within the same bound if it adds two products or more at a time. Sums of positive terms are off by at most
their number times u, relatively, and exponentials and logarithms here by less than 2^-14. A position is ruled out only
if it stays below the threshold with all of this against it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.model.config import Compute
from lm.model.matmul import matmul

Array = jax.Array

ROUNDOFF = 2.0**-24
ELEMENTARY = 2.0**-14  # relative, of exponentials and logarithms of numbers up to about 500


class Bound(NamedTuple):
    """What the bound needs of a head.

    Attributes:
        ids: of S, int32, (S,).
        head: their columns, (D, S).
        longest: largest Euclidean norm of a column of the whole head, float32, scalar.
    """

    ids: Array
    head: Array
    longest: Array


@jax.jit
def make_bound(head_DxV: Array, ids: Array) -> Bound:
    """Return the bound that looks at some ids.

    Args:
        head_DxV: in the type of the products.
        ids: S; many frequent ones make it tight, few make it fast.
    """
    longest = jnp.sqrt(jnp.max(jnp.sum(head_DxV.astype(jnp.float32) ** 2, axis=0)))
    return Bound(ids.astype(jnp.int32), jnp.take(head_DxV, ids, axis=1), longest)


def may_reach(
    bound: Bound, head_DxV: Array, states_NxD: Array, token_N: Array, threshold: Array, compute: Compute
) -> Array:
    """Return where P of the token may be at least the threshold, bool, (N,); true where a state is no number.

    Args:
        bound: of `make_bound` for the head.
        head_DxV: in the type of the products.
        states_NxD: normalised, float32.
        token_N: ids.
        threshold: of P, scalar.
        compute: type of the factors of the products.
    """
    D, V = head_DxV.shape
    rounded = states_NxD.astype(compute).astype(jnp.float32)
    own = jnp.sum(rounded * jnp.take(head_DxV, token_N, axis=1).T.astype(jnp.float32), axis=1)
    others = jnp.where(bound.ids == token_N[:, None], -jnp.inf, matmul(states_NxD, bound.head, compute))
    least = jnp.sum(jnp.exp(others - own[:, None]), axis=1)
    size = jnp.sqrt(jnp.sum(rounded**2, axis=1)) * bound.longest
    least = least * jnp.exp(-4 * D * ROUNDOFF * size) * (1 - (len(bound.ids) * ROUNDOFF + 2 * ELEMENTARY))
    highest = (1 + V * ROUNDOFF + 4 * ELEMENTARY) / (1 + least)
    return ~(highest < threshold)
