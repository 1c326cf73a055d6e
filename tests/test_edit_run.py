"""Editing files: whole and in their order, continued inside a file, in shards; applied, undone and checked again."""

import concurrent.futures
import gzip
import json
import resource
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from edit_worker import CONTEXT, EDIT

from lm.editing import folder
from lm.editing.check import verify
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder
from lm.editing.editor import Editor, edited_text
from lm.editing.inputs import find_tasks, shard_of
from lm.editing.prior import prepare_prior
from lm.editing.rebuild import apply_file, undo
from lm.editing.run import run
from lm.editing.settings import Settings
from lm.errors import InputError
from lm.weights.load import load

SETTINGS = Settings(EDIT, sample=0.3, chunk=1500)
CODE = (
    "def area(width, height):\n    return width * height\n\n\nclass Shape:\n    def __init__(self, name):\n"
    "        self.name = name\n\n    def __repr__(self):\n        return f'<{self.name}>'\n"
)


@pytest.fixture(scope="module")
def prior():
    return prepare_prior(load("tiny"), context=CONTEXT)


@pytest.fixture(scope="module")
def made(tmp_path_factory, prior):
    """A folder with files of every kind, some of several chunks, two damaged lines; its edit, and what `run` gave."""
    folder, rng = tmp_path_factory.mktemp("made") / "in", np.random.default_rng(20241216)
    lines = CODE.splitlines(keepends=True)

    def text():
        return "".join(rng.choice(lines) for _ in range(rng.integers(1, 12))) + "π🙂\n"

    (folder / "deep").mkdir(parents=True)
    rows = [json.dumps({"n": n, "text": text(), "id": f"d{n}"}, ensure_ascii=n % 2 == 0) for n in range(60)]
    bad = [*rows[:7], '{"text": 7}', *rows[7:9], "{broken \\", "", *rows[9:25]]
    (folder / "a.jsonl").write_text("\n".join(bad) + "\n", encoding="utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\r\n".join(rows[25:40]).encode()))
    (folder / "deep" / "c.jsonl.zst").write_bytes(zstandard.compress(("\n".join(rows[40:]) + "\n").encode()))
    (folder / "deep" / "d.txt").write_bytes(b"\xef\xbb\xbf" + (CODE * 8).encode() + b"\xff\x00" + CODE.encode())
    (folder / "e.txt").write_bytes(b"")
    table = {"n": list(range(20)), "text": [None if n == 3 else text() for n in range(20)], "x": [0.5, None] * 10}
    pq.write_table(pa.table(table), folder / "f.parquet", row_group_size=7)
    out = folder.with_name("out")
    return folder, out, edit(folder, out, prior)


@pytest.fixture
def corpus(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "in")


@pytest.fixture
def edited(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "out"), made[2]


def edit(corpus, out, prior, settings=SETTINGS, **options):
    return run(find_tasks([str(corpus)], out), out, prior, settings, **options)


