"""The instances on which identities are checked, and helpers to check one on all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from paper.claims.entry import Comparison, exact
from paper.claims.exact_process import Trajectory, describe, designs, selections, trajectory

SEED = 2412_14689


@dataclass(frozen=True)
class Instance:
    """One X with one sequence of edits, its trajectory, and whether no row is edited twice (eq. 16)."""

    selection: tuple[tuple[int, ...], ...]
    disjoint: bool
    path: Trajectory

    @property
    def text(self) -> str:
        """The instance in one line."""
        return describe(self.path.design, self.selection)


@cache
def instances() -> tuple[Instance, ...]:
    """Return all two-edit sequences at T = 3, d = 1, and sampled ones at T = 4, 5 with up to four edits."""
    generator = np.random.default_rng(SEED)
    small, middle, large, deep = designs(SEED, [(3, 1), (4, 2), (5, 2), (4, 1)])
    chosen = [(small, selection) for selection in selections(3, 2)]
    for given, generations, count in ((large, 3, 4), (deep, 4, 4), (middle, 2, 6)):
        T = given.shape[0]
        for _ in range(count):
            drawn = generator.integers(0, 2, size=(generations, T))
            chosen.append((given, tuple(tuple(int(entry) for entry in row) for row in drawn)))
    # Disjoint blocks over more than two edits: each row belongs to one generation or to none.
    for given, generations, count in ((large, 3, 4), (deep, 4, 4), (middle, 2, 8)):
        T = given.shape[0]
        for _ in range(count):
            owner = generator.integers(0, generations + 1, size=T)
            chosen.append((given, tuple(tuple(int(entry) for entry in owner == i) for i in range(generations))))
    return tuple(
        Instance(
            selection, all(sum(column) <= 1 for column in zip(*selection, strict=True)), trajectory(given, selection)
        )
        for given, selection in chosen
    )


def identity_check(
    name: str,
    holds: Callable[[Trajectory], bool],
    *,
    among: Callable[[Instance], bool] = lambda instance: True,
) -> Comparison:
    """Evaluate an identity on all instances (or those of a kind) and keep the first violation."""
    chosen = [instance for instance in instances() if among(instance)]
    violated = [instance for instance in chosen if not holds(instance.path)]
    return exact(name, len(chosen), len(violated), violated[0].text if violated else "")


def disjoint(instance: Instance) -> bool:
    """Whether the instance satisfies eq. 16."""
    return instance.disjoint


def overlapping(instance: Instance) -> bool:
    """Whether the instance violates eq. 16."""
    return not instance.disjoint
