"""`toedit plan` and `toedit experiment`: a whole experiment on real text, killed and run again; bad input."""

import concurrent.futures
import csv
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest
import tyro

from lm.data.fetch import cache_folder
from lm.experiments import graph, texts
from lm.experiments.designs import mixture
from lm.experiments.nodes import Stage
from lm.experiments.presets import PRESETS, Preset, Setup, Texts
from lm.experiments.tables import tables
from lm.experiments.texts import prepare
from lm.experiments.workers import make
from paper import results
from paper.commands.plan import spread
from paper.main import Command, main
from paper.results import plain

SETUP = Setup(
    Texts(("federalist",), ("verse",), "news", 300, 2000, 300, 320),
    "tiny",
    {"width": 32, "layers": 1, "context": 64},
    steps=3,
    batch=4,
    learning_rate=1e-2,
    evaluations=1,
    prior="tiny",
    candidates=8,
    edit_share=0.125,
)
SMALL = Preset(SETUP, (0,), (0, 100), 1, (5.0,), "a test")
# The workers read all they need from the folder; only the command must know the preset.
PROGRAM = """
import json, sys
from lm.experiments.presets import PRESETS, Preset, Setup
data = json.loads(sys.argv.pop(1))
PRESETS["small"] = Preset(Setup.from_json(data), (0,), (0, 100), 1, (5.0,), "a test")
from paper.main import main
main()
"""


@pytest.fixture
def toedit(monkeypatch, capsys):
    """Run `toedit ARGUMENTS` in this process with the preset `small`; return exit code, output and errors."""
    monkeypatch.setitem(PRESETS, "small", SMALL)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["toedit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def _children(process):
    tasks = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in tasks.split()]


def _killed(folder):
    """Start the experiment as a process of its own, and kill a worker and it once a model is made."""
    arguments = ["experiment", "mixture", "--preset", "small", "--out", str(folder)]
    given = json.dumps(SETUP.to_json())
    said = folder.with_suffix(".log")
    with said.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, given, *arguments], stdout=file, stderr=file)
    give_up = time.monotonic() + 600  # on cores that others use too
    while not list(folder.glob("run/*/done.json")):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < give_up
        time.sleep(0.05)
    workers = _children(process.pid)
    os.kill(workers[0], signal.SIGKILL)
    process.kill()
    process.wait()
    for worker in workers[1:]:  # it sees that its parent is gone and ends
        while pathlib.Path(f"/proc/{worker}").exists():
            assert time.monotonic() < give_up
            time.sleep(0.05)


