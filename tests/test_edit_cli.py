"""`toedit edit`, `apply` and `verify`: what they print and write, their exit codes, one sentence on bad input."""

import json
import sys

import pyarrow.parquet as pq
import pytest

from lm.editing import followed
from paper.main import main

TEXT = "def area(width, height):\n    return width * height\n\n\nclass Shape:\n    def __init__(self, name):\n"


@pytest.fixture
def toedit(monkeypatch, capsys):
    """Run `toedit ARGUMENTS` in this process; return exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["toedit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    rows = [json.dumps({"id": f"d{n}", "text": TEXT * (n % 3 + 1) + str(n)}) for n in range(8)]
    (folder / "a.jsonl").write_text("\n".join(rows[:6]) + "\n")
    (folder / "b.jsonl").write_text("\n".join([*rows[6:], '{"text": ']) + "\n")
    return folder


FAST = ("--prior", "tiny", "--context", 32, "--threshold", 0.5)


def test_edit_apply_and_verify(toedit, corpus, tmp_path):
    out = tmp_path / "edited"
    code, printed, warned = toedit("edit", corpus, "--out", out, *FAST)
    assert code == 0
    totals = json.loads((out / "stats.json").read_text())
    row = totals["domains"]["code"]
    assert row["documents"] == 8
    assert row["changed"] > 0
    for number in ("documents", "tokens", "selected", "changed"):
        assert f"{row[number]:,}" in printed
    assert f"{row['effective_edit_rate']['value']:.3%}" in printed
    assert "warning: 1 damaged record set aside" in warned
    assert (out / "edits.html").read_text().startswith("<!doctype html>")
    assert (out / "edits.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.rglob(".*"))
    again = tmp_path / "again"
    assert toedit("apply", corpus, "--edits", out, "--out", again)[0] == 0
    assert toedit("apply", "--undo", "--edits", out, "--out", tmp_path / "back")[0] == 0
    for name in ("a.jsonl", "b.jsonl"):
        assert (again / name).read_bytes() == (out / name).read_bytes() != (corpus / name).read_bytes()
        assert (tmp_path / "back" / name).read_bytes() == (corpus / name).read_bytes()
    code, printed, _ = toedit("verify", corpus, "--edits", out, "--documents", 5)
    assert code == 0
    assert "5 documents" in printed
    (out / "a.jsonl").write_bytes((out / "a.jsonl").read_bytes()[:-1])
    code, printed, _ = toedit("verify", corpus, "--edits", out, "--documents", 1)
    assert code == 1
    assert "1 difference: " in printed


def test_undo_notices_a_change_outside_the_edits(toedit, corpus, tmp_path):
    out = tmp_path / "edited"
    assert toedit("edit", corpus, "--out", out, *FAST)[0] == 0
    rows = (out / "b.jsonl").read_bytes()
    (out / "b.jsonl").write_bytes(rows.replace(b'"id": "d7"', b'"id": "d9"'))
    code, _, said = toedit("apply", "--undo", "--edits", out, "--out", tmp_path / "back")
    assert code == 2
    assert "b.jsonl was changed after it was edited" in said
    assert not (tmp_path / "back" / "b.jsonl").exists()


def test_lost_outputs_are_made_again_and_other_files_join_the_report(toedit, corpus, tmp_path):
    out = tmp_path / "edited"
    assert toedit("edit", corpus, "--out", out, *FAST)[0] == 0
    kept = (out / "a.jsonl").read_bytes()
    (out / "a.jsonl").unlink()
    (out / "of something else.done").touch()
    assert toedit("edit", corpus, "--out", out, *FAST)[0] == 0
    assert (out / "a.jsonl").read_bytes() == kept
    more = corpus.parent / "more"
    more.mkdir()
    (more / "c.jsonl").write_text(json.dumps({"id": "d0", "text": TEXT}) + "\n")
    code, printed, warned = toedit("edit", more, "--out", out, *FAST)
    assert code == 0
    assert "3 files in" in printed
    assert "id of an earlier one" not in warned
    totals = json.loads((out / "stats.json").read_text())
    assert (totals["files"], totals["total"]["documents"]) == (3, 9)
    assert set(totals["domains"]) == {"code", "more"}


def test_repeated_ids_and_deletions_are_told(toedit, corpus, tmp_path):
    (corpus / "c.jsonl").write_text(json.dumps({"id": "d0", "text": TEXT}) + "\n")
    command = ("edit", corpus, "--out", tmp_path / "out", "--prior", "tiny", "--context", 32)
    code, printed, warned = toedit(*command, "--preset", "released-drop")
    assert code == 0
    assert "1 document with the id of an earlier one" in warned
    deleted = json.loads((tmp_path / "out" / "stats.json").read_text())["total"]["deleted"]
    assert deleted > 0
    assert "deleted" in printed
    assert f"{deleted:,}" in printed


def test_options_replace_single_settings_of_a_preset(toedit, corpus, tmp_path):
    out = tmp_path / "out"
    options = ("--preset", "released-drop", "--seed", 7, "--top-k", 3, "--keep-original", "False", "--stats", 0)
    assert toedit("edit", corpus, "--out", out, *FAST, *options)[0] == 0
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["edit"] == {
        "select": "above", "threshold": 0.5, "upper": 1.0, "candidates": "top-k", "top_k": 3, "top_p": 0.99,
        "temperature": 1.0, "beta": 0.5, "keep_original": False, "delete_below": 0.001, "seed": 7,
    }  # fmt: skip
    assert run["context"] == 32
    assert run["settings"]["sample"] == 0
    code, _, err = toedit("edit", corpus, "--out", out, *FAST)
    assert code == 2
    assert "holds another edit" in err
    assert "settings.edit.seed is 7 there and 0 here" in err
    assert err.count("\n") == 1


def test_a_dry_run_tells_and_writes_nothing(toedit, corpus, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = toedit("edit", corpus, "--out", out, *FAST, "--dry-run")
    assert code == 0
    assert not out.exists()
    size = sum(path.stat().st_size for path in corpus.iterdir())
    assert f"2 inputs, {size:,} bytes" in printed
    assert "tokens/s" in printed
    assert "settings.edit.threshold: 0.5" in printed
    assert str(out / "a.jsonl") in printed


def test_strict_ends_with_code_2_at_the_first_damaged_line(toedit, corpus, tmp_path):
    code, _, err = toedit("edit", corpus, "--out", tmp_path / "out", *FAST, "--strict")
    assert code == 2
    assert "b.jsonl:3: the line is not JSON" in err
    assert err.count("\n") == 1
    # Nor is it enough that an earlier run has finished the file.
    assert toedit("edit", corpus, "--out", tmp_path / "out", *FAST)[0] == 0
    code, _, err = toedit("edit", corpus, "--out", tmp_path / "out", *FAST, "--strict")
    assert code == 2
    assert "b.jsonl:3: the line is not JSON" in err
    assert err.count("\n") == 1


def test_a_command_goes_on_though_its_shell_finds_what_it_has_written(toedit, corpus, tmp_path):
    out, again = tmp_path / "edited", tmp_path / "again"
    assert toedit("edit", *sorted(tmp_path.glob("*/*.jsonl")), "--out", out, *FAST)[0] == 0
    code, printed, warned = toedit("edit", *sorted(tmp_path.glob("*/*.jsonl")), "--out", out, *FAST)
    assert code == 0
    assert "2 files in" in printed
    assert f"warning: inputs that lie in the output folder {out} are left out: 3" in warned
    # Edited again by hand: with numbers of its own.
    code, _, warned = toedit("edit", *sorted(out.glob("*.jsonl")), "--out", again, *FAST)
    assert code == 0
    assert f"are left out: 1, the first is {out / 'b.jsonl.aside.jsonl'}" in warned
    assert f"warning: {out / 'a.jsonl'} was written by an edit with seed 0, whose draws are used again" in warned
    code, _, warned = toedit("edit", out / "a.jsonl", "--out", tmp_path / "other", *FAST, "--seed", 1)
    assert (code, warned) == (0, "")


def test_generations_edit_the_edited(toedit, corpus, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = toedit("edit", corpus, "--out", out, *FAST, "--generations", 2)
    assert code == 0
    assert "Generation 2 of 2" in printed
    assert "change of mean log P" in printed
    compared = json.loads((out / "generations.json").read_text())["result"]
    assert compared["documents"] == 8
    # What is followed is what was edited: the same tokens, selected and changed.
    rows = compared["settings"]["edit"]["generations"]
    for row, g in zip(rows, (1, 2), strict=False):
        total = json.loads((out / f"generation-{g}" / "stats.json").read_text())["total"]
        assert [row["tokens"], row["selected"], row["edit"]["counts"]["changed"]] == [
            total["tokens"], total["selected"], total["changed"]
        ]  # fmt: skip
    assert rows[2]["drift"]["edit_distance"]["value"] > rows[1]["drift"]["edit_distance"]["value"] > 0
    picture = (out / "generations.png").read_bytes()
    (out / "generations.png").unlink()
    assert toedit("edit", corpus, "--out", out, *FAST, "--generations", 2)[0] == 0
    assert not (out / "generations.png").exists(), "it was followed again"
    assert picture.startswith(b"\x89PNG")
    seeds = [json.loads((out / f"generation-{g}" / "run.json").read_text())["settings"]["edit"]["seed"] for g in (1, 2)]
    assert seeds[0] == 0 != seeds[1]
    # The second generation's table is of the first one's text.
    again = tmp_path / "again"
    assert toedit("apply", out / "generation-1", "--edits", out / "generation-2", "--out", again)[0] == 0
    written = (again / "a.jsonl").read_bytes()
    assert written == (out / "generation-2" / "a.jsonl").read_bytes() != (out / "generation-1" / "a.jsonl").read_bytes()
    assert pq.read_table(out / "generation-2" / "a.jsonl.edits.parquet").num_rows > 0


def test_generations_of_documents_too_long_to_follow_are_edited_all_the_same(toedit, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(followed, "LONGEST", 10)
    out = tmp_path / "out"
    code, printed, _ = toedit("edit", corpus, "--out", out, *FAST, "--generations", 2)
    assert code == 0
    assert "Generation 2 of 2" in printed
    assert not (out / "generations.json").exists()
    monkeypatch.undo()
    assert toedit("edit", corpus, "--out", out, *FAST, "--generations", 2)[0] == 0
    first = json.loads((out / "generations.json").read_text())
    (corpus / "c.jsonl").write_bytes((corpus / "a.jsonl").read_bytes())
    assert toedit("edit", corpus, "--out", out, *FAST, "--generations", 2)[0] == 0
    assert json.loads((out / "generations.json").read_text())["result"]["documents"] > first["result"]["documents"]


def test_generations_of_a_named_source_read_what_was_written(toedit, tmp_path):
    out = tmp_path / "out"
    options = ("--out", out, *FAST, "--generations", 2, "--stats", 0)
    code, _, err = toedit("edit", "source:sotu", "--split", "validation", *options)
    assert (code, err) == (0, "")
    runs = [json.loads((out / f"generation-{g}" / "run.json").read_text()) for g in (1, 2)]
    assert [run["settings"]["split"] for run in runs] == ["validation", None]
    assert not (out / "generations.json").exists()
    stats = [json.loads((out / f"generation-{g}" / "stats.json").read_text())["total"] for g in (1, 2)]
    assert stats[0]["documents"] == stats[1]["documents"] > 0
    assert toedit("verify", out / "generation-1", "--edits", out / "generation-2", "--documents", 1)[0] == 0
    code, _, err = toedit("edit", "source:sotu", "--field", "body", *options)
    assert code == 2
    assert "leave --field out" in err
    assert err.count("\n") == 1


def test_shards_share_a_folder(toedit, corpus, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = toedit("edit", corpus, "--out", out, *FAST, "--shard", "1/2")
    assert code == 0
    assert "other shards have not finished" in printed
    assert not (out / "stats.json").exists()
    assert toedit("edit", corpus, "--out", out, *FAST, "--shard", "0/2")[0] == 0
    assert json.loads((out / "stats.json").read_text())["files"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", 2), "must be in [0, 1]"),
        (("--stats", 1.5), "a share of 1.5"),
        (("--shard", "3"), "--shard 3"),
        (("--shard", "2/2"), "no shard 2 of 2"),
        (("--generations", 0), "--generations is 0"),
        (("--context", 1), "a context of 1"),
        (("--prior", "nowhere"), "there is no model nowhere"),
        (("--field", "body"), ""),
        (("--data", 64), "needs 64 devices"),
        (("--top-p", 0.5), "--top-p has no effect without --candidates top-p"),
        (("--candidates", "all", "--top-k", 4), "--top-k has no effect without --candidates top-k"),
        (("--upper", 0.9), "--upper has no effect without --select band"),
    ],
)
def test_bad_options_get_one_sentence(toedit, corpus, tmp_path, options, said):
    out = tmp_path / "out"
    code, _, err = toedit("edit", corpus, "--out", out, *FAST, *options, *([] if said else ["--strict"]))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_bad_folders_get_one_sentence(toedit, corpus, tmp_path):
    (tmp_path / "file").write_text("x")
    for inputs, out, said in (
        (corpus, corpus, "lies inside the input"),
        (corpus, corpus / "deep", "lies inside the input"),
        (corpus / "a.jsonl", corpus, "lies in the output folder"),
        (corpus, tmp_path / "file", "is a file"),
        (corpus, "/proc/nothing", "cannot write"),
        (tmp_path / "nothing", tmp_path / "out", "there is no file"),
    ):
        code, _, err = toedit("edit", inputs, "--out", out, *FAST)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1
    assert {path.name for path in corpus.rglob("*")} == {"a.jsonl", "b.jsonl"}
    for command in ("apply", "verify"):
        arguments = ("--out", tmp_path / "out") if command == "apply" else ()
        code, _, err = toedit(command, corpus, "--edits", tmp_path, *arguments)
        assert code == 2
        assert "name the output folder of an edit" in err
    code, _, err = toedit("apply", "--edits", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "no originals" in err
