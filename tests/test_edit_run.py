"""Editing files: whole and in their order, continued inside a file, in shards; applied, undone and checked again."""

import concurrent.futures
import errno
import gzip
import json
import os
import resource
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from edit_worker import CONTEXT, EDIT

from lm.editing import columns, folder
from lm.editing import records as reading
from lm.editing.check import verify
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder
from lm.editing.editor import Editor, edited_text
from lm.editing.inputs import find_tasks, shard_of
from lm.editing.prior import prepare_prior
from lm.editing.rebuild import apply_file, undo
from lm.editing.run import run
from lm.editing.settings import Settings, settings_of
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


def test_a_file_of_records_without_the_field_is_refused_wherever_it_stands(tmp_path, prior):
    corpus = tmp_path / "in"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text("\n")
    (corpus / "b.jsonl").write_text('{"content": "x"}\n' * 5)
    for shard in ((0, 1), (1, 2)):  # no folder is made that would hold the wrong field
        with pytest.raises(InputError, match=r"b\.jsonl have no field 'text'; they have content"):
            edit(corpus, tmp_path / "out", prior, shard=shard)
    assert not (tmp_path / "out").exists()
    (corpus / "a.jsonl").write_text(json.dumps({"text": CODE}) + "\n")
    for shard, out in (((0, 1), tmp_path / "whole"), ((1, 2), tmp_path / "shard")):
        with pytest.raises(InputError, match=r"b\.jsonl have no field"):
            edit(corpus, out, prior, shard=shard)
    assert (tmp_path / "whole" / "a.jsonl.done").exists()
    assert not (tmp_path / "whole" / "b.jsonl").exists()


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
    assert bool(kept) == (steps > 2)  # a group of chunks is kept while the next is decided, which tells of two steps
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


def test_a_folder_that_vanishes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    out, make = tmp_path / "out", os.mkdir
    folder.begin(out, {"format": 1})
    vanishing = {out / folder.PARTS}  # once

    def mkdir(path, mode=0o777):
        if path in vanishing:
            vanishing.clear()
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        make(path, mode)

    folder.clear(out)
    monkeypatch.setattr(os, "mkdir", mkdir)
    folder.write(out, out / "a.json", b"{}")
    assert not vanishing
    assert (out / "a.json").read_bytes() == b"{}"
    folder.clear(out)
    (out / folder.PARTS).mkdir()
    (out / folder.PARTS / folder.NEW).write_text("in the way")
    with pytest.raises(FileExistsError):
        folder.write(out, out / "b.json", b"{}")


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


def test_a_folder_of_an_older_form_is_to_be_made_anew(corpus, edited, prior):
    path = edited[0] / folder.RUN
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(InputError, match=r"format 1 there and 2 here\); choose another --out to edit anew"):
        edit(corpus, edited[0], prior)


