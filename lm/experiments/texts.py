"""The text of an experiment: human and synthetic text to train on, domains to evaluate on, free of the former."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lm.data import corpus as token_files
from lm.data import sources
from lm.data.corpus import Corpus
from lm.data.extract.synthetic import smollm2_prompts
from lm.data.fetch import cache_folder, locked, usable
from lm.data.passages import cut
from lm.data.prepare import first_tokens, read_parts
from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.experiments.presets import Texts

FORMAT = 1  # raised when this code changes what the files hold
GRAM = 13  # words: an evaluation passage that shares so many in a row with training text is removed
RARE = 0.1  # of the human test tokens
_WORD = re.compile(r"\w+")
_PARTS = ("human", "synthetic", "test")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Text of an experiment.

    Attributes:
        tokenizer: learned on the human training text.
        human: to train on, domain after domain, each in an order that does not depend on the number of tokens.
        synthetic: to train on, in the order in which it was written.
        test: to evaluate on: the human domains, then the synthetic one.
        removed: passages that evaluation would have had, by domain, but for words they share with training text.
        sha256: of the three corpora.
    """

    tokenizer: Tokenizer
    human: Corpus
    synthetic: Corpus
    test: Corpus
    removed: dict[str, int]
    sha256: dict[str, str]

    @functools.cached_property
    def is_human(self) -> np.ndarray:
        """Which test documents people wrote, bool, shape (n,)."""
        written = set(self.synthetic.domains)
        return np.asarray([domain not in written for domain in self.test.domains])

    @functools.cached_property
    def rare(self) -> np.ndarray:
        """Which human test tokens are of the types that are rarest in the human training text, bool, shape (M,)."""
        frequency = np.bincount(self.human.tokens, minlength=self.tokenizer.size)[np.asarray(self.test.tokens)]
        mine = np.repeat(self.is_human, self.test.lengths)
        return (frequency <= np.quantile(frequency[mine], RARE)) & mine


def grams(text: str) -> np.ndarray:
    """Return hashes of all runs of `GRAM` words, lower case, uint64, shape (max(0, words - GRAM + 1),)."""
    words = np.fromiter((zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())), np.uint64)
    number = max(0, len(words) - GRAM + 1)
    mixed = np.zeros(number, np.uint64)
    for place in range(GRAM):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + words[place : place + number] + np.uint64(1)
    return mixed


def decontaminated(tested: Iterable[Document], trained: Iterable[str]) -> tuple[list[Document], dict[str, int]]:
    """Return the documents that share no run of `GRAM` words with any training text, and how many do, by domain."""
    seen = np.unique(np.concatenate([np.empty(0, np.uint64), *(grams(text) for text in trained)]))
    kept: list[Document] = []
    removed: dict[str, int] = {}
    for document in tested:
        found = grams(document.text)
        place = np.minimum(np.searchsorted(seen, found), max(len(seen) - 1, 0))
        shared = bool(len(seen) and (seen[place] == found).any())
        removed[document.domain] = removed.get(document.domain, 0) + shared
        if not shared:
            kept.append(document)
    return kept, removed


def prepare(config: Texts) -> Prepared:
    """Return the text of an experiment, from the cache or made anew (also if the cache is damaged).

    Raises:
        InputError: what fetching raises; a source with fewer tokens than asked for; a cache that cannot be written.
    """
    extra = sources.SOURCES[config.synthetic].depends() if config.synthetic in sources.SOURCES else ""
    given = json.dumps([FORMAT, dataclasses.asdict(config), extra], sort_keys=True)
    folder = cache_folder() / "experiments" / hashlib.sha256(given.encode()).hexdigest()[:16]
    with usable(folder):
        if (found := _intact(folder)) is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                if (found := _intact(folder)) is None:
                    _make(config, folder)
    return found or _read(folder)


def _documents(name: str, config: Texts) -> Iterator[Document]:
    return cut(sources.load(name), config.passage)


