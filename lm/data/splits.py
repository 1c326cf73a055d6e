"""Training, validation and test splits by the SHA-256 of the works' names: 80 %, 5 % and 15 % of the works.

All documents of a work are in one split, so that no test document shares its author's names and phrases with training
text, and standard errors can be clustered by work.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

TEST_SHARE, VALIDATION_SHARE = 0.15, 0.05  # of the works
FEW = 2000  # works: with more, the shares of a threshold are exact to 0.8 % (one standard error)


def _digest(work: str) -> bytes:
    return hashlib.sha256(work.encode()).digest()


def digest(text: str) -> bytes:
    """Return the SHA-256 of the text in lower case with single spaces."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()


def split_of(work: str) -> Split:
    """Return the split of a work by thresholds on its name's hash, whatever other works there are."""
    place = int.from_bytes(_digest(work)[:8], "big") / 2**64
    return "test" if place < TEST_SHARE else "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def assign(works: Iterable[str]) -> dict[str, Split]:
    """Assign the works of a source to splits.

    Many works: by `split_of`. Few: by the rank of the hash, because a source of a few dozen novels would else have a
    test split of anything between no and ten novels; at least one work is in each split where there are three.

    Args:
        works: names, any order.
    """
    names = set(works)
    if len(names) > FEW:
        return {work: split_of(work) for work in names}
    test = max(1, round(TEST_SHARE * len(names)))
    validation = test + max(1, round(VALIDATION_SHARE * len(names)))
    ordered = sorted(names, key=_digest)

    def assigned(rank: int) -> Split:
        return "test" if rank < test else "validation" if rank < validation else "train"

    return {work: assigned(rank) for rank, work in enumerate(ordered)}
