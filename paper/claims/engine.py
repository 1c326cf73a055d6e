"""Curves from the exact engines of `theory`, in units of v, run once for all the claims that read them."""

from functools import cache

from paper.claims.process import Mean
from theory.curve import Curve
from theory.engines import fixed_edits, random_edits
from theory.schedules import consecutive_blocks, geometric_counts

SEED = 4687


def means(curve: Curve) -> tuple[Mean, ...]:
    """Return a curve as means with standard errors."""
    return tuple(
        Mean(float(value), float(error)) for value, error in zip(curve.error, curve.standard_error, strict=True)
    )


@cache
def random(T: int, d: int, counts: tuple[int, ...], draws: int = 32) -> tuple[Mean, ...]:
    """Rows drawn afresh in every generation."""
    return means(random_edits(T, d, counts, draws=draws, seed=SEED))


@cache
def disjoint(T: int, d: int, counts: tuple[int, ...], draws: int = 32) -> tuple[Mean, ...]:
    """Blocks that no other edit touches."""
    return means(fixed_edits(T, d, consecutive_blocks(counts, T), draws=draws, seed=SEED))


@cache
def geometric(T: int, d: int, share: float, decay: float, generations: int) -> tuple[Mean, ...]:
    """Random rows, m_i = round(share T decay^(i-1))."""
    return random(T, d, geometric_counts(T, share, decay, generations))


def geometric_shares(T: int, d: int, share: float, decay: float, generations: int) -> tuple[float, ...]:
    """Return the shares a_i = m_i/T of `geometric`."""
    del d
    return tuple(m / T for m in geometric_counts(T, share, decay, generations))