def files(folder):
    """Every file below a folder, hidden ones and leftovers included, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path):
    with pa.OSFile(str(path)) as file:
        kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        return (pa.CompressedInputStream(file, kind) if kind else file).read()


def test_documents_are_edited_and_all_else_is_as_it_was(corpus, edited):
    out, outcome = edited
    tables = {}
    for name in ("a.jsonl", "b.jsonl.gz", "deep/c.jsonl.zst", "deep/d.txt", "e.txt", "f.parquet"):
        assert (out / f"{name}.done").read_bytes() == b""
        tables[name] = pq.read_table(out / f"{name}.edits.parquet")
        assert set(tables[name]["file"].to_pylist()) <= {name}
    assert sum(table.num_rows for table in tables.values()) == outcome.summary["total"]["changed"] > 50
    before, after = (content(folder / "a.jsonl").split(b"\n") for folder in (corpus, out))
    assert len(after) == len(before) - 2
    good = [line for number, line in enumerate(before, 1) if number not in (8, 11)]
    changed = 0
    for old, new in zip(good, after, strict=True):
        if not old:
            assert not new
            continue
        rows = [json.loads(line) for line in (old, new)]
        assert list(rows[0]) == list(rows[1])
        assert {**rows[0], "text": ""} == {**rows[1], "text": ""}
        changed += rows[0]["text"] != rows[1]["text"]
    assert changed > 10
    assert (out / "e.txt").read_bytes() == b""
    assert content(out / "b.jsonl.gz").count(b"\r\n") == 14
    one, other = (pq.read_table(folder / "f.parquet") for folder in (corpus, out))
    assert one.schema == other.schema
    assert one.drop_columns("text") == other.drop_columns("text") != other
    assert not list(out.rglob(".*"))


def test_damaged_records_are_set_aside_with_line_reason_and_bytes(corpus, edited):
    out, outcome = edited
    rows = [json.loads(line) for line in (out / "a.jsonl.aside.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"]) for row in rows] == [("a.jsonl", 8), ("a.jsonl", 11)]
    lines = (corpus / "a.jsonl").read_text().splitlines(keepends=True)
    assert [row["text"] for row in rows] == [lines[7], lines[10]]
    assert all(row["reason"] for row in rows)
    assert outcome.asides == 2
    assert json.loads((out / "stats.json").read_text())["set_aside"] == 2
    assert not (out / "b.jsonl.gz.aside.jsonl").exists()


def test_strict_refuses_the_first_damaged_record(corpus, tmp_path, prior):
    with pytest.raises(InputError, match=r"a\.jsonl:8: "):
        edit(corpus, tmp_path / "out", prior, strict=True)


class StoppedError(Exception):
    """Ends a run from outside."""


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_a_stopped_run_goes_on_inside_the_file(corpus, edited, tmp_path, prior, steps):
    out, outcome = tmp_path / "again", edited[1]
    total, left = outcome.summary["total"]["tokens"], steps

    def stop(step):
        nonlocal left
        left -= 1
        if not left:
            raise StoppedError

    with pytest.raises(StoppedError):
        edit(corpus, out, prior, progress=stop)
    kept = [path for path in (out / ".parts").rglob("*/[0-9]*") if path.is_dir()] + list(out.rglob("*.done"))
    assert bool(kept) == (steps > 1)
    done = []
    edit(corpus, out, prior, progress=done.append)
    assert files(out) == files(edited[0])
    assert (sum(step.tokens for step in done) < total) == bool(kept)


def test_a_finished_run_is_not_done_again(corpus, edited, prior):
    out, outcome = edited
    before = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.done")}
    done = []
    again = edit(corpus, out, prior, progress=done.append)
    assert sum(step.tokens for step in done) == 0
    assert again == outcome
    assert files(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.done")}


def test_shards_are_the_whole_run(corpus, edited, tmp_path, prior):
    out = tmp_path / "shards"
    outcomes = [edit(corpus, out, prior, shard=(index, 3)) for index in (2, 0, 1)]
    assert [outcome.complete for outcome in outcomes] == [False, False, True]
    assert [outcome.files for outcome in outcomes] == [2, 2, 6]
    assert files(out) == files(edited[0])
    assert outcomes[-1] == edited[1]


def test_what_another_process_is_writing_is_not_cleared(tmp_path):
    out = tmp_path / "out"
    folder.begin(out, {"format": 1})

    def write():
        for number in range(300):
            folder.write(out, out / f"{number}.json", b"{}")

    def rebuild():
        for _ in range(300):
            with folder.scratch(out, "deep/a.jsonl") as parts:
                (parts / "000000").write_bytes(b"")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(write), pool.submit(rebuild)]
        while not all(one.done() for one in running):
            folder.clear(out)
        for one in running:
            one.result()
    folder.clear(out)
    assert set(files(out)) == {folder.RUN, *(f"{number}.json" for number in range(300))}
    assert not (out / folder.PARTS).exists()


def test_neither_order_nor_chunks_change_what_is_edited(corpus, edited, tmp_path, prior):
    out = tmp_path / "other"
    tasks = find_tasks([str(corpus)], out)[::-1]
    run(tasks, out, prior, Settings(EDIT, sample=0.3, chunk=400))
    for task in tasks:
        assert content(out / task.relative) == content(edited[0] / task.relative)
        tables = [pq.read_table(folder / f"{task.relative}.edits.parquet") for folder in (out, edited[0])]
        assert tables[0] == tables[1]
    stats = [json.loads((folder / "stats.json").read_text()) for folder in (out, edited[0])]
    assert all(one["total"] == stats[0]["total"] and one["sample"] == stats[0]["sample"] for one in stats)


def test_batches_do_not_change_what_is_decided(prior, rng):
    lines = CODE.splitlines(keepends=True)
    texts = ["".join(rng.choice(lines) for _ in range(rng.integers(0, 12))).encode() for _ in range(24)]
    documents = DocumentEncoder(prior.tokenizer)(texts, [f"d{n}" for n in range(24)])
    together = {one.document.key: one for batch in Editor(prior, EDIT, 0.5)(documents) for one in batch}
    alone = Editor(prior, EDIT, 0.5)
    for document in documents[::-1]:
        ((one,),) = alone([document])
        other = together[document.key]
        for mine, theirs in zip(one.decisions, other.decisions, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert (one.after is None) == (other.after is None)
        np.testing.assert_array_equal(one.after, other.after)


def test_the_edited_text_is_in_the_output(corpus, edited, prior):
    """What is scored again for the statistics is what was written, here of a document of one file."""
    text = (corpus / "deep" / "d.txt").read_bytes().removeprefix(b"\xef\xbb\xbf")
    table = pq.read_table(edited[0] / "deep" / "d.txt.edits.parquet")
    (document,) = DocumentEncoder(prior.tokenizer)([text], [table["document"][0].as_py()])
    (((one),),) = Editor(prior, EDIT, 0.0)([document])
    written = (edited[0] / "deep" / "d.txt").read_bytes()
    assert written == b"\xef\xbb\xbf" + edited_text(document, one.decisions, prior.tokenizer)


@pytest.mark.parametrize(
    "other", [Settings(EditConfig(threshold=0.6)), Settings(EDIT, sample=0.2, chunk=1500), Settings(EDIT, field="body")]
)
def test_other_settings_in_the_same_folder_are_refused(corpus, edited, prior, other):
    with pytest.raises(InputError, match="holds another edit"):
        edit(corpus, edited[0], prior, other)


def test_a_changed_input_is_refused_finished_or_not(corpus, edited, tmp_path, prior):
    path, out = corpus / "a.jsonl", tmp_path / "half"
    steps = iter([None] * 5)

    def stop(step):
        if next(steps, "over"):
            raise StoppedError

    with pytest.raises(StoppedError):
        edit(corpus, out, prior, progress=stop)
    assert not (out / "a.jsonl.done").exists()
    assert (out / ".parts" / "a.jsonl" / "000000").is_dir()
    path.write_bytes(path.read_bytes().replace(b'"n": 24', b'"n": 25'))  # behind the parts that are finished
    with pytest.raises(InputError, match=r"a\.jsonl has changed since it was edited"):
        edit(corpus, edited[0], prior)
    with pytest.raises(InputError, match=r"a\.jsonl has changed since its edit began"):
        edit(corpus, out, prior)
    # A stream has no hash of the whole, but each part knows what it was made from.
    path.write_bytes(path.read_bytes().replace(b'"n": 0,', b'"n": 9,'))
    (out / ".parts" / "a.jsonl" / "input.json").unlink()
    with pytest.raises(InputError, match=r"a\.jsonl has changed since its edit began"):
        edit(corpus, out, prior)


def test_a_folder_with_something_else_is_refused(corpus, tmp_path, prior):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="choose an empty or a new one"):
        edit(corpus, out, prior)
    assert files(out) == {"thesis.txt": b"mine"}


def test_a_full_disk_is_told_in_one_sentence_and_the_run_goes_on_later(corpus, edited, tmp_path, prior):
    out, limits = tmp_path / "full", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))  # stands for the disk: no file may be longer
    try:
        with pytest.raises(InputError, match=r"cannot be written .* the same command goes on"):
            edit(corpus, out, prior)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    edit(corpus, out, prior)
    assert files(out) == files(edited[0])


def test_a_damaged_file_does_not_lose_the_work_before_it(corpus, tmp_path, prior):
    path = corpus / "b.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"b\.jsonl\.gz cannot be read"):
        edit(corpus, tmp_path / "out", prior)
    assert (tmp_path / "out" / "a.jsonl.done").exists()


def test_edits_apply_and_undo(corpus, edited, tmp_path):
    out, _ = edited
    again, back = tmp_path / "again", tmp_path / "back"
    tasks = find_tasks([str(corpus)], again)
    for task in tasks:
        apply_file(task, out, again)
        assert (again / task.relative).read_bytes() == (out / task.relative).read_bytes()
    for task in find_tasks([str(out)], back):
        undo(task, out, back)
        if task.relative.endswith(".parquet"):
            assert pq.read_table(back / task.relative) == pq.read_table(corpus / task.relative)
        else:
            assert content(back / task.relative) == content(corpus / task.relative)
    assert set(files(again)) == set(files(back)) == {task.relative for task in tasks}
    line = (corpus / "a.jsonl").read_bytes().splitlines(keepends=True)[0]
    (corpus / "a.jsonl").write_bytes(line)
    with pytest.raises(InputError, match="record"):
        apply_file(tasks[0], out, again)


def test_verify_finds_what_was_changed(corpus, edited, prior):
    out, outcome = edited
    tasks = find_tasks([str(corpus)], out)
    found = verify(tasks, out, prior, documents=1000)
    assert (found.files, found.differences) == (6, 0)
    assert found.documents == outcome.summary["total"]["documents"]
    assert found.tokens == outcome.summary["total"]["tokens"]
    assert found.edits == outcome.summary["total"]["changed"]
    path = out / "a.jsonl.edits.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    found = verify(tasks, out, prior, documents=1000)
    assert found.differences == 2  # the file cannot be undone, and the document has an edit that is not in the table
    pq.write_table(table, path)
    line = (out / "deep" / "d.txt").read_bytes()
    (out / "deep" / "d.txt").write_bytes(line + b"x")
    assert verify(tasks, out, prior, documents=1).differences == 1
    with pytest.raises(InputError, match="another context"):
        verify(tasks, out, prepare_prior(load("tiny"), context=64))


def test_verify_knows_nan_at_any_depth_and_indices_of_any_width(tmp_path, prior):
    path, out, nan = tmp_path / "in" / "a.parquet", tmp_path / "out", float("nan")
    path.parent.mkdir()
    kinds = {
        "text": pa.dictionary(pa.int8(), pa.string()),
        "x": pa.list_(pa.struct({"y": pa.float64()})),
        "fixed": pa.list_(pa.float32(), 2),
        "map": pa.map_(pa.string(), pa.float16()),
        "tags": pa.list_(pa.dictionary(pa.int16(), pa.string())),
    }
    rows = [
        {"text": CODE, "x": [{"y": nan}, None, {"y": 1.0}], "fixed": [nan, 0.0], "map": [("a", np.float16(nan))]},
        {"text": None, "x": None, "fixed": None, "map": None},
        {"text": CODE * 2, "x": [], "fixed": [1.0, None], "map": [], "tags": ["b", "a", None]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), path)
    assert edit(path.parent, out, prior).summary["total"]["changed"]
    tasks = find_tasks([str(path.parent)], out)
    assert verify(tasks, out, prior).differences == 0
    table = pq.read_table(out / "a.parquet")
    for column, other in (("x", [{"y": 2.0}, None, {"y": 1.0}]), ("fixed", [nan, -0.0]), ("tags", ["b"])):
        values = [other, *table[column].to_pylist()[1:]]
        place, field = table.schema.get_field_index(column), table.schema.field(column)
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), out / "a.parquet")
        assert verify(tasks, out, prior).differences == 1, column


def test_inputs_keep_their_layout_and_never_meet(tmp_path):
    for name in ("a/x.jsonl", "b/x.jsonl", "b/c/y.txt", "b/.hidden/z.txt", "b/x.jsonl.edits.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    out = tmp_path / "out"

    def names(*inputs):
        return [task.relative for task in find_tasks([str(tmp_path / one) for one in inputs], out)]

    assert names("b") == ["c/y.txt", "x.jsonl"]
    assert names("b/c/y.txt", "a/x.jsonl") == ["y.txt", "x.jsonl"]
    assert names("*/x.jsonl") == ["a/x.jsonl", "b/x.jsonl"]
    assert names("b/**/*.txt") == ["c/y.txt"]
    assert names("b/x.jsonl", "b") == ["x.jsonl", "c/y.txt"]
    assert [task.domain for task in find_tasks([str(tmp_path / "b")], out)] == ["c", "b"]
    assert [task.relative for task in find_tasks(["source:sotu", "hub:A/B:c d"], out)] == [
        "sotu.jsonl.zst",
        "A/B/c-d.jsonl.zst",
    ]
    for inputs, said in (
        (("a/x.jsonl", "b/x.jsonl"), "would both be written"),
        (("b/x.jsonl", "b/x.jsonl.edits.parquet"), "would both be written"),
        (("nothing",), "there is no file"),
        (("x" * 300 + ".txt",), r"x\.txt cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            names(*inputs)
    for place in ("b", "b/edited"):
        with pytest.raises(InputError, match=r"lies (in the output folder|inside the input)"):
            find_tasks([str(tmp_path / "b")], tmp_path / place)
    with pytest.raises(InputError, match="lies in the output folder"):
        find_tasks([str(tmp_path / "b" / "x.jsonl")], tmp_path / "b")
    tasks = find_tasks([str(tmp_path / "b")], out)
    assert [shard_of(tasks, index, 2) for index in (0, 1)] == [tasks[:1], tasks[1:]]
    with pytest.raises(InputError, match="no shard 2 of 2"):
        shard_of(tasks, 2, 2)
