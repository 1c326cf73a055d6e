"""Texts as tokens whose bytes are known: any bytes, any tokenizer, nothing lost."""

import json

import numpy as np
import pytest

from lm.data.tokenizer import BYTE_OF, Tokenizer
from lm.editing import documents
from lm.editing.documents import DocumentEncoder, Vocabulary, drawable, inside
from lm.weights.load import load

SPELT = "<|endoftext|> and <|im_start|>user"
TEXTS = [
    b"",
    b"a",
    b"\xff",
    b"plain text, and more of it.\r\nSecond line\r\n",
    SPELT.encode(),
    "caf\u00e9 \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 na\u00efve".encode(),
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d".encode(),
    b"NUL \x00\x00 and \xef\xbb\xbf in the middle",
    "e\u0301 decomposed and \ufb01 ligature, A\u030a".encode(),
    "\u0387 and x\u0340 compose to as many bytes".encode(),
    b"cut \xe2\x82 off, \xc3\x28 wrong, \xf0\x9f\x98 and \xed\xa0\x80 half a pair\xff\xfe",
    b"\xff\xff\xff words \x80",
    bytes(range(256)),
]


@pytest.fixture(scope="module")
def tokenizer():
    return load("tiny").tokenizer


def _changed(tokenizer, **parts):
    about = json.loads(tokenizer.to_json()) | parts
    return Tokenizer.from_json(json.dumps(about))


def _check(document, tokenizer, text, key):
    """What `TokenizedDocument` promises, one token after the other."""
    assert (document.text, document.key) == (text, key)
    M = len(document.tokens)
    assert document.tokens.dtype == np.int32
    assert document.spans.dtype == np.int64
    assert document.editable.dtype == bool
    assert document.spans.shape == (M, 2)
    assert document.editable.shape == (M,)
    assert not document.editable[:1].any()
    owners = np.zeros(len(text), int)
    for begin, end in document.spans:
        owners[begin:end] += 1
    valid = text.decode(errors="surrogateescape")
    borders = set(np.cumsum([0, *(len(one.encode(errors="surrogateescape")) for one in valid)]).tolist())
    for token, (begin, end), editable in zip(document.tokens, document.spans, document.editable, strict=True):
        if editable:
            assert text[begin:end] == tokenizer.decode([token])
            assert begin < end
            assert {begin, end} <= borders
            assert text[begin:end].decode()  # whole characters
            assert (owners[begin:end] == 1).all()


@pytest.mark.parametrize("text", TEXTS)
def test_every_byte_is_one_tokens(tokenizer, text):
    (document,) = DocumentEncoder(tokenizer)([text], ["k"])
    _check(document, tokenizer, text, "k")
    assert tokenizer.decode(document.tokens) == text
    assert np.array_equal(document.spans.reshape(-1), np.repeat(np.cumsum([0, *_widths(document)]), 2)[1:-1])
    # Only the first token, bytes that are no UTF-8 and parts of characters are not editable.
    for token, editable in zip(document.tokens[1:], document.editable[1:], strict=True):
        content = tokenizer.decode([token])
        assert editable == (content.decode(errors="ignore").encode() == content)
    if b"\xff" not in text and b"\xe2\x82 " not in text:
        assert document.tokens.tolist() == tokenizer.encode([text.decode()])[0]


def _widths(document):
    return (document.spans[:, 1] - document.spans[:, 0]).tolist()


def test_many_at_once_are_each_alone(tokenizer):
    encoder, keys = DocumentEncoder(tokenizer), [str(number) for number in range(len(TEXTS))]
    for key, text, found in zip(keys, TEXTS, encoder(TEXTS, keys), strict=True):
        (alone,) = DocumentEncoder(tokenizer)([text], [key])
        _check(found, tokenizer, text, key)
        for name in ("tokens", "spans", "editable"):
            assert np.array_equal(getattr(alone, name), getattr(found, name))


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "NFC"},
        {"type": "NFKD"},
        {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"String": "d"}, "content": "dd"},  # two tokens of the same bytes
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ],
    ids=lambda one: one["type"],
)
def test_texts_that_a_tokenizer_changes_are_edited_where_it_is_exact(tokenizer, normalizer):
    changing = _changed(tokenizer, normalizer=normalizer)
    encoder = DocumentEncoder(changing)
    texts = [*TEXTS, "  Some Words e\u0301 And words that stay as they are. \u212b and \ufb03 ".encode()]
    # Twice: what was learned from a text must not hide that the tokenizer changes it.
    for found in [encoder(texts, [""] * len(texts)) for _ in range(2)]:
        for text, document in zip(texts, found, strict=True):
            _check(document, changing, text, "")
        # The ids are those of the tokenizer, and most of what it does not change can be edited.
        assert found[-1].tokens.tolist() == changing.encode([texts[-1].decode()])[0]
        assert 0.4 < found[-1].editable.mean() < 1


