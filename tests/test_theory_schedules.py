"""Schedules and the checks of user input: one clear sentence for every bad argument."""

import numpy as np
import pytest

from theory.errors import InputError
from theory.schedules import (
    check_counts,
    check_disjoint,
    check_shape,
    consecutive_blocks,
    constant_counts,
    geometric_counts,
)


def test_geometric_counts_round_halves_up():
    assert geometric_counts(10, 0.25, 0.5, 4) == (3, 1, 1)  # 2.5, 1.25, 0.625
    assert geometric_counts(200, 0.5, 0.9, 5) == (100, 90, 81, 73)  # 72.9
    assert geometric_counts(200, 0.5, 0.9, 1) == ()
    assert constant_counts(10, 0.25, 3) == (3, 3)


def test_consecutive_blocks_partition():
    blocks = consecutive_blocks((2, 0, 3), 6)
    assert [block.tolist() for block in blocks] == [[0, 1], [], [2, 3, 4]]
    assert check_counts(tuple(np.array([0, 6])), 6) == (0, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: geometric_counts(10, 0.5, 1.0, 3),
        lambda: geometric_counts(10, 0.5, 0.0, 3),
        lambda: geometric_counts(10, 0.5, float("nan"), 3),
        lambda: geometric_counts(10, float("nan"), 0.5, 3),
        lambda: geometric_counts(10, 1.5, 0.5, 3),
        lambda: geometric_counts(10, 0.5, 0.5, 0),
        lambda: check_shape(11, 10),
        lambda: check_shape(5, 0),
        lambda: check_shape(5.0, 1),  # pyright: ignore[reportArgumentType]
        lambda: check_counts((3, 12), 11),
        lambda: check_counts((True,), 11),
        lambda: check_disjoint(([0, 1], [1]), 5),
        lambda: check_disjoint(([0.5],), 5),  # pyright: ignore[reportArgumentType]
        lambda: consecutive_blocks((4, 4), 7),
    ],
)
def test_bad_input_is_one_sentence(call):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
