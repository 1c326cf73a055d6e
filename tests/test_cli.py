"""The command line: right numbers out, one sentence and exit code 2 on bad input, nothing half-written."""

import json
import os
import subprocess
import sys

import pytest

from paper.main import main


@pytest.fixture
def toedit(monkeypatch, capsys):
    """Run `toedit ARGUMENTS` in this process; return exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["toedit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def test_help_names_every_subcommand(toedit):
    code, out, _ = toedit("--help")
    assert code == 0
    for name in ("theory", "sim", "claims", "fetch", "reproduce", "paper"):
        assert name in out


def test_output_that_nobody_reads_ends_the_command_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "paper.main", "edit", "--help"]
    made = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (made.returncode, made.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["theory", "sim", "claims", "fetch", "reproduce", "paper"])
def test_every_subcommand_has_help(toedit, command):
    code, out, _ = toedit(command, "--help")
    assert code == 0
    assert len(out) > 300


def test_theory_writes_json_csv_and_plot(toedit, tmp_path):
    outputs = [tmp_path / name for name in ("a.json", "a.csv", "a.png")]
    code, _, _ = toedit(
        "theory", "--T", 20, "--d", 5, "--counts", 4, "--generations", 2,
        "--json", outputs[0], "--csv", outputs[1], "--plot", outputs[2],
    )  # fmt: skip
    assert code == 0
    rows = json.loads(outputs[0].read_text())["data"]["tables"]["error"]
    # One random edit: 1 + m/T + f m(T-m)/(T(T-1)), f = (T-d)/(T+2); this work, theory/closed_forms.py.
    assert rows[1]["error_over_v"] == pytest.approx(1 + 4 / 20 + (15 / 22) * 4 * 16 / (20 * 19), rel=1e-12)
    assert rows[1]["error"] == pytest.approx(rows[1]["error_over_v"] * 5 / 14, rel=1e-12)
    assert outputs[1].read_text().count("\n") == 3
    assert outputs[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("rule", ["replace", "accumulate", "fixed-real-share"])
def test_theory_and_sim_agree_by_rule(toedit, tmp_path, rule):
    """Within 4 standard errors of the simulation (and of the engine's draws, where it has any)."""
    common = ["--rule", rule, "--T", 40, "--d", 5, "--generations", 4, "--share", 0.3]
    if rule != "fixed-real-share":
        common = common[:-2]
    assert toedit("theory", *common, "--json", tmp_path / "theory.json")[0] == 0
    assert toedit("sim", *common, "--designs", 200, "--repeats", 20, "--json", tmp_path / "sim.json")[0] == 0
    tables = [
        json.loads((tmp_path / f"{name}.json").read_text())["data"]["tables"]["error"] for name in ("theory", "sim")
    ]
    for exact, drawn in zip(*tables, strict=True):
        spread = (exact["standard_error"] ** 2 + drawn["standard_error"] ** 2) ** 0.5
        assert abs(exact["error"] - drawn["error"]) < 4 * spread


def test_sim_says_where_its_standard_errors_mean_nothing(toedit, tmp_path):
    few = ("--generations", 2, "--designs", 2, "--repeats", 1, "--json", tmp_path / "a.json")
    for T, more, warned in ((12, (), True), (13, (), True), (14, (), False), (12, ("--ridge", 0.1), False)):
        code, out, _ = toedit("sim", "--T", T, "--d", 10, *more, *few)
        note = json.loads((tmp_path / "a.json").read_text())["data"]["note"]
        assert code == 0
        assert " ".join(out.split()).endswith(note)
        assert ("infinite variance" in note) == warned


BAD = [
    (("theory", "--T", 11, "--d", 10), "d + 2"),
    (("sim", "--T", 11, "--d", 10), "d + 2"),
    (("theory", "--T", 20, "--d", 5, "--counts", 21, "--generations", 2), "21"),
    (("sim", "--T", 20, "--d", 5, "--counts", -1, "--generations", 2), "-1"),
    (("theory", "--T", 20, "--d", 5, "--selection", "disjoint", "--counts", 12, 12, "--generations", 3), "24"),
    (("sim", "--T", 20, "--d", 5, "--selection", "disjoint", "--counts", 12, 12, "--generations", 3), "24"),
    (("theory", "--share", 0.5, "--decay", 1.5), "decay"),
    (("theory", "--share", 0.5, "--decay", 0), "decay"),
    (("sim", "--share", "nan"), "share"),
    (("theory", "--share", "nan"), "share"),
    (("theory", "--sigma", "nan"), "sigma"),
    (("sim", "--sigma", "-1"), "sigma"),
    (("theory", "--selection", "high-confidence", "--threshold", "nan"), "threshold"),
    (("sim", "--selection", "high-confidence", "--threshold", "nan"), "threshold"),
    (("theory", "--counts", 3, "--share", 0.1), "exclude"),
    (("theory", "--selection", "high-confidence", "--share", 0.1, "--threshold", 1), "exclude"),
    (("theory", "--selection", "high-confidence", "--decay", 0.9), "--decay does not apply"),
    (("sim", "--threshold", 1), "--threshold does not apply"),
    (("sim", "--rule", "replace", "--share", 0.5), "--share does not apply"),
    (("theory", "--fresh-x"), "--fresh-x does not apply"),
    (("theory", "--seed", -1), "--seed"),
    (("sim", "--seed", 2**32), "--seed"),
    (("theory", "--sigma", "1e200"), "--sigma"),
    (("sim", "--sigma", "1e-200"), "--sigma"),
    (("theory", "--draws", 1), "--draws"),
    (("sim", "--memory", "nan"), "--memory"),
    (("theory", "--generations", 10**12), "--generations"),
    (("theory", "--T", 10**8, "--d", 5), "lower T or d"),
    (("theory", "--selection", "low-confidence", "--share", "1e-300"), "share"),
    (("theory", "--rule", "accumulate-subsample"), "--fresh-x"),
    (("theory", "--rule", "accumulate-subsample", "--fresh-x", "--generations", 2000), "GiB"),
    (("theory", "--counts", 3, "--generations", 9), "one count for each edit"),
    (("theory", "--plot", "a.gif"), ".png"),
    (("sim", "--designs", 1), "designs"),
    (("sim", "--memory", 0.00001), "memory"),
    (("sim", "--generations", 0), "generations"),
    (("theory", "--generations", 0), "generations"),
    (("reproduce", "--only", "nothing"), "no step is called"),
]


@pytest.mark.parametrize(("arguments", "word"), BAD, ids=[" ".join(map(str, arguments)) for arguments, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_2(toedit, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    code, _, err = toedit(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert word in err
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_one_sentence(toedit, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = toedit("theory", "--csv", tmp_path / "a.csv", "--json", tmp_path / "file" / "a.json")
    assert code == 2
    assert "choose a file in a folder" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.csv").exists()


def test_generate_takes_large_numbers_and_leaves_nothing_of_what_it_refuses(toedit, tmp_path):
    out = tmp_path / "c.jsonl"
    command = ("generate", "--model", "tiny", "--documents", 2, "--out", out)
    assert toedit(*command, "--tokens", 3, "--seed", 4_000_000_000, "--top-k", 10**11)[0] == 0
    assert [json.loads(line)["seed"] for line in out.read_text().splitlines()] == [4_000_000_000] * 2
    out.unlink()
    for more, word in ((("--tokens", 1000), "context of 256"), (("--seed", 2**32), "seed")):
        code, _, err = toedit(*command, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert word in err
        assert list(tmp_path.iterdir()) == []
