"""Documents that have the id of an earlier one."""

import hashlib

MOST_HELD = 1 << 20  # ids, about 100 MB


class RepeatedIds:
    """Counts documents with the id of an earlier one; of very many a part by hash, so that memory is bounded.

    Attributes:
        count: found so far.
    """

    def __init__(self) -> None:
        self.count, self._seen, self._mask = 0, set[int](), 0

    @property
    def is_all(self) -> bool:
        """Whether every id is looked at; else there may be more than `count`."""
        return not self._mask

    def add(self, identity: str) -> None:
        """Look at the id of a document."""
        place = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
        if place & self._mask:
            return
        self.count += place in self._seen
        self._seen.add(place)
        if len(self._seen) > MOST_HELD:
            self._mask = 2 * self._mask + 1
            self._seen = {place for place in self._seen if not place & self._mask}
