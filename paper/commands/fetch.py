"""`toedit fetch`: bring a source of human text into the cache."""

import dataclasses
from typing import Annotated

import tyro

from lm import sources


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Fetch a named source of human text: pinned, checked by its SHA-256, kept in the cache."""

    source: Annotated[str, tyro.conf.Positional]
    """Name of the source: sotu (presidential speeches) or novels."""

    def run(self) -> int:
        """Fetch the source and print what it holds; return the exit code.

        Raises:
            InputError: unknown source, no network, a download of other content, an unwritable cache.
        """
        source = sources.find(self.source)
        documents = sources.load(source.name)
        works = {document.work: document.split for document in documents}
        print(f"{source.name}: {source.description} ({source.licence}).")
        for split in ("train", "validation", "test"):
            chosen = [document for document in documents if document.split == split]
            size = sum(len(document.text.encode()) for document in chosen)
            count = sum(value == split for value in works.values())
            print(f"  {split:<10} {count:>4} works {len(chosen):>7} documents {size / 1e6:6.2f} MB")
        return 0
