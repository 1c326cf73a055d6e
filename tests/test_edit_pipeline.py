"""The steps for datatrove, run by its local executor: the same bytes as `toedit edit`, and documents in their order."""

import inspect
import json
import os
import pathlib
import subprocess
import sys
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from edit_worker import CONTEXT, EDIT

from lm.editing.inputs import find_tasks
from lm.editing.prior import prepare_prior
from lm.editing.run import run
from lm.editing.settings import Settings
from lm.errors import InputError
from lm.weights.load import load

pytest.importorskip("datatrove", reason="the extra `datatrove` is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package's own imports
    from datatrove.data import Document  # pyright: ignore[reportMissingImports]
    from datatrove.executor import LocalPipelineExecutor  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.readers import ParquetReader  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.writers import ParquetWriter  # pyright: ignore[reportMissingImports]

    from lm.editing.pipeline import EditDocuments, EditFiles

# The executor forks a server of queues, which never calls JAX.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
SETTINGS = Settings(EDIT, chunk=1000)
CODE = "class Shape:\n    def __init__(self, name):\n        self.name = name\n\n    def __repr__(self):\n"


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        rows = [{"id": f"{name}{n}", "text": CODE * (n % 4 + 1) + f"# {n} π", "n": n} for n in range(6)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def edited(corpus, tmp_path):
    out = tmp_path / "edited"
    run(find_tasks([str(corpus)], out), out, prepare_prior(load("tiny"), context=CONTEXT), SETTINGS)
    return out


def test_files_are_edited_as_by_the_command(corpus, edited, tmp_path):
    out, logs = tmp_path / "out", tmp_path / "logs"
    step = EditFiles([str(corpus)], str(out), "tiny", SETTINGS, context=CONTEXT)
    stats = LocalPipelineExecutor([step], tasks=2, workers=1, logging_dir=str(logs)).run()
    names = sorted(path.name for path in edited.iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (edited / name).read_bytes()
    total = json.loads((out / "stats.json").read_text())["total"]
    assert stats is not None
    assert stats.stats[0].stats["tokens"].total == total["tokens"]
    assert stats.stats[0].stats["changed"].total == total["changed"] > 0
    assert len(list((logs / "completions").iterdir())) == 2


def test_documents_are_edited_between_a_reader_and_a_writer(corpus, edited, tmp_path):
    table, out = tmp_path / "table", tmp_path / "out"
    table.mkdir()
    rows = [json.loads(line) for name in "abc" for line in (corpus / f"{name}.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), table / "all.parquet")
    pipeline = [ParquetReader(str(table)), EditDocuments("tiny", EDIT, context=CONTEXT), ParquetWriter(str(out))]
    LocalPipelineExecutor(pipeline, tasks=1, logging_dir=str(tmp_path / "logs")).run()
    (path,) = out.iterdir()
    found = pq.read_table(path).to_pylist()
    wanted = [json.loads(line) for name in "abc" for line in (edited / f"{name}.jsonl").read_text().splitlines()]
    assert [one["text"] for one in wanted] != [one["text"] for one in rows]
    assert [(one["id"], one["text"], one["metadata"]["n"]) for one in found] == [
        (one["id"], one["text"], one["n"]) for one in wanted
    ]
    total = json.loads((edited / "stats.json").read_text())["total"]
    for name in ("tokens", "selected", "changed"):
        assert sum(one["metadata"]["toedit"][name] for one in found) == total[name]


@pytest.mark.parametrize("step", [EditFiles, EditDocuments])
def test_the_example_of_the_docstring_runs(corpus, tmp_path, step):
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = (corpus / "a.jsonl").read_bytes()
    if step is EditFiles:
        (folder / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    else:
        pq.write_table(pa.Table.from_pylist([json.loads(line) for line in lines.splitlines()]), folder / "a.parquet")
    _, _, example = inspect.cleandoc(step.__doc__ or "").partition("Example")
    _, _, code = example.partition(":\n\n")
    # In a process of its own, because datatrove keeps what a relative folder was first.
    subprocess.run([sys.executable, "-c", inspect.cleandoc("\n" + code)], check=True, cwd=tmp_path)
    assert len(list((tmp_path / "logs" / "completions").iterdir())) == 4
    if step is EditFiles:
        assert (tmp_path / "edited" / "a.jsonl.zst.done").exists()
        assert json.loads((tmp_path / "edited" / "stats.json").read_text())["total"]["documents"] == 6
    else:
        (path,) = (tmp_path / "edited").iterdir()
        rows = pq.read_table(path).to_pylist()
        assert [row["id"] for row in rows] == [f"a{n}" for n in range(6)]
        assert all(row["metadata"]["toedit"]["tokens"] > 0 for row in rows)


def test_documents_are_keyed_as_by_the_command():
    given, keys = [7, b"\xff", "\ud800", "x", "", 1.5], ["7", "\\xff", "\\ud800", "x"]
    texts = {}
    for way, ids in (("id", given), ("id", keys), ("text", given[4:])):
        documents = [Document(text=CODE * 4, id=one) for one in ids]
        edited = EditDocuments("tiny", EDIT, context=CONTEXT, key=way).run(documents)
        texts[way, len(ids)] = [one.text for one in edited]
    assert texts["id", 6] == texts["id", 4] + texts["text", 2]
    assert len(set(texts["id", 6])) == 5


def test_another_key_is_refused():
    with pytest.raises(InputError, match="use id or text"):
        EditDocuments(key="line")


SBATCH = """#!{python}
import os, re, subprocess, sys
script = sys.argv[-1]
given = dict(part.split("=") for one in sys.argv if one.startswith("--export") for part in one.split(",")[1:])
array = re.search(r"--array=0-([0-9]+)", open(script).read())
for index in range(int(array[1]) + 1 if array else 1):
    about = {{"SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": "7", "SLURM_NODELIST": "here", "SLURM_NODEID": "0"}}
    made = subprocess.run(["bash", script], env=os.environ | given | about, capture_output=True)
    if made.returncode:
        sys.exit((made.stdout + made.stderr).decode())
print("Submitted batch job 7")
"""


@pytest.mark.slow
def test_slurm_runs_the_edit(corpus, edited, tmp_path, monkeypatch):
    """Its executor pickles the step and submits a script; a stand-in of Slurm runs the script's tasks in turn."""
    from datatrove.executor import SlurmPipelineExecutor  # pyright: ignore[reportMissingImports]

    programs = tmp_path / "bin"
    programs.mkdir()
    hosts = "#!/bin/sh\necho here\n"
    for name, text in (("sbatch", SBATCH.format(python=sys.executable)), ("scontrol", hosts)):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    places = (str(programs), str(pathlib.Path(sys.executable).parent), os.environ["PATH"])
    monkeypatch.setenv("PATH", os.pathsep.join(places))
    out, logs = tmp_path / "out", tmp_path / "logs"
    step = EditFiles([str(corpus)], str(out), "tiny", SETTINGS, context=CONTEXT)
    SlurmPipelineExecutor(
        [step], tasks=2, time="1:00:00", partition="cpu", logging_dir=str(logs), with_srun=False,
        slurm_logs_folder=str(tmp_path / "slurm"),
    ).run()  # fmt: skip
    names = sorted(path.name for path in edited.iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (edited / name).read_bytes()
    assert len(list((logs / "completions").iterdir())) == 2
