"""Fixtures that all tests share."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of random test inputs, the same for every test."""
    return np.random.default_rng(20241216)