def _make(config: Texts, folder: pathlib.Path) -> None:
    loaded = {name: list(_documents(name, config)) for name in (*config.trained, *config.held_out)}
    training = {name: [one for one in loaded[name] if one.split == "train"] for name in config.trained}
    tokenizer = Tokenizer.train((one.text for some in training.values() for one in some), config.vocabulary)
    human, used = [], []
    for name, some in training.items():
        part = first_tokens(from_documents(some, tokenizer), config.train_tokens, f"{name}'s training text")
        texts = {one.id: one.text for one in some}
        used += [texts[key] for key in part.ids]
        human.append(part)
    written = list(_documents(config.synthetic, config))
    first_works = set(list(dict.fromkeys(one.work for one in written))[: config.synthetic_works])
    written = [one for one in written if one.work in first_works]
    synthetic = from_documents(written, tokenizer)
    wanted = config.train_tokens * len(config.trained)
    total = np.cumsum(synthetic.lengths)
    least, found = wanted + config.test_tokens, int(total[-1]) if len(total) else 0
    if found < least:
        raise InputError(
            f"{config.synthetic} has {found} tokens and {least} are asked for; ask for fewer or generate more"
        )
    last = int(np.searchsorted(total, wanted)) + 1
    trained = [*used, *(one.text for one in written[:last])]
    if config.synthetic == "smollm2-corpus":
        trained += [prompt for work, prompt in smollm2_prompts().items() if work in first_works]
    # A passage of the work that the last training passages come from is no test.
    used_works = {one.work for one in written[:last]}
    tested = [one for some in loaded.values() for one in some if one.split == "test"]
    tested += [one for one in written[last:] if one.work not in used_works]
    kept, removed = decontaminated(tested, trained)
    by_domain = {name: [one for one in kept if one.domain == name] for name in (*loaded, config.synthetic)}
    test = [
        first_tokens(from_documents(some, tokenizer), config.test_tokens, f"{name}'s test text")
        for name, some in by_domain.items()
    ]
    corpora = (token_files.join(human), synthetic.select(range(last)), token_files.join(test))
    for name, corpus in zip(_PARTS, corpora, strict=True):
        shutil.rmtree(folder / name, ignore_errors=True)  # what is damaged would be in the way
        token_files.write(corpus, folder / name, {"tokenizer_sha256": tokenizer.sha256}, size=tokenizer.size)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    beside = folder / ".about.json"
    beside.write_text(json.dumps({"removed": removed}), encoding="utf-8")
    beside.replace(folder / "about.json")


def _read(folder: pathlib.Path) -> Prepared:
    path = folder / "about.json"
    try:
        removed: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["removed"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is lost or damaged; remove {folder} and try again") from error
    tokenizer, read = read_parts(folder, _PARTS)
    corpora = {name: corpus for name, (corpus, _) in read.items()}
    return Prepared(
        tokenizer, **corpora, removed=removed, sha256={name: notes["sha256"] for name, (_, notes) in read.items()}
    )


def _intact(folder: pathlib.Path) -> Prepared | None:
    """Return what is there, if it is whole."""
    if (folder / "about.json").exists():
        with contextlib.suppress(InputError):
            return _read(folder)
    return None


def beginning(corpus: Corpus, share: float) -> Corpus:
    """Return the first documents of each domain of a corpus that hold a share of its tokens."""
    domains = np.asarray(corpus.domains)
    chosen: list[int] = []
    for name in dict.fromkeys(corpus.domains):
        numbers = np.flatnonzero(domains == name)
        total = np.cumsum(corpus.lengths[numbers])
        chosen += numbers[: int(np.searchsorted(total, share * total[-1])) + 1].tolist()
    return corpus.select(chosen)


def kind_of(domain: str, config: Texts) -> str:
    """Return whether a domain is "trained" on, "held-out" or "synthetic"."""
    return "trained" if domain in config.trained else "synthetic" if domain == config.synthetic else "held-out"


def macro(domains: Sequence[str], config: Texts) -> dict[str, tuple[str, ...]]:
    """Return the averages over domains that are reported: human, trained, held-out."""
    human = tuple(name for name in domains if kind_of(name, config) != "synthetic")
    return {
        "human": human,
        **{kind: tuple(name for name in human if kind_of(name, config) == kind) for kind in ("trained", "held-out")},
    }
