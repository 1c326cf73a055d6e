"""The kernel for TPUs, interpreted on a CPU, is the attention that computes there, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.attention import causal_attention
from lm.model.splash import block_of, splash_attention


@pytest.mark.parametrize(("length", "heads", "groups", "documents"), [(200, 4, 2, 3), (256, 2, 1, 1)])
def test_values_and_gradients_are_those_of_the_cpu(length, heads, groups, documents, rng):
    q, k, v = (jnp.asarray(rng.standard_normal((2, length, n, 32)), jnp.float32) for n in (heads, groups, groups))
    segment = None
    if documents > 1:
        segment = jnp.asarray(np.sort(rng.integers(0, documents, (2, length)), axis=1), jnp.int32)
    weights = rng.standard_normal(q.shape).astype(np.float32)

    def outputs(attention, **more):
        def summed(q, k, v):
            mixed = attention(q, k, v, segment, **more)
            return jnp.sum(mixed * weights), mixed

        (_, mixed), slopes = jax.value_and_grad(summed, (0, 1, 2), has_aux=True)(q, k, v)
        return mixed, *slopes

    for found, wanted in zip(outputs(splash_attention, interpret=True), outputs(causal_attention), strict=True):
        # Sums of at most 256 products of float32 numbers.
        tolerance = 256 * float(np.finfo(np.float32).eps) * np.abs(wanted).max()
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=tolerance)


def test_blocks_are_as_large_as_the_rows_allow():
    assert [block_of(length) for length in (1, 128, 200, 384, 1024, 4000)] == [128, 128, 256, 128, 512, 512]
