"""Data sets of the Hugging Face hub: package `datasets` streams them from a hub on this machine."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from local_hub import environment, serve

pytestmark = pytest.mark.peers

CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: validation, path: data/validation-*}
- config_name: few
  data_files:
  - {split: train, path: data/validation-*}
---
"""
SENTENCE = "The number {} is a number like any other number, and so on and so forth, again and again."


@pytest.fixture
def toedit(tmp_path):
    """A hub with a data set of two splits and two configurations, and one in JSONL, and how to run `toedit` on it."""
    folder, lines = (tmp_path / "hub" / "datasets" / "owner" / name for name in ("texts", "lines"))
    (folder / "data").mkdir(parents=True)
    lines.mkdir()
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    for split, many in (("train", 30), ("validation", 4)):
        rows = [{"text": SENTENCE.format(i), "id": f"{split}-{i}", "stars": i} for i in range(many)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    rows = [{"body": SENTENCE.format(i), "at": {"place": [i, None]}} for i in range(3)]
    (lines / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with serve(tmp_path / "hub") as (address, _):

        def run(*arguments):
            command = [sys.executable, "-m", "paper.main", *map(str, arguments)]
            return subprocess.run(
                command, env=environment(address, tmp_path / "home"), capture_output=True, text=True, check=False
            )

        yield run


def _edit(toedit, out, name, *options):
    return toedit("edit", name, "--prior", "tiny", "--threshold", 0.5, "--temperature", 2, "--out", out, *options)


def _records(out):
    (path,) = out.rglob("*.jsonl.zst")
    text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().decode()
    return [json.loads(line) for line in text.splitlines()]


def test_a_data_set_is_edited_verified_and_rebuilt(toedit, tmp_path):
    done = _edit(toedit, tmp_path / "out", "hub:owner/texts")
    assert done.returncode == 0, done.stderr
    found = _records(tmp_path / "out")
    assert [(one["id"], one["stars"]) for one in found] == [(f"train-{i}", i) for i in range(30)]
    changed = [one["text"] != SENTENCE.format(i) for i, one in enumerate(found)]
    assert 0 < sum(changed) < 30
    checked = toedit("verify", "hub:owner/texts", "--edits", tmp_path / "out", "--prior", "tiny")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rebuilt = toedit("apply", "hub:owner/texts", "--edits", tmp_path / "out", "--out", tmp_path / "again")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert _records(tmp_path / "again") == found


def test_a_split_and_a_configuration_are_read(toedit, tmp_path):
    done = _edit(toedit, tmp_path / "split", "hub:owner/texts", "--split", "validation")
    assert done.returncode == 0, done.stderr
    assert len(_records(tmp_path / "split")) == 4
    done = _edit(toedit, tmp_path / "few", "hub:owner/texts:few")
    assert done.returncode == 0, done.stderr
    assert _records(tmp_path / "few") == _records(tmp_path / "split")


def test_other_fields_are_kept(toedit, tmp_path):
    done = _edit(toedit, tmp_path / "lines", "hub:owner/lines", "--field", "body")
    assert done.returncode == 0, done.stderr
    assert [one["at"] for one in _records(tmp_path / "lines")] == [{"place": [i, None]} for i in range(3)]


def test_token_files_of_a_data_set(toedit, tmp_path):
    done = toedit("tokenize", "hub:owner/texts", "--out", tmp_path / "tokens", "--tokenizer", "tiny")
    assert done.returncode == 0, done.stderr
    assert "30 documents" in done.stdout


def test_what_the_hub_does_not_have_is_refused_in_one_sentence(toedit, tmp_path):
    for name, options in (
        ("hub:owner/nothing", ()),
        ("hub:owner/texts", ("--split", "dev")),
        ("hub:owner/texts:none", ()),
    ):
        done = _edit(toedit, tmp_path / "no", name, *options)
        assert done.returncode == 2
        (sentence,) = done.stderr.splitlines()
        assert f"the data set {name} cannot be read (" in sentence
    done = _edit(toedit, tmp_path / "no", "hub:owner/texts", "--field", "body")
    assert done.returncode == 2
    assert "have no field 'body'; they have text, id, stars" in done.stderr
    assert not (tmp_path / "no").exists()