def test_another_device_goes_on_with_a_warning(corpus, edited, prior):
    out, outcome = edited
    before, said = files(out), []
    path = out / folder.RUN
    path.write_bytes(folder.as_json({**json.loads(path.read_text()), folder.DEVICE: "TPU v9"}))
    assert edit(corpus, out, prior, warn=said.append) == outcome
    assert not said  # all was finished: nothing is mixed
    (out / "e.txt.done").unlink()
    edit(corpus, out, prior, warn=said.append)
    (sentence,) = said
    assert "was begun on TPU v9 and is continued on cpu" in sentence
    totals = json.loads((out / "stats.json").read_text())
    assert totals["run"][folder.DEVICE] == "TPU v9"
    unlike = {name for name, content in files(out).items() if content != before[name]}
    assert unlike <= {"run.json", "stats.json", "edits.html"}  # the files that tell of the run


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
    note = json.loads((out / "a.jsonl.stats.json").read_text()) | {"input": folder.input_of(tasks[0])}
    (out / "a.jsonl.stats.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match="ends before record"):
        apply_file(tasks[0], out, again)


def test_a_changed_original_or_table_is_not_applied(corpus, edited, tmp_path):
    out, (task, *_) = edited[0], find_tasks([str(corpus)], tmp_path / "made")
    table = pq.read_table(out / "a.jsonl.edits.parquet")
    pq.write_table(table.slice(0, table.num_rows - 1), out / "a.jsonl.edits.parquet")
    for make in (apply_file, undo):
        with pytest.raises(InputError, match=f"has {table.num_rows - 1} edits and not the {table.num_rows} of"):
            make(task, out, tmp_path / "made")
    pq.write_table(table, out / "a.jsonl.edits.parquet")
    apply_file(task, out, tmp_path / "made")
    with (corpus / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "more"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl is not the file that was edited into"):
        apply_file(task, out, tmp_path / "made")


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
        (("b/x.jsonl.edits.parquet",), r"nothing to edit but .*b/x\.jsonl\.edits\.parquet, which stands beside"),
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


@pytest.mark.parametrize(("plain", "largest"), [(True, 64 << 20), (False, 2000)])
def test_verify_compares_rows_whose_batches_end_elsewhere(tmp_path, prior, monkeypatch, plain, largest):
    """Arrow ends a batch of dictionaries where a page of theirs, or the row group, ends."""
    monkeypatch.setattr(columns, "LARGEST_GROUP", largest)
    monkeypatch.setattr(columns, "ROWS", 20)
    path, out = tmp_path / "in" / "a.parquet", tmp_path / "out"
    path.parent.mkdir()
    kinds = pa.array([f"kind {n % 3}" for n in range(100)]).dictionary_encode()
    nested = [{"x": [n, None], "y": float("nan") if n % 2 else None} if n % 5 else None for n in range(100)]
    table = pa.table({"text": [CODE] * 100, "kind": kinds, "nested": nested})
    pq.write_table(table, path, row_group_size=7 if plain else None, use_dictionary=not plain)
    assert edit(path.parent, out, prior).summary["total"]["changed"]
    if plain:
        pq.write_table(pq.read_table(out / "a.parquet"), out / "a.parquet", row_group_size=13)
    ends = [[len(batch) for batch in pq.ParquetFile(one).iter_batches(4096)] for one in (path, out / "a.parquet")]
    assert ends[0] != ends[1]
    tasks = find_tasks([str(path.parent)], out)
    assert verify(tasks, out, prior, documents=5).differences == 0
    place, found = table.schema.get_field_index("nested"), pq.read_table(out / "a.parquet")
    other = pa.array([*nested[:-1], {"x": [99, 1], "y": float("nan")}], table.schema.field("nested").type)
    pq.write_table(found.set_column(place, table.schema.field("nested"), other), out / "a.parquet")
    assert verify(tasks, out, prior, documents=5).differences == 1


def _replace(path, column, values):
    table = pq.read_table(path)
    place, field = table.schema.get_field_index(column), table.schema.field(column)
    pq.write_table(table.set_column(place, field, pa.array(values(table[column].to_numpy()), field.type)), path)


def test_verify_compares_probabilities(corpus, edited, prior):
    out, _ = edited
    tasks = [task for task in find_tasks([str(corpus)], out) if task.relative == "b.jsonl.gz"]
    path = out / "b.jsonl.gz.edits.parquet"
    whole, documents = path.read_bytes(), len(pq.read_table(path)["record"].unique())
    # What another machine may give is no difference.
    _replace(path, "p_old", lambda p: np.minimum(1, p * 1.3))
    _replace(path, "p_new", lambda p: p * 0.7)
    assert verify(tasks, out, prior).differences == 0
    # One difference more than the documents: no edit is to be made at such a probability.
    for column, values, expected in (
        ("p_new", lambda p: p * 0.1, documents),
        ("p_new", lambda p: p * np.nan, documents),
        ("p_old", lambda p: p * 0.1, documents + 1),
        ("p_old", lambda p: p * np.nan, documents + 1),
        ("p_old", lambda p: np.where(np.arange(len(p)) == 2, np.float32(0.49999), p), 1),
    ):
        path.write_bytes(whole)
        _replace(path, column, values)
        found = verify(tasks, out, prior)
        assert found.differences == expected, (column, found.told)
    assert found.told == [
        f"{corpus / 'b.jsonl.gz'}: by their probabilities, 1 of its edits are not to be made by the settings"
    ]
    pq.write_table(pq.read_table(path).drop_columns(["p_new"]), path)
    with pytest.raises(InputError, match=r"^[^\n]*b\.jsonl\.gz\.edits\.parquet is no table of edits[^\n]*$"):
        verify(tasks, out, prior)


def test_lines_that_are_too_long_stay_and_can_be_verified(tmp_path, prior, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_LINE", 2000)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    line = json.dumps({"text": CODE}).encode() + b"\n"
    long = b'{"text": "' + b"of the " * 1000 + b'"}\n'
    (folder / "a.jsonl").write_bytes(line + long + b"damaged\n" + line + long + line)
    outcome = edit(folder, out, prior)
    assert outcome.asides == 3
    assert outcome.summary["total"]["changed"] > 0
    assert (out / "a.jsonl").read_bytes().count(long) == 2
    asides = [json.loads(one) for one in (out / "a.jsonl.aside.jsonl").read_text().splitlines()]
    assert [(one["line"], one["text"]) for one in asides] == [(2, ""), (3, "damaged\n"), (5, "")]
    assert "stays as it is" in asides[0]["reason"]
    (task,) = find_tasks([str(folder)], out)
    assert verify([task], out, prior).differences == 0
    apply_file(task, out, tmp_path / "again")
    assert (tmp_path / "again" / "a.jsonl").read_bytes() == (out / "a.jsonl").read_bytes()
    undo(find_tasks([str(out)], tmp_path / "back")[0], out, tmp_path / "back")
    assert (tmp_path / "back" / "a.jsonl").read_bytes() == (folder / "a.jsonl").read_bytes()


@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_no_unit_becomes_two(tmp_path, prior, unit):
    """Not even where every token is drawn anew, from all."""
    path, out = tmp_path / "in" / "a.txt", tmp_path / "out"
    path.parent.mkdir()
    lines = [line for line in CODE.splitlines() if line.strip()]
    content = "".join(f"{line}\n{'' if n % 3 else chr(10)}" for n, line in enumerate(lines * 20))
    path.write_text("\n" + content + "a\rb c\rd\r\n" * 9, encoding="utf-8")
    every = EditConfig(threshold=0.0, candidates="all", temperature=2.0, keep_original=False)
    settings = Settings(every, unit=unit)
    assert edit(path.parent, out, prior, settings).summary["total"]["changed"] > 500
    reader = reading.Reading(unit=unit)
    before, after = (list(reading.records(reading.Input(str(one)), reader)) for one in (path, out / "a.txt"))
    numbers = [[one.number for one in found if isinstance(one, reading.Item) and one.text] for found in (before, after)]
    assert len(numbers[0]) == len(numbers[1])
    assert unit == "paragraph" or numbers[0] == numbers[1]  # a paragraph may have lost a line break
    ends = [(out / "a.txt").read_bytes().count(one) for one in (b"\r", b"\n\n")]
    assert ends == [path.read_bytes().count(one) for one in (b"\r", b"\n\n")]
    assert verify(find_tasks([str(path.parent)], out), out, prior).differences == 0


def test_units_are_no_part_of_the_edit_that_is_kept():
    settings = Settings(EditConfig(), unit="line")
    assert settings.edit.unit == "line"
    assert "unit" not in settings.to_json()["edit"]
    with pytest.raises(InputError, match="no unit 'page'; choose one of file, paragraph, line"):
        Settings(EditConfig(), unit="page")  # pyright: ignore[reportArgumentType] (from a file)


@pytest.mark.parametrize(
    ("name", "value"), [(folder.NAME, None), ("context", "32"), ("compute", ["x"]), ("settings", [])]
)
def test_settings_of_another_form_are_refused(edited, name, value):
    path = edited[0] / folder.RUN
    found = folder.read_json(path)
    assert settings_of(edited[0])[1] == found
    path.write_text(json.dumps({key: one for key, one in found.items() if key != name}))
    with pytest.raises(InputError, match="not of this version's form; edit the files again"):
        settings_of(edited[0])
    path.write_text(json.dumps({**found, name: value}))
    with pytest.raises(InputError, match="not of this version's form; edit the files again"):
        settings_of(edited[0])


def test_what_an_edit_wrote_is_left_out_of_what_a_shell_expands(tmp_path):
    for name in ("in/x.jsonl", "ed/x.jsonl", "ed/x.jsonl.aside.jsonl", "ed/deep/y.jsonl", "ed/y.txt.aside.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    names, said = sorted(map(str, tmp_path.rglob("*.jsonl"))), []
    with pytest.raises(InputError, match=r"ed/deep/y\.jsonl lies in the output folder"):
        find_tasks(names, tmp_path / "ed", said.append)
    (tmp_path / "ed" / folder.RUN).write_text("{}")
    (task,) = find_tasks(names, tmp_path / "ed", said.append)
    assert task.name == str(tmp_path / "in" / "x.jsonl")
    (sentence,) = said
    assert f"lie in the output folder {tmp_path / 'ed'} are left out: 4" in sentence
    with pytest.raises(InputError, match="lies in the output folder"):
        find_tasks([str(tmp_path / "ed" / "x.jsonl")], tmp_path / "ed")
    said.clear()
    ed = sorted(map(str, (tmp_path / "ed").glob("*.jsonl")))
    # What stands beside nothing may be the user's own.
    assert [task.relative for task in find_tasks(ed, tmp_path / "ed2", said.append)] == ["x.jsonl", "y.txt.aside.jsonl"]
    (sentence,) = said
    assert sentence.endswith("left out: 1, the first is " + ed[1])


def test_links_are_files_of_their_own_with_the_domain_of_their_place(tmp_path, prior):
    snap, blobs, out = tmp_path / "snap", tmp_path / "blobs", tmp_path / "out"
    for place in (snap / "en", snap / "de", blobs):
        place.mkdir(parents=True)
    (blobs / "0123").write_text(json.dumps({"text": CODE}) + "\n")
    for name in ("en/a.jsonl", "en/b.jsonl", "de/a.jsonl"):
        (snap / name).symlink_to("../../blobs/0123")
    tasks = find_tasks([str(snap), str(snap / "en" / "a.jsonl"), str(snap / "de" / ".." / "en" / "b.jsonl")], out)
    assert [(task.relative, task.domain) for task in tasks] == [
        ("de/a.jsonl", "de"), ("en/a.jsonl", "en"), ("en/b.jsonl", "en"),
    ]  # fmt: skip
    assert run(tasks, out, prior, SETTINGS).summary["domains"].keys() == {"de", "en"}
    assert len({(out / task.relative).read_bytes() for task in tasks}) == 1
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jsonl").symlink_to(out / "en" / "a.jsonl")
    with pytest.raises(InputError, match="lies in the output folder"):
        find_tasks([str(tmp_path / "elsewhere" / "a.jsonl")], out)
