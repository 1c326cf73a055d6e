"""What `toedit train` and `toedit evaluate` read: names of sources, bad records, and text that changes under a run."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

from lm.data import corpus as token_files
from lm.data.corpus import Corpus
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError as LmError
from lm.model.config import ModelConfig
from lm.model.decoder import make
from lm.train.loop import alone
from lm.weights import huggingface
from paper.commands.evaluate import Evaluate
from paper.commands.sources import short_names, told_apart
from paper.commands.tokenize import Tokenize
from paper.commands.train import Train, shares
from paper.errors import InputError

TEXTS = [f"the house number {number} and the street of the house" for number in range(40)]


def _write(path, texts=TEXTS, extra=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*(json.dumps({"text": text}) for text in texts), *extra]) + "\n")
    return path


def _train(folder, *sources, **options):
    options = {"tokenizer": "train:300", "tokens": "2k", "batch": 2, "context": 32, "dry_run": True} | options
    return Train(tuple(map(str, sources)), folder, preset="tiny", **options)


def _documents(run, part=0):
    return token_files.read(run / "data" / f"part{part}")[1]["documents"]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a/train.jsonl", "b/train.jsonl"], ["a/train", "b/train"]),
        (["x/a/t.txt", "y/a/t.txt", "u.txt"], ["x/a/t", "y/a/t", "u"]),
        (["/a/train.jsonl", "train.jsonl"], ["a/train", "train.jsonl"]),
        (["a/t.jsonl", "a/t.txt"], ["a/t.jsonl", "a/t.txt"]),
        (["sotu", "novels", "c/*.jsonl"], ["sotu", "novels", "c/*.jsonl"]),
        (["hub:o/wiki:2023.en", "hub:o/wiki:2023.de"], ["hub:o/wiki:2023.en", "hub:o/wiki:2023.de"]),
        (["d/text.jsonl.zst"], ["text"]),
    ],
)
def test_names_tell_sources_apart(names, short):
    assert list(short_names(names).values()) == short


def _corpus(*domains):
    names = tuple(map(str, range(len(domains))))
    return Corpus(np.zeros(len(names)), np.arange(len(names) + 1), names, names, domains, np.ones(len(names)))


def test_domains_of_token_folders_are_told_apart():
    corpora = {"a/t": _corpus("t", "t"), "b/t": _corpus("t"), "c": _corpus("t", "own"), "sotu": _corpus("sotu")}
    found = [corpus.domains for corpus in told_apart(corpora)]
    assert found == [("a/t", "a/t"), ("b/t",), ("c/t", "own"), ("sotu",)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["hub:wikimedia/wikipedia:20231101.en"], {"hub:wikimedia/wikipedia:20231101.en": 1}),
        (["hub:o/n:1.en:0.25", "b"], {"hub:o/n:1.en": 0.25, "b": 0.75}),
        (["a:.5", "b:1e-1", "c:2/5"], {"a": 0.5, "b": 0.1, "c": 0.4}),
    ],
)
def test_a_share_is_a_whole_number_or_ratio(given, wanted):
    assert {name: float(share) for name, share in shares(given).items()} == wanted


def test_a_named_source_is_one_however_it_is_spelled():
    with pytest.raises(InputError, match="named twice"):
        shares(["sotu", "source:sotu"])


def test_train_takes_files_of_one_name(tmp_path, capsys):
    a, b = (_write(tmp_path / name / "text.jsonl") for name in "ab")
    assert _train(tmp_path / "run", a, b).run() == 0
    shown = capsys.readouterr()
    assert "a/text" in shown.out
    assert "b/text" in shown.out
    assert set(token_files.read(tmp_path / "run" / "data" / "part1")[0].domains) == {"b/text"}
    assert "warning" not in shown.err


def test_a_part_that_is_read_many_times_is_told(tmp_path, capsys):
    small, large = _write(tmp_path / "small.jsonl", TEXTS[:2]), _write(tmp_path / "large.jsonl", TEXTS * 10)
    assert _train(tmp_path / "run", f"{small}:0.9", large).run() == 0
    err = capsys.readouterr().err
    assert "warning: the text of small is read" in err
    assert "large" not in err


def test_train_makes_tokens_again_when_the_text_changes(tmp_path, monkeypatch):
    source, run = _write(tmp_path / "my.jsonl"), tmp_path / "run"
    assert _train(run, source).run() == 0
    assert _documents(run) == 40
    first = (run / "data" / "tokenizer.json").read_bytes()
    read = []
    monkeypatch.setattr("lm.data.fetch.sha256_of", read.append)
    assert _train(run, source).run() == 0  # the file's time is the same: it is not read
    assert not read
    monkeypatch.undo()
    os.utime(source, (1, 1))
    before = (run / "data" / "part0" / "tokens.npy").stat().st_mtime_ns
    assert _train(run, source).run() == 0  # its content is the same: nothing is made
    assert (run / "data" / "part0" / "tokens.npy").stat().st_mtime_ns == before
    _write(source, [text.replace("house", "garden") for text in TEXTS[:30]])
    assert _train(run, source).run() == 0
    assert _documents(run) == 30
    assert (run / "data" / "tokenizer.json").read_bytes() != first


@pytest.mark.parametrize("tokenizer", ["train:300", "tiny"])
def test_train_refuses_other_text_once_a_run_has_begun(tmp_path, tokenizer):
    source, run = _write(tmp_path / "my.jsonl"), tmp_path / "run"
    train = _train(run, source, tokenizer=tokenizer)
    assert train.run() == 0
    (run / "checkpoints" / "100").mkdir(parents=True)
    whole = source.read_bytes()
    source.write_bytes(whole.replace(b"house", b"mouse"))
    with pytest.raises(InputError, match=r"my\.jsonl has changed since the run in .*run began"):
        train.run()
    source.write_bytes(whole)
    assert train.run() == 0
    source.unlink()  # the tokens are all there is
    assert train.run() == 0
    assert _documents(run) == 40


def test_a_refused_command_leaves_the_text_of_a_run(tmp_path):
    text, other, run = _write(tmp_path / "t.jsonl"), _write(tmp_path / "other.jsonl", TEXTS[:30]), tmp_path / "run"
    _train(run, text).run()
    (run / "checkpoints" / "5").mkdir(parents=True)

    def kept():
        return {path: path.read_bytes() for path in sorted((run / "data").rglob("*")) if path.is_file()}

    before = kept()
    for sources, options in (
        ((other,), {}),
        ((text,), {"tokenizer": "train:310"}),
        ((text,), {"tokenizer": "tiny"}),
    ):
        with pytest.raises(InputError, match="use the same, or train into another folder"):
            _train(run, *sources, **options).run()
    assert kept() == before
    shutil.rmtree(run / "checkpoints")
    with alone(run), pytest.raises(LmError, match="another run is training"):
        _train(run, other).run()
    assert kept() == before


def test_what_the_text_does_not_decide_is_refused_before_it_is_read(tmp_path):
    for options, sentence in (
        ({"fsdp": 64}, "devices"),
        ({"tokens": "1e24"}, "fewer tokens"),
        ({"warmup": 1000}, "warm-up"),
        ({"clip": -1.0}, "clip"),
    ):
        with pytest.raises(LmError, match=sentence):
            _train(tmp_path / "run", tmp_path / "nothing.jsonl", **options).run()


def test_train_sets_bad_records_aside(tmp_path, capsys):
    source = _write(tmp_path / "my.jsonl", extra=["{broken", '{"txt": 1}'])
    assert _train(tmp_path / "run", source).run() == 0
    assert f"warning: 2 damaged records set aside, first {source}:41: the line is not JSON" in capsys.readouterr().err
    assert _documents(tmp_path / "run") == 40


@pytest.mark.parametrize("tokenizer", ["train:300", "tiny"])
def test_a_part_without_text_is_named_with_the_reason(tmp_path, tokenizer):
    good, empty = _write(tmp_path / "good.jsonl"), _write(tmp_path / "empty.jsonl", [], ['{"body": "x"}'] * 3)
    with pytest.raises(InputError) as caught:
        _train(tmp_path / "run", good, empty, tokenizer=tokenizer).run()
    assert str(caught.value) == (
        f"there is no document with text in {empty} (3 records set aside, first {empty}:1: the field 'text' is "
        "missing); name the field of the text with toedit tokenize --field"
    )


def test_tokens_are_no_text_to_learn_from(tmp_path):
    Tokenize((str(_write(tmp_path / "my.jsonl")),), tmp_path / "tokens", tokenizer="tiny", processes=1).run()
    with pytest.raises(InputError, match="holds tokens and no text to learn a tokenizer on"):
        _train(tmp_path / "run", tmp_path / "tokens").run()
    assert _train(tmp_path / "run", tmp_path / "tokens", tokenizer=None).run() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model that was never trained."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(TEXTS, 300)
    config = ModelConfig(300, context=64, width=16, layers=1, heads=2, hidden=32)
    huggingface.write(folder, make(config, 0), tokenizer)
    return folder


def _rows(place, table, *sources):
    assert Evaluate(str(place), tuple(map(str, sources)), tokens="all", csv=table).run() == 0
    with table.open(encoding="utf-8") as file:
        return {row["domain"]: row for row in csv.DictReader(file)}


def test_evaluate_tells_files_of_one_name_apart(place, tmp_path):
    a, b = _write(tmp_path / "a" / "text.jsonl"), _write(tmp_path / "b" / "text.jsonl", TEXTS[:10])
    Tokenize((str(b),), tmp_path / "c" / "text", tokenizer=str(place), processes=1).run()
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    rows = _rows(place, tmp_path / "t.csv", a, b, *(tmp_path / name / "text" for name in "cd"))
    assert {name: row["documents"] for name, row in rows.items() if "/" in name} == {
        "a/text": "40",
        "b/text": "10",
        "c/text": "10",
        "d/text": "10",
    }


def test_evaluate_sets_bad_records_aside(place, tmp_path, capsys):
    source = _write(tmp_path / "my.jsonl", extra=["{broken"])
    assert _rows(place, tmp_path / "t.csv", source)["my"]["documents"] == "40"
    assert f"warning: 1 damaged record set aside, first {source}:41: " in capsys.readouterr().err
    _write(source, [], ["{broken"])
    with pytest.raises(InputError, match=r"no document with text in .*\(1 record set aside, first .*mend them"):
        _rows(place, tmp_path / "t.csv", source)
    with pytest.raises(LmError, match="no source 'nothing'"):
        _rows(place, tmp_path / "t.csv", "source:nothing")
