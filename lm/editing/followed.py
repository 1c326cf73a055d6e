"""Documents of a run that are followed through its generations, for what no single edit can tell: decay and drift."""

import heapq
from collections.abc import Sequence

from lm.data.readers import Input
from lm.editing.excerpt import order_of
from lm.editing.inputs import Task
from lm.editing.records import Item, records
from lm.editing.settings import Settings

MOST = 1 << 20  # bytes of text: some minutes a generation with SmolLM2 on a CPU
LONGEST = MOST // 4  # bytes of one document: else a single one might be all
FEWEST = 20  # documents, if there are so many: an error over documents needs some


def followed(tasks: Sequence[Task], settings: Settings) -> list[tuple[str, str, bytes]]:
    """Return documents to be edited again and again by `lm.editing.generations.iterate`.

    They are those with the smallest hashes of their keys, whatever the order of the files: the sample of the
    statistics, or FEWEST documents if these are more, as far as MOST bytes go. Longer ones than LONGEST are left out.

    Args:
        tasks: files of the source, each read once.
        settings: of the edit; `sample` is the share.

    Returns:
        Key, domain and text of each, in the order of the hashes.

    Raises:
        InputError: an input cannot be read.
    """
    share = settings.sample * 2.0**64
    kept: list[tuple[int, str, str, bytes]] = []  # a heap, the largest hash first
    size, limit = 0, 1 << 64
    for task in tasks:
        for one in records(Input(task.name, task.size), settings.reading):
            if not isinstance(one, Item) or not one.text or len(one.text) > LONGEST:
                continue
            order = order_of(one.key)
            if order >= limit:
                continue
            heapq.heappush(kept, (-order, one.key, task.domain, one.text))
            size += len(one.text)
            while size > MOST or (len(kept) > FEWEST and -kept[0][0] >= share):
                # Nothing behind it may come in again, or the order of the files would matter.
                limit = -kept[0][0]
                size -= len(heapq.heappop(kept)[3])
    return [(key, domain, text) for _, key, domain, text in sorted(kept, reverse=True)]