def test_prefix_space_and_trimmed_offsets(tokenizer):
    about = json.loads(tokenizer.to_json())
    steps = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    changing = _changed(tokenizer, pre_tokenizer=steps, post_processor=steps)
    assert about["pre_tokenizer"] != steps
    (document,) = DocumentEncoder(changing)([b"Some words, and some more"], [""])
    _check(document, changing, b"Some words, and some more", "")
    assert document.tokens.tolist() == changing.encode(["Some words, and some more"])[0]
    assert document.editable[2:].all()


def test_bytes_without_a_token_are_in_no_span(tokenizer):
    about = json.loads(tokenizer.to_json())
    ids = about["model"]["vocab"]
    gone = {spelling for spelling, byte in BYTE_OF.items() if byte in (0xFF, 0xF0)}
    kept = {token: number for token, number in ids.items() if not gone & set(token)}
    merges = [pair for pair in about["model"]["merges"] if not gone & set("".join(pair))]
    lacking = _changed(tokenizer, model=about["model"] | {"vocab": kept, "merges": merges})
    for text in (b"x \xff y", "x \U0001f600 y".encode()):
        (document,) = DocumentEncoder(lacking)([text], [""])
        _check(document, lacking, text, "")
        assert document.editable.any()


def test_slices_of_a_long_text_change_nothing(tokenizer, monkeypatch, rng):
    words = [
        "word",
        "Caf\u00e9",
        "\n\n",
        " ",
        "  indented",
        "x=1;",
        "don't",
        "\u4f60\u597d",
        "\t",
        "123",
        "\r\n",
        "\u00a0",
    ]
    text = " ".join(rng.choice(words, 20_000)).encode()
    (whole,) = DocumentEncoder(tokenizer)([text], [""])
    monkeypatch.setattr(documents, "SLICE", 1000)
    (cut,) = DocumentEncoder(tokenizer)([text], [""])
    for name in ("tokens", "spans", "editable"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))


def test_only_whole_characters_are_drawn(tokenizer):
    can = drawable(tokenizer, tokenizer.size + 5)
    assert can.shape == (tokenizer.size + 5,)
    assert not can[tokenizer.size :].any()
    assert not can[tokenizer.end]
    for number in range(tokenizer.size):
        content = tokenizer.decode([number])
        assert can[number] == (bool(content) and content.decode(errors="ignore").encode() == content)
    assert 128 <= can.sum() < tokenizer.size - 100  # of the 256 bytes, half are no characters


def test_what_may_stand_inside_a_unit(tokenizer):
    masks = {unit: inside(tokenizer, tokenizer.size + 5, unit) for unit in ("file", "line", "paragraph")}
    assert all(mask.shape == (tokenizer.size + 5,) and not mask[tokenizer.size :].any() for mask in masks.values())
    for number in range(tokenizer.size):
        content = tokenizer.decode([number])
        found = tuple(bool(masks[unit][number]) for unit in ("file", "line", "paragraph"))
        filled, breaks = bool(content.strip()), {b"\n", b"\r"} & {bytes([byte]) for byte in content}
        assert found == (True, not breaks, filled and b"\n" not in breaks)
    assert masks["line"].sum() > masks["paragraph"].sum() > tokenizer.size - 100


def test_bytes_of_tokens(tokenizer, rng):
    vocabulary = Vocabulary(tokenizer)
    tokens = rng.integers(0, tokenizer.size, 1000)
    assert vocabulary.text_of(tokens) == tokenizer.decode(tokens)
    assert vocabulary.text_of(tokens[:0]) == b""
    assert [tokenizer.decode([number]) for number in vocabulary.of_bytes()] == [bytes([byte]) for byte in range(256)]
