"""Files cut into chunks: the unit that is edited, kept, and not done again after a kill."""

import dataclasses
import hashlib
from collections.abc import Iterator

from lm.data.readers import Input, Reading
from lm.editing.inputs import Task
from lm.editing.records import Aside, Item, records

STRETCHES = 1 << 16  # in a chunk, whatever their sizes


@dataclasses.dataclass
class Chunk:
    """Stretches of a file, one after the other. The borders depend on the file's content only.

    Attributes:
        task: the file.
        number: of the chunk in it, from 0.
        stretches: in order; of a file without any, one chunk has none.
        last: whether it ends the file.
        size: bytes of the file (as it is on disk) that were read for it.
    """

    task: Task
    number: int
    stretches: list[Item | Aside]
    last: bool = False
    size: int = 0

    @property
    def items(self) -> list[Item]:
        """The stretches that are in the output: all that were not set aside."""
        return [one for one in self.stretches if isinstance(one, Item)]

    @property
    def documents(self) -> list[Item]:
        """The items with a text."""
        return [one for one in self.items if one.text is not None]

    @property
    def asides(self) -> list[Aside]:
        """What was set aside."""
        return [one for one in self.stretches if isinstance(one, Aside)]

    @property
    def sha256(self) -> str:
        """Hash of the stretches' places and bytes, hexadecimal."""
        state = hashlib.sha256()
        for one in self.stretches:
            state.update(b"%d %d\n" % (one.number, len(one.raw)))
            state.update(one.raw)
        return state.hexdigest()


def chunks(task: Task, reading: Reading, most: int) -> Iterator[Chunk]:
    """Return an iterator over a file's chunks; raises what `lm.editing.records.records` raises.

    Args:
        task: the file or source.
        reading: how; the domain is the task's.
        most: bytes of a chunk, about; a longer record is a chunk of its own.
    """
    read = held = told = 0  # bytes: of the file so far, up to the stretches of the chunk, up to the chunk before

    def advance(size: int) -> None:
        nonlocal read
        read += size

    reading = dataclasses.replace(reading, domain=task.domain)
    chunk, size = Chunk(task, 0, []), 0
    for one in records(Input(task.name, task.size), reading, advance):
        number = len(chunk.stretches)
        if size >= most or number >= STRETCHES or (number and size + len(one.raw) > 2 * most):
            chunk.size, told = held - told, held
            yield chunk
            chunk, size = Chunk(task, chunk.number + 1, []), 0
        chunk.stretches.append(one)
        size, held = size + len(one.raw), read
    chunk.last, chunk.size = True, max(read, task.size) - told
    yield chunk
