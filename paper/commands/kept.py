"""What a training run keeps in its folder: tokens and a learned tokenizer, as long as their text stays the same."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper.commands.aside import Aside
from paper.commands.sources import named, records
from paper.errors import InputError

if TYPE_CHECKING:
    from lm.data.corpus import Corpus
    from lm.data.tokenizer import Tokenizer

Contents = list[dict[str, Any]]  # of a source: its files


def contents(name: str, noted: Contents | None = None) -> Contents:
    """Return what identifies the text of a source, JSON-serialisable; of a hub data set only its name.

    Args:
        name: of the source.
        noted: was returned before; a file whose size and time are those noted is not read again.

    Raises:
        InputError: there is nothing of that name, or it cannot be read.
    """
    from lm.data.fetch import sha256_of
    from lm.data.readers import find
    from lm.data.sources import SOURCES, key

    if source := named(name):
        return [{"file": f"source:{source}", "sha256": key(SOURCES[source])}]
    before = {one["file"]: one for one in noted or ()}
    found: Contents = []
    for given in find([name]):
        if name.startswith(("hub:", "source:")):
            found.append({"file": given.name})
            continue
        try:
            about = Path(given.name).stat()
            one = {"file": given.name, "size": about.st_size, "mtime_ns": about.st_mtime_ns}
            old = before.get(given.name, {})
            same = one.items() <= old.items()
            found.append(one | {"sha256": old["sha256"] if same else sha256_of(Path(given.name))})
        except OSError as error:
            raise InputError(f"{given.name} cannot be read ({error.strerror}); name another file") from error
    return found


def is_same(name: str, noted: Contents | None) -> bool:
    """Return whether the text of a source is what was noted; so it is if it is gone, as nothing speaks against it."""
    from lm.errors import InputError as LmError

    if noted is None:
        return False
    with suppress(LmError):
        return _hashes(contents(name, noted)) == _hashes(noted)
    return True


def _hashes(some: Contents) -> list[tuple[str, str | None]]:
    return [(one["file"], one.get("sha256")) for one in some]


class Kept:
    """The tokens and the tokenizer that a run keeps in its folder."""

    def __init__(self, folder: Path, *, begun: bool):
        """Look into a folder.

        Args:
            folder: for what is kept.
            begun: whether the run has a checkpoint: then what is kept may not be made again of another text.
        """
        self._folder, self._begun = folder, begun

    def _is_same(self, name: str, noted: Contents | None) -> bool:
        same = is_same(name, noted)
        if self._begun and not same:
            raise InputError(
                f"the text of {name} has changed since the run in {self._folder.parent} began; "
                "put it back, or train into another folder"
            )
        return same

    def _refuse(self, what: str) -> None:
        """Refuse to make again what the run has; what else the command asks for would not fit it either."""
        if self._begun:
            raise InputError(
                f"the run in {self._folder.parent} began with {what}; use the same, or train into another folder"
            )

    def tokenizer(self, size: int, names: Mapping[str, str], split: str) -> "Tokenizer":
        """Return the tokenizer that is kept, or learn it.

        Args:
            size: number of ids.
            names: of the sources, with those of their domains.
            split: of the named ones.

        Raises:
            InputError: a source cannot be read, has no text, or has changed since the run began.
        """
        from lm.data.tokenizer import Tokenizer
        from paper.results import write_text

        kept, about = self._folder / "tokenizer.json", self._folder / "tokenizer.about.json"
        notes: dict[str, Any] = {"ids": size, "sources": list(names)}
        if kept.is_file() and about.is_file():
            found = json.loads(about.read_text(encoding="utf-8"))
            made_so, inputs = notes.items() <= found.items(), found.get("inputs", {})
            if made_so and all(self._is_same(name, inputs.get(name)) for name in names):
                return Tokenizer.from_file(kept)
            self._refuse(f"a tokenizer of {found.get('ids')} ids, learned on {' and '.join(found.get('sources', ()))}")
        notes["inputs"] = {name: contents(name) for name in names}
        texts = (record.text for name, domain in names.items() for record in records(name, domain, Aside(), split))
        tokenizer = Tokenizer.train(texts, size)
        write_text(kept, tokenizer.to_json())
        write_text(about, json.dumps(notes))
        return tokenizer

    def tokens(
        self, part: str, name: str, domain: str, tokenizer: "Tokenizer", split: str
    ) -> "tuple[Corpus, dict[str, Any]]":
        """Return the tokens of a source and the notes beside them, made if they are not kept.

        Args:
            part: folder in which they are kept.
            name: of the source.
            domain: of its documents.
            tokenizer: of the run.
            split: of a named source.

        Raises:
            InputError: the source cannot be read, has no text, or has changed since the run began.
        """
        from lm.data.corpus import read
        from lm.data.tokenising import tokenize

        folder = self._folder / part
        about: dict[str, Any] = {"source": name, "split": split}
        if (folder / "about.json").is_file():
            found, notes = read(folder)
            made_so = notes.get("tokenizer_sha256") == tokenizer.sha256 and about.items() <= notes.items()
            if made_so and self._is_same(name, notes.get("inputs")):
                return found, notes
            self._refuse(f"the tokens of {notes.get('source')} by its own tokenizer as this part")
        about["inputs"] = contents(name)
        aside = Aside()
        found = tokenize(records(name, domain, aside, split), tokenizer, folder, about, processes=os.cpu_count() or 1)
        aside.tell(f", first {aside.where()}")
        return found, json.loads((folder / "about.json").read_text(encoding="utf-8"))
