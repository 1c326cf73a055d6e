"""What extractors share: the text of a document, characters from bytes, plain text from HTML."""

import html
import re
from typing import NamedTuple

from lm.errors import InputError


class Extract(NamedTuple):
    """The text of one document.

    Attributes:
        work: name of the work, unique in the source.
        part: name of the document in its work; empty if it is the whole work.
        text: plain.
    """

    work: str
    part: str
    text: str


_BLOCKS = "p|br|div|li|ul|ol|dl|dt|dd|tr|table|pre|note|important|h[1-6]|section|member"
_BLOCK = re.compile(rf"<\s*/?\s*(?:{_BLOCKS})\b[^>]*>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def lines_of(text: str) -> str:
    """Return the text with single line feeds as line ends."""
    return re.sub(r"\r*\n|\r", "\n", text)  # some files end a line with two carriage returns


def from_utf8(content: bytes, name: str) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return lines_of(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 (byte {error.start}); fetch the version that is pinned") from error


def from_utf8_or_latin1(content: bytes) -> str:
    """Return the text of a file that is UTF-8 or else Latin-1.

    The novels' package mixes the two: extracts in Latin-1, chapters with curly quotes in UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return lines_of(text)


def from_windows(text: str) -> str:
    """Return the text without control characters: those above 127 are read as Windows-1252, where they are marks."""
    return _CONTROL.sub(lambda found: found[0].encode("latin-1").decode("cp1252", "ignore").lstrip(found[0]), text)


def from_html(text: str) -> str:
    """Return HTML as plain text: block elements become paragraphs, other tags vanish, entities are resolved."""
    text = _TAG.sub("", _BLOCK.sub("\n\n", _COMMENT.sub("", text)))
    return paragraphs(html.unescape(text))


def paragraphs(text: str) -> str:
    """Return the text with one blank line between paragraphs and single spaces inside of them."""
    joined = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return "\n\n".join(paragraph for paragraph in joined if paragraph)


def stem(name: str) -> str:
    """Return the last part of a member's name without its ending."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
