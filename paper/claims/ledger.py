"""All claims in one place that need no result file; others are in `experiments` and `editing`, beside it."""

from collections.abc import Sequence
from difflib import get_close_matches

from paper.claims import (
    appendix_a1,
    appendix_a2,
    method,
    ours_bounds,
    ours_exact,
    ours_regression,
    ours_tokens,
    section4,
)
from paper.claims.entry import Claim
from paper.errors import InputError

CLAIMS: tuple[Claim, ...] = (
    *method.CLAIMS[:2],
    *section4.CLAIMS,
    *appendix_a1.CLAIMS,
    *appendix_a2.CLAIMS,
    *method.CLAIMS[2:],
    *ours_exact.CLAIMS,
    *ours_regression.CLAIMS,
    *ours_bounds.CLAIMS,
    *ours_tokens.CLAIMS,
)
"""Every claim: the paper's in the order of its sections, then this work's."""


def select(claims: Sequence[Claim], only: Sequence[str] = (), owner: str | None = None) -> tuple[Claim, ...]:
    """Return the claims whose id is in `only` (all when empty) and whose owner is `owner` (any when None).

    Raises:
        InputError: an id that no claim has, or a selection that is empty.
    """
    known = {claim.id for claim in claims}
    unknown = sorted(set(only) - known)
    if unknown:
        near = get_close_matches(unknown[0], known) or ["theorem-1", "eq-26", "fit-test-theorem"]
        raise InputError(f"no claim is called {unknown[0]!r}; try {', '.join(near)} or run without --only to see all")
    chosen = tuple(
        claim for claim in claims if (not only or claim.id in only) and (owner is None or claim.owner == owner)
    )
    if not chosen:
        raise InputError("no claim is left by these options; drop --only or --owner")
    return chosen
