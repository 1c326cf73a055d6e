"""The value that every engine returns."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Expected test error by generation, in units of v = sigma^2 d/(T-d-1), the error of one honest fit.

    Attributes:
        error: float64, shape (n,); entry 0 is generation 1, the honest fit.
        standard_error: float64, shape (n,); zero where the value is exact.
    """

    error: np.ndarray
    standard_error: np.ndarray