def test_a_killed_experiment_goes_on_to_the_same_numbers(toedit, tmp_path, monkeypatch):
    # What one process has compiled, another need not.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    _killed(tmp_path / "a")
    finished = len(list((tmp_path / "a").glob("*/*/done.json")))
    assert 0 < finished < 4  # of three models and a sampled corpus
    command = ("experiment", "mixture", "--preset", "small", "--out")
    code, printed, _ = toedit(*command, tmp_path / "a")
    assert code == 0
    assert f"Finished: {finished} of 4" in printed
    assert "the same command goes on" in printed
    first = json.loads((tmp_path / "a" / "mixture.json").read_text())
    assert (first["name"], first["config"]["seeds"]) == ("mixture", [0])
    # Two of its models made without workers and kills, in this process.
    stage = Stage(tmp_path / "b", SETUP, prepare(SETUP.texts))
    cells = mixture(SMALL)[:2]
    for node in graph.made([cell.run for cell in cells]):
        node.make(stage, lambda share, message: None)
    arms = first["data"]["tables"]["arms"]
    assert plain(tables(stage, cells)["tables"]["arms"]) == [row for row in arms if row["synthetic"] == "news"]
    # Once more: nothing is made again, and the tables are the same.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("*/*/done.json")}
    code, printed, _ = toedit(*command, tmp_path / "a")
    assert code == 0
    assert "Finished: 4 of 4" in printed
    assert before == {path: path.stat().st_mtime_ns for path in before}
    again = json.loads((tmp_path / "a" / "mixture.json").read_text())
    assert again["data"] == first["data"]
    # What is damaged is made again, to the same tables.
    runs = [tmp_path / "a" / "run" / row["run"] for row in again["data"]["tables"]["cells"]]
    (runs[0] / "done.json").write_bytes(b"")
    (runs[1] / "measured-3.npz").unlink()
    for path in (tmp_path / "a").glob("sampled/*/arrays.npz"):
        path.write_bytes(path.read_bytes()[:50])
    code, printed, said = toedit(*command, tmp_path / "a")
    assert code == 0, said
    assert "Finished: 1 of 4" in printed
    mended = json.loads((tmp_path / "a" / "mixture.json").read_text())
    assert mended["data"] == first["data"]
    # What is printed and what is in the CSV are the JSON's numbers.
    row = next(row for row in arms if (row["arm"], row["domain"]) == ("self 100 %", "held-out"))
    assert f"{row['change']:+.3f}" in printed
    with (tmp_path / "a" / "mixture.arms.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(arms)
    assert {row["domain"] for row in arms} >= {"federalist", "verse", "news", "human", "trained", "held-out"}
    # The folder is of this configuration.
    changed = Setup.from_json({**SETUP.to_json(), "steps": 4})
    monkeypatch.setitem(PRESETS, "small", Preset(changed, (0,), (0, 100), 1, (5.0,), "a test"))
    for more in ((), ("--dry-run",)):
        code, _, said = toedit(*command, tmp_path / "a", *more)
        assert (code, said.count("\n")) == (2, 1)
        assert "another configuration" in said


def test_text_that_is_damaged_in_the_cache_is_made_again(tmp_path, monkeypatch):
    for kept in ("packages", "sources"):
        (cache_folder() / kept).mkdir(parents=True, exist_ok=True)
        (tmp_path / kept).symlink_to((cache_folder() / kept).absolute())
    monkeypatch.setenv("TOEDIT_CACHE", str(tmp_path))
    before = prepare(SETUP.texts)
    (folder,) = (path for path in (tmp_path / "experiments").iterdir() if path.is_dir())
    files = ["about.json", "tokenizer.json", "human/about.json", "human/tokens.npy", "test/documents.parquet"]
    for path in (folder / name for name in files):
        whole = path.read_bytes()
        for damage in (b"", whole[: len(whole) // 2]):
            path.write_bytes(damage)
            assert texts._intact(folder) is None
        path.write_bytes(whole)
    assert texts._intact(folder) is not None
    (folder / "about.json").write_bytes(b"")
    (folder / "human" / "about.json").unlink()
    after = prepare(SETUP.texts)
    assert (after.sha256, after.removed) == (before.sha256, before.removed)
    assert after.tokenizer.to_json() == before.tokenizer.to_json()


def test_experiments_made_at_the_same_time_share_a_folder(tmp_path):
    prepare(SETUP.texts)
    runs = [cell.run for cell in mixture(SMALL)[:2]]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # both are told of before a worker has begun
        stages = list(pool.map(lambda run: make([run], tmp_path / "out", SETUP, processes=1), runs))
    assert all(stage.finished(run) for stage, run in zip(stages, runs, strict=True))


def test_the_papers_preset_is_a_plan(toedit):
    code, printed, _ = toedit("experiment", "mixture", "--preset", "paper", "--dry-run")
    assert code == 0
    for said in ("124,439,808 parameters", "42,000,187,392 tokens", "GPU-hours", "GB of disk", "--coordinator"):
        assert said in printed
    lines = [line for line in printed.splitlines() if line.startswith("toedit train")]
    assert len(lines) == 2 * 9  # nine models of a seed, of both sizes
    assert "--source tokens/human-75:75/100 --source tokens/synthetic-25:25/100 --tokens 42000187392" in lines[1]
    # Every line is one that the program understands.
    config = (tyro.conf.OmitSubcommandPrefixes,)
    for name in ("mixture", "edited", "iterate"):
        code, printed, _ = toedit("experiment", name, "--preset", "paper", "--dry-run")
        assert code == 0
        commands = [line for line in printed.splitlines() if line.startswith("toedit ")]
        for line in commands[:12]:
            words = shlex.split(line.replace("$RANK", "0"), comments=True)[1:]
            assert tyro.cli(Command, args=words, config=config)


def test_some_sizes_of_a_preset(toedit, monkeypatch):
    """Each size has its own plan; `--sizes` leaves the others out."""
    sizes = {"short": {}, "long": {"steps": 2 * SETUP.steps}}
    monkeypatch.setitem(PRESETS, "two", Preset(SETUP, (0,), (0, 100), 1, (5.0,), "a test", variants={"mixture": sizes}))
    for more, named in (((), ["short", "long"]), (("--sizes", "long"), ["long"])):
        code, printed, _ = toedit("experiment", "mixture", "--preset", "two", "--dry-run", "--processes", "3", *more)
        assert code == 0
        assert [name for name in sizes if f"Variant {name}" in printed] == named
        assert "with 3 processes" in printed


def test_list(toedit):
    code, printed, _ = toedit("experiment", "--list")
    assert code == 0
    for said in ("mixture", "edited", "iterate", "laptop", "gpu", "paper", "one NVIDIA H200", "table 2", "FLOPs"):
        assert said in printed


def test_a_plan_of_edits_as_json(toedit, tmp_path):
    code, printed, _ = toedit("plan", "edited", "--preset", "small", "--sample", 300, "--json", tmp_path / "plan.json")
    assert code == 0
    found = json.loads((tmp_path / "plan.json").read_text())["data"]["variants"][""]
    assert found["counts"] == {"models": 5, "samples": 0, "scored": 2, "edits": 4}
    rates = {rate["arm"]: rate for rate in found["edit_rates"]}
    assert rates["paper"]["tokens"] > 100
    assert rates["confident 5 %"]["verdict"] == "testable"
    assert found["seconds_left_here"] > 0
    assert "by construction" in printed


def test_the_spread_is_that_of_committed_results(monkeypatch, tmp_path):
    """Student's half-width of 3 seeds with a standard deviation of .08 is 4.302653 x .08 / sqrt(3)."""
    folder = tmp_path / "paper" / "results" / "experiments" / "laptop"
    folder.mkdir(parents=True)
    about = {"step": 3, "domain": "human", "seeds": 3, "change_works_se": 0.02}
    arms = [
        {**about, "arm": "human", "change": 0.0, "change_half_width": 0.0},
        {**about, "arm": "steady", "change": 0.3, "change_half_width": 4.302653 * 0.06 / 3**0.5},
        {**about, "arm": "varied", "change": 0.3, "change_half_width": 4.302653 * 0.08 / 3**0.5},
        {**about, "arm": "varied", "change": 0.3, "change_half_width": 9.0, "step": 2},
    ]
    (folder / "mixture.json").write_text(json.dumps({"data": {"tables": {"arms": arms}}}))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    spread.cache_clear()
    pooled = ((0.06**2 + 0.08**2) / 2) ** 0.5
    assert spread("mixture", "gpu") == (pytest.approx(pooled), 0.02, "laptop", pytest.approx(0.08), "varied")
    assert spread("iterate", "gpu") == (None, None, "", None, "")
    spread.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("experiment", "nothing"), "no experiment 'nothing'"),
        (("experiment", "mixture", "--preset", "huge"), "no preset 'huge'"),
        (("experiment",), "no experiment is named"),
        (("experiment", "mixture", "--preset", "paper"), "for a cluster"),
        (("experiment", "mixture", "--preset", "small", "--seeds"), "empty"),
        (("experiment", "mixture", "--preset", "small", "--seeds", "1", "1"), "repeated"),
        (("experiment", "mixture", "--preset", "small", "--seeds", "-1"), "not in 0 to"),
        (("experiment", "mixture", "--preset", "small", "--sample", "-1"), "--sample is -1"),
        (("experiment", "mixture", "--preset", "small", "--processes", "0"), "--processes is 0"),
        (("experiment", "mixture", "--preset", "small", "--sizes", "17m"), "no size 17m of mixture; it has one size"),
        (("experiment", "edited", "--preset", "gpu", "--sizes", "17m"), "choose one of 8M-tokens-17m, 8M-tokens-124m"),
        (("experiment", "mixture", "--preset", "lost"), "no source 'lost'"),
        (("experiment", "mixture", "--preset", "large"), "free space"),
        (("experiment", "mixture", "--preset", "wide"), "of memory for"),
        (("plan", "nothing"), "no experiment 'nothing'"),
        (("plan", "mixture", "--preset", "huge"), "no preset 'huge'"),
        (("plan", "mixture", "--preset", "lost"), "no source 'lost'"),
        (("plan", "mixture", "--preset", "small", "--json", "/dev/null/x"), "cannot write"),
    ],
)
def test_bad_input(toedit, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    other = {
        "lost": SETUP.changed(texts={"held_out": ("lost",)}),
        "large": SETUP.changed(texts={"train_tokens": 10**15}),
        "wide": SETUP.changed(batch=10**8),
    }
    for name, setup in other.items():
        monkeypatch.setitem(PRESETS, name, Preset(setup, (0,), (0, 100), 1, (5.0,), "a test"))
    code, printed, said = toedit(*arguments)
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert printed == ""
    assert not list(tmp_path.iterdir())
