"""How long an edit will take, from its first tokens."""

import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

from lm.editing.chunks import chunks
from lm.editing.documents import DocumentEncoder, TokenizedDocument
from lm.editing.inputs import Task
from lm.editing.prior import Prior, decisions
from lm.editing.settings import Settings

TOKENS = 4096  # that are timed
READ = 8 << 20  # bytes of the file that are read, to see how far it is compressed
ENCODED = 1 << 18  # bytes of these that are tokenized, at least


class Estimate(NamedTuple):
    """What an edit will take.

    Attributes:
        tokens: of all inputs; None where the size of one is not known.
        speed: tokens per second on this machine.
        seconds: for all of them; None where the tokens are not known.
    """

    tokens: int | None
    speed: float
    seconds: float | None


def estimate(tasks: Sequence[Task], prior: Prior, settings: Settings) -> Estimate | None:
    """Edit some tokens of the first file that has any, twice, and time the second time; nothing is written.

    Args:
        tasks: to edit.
        prior: that edits.
        settings: of the edit.

    Returns:
        None where there is no token.

    Raises:
        InputError: an input that cannot be read.
    """
    encoder = DocumentEncoder(prior.tokenizer)
    for task in tasks:
        chunk = next(chunks(task, settings.reading, READ))
        items, size = [], 0
        for item in chunk.documents:
            items.append(item)
            size += len(item.raw)
            if size >= ENCODED:
                break
        documents = encoder([item.text or b"" for item in items], [item.key for item in items])
        found = sum(len(document.tokens) for document in documents)
        if not found:
            continue
        timed = _first(documents)
        decisions(prior, timed, settings.edit)  # compiles
        started = time.perf_counter()
        decisions(prior, timed, settings.edit)
        speed = sum(len(document.tokens) for document in timed) / (time.perf_counter() - started)
        if not all(one.size for one in tasks) or not chunk.size:
            return Estimate(None, speed, None)
        content = sum(len(one.raw) for one in chunk.stretches) / chunk.size * sum(one.size for one in tasks)
        tokens = round(found / size * content)
        return Estimate(tokens, speed, tokens / speed)
    return None


def _first(documents: Sequence[TokenizedDocument]) -> list[TokenizedDocument]:
    """Return documents of at most TOKENS tokens together, the last one cut off."""
    chosen, left = [], TOKENS
    for one in documents:
        if left <= 0:
            break
        chosen.append(
            dataclasses.replace(one, tokens=one.tokens[:left], spans=one.spans[:left], editable=one.editable[:left])
        )
        left -= len(one.tokens)
    return chosen
