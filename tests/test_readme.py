"""The README's numbers are those that the code gives."""

from math import e

import pytest

from paper.results import ROOT
from theory.closed_forms import disjoint_continuum
from theory.confidence import limit_threshold
from theory.disjoint import disjoint_exact
from theory.engines import random_edits
from theory.schedules import geometric_counts
from theory.state_evolution import state_evolution

README = " ".join((ROOT / "README.md").read_text().split())


def test_ten_disjoint_blocks():
    assert f"T = 200, d = 10, end at {float(disjoint_exact(200, 10, (20,) * 10)[-1]):.2f} (an exact rational" in README


def test_falling_random_edits():
    error = random_edits(200, 10, geometric_counts(200, 0.5, 0.9, 16), draws=50).error[-1]
    assert f"reach {error:.2f} after 15 edits" in README


def test_best_constant():
    assert "equal ones below 2e - 1" in README
    assert disjoint_continuum(1) == pytest.approx(2 * e - 1, rel=1e-14)


def test_share_at_the_constant_two_as_features_grow_cheap():
    assert ".67 as T/d grows" in README
    below, above = (
        state_evolution(limit_threshold(share), 40, samples=4000, solutions=3, seed=0) for share in (0.66, 0.68)
    )
    assert below.error[-1] + 4 * below.standard_error[-1] < 2 < above.error[-1] - 4 * above.standard_error[-1]
