"""Fixtures that all tests share."""

import numpy as np
import pytest

from lm.startup import widen_vectors

widen_vectors()  # before JAX reads it: some tests compare their own process with the commands', bit for bit


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of random test inputs, the same for every test."""
    return np.random.default_rng(20241216)
