"""What --source names in `toedit train` and `toedit evaluate`: named sources, text files, folders of tokens."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper.commands.aside import Aside, filled
from paper.errors import InputError

if TYPE_CHECKING:
    from lm.data.corpus import Corpus
    from lm.data.readers import Record
    from lm.data.tokenizer import Tokenizer


def is_token_folder(name: str) -> bool:
    """Return whether a source is a folder that `toedit tokenize` made."""
    return (Path(name) / "tokens.npy").is_file()


def token_folder(name: str, tokenizer: "Tokenizer") -> "tuple[Corpus, dict[str, Any]]":
    """Return the tokens in such a folder and the notes beside them.

    Raises:
        InputError: they are damaged, or another tokenizer made them.
    """
    from lm.data.corpus import read

    found, notes = read(Path(name))
    if notes.get("tokenizer_sha256") != tokenizer.sha256:
        raise InputError(f"the tokens in {name} were made by another tokenizer; tokenize the text with this one")
    return found, notes


def named(name: str) -> str | None:
    """Return the name of a named source, which may be spelled source:NAME too; None for files and folders."""
    from lm.data.sources import SOURCES

    name = name.removeprefix("source:")
    return name if name in SOURCES else None


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return a name for tables of each source, all different.

    It is the file's name without its endings; of files that share it, as much of the folders before it as tells them
    apart, or the source as it was given if nothing else does.
    """
    paths = {name: _parts(name) for name in names}
    short: dict[str, str] = {}
    for name, parts in paths.items():
        others = [other for key, other in paths.items() if key != name]
        ends = (parts[-length:] for length in range(1, len(parts) + 1))
        own = next((end for end in ends if all(other[-len(end) :] != end for other in others)), (name,))
        short[name] = str(Path(*own))
    return short


def _parts(name: str) -> tuple[str, ...]:
    path = Path(name)
    last = path.name.split(".")[0].strip("*")
    return (*path.parts[:-1], last) if last else (name,)


def records(name: str, domain: str, aside: Aside, split: str | None) -> Iterator["Record"]:
    """Return the documents of a source that is text.

    Args:
        name: of the source.
        domain: of its documents; a named source keeps its own.
        aside: told of bad records.
        split: of a named source, None for all; files are read whole.

    Raises:
        InputError: it cannot be read, or has no document.
    """
    from lm.data.readers import Reading, find, read

    source = named(name)
    reading = Reading(domain=domain, split=split if source else None)
    found = find([f"source:{source}" if source else name])
    some = (one for given in found for one in read(given, reading, aside))
    return filled(some, aside, name, "toedit tokenize --field")


def told_apart(corpora: Mapping[str, "Corpus"]) -> list["Corpus"]:
    """Return corpora of which no two share a domain: where they would, it is called by the source.

    Args:
        corpora: by the names of their sources.
    """
    domains = {name: set(corpus.domains) for name, corpus in corpora.items()}
    uses = Counter(domain for some in domains.values() for domain in some)
    found = []
    for name, corpus in corpora.items():
        shared = [domain for domain in domains[name] if uses[domain] > 1]
        new = {domain: name if len(domains[name]) == 1 else f"{name}/{domain}" for domain in shared}
        changed = tuple(new.get(domain, domain) for domain in corpus.domains) if shared else corpus.domains
        found.append(dataclasses.replace(corpus, domains=changed))
    return found
