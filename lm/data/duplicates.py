"""Exact and near duplicates among documents.

Exact duplicates have the same text but for capitals and white space. Near duplicates have sets of word 5-grams whose
Jaccard similarity (the size of the intersection over that of the union) is at least 0.8.

The pairs to compare are found by MinHash (Broder 1997) and locality-sensitive hashing: under a random permutation of
all 5-grams, two sets have the same minimum with a probability of exactly their similarity. Pairs are compared whose
minima under 128 permutations agree in at least one of 25 bands of 5, and whose share of equal minima is not more than 4
standard errors below 0.8. A pair of similarity 0.8 is missed with probability (1 - 0.8^5)^25 + 3e-5 < 1e-4.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from datasketch import MinHash, MinHashLSH

from lm.data.splits import digest

WORDS = 5  # in a shingle
PERMUTATIONS = 128
THRESHOLD = 0.8
LIKELY = THRESHOLD - 4 * (THRESHOLD * (1 - THRESHOLD) / PERMUTATIONS) ** 0.5  # share of equal minima
BANDS, ROWS = 25, 5
_BLOCK = 4096  # shingles hashed at once: 2 MB of minima, which stay in the processor's cache

_WORD = re.compile(r"\w+")
_SCHEME = "affine32"
_EMPTY = MinHash(PERMUTATIONS, seed=1, scheme=_SCHEME)
_PERMUTATIONS = np.asarray(_EMPTY.permutations)  # uint32 (2, 128): multipliers and offsets
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, WORDS + 1)], np.uint64)


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found among documents.

    Attributes:
        documents: in all.
        exact: removed because an earlier document has the same text.
        near: removed because an earlier document has nearly the same text.
    """

    documents: int
    exact: int
    near: int


def shingles(text: str) -> np.ndarray:
    """Return the hashes of the text's word 5-grams, with repetitions; one hash of all words if there are fewer.

    Returns:
        uint32 (number of 5-grams,); empty if the text has no word.
    """
    words = np.fromiter((zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())), np.uint64)
    width = min(WORDS, len(words))
    if not width:
        return np.empty(0, np.uint32)
    number = len(words) - width + 1
    mixed = np.zeros(number, np.uint64)
    for place in range(width):
        mixed += words[place : place + number] * _FACTORS[place]
    mixed ^= mixed >> np.uint64(29)
    return ((mixed * _FACTORS[0]) >> np.uint64(32)).astype(np.uint32)


def signature(text: str) -> np.ndarray:
    """Return the MinHash of the text's word 5-grams.

    Returns:
        uint32 (128,): the minimum of each permutation.
    """
    multiplier, offset = _PERMUTATIONS
    least = _EMPTY.hashvalues.copy()
    hashes = shingles(text)
    for start in range(0, len(hashes), _BLOCK):
        permuted = hashes[start : start + _BLOCK, None] * multiplier + offset  # modulo 2^32
        np.minimum(least, permuted.min(axis=0), out=least)
    return least


def distinct(documents: Callable[[], Iterable[tuple[str, str]]]) -> tuple[set[str], Report]:
    """Return the ids of the documents to keep, and what was found.

    In the order of the ids, a document is kept if it is no duplicate of one that is kept; so no two that are kept are
    duplicates of each other, and the order of the documents does not matter. In memory are 600 bytes of each document
    and the 5-grams of those that resemble another one.

    Args:
        documents: returns id and text of all documents, the same each of the two times it is called; ids are unique.
    """
    first: dict[bytes, str] = {}  # id of the first document of each text
    minima: dict[str, np.ndarray] = {}
    for identity, text in documents():
        minima[identity] = signature(text)
        key = digest(text)
        first[key] = min(first.get(key, identity), identity)
    total = len(minima)
    ids = sorted(first.values())
    signatures = np.array([minima.pop(identity) for identity in ids], np.uint32).reshape(-1, PERMUTATIONS)
    minima.clear()
    resembling = {ids[number] for number in np.flatnonzero(_resembles_another(signatures))}
    sets = {identity: np.unique(shingles(text)) for identity, text in documents() if identity in resembling}
    index = MinHashLSH(THRESHOLD, PERMUTATIONS, params=(BANDS, ROWS))
    near: set[str] = set()
    for number, identity in enumerate(ids):
        if identity not in resembling:
            continue
        sketch = MinHash(hashvalues=signatures[number], permutations=_PERMUTATIONS, scheme=_SCHEME)
        candidates = np.sort(np.array(index.query(sketch), np.int64))
        shares = np.mean(signatures[candidates] == signatures[number], axis=1)
        likely = candidates[np.argsort(-shares, kind="stable")][: np.sum(shares >= LIKELY)]
        if any(jaccard(sets[ids[candidate]], sets[identity]) >= THRESHOLD for candidate in likely):
            near.add(identity)
        else:
            index.insert(number, sketch, check_duplication=False)
    return set(ids) - near, Report(total, total - len(ids), len(near))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets, given as sorted arrays of their members; 0 if both are empty."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / max(len(first) + len(second) - common, 1)


def _resembles_another(signatures: np.ndarray) -> np.ndarray:
    """Return which documents agree with another one in a band; most do not, and need not be compared.

    Args:
        signatures: uint32 (documents, 128).

    Returns:
        bool (documents,).
    """
    agrees = np.zeros(len(signatures), bool)
    for start in range(0, BANDS * ROWS, ROWS):
        band = signatures[:, start : start + ROWS].astype(np.uint64)
        _, place, count = np.unique(band @ _FACTORS[:ROWS], return_inverse=True, return_counts=True)
        agrees |= count[place] > 1
    return agrees
