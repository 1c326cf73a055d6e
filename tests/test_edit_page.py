"""The page of an edit: everything escaped, changes shown with their numbers, nothing loaded or run."""

import html.parser

import numpy as np
import pytest
from offsets import encode_with_offsets

from lm.data.tokenizer import Tokenizer
from lm.editing.config import PRESETS
from lm.editing.decide import Decisions
from lm.editing.documents import TokenizedDocument
from lm.editing.page import page
from lm.editing.statistics import Statistics, summary

TEXT = "<script>alert('1 & 2')</script> a \x00 NUL, \u202eoverride, and the end\n"
KEY = '"><img src=x onerror=alert(1)> \ud800'
DOMAIN = "<b>domain</b>"


class _Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.marks, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("del", "ins"):
            self.marks.append([tag, dict(attrs).get("title"), ""])
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data):
        self.text += data
        if self.marks and self.marks[-1][2] == "":
            self.marks[-1][2] = data


@pytest.fixture(scope="module")
def content():
    tokenizer = Tokenizer.train([TEXT * 3, "<i>"], 257)
    ids, spans = encode_with_offsets(tokenizer, TEXT)
    M = len(ids)
    document = TokenizedDocument("key", np.asarray(ids, np.int32), spans, np.arange(M) > 0, TEXT.encode())
    token = document.tokens.copy()
    selected, deleted = np.zeros(M, bool), np.zeros(M, bool)
    selected[[0, M - 1]] = True
    token[0], token[M - 1] = tokenizer.encode(["&"])[0][0], tokenizer.encode(["!"])[0][0]
    deleted[5] = True
    number = np.full(M, np.nan, np.float32)
    number[selected] = 0.0123
    made = Decisions(np.full(M, 0.9912, np.float32), selected, deleted, token, number, np.full(M, 0.25, np.float32))
    found = Statistics(PRESETS["released"])
    found.add([document], [made], [DOMAIN])
    found.add_sampled(document, made, DOMAIN, np.full(M, 0.5, np.float32), tokenizer)
    read = summary(found, tokenizer)
    read["documents"][0]["document"] = KEY
    return page(read, {"prior": "<i>tiny</i>", "config": PRESETS["released"].to_json()})


def test_text_keys_domains_and_settings_are_escaped(content):
    read = _Reader()
    read.feed(content)
    assert not {"script", "img", "b>domain", "i>tiny"} & set(read.tags)
    for piece in ("<script", "<img", "<b>domain", "<i>tiny", "\x00", "\u202e"):
        assert piece not in content
    assert "cript>alert('1 & 2')</" in read.text  # what is shown is what the text says
    assert DOMAIN in read.text
    assert "<i>tiny</i>" in read.text
    content.encode()  # half a surrogate pair could not be written


def test_changes_are_marked_on_both_sides_with_their_numbers(content):
    read = _Reader()
    read.feed(content)
    marks = [mark for mark in read.marks if mark[1]]
    assert [(tag, text) for tag, _, text in marks] == [
        ("del", "<"), ("del", "p"), ("del", "⏎\n"), ("ins", "&"), ("ins", "∅"), ("ins", "!"),
    ]  # fmt: skip
    for tag, title, text in marks:
        assert "P of the old token 99.120 %" in title
        assert "entropy 0.250 nats" in title
        assert ("deleted" in title) == (text in ("p", "∅")), tag
        assert ("P of the new token 1.230 %" in title) == (text not in ("p", "∅"))


def test_the_page_loads_and_runs_nothing_and_names_its_numbers(content):
    assert "default-src &#x27;none&#x27;" in content
    assert "prefers-color-scheme:dark" in content
    assert f"3 of {len(TEXT.encode())} tokens in 1 documents changed" in content
    assert len(content) < 20_000


def test_without_changes_the_page_says_so():
    tokenizer = Tokenizer.train([TEXT], 257)
    empty = page(summary(Statistics(PRESETS["paper"]), tokenizer), {})
    assert "No sampled document was changed" in empty
