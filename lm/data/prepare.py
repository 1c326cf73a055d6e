"""Human text made ready once: splits, tokenizer and token files in the cache, named by their settings."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lm.data import corpus as token_files
from lm.data import sources
from lm.data.corpus import Corpus
from lm.data.fetch import cache_folder, locked, usable
from lm.data.passages import cut
from lm.data.splits import SPLITS
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError

FORMAT = 3  # raised when the code that makes the token files changes what they hold


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Human text.

    Attributes:
        tokenizer: learned on the training split.
        train: documents to train on, the same number of tokens of each domain (to one document).
        validation: documents to choose settings on.
        test: documents to evaluate on.
        about: notes, by split.
    """

    tokenizer: Tokenizer
    train: Corpus
    validation: Corpus
    test: Corpus
    about: dict[str, dict[str, Any]]


def first_tokens(corpus: Corpus, budget: int, name: str) -> Corpus:
    """Return documents of a corpus in the order of their ids' hashes until they hold `budget` tokens.

    Raises:
        InputError: it has fewer; it is called by its name.
    """
    order = sorted(range(len(corpus)), key=lambda number: hashlib.sha256(corpus.ids[number].encode()).digest())
    total = np.cumsum(corpus.lengths[order])
    if not len(total) or total[-1] < budget:
        found = int(total[-1]) if len(total) else 0
        raise InputError(f"{name} has only {found} tokens of the {budget} asked for; ask for fewer")
    return corpus.select(order[: int(np.searchsorted(total, budget)) + 1])


def _make(config: Mapping[str, Any], folder: pathlib.Path) -> None:
    documents = {name: list(cut(sources.load(name))) for name in config["sources"]}
    training = [document.text for chosen in documents.values() for document in chosen if document.split == "train"]
    tokenizer = Tokenizer.train(training, config["vocabulary"])
    for split in SPLITS:
        budget = config["train_tokens" if split == "train" else "test_tokens"]
        parts, by_domain = [], {}
        for name, chosen in documents.items():
            kept = [document for document in chosen if document.split == split]
            part = first_tokens(from_documents(kept, tokenizer), budget, f"{name}'s {split} split")
            parts.append(part)
            by_domain[name] = _summary(kept, part)
        about = {"config": dict(config), "tokenizer_sha256": tokenizer.sha256, "domains": by_domain}
        shutil.rmtree(folder / split, ignore_errors=True)  # what is damaged would be in the way
        token_files.write(token_files.join(parts), folder / split, about, size=tokenizer.size)
    beside = folder / ".tokenizer.json"
    beside.write_text(tokenizer.to_json(), encoding="utf-8")
    beside.replace(folder / "tokenizer.json")


def _summary(documents: Sequence[sources.Document], part: Corpus) -> dict[str, int]:
    return {
        "split_documents": len(documents),
        "split_bytes": sum(len(document.text.encode()) for document in documents),
        "split_works": len({document.work for document in documents}),
        "documents": len(part),
        "works": len(set(part.works)),
        "tokens": len(part.tokens),
        "bytes": int(part.sizes.sum()),
    }


def read_parts(
    folder: pathlib.Path, names: Iterable[str]
) -> tuple[Tokenizer, dict[str, tuple[Corpus, dict[str, Any]]]]:
    """Return the tokenizer in a folder of the cache, and the corpora beside it with their notes, by name.

    Raises:
        InputError: one of them is lost or damaged, or the tokenizer is another one than theirs.
    """
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    read = {name: token_files.read(folder / name) for name in names}
    if any(notes["tokenizer_sha256"] != tokenizer.sha256 for _, notes in read.values()):
        raise InputError(f"the tokenizer in {folder} is not that of the tokens; remove the folder and try again")
    return tokenizer, read


def _read(folder: pathlib.Path) -> Prepared:
    tokenizer, read = read_parts(folder, SPLITS)
    corpora = [corpus for corpus, _ in read.values()]
    return Prepared(tokenizer, *corpora, about={split: notes for split, (_, notes) in read.items()})


def _intact(folder: pathlib.Path) -> Prepared | None:
    """Return what is there, if it is whole."""
    if (folder / "tokenizer.json").exists():
        with contextlib.suppress(InputError):
            return _read(folder)
    return None


def prepare(config: Mapping[str, Any]) -> Prepared:
    """Return human text by its settings, from the cache or made anew (also if the cache is damaged).

    Args:
        config: {"sources": names, "vocabulary": ids, "train_tokens": a domain, "test_tokens": a domain,
            also of the validation split}.

    Raises:
        InputError: what fetching raises; more tokens asked for than there are; a cache that cannot be written.
    """
    name = hashlib.sha256(json.dumps([FORMAT, dict(config)], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "corpora" / name
    with usable(folder):
        if (found := _intact(folder)) is None:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                if (found := _intact(folder)) is None:
                    _make(config, folder)
    return found or _read(folder)
