"""Records of text files, JSONL and Parquet: what is read, what is set aside, what is refused."""

import dataclasses
import gzip
import itertools
import json
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lm.data import readers
from lm.data.readers import Bad, Reading, Record, find, read
from lm.data.splits import split_of
from lm.errors import InputError

TEXTS = ["one", "caf\u00e9 \U0001f600", "NUL \x00 and\r\nCRLF", " \u05e9\u05dc\u05d5\u05dd ", "\ufeffmark", "last"]


def _all(path, reading=None, aside=readers.refuse):
    return [record for one in find([str(path)]) for record in read(one, reading or Reading(), aside)]


def _lines(texts=TEXTS):
    return [json.dumps({"text": text, "other": 1}).encode() + b"\n" for text in texts]


def _pack(path: pathlib.Path, content: bytes) -> pathlib.Path:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst"])
def test_lines_of_json_come_back_with_their_places(tmp_path, name):
    content = b"".join(_lines())
    path = _pack(tmp_path / name, content)
    found = _all(path, Reading(domain="d"))
    assert [record.text for record in found] == TEXTS
    assert [record.id for record in found] == [f"{path}:{number}" for number in range(1, 7)]
    assert [record.line for record in found] == [*range(1, 7)]
    assert found[0] == Record(f"{path}:1", f"{path}:1", "d", "one", str(path), 1)


def test_frames_and_members_one_after_the_other_are_one_file(tmp_path):
    halves = [b"".join(_lines(part)) for part in (TEXTS[:3], TEXTS[3:])]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    (tmp_path / "b.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, halves)))
    assert [record.text for record in _all(tmp_path)] == TEXTS * 2


def test_ids_and_fields(tmp_path):
    rows = [{"id": "x", "body": "a"}, {"id": 7, "body": "b"}, {"id": None, "body": "c"}, {"id": "", "body": "d"}]
    rows.append({"id": "\ud800x", "body": "e"})  # half a surrogate pair has no UTF-8
    path = tmp_path / "a.jsonl"
    path.write_bytes(readers.BOM + b"\n".join(json.dumps(row).encode() for row in rows))  # no line end at the end
    assert [(record.id, record.text) for record in _all(path, Reading(field="body"))] == [
        ("x", "a"),
        ("7", "b"),
        (f"{path}:3", "c"),
        (f"{path}:4", "d"),
        ("\\ud800x", "e"),
    ]


def test_one_id_in_two_files_is_two_works(tmp_path):
    for name in "ab":
        rows = [{"id": one, "text": "x"} for one in ("1", "1", "2")] + [{"text": "x"}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    works = [record.work for record in _all(tmp_path)]
    assert works[0] == works[1]
    assert len(set(works)) == 6


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_columns_of_parquet(tmp_path, kind):
    path = tmp_path / "a.parquet"
    texts = [*TEXTS, "", None]
    table = pa.table({"id": [f"r{n}" for n in range(8)], "n": range(8), "text": pa.array(texts).cast(kind)})
    pq.write_table(table, path, row_group_size=3)
    bad: list[Bad] = []
    found = _all(path, aside=bad.append)
    assert [(record.id, record.text, record.line) for record in found] == [
        (f"r{n}", text, n + 1) for n, text in enumerate(TEXTS)
    ]
    assert bad == [Bad(str(path), 7, "the field 'text' is empty"), Bad(str(path), 8, "the field 'text' is missing")]
    with pytest.raises(InputError, match="no column 'body' but id, n, text"):
        _all(path, Reading(field="body"))


def test_two_columns_of_one_name_are_refused(tmp_path):
    path, column = tmp_path / "a.parquet", pa.array(["x"])
    for names in (["id", "text", "id"], ["text", "id", "text"]):
        pq.write_table(pa.Table.from_arrays([column] * 3, names), path)
        with pytest.raises(InputError, match=f"several columns '{names[0]}'; rename or remove"):
            _all(path)
    assert [record.text for record in _all(path, Reading(field="id"))] == ["x"]


_PEAK = """
import pathlib, sys
from lm.data.readers import Input, Reading, read

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def count(name):
    return sum(1 for _ in read(Input(name), Reading()))

count(sys.argv[1])
before = peak()
assert count(sys.argv[2]) == 60_000
print(peak() - before)
"""


def test_a_row_group_is_not_in_memory_as_a_whole(tmp_path, rng):
    for name, rows in (("small.parquet", 1000), ("large.parquet", 60_000)):
        texts = [rng.bytes(600).hex() for _ in range(rows)]  # 36 MB of random bytes in one group
        pq.write_table(pa.table({"text": texts}), tmp_path / name, row_group_size=rows, compression="zstd")
    names = [str(tmp_path / name) for name in ("small.parquet", "large.parquet")]
    command = [sys.executable, "-W", "error", "-c", _PEAK, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Half of its compressed bytes; all of them, and more, without a buffer.
    assert float(done.stdout) < 0.5 * (tmp_path / "large.parquet").stat().st_size / 2**20


def test_parquet_text_that_is_not_utf_8_is_set_aside(tmp_path):
    strings = pa.array([b"good", b"\xff\xfe", b"good too"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": strings}), tmp_path / "a.parquet")
    bad: list[Bad] = []
    assert [record.text for record in _all(tmp_path, aside=bad.append)] == ["good", "good too"]
    assert [(one.line, "not UTF-8" in one.reason) for one in bad] == [(2, True)]


def test_units_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    content = readers.BOM + b"first\nstill\r\n\n \t\n\nsecond\x00\r\n\r\nthird"
    path.write_bytes(content)
    (whole,) = _all(path)
    assert (whole.id, whole.work, whole.text) == (str(path), str(path), content[3:].decode())
    paragraphs = _all(path, Reading(unit="paragraph"))
    assert [(one.line, one.text) for one in paragraphs] == [(1, "first\nstill"), (6, "second\x00"), (8, "third")]
    assert [one.id for one in paragraphs] == [f"{path}:{line}" for line in (1, 6, 8)]
    lines = _all(path, Reading(unit="line"))
    assert [(one.line, one.text) for one in lines] == [(1, "first"), (2, "still"), (6, "second\x00"), (8, "third")]
    for one in (whole, *paragraphs, *lines):
        assert one.work == str(path)


BAD = [
    (b'{"text": "x"\n', "not JSON"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b'{"txt": "x"}\n', "the field 'text' is missing"),
    (b'{"text": null}\n', "the field 'text' is missing"),
    (b'{"text": 5}\n', "of type int"),
    (b'{"text": ["x"]}\n', "of type list"),
    (b'{"text": ""}\n', "the field 'text' is empty"),
    (b"\n", "blank"),
    (b"[1]\n", "no JSON object but of type list"),
    (b'{"text": "\\ud800"}\n', "not UTF-8"),
    (b"[" * 100_000 + b"\n", "not JSON"),
    (b'{"text": "' + b"x" * 400_000 + b'"}\n', "longer than"),
]


def test_bad_records_are_set_aside_with_their_line_and_good_ones_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 300_000)
    path = tmp_path / "a.jsonl"
    (good,) = _lines(["good"])
    path.write_bytes(b"".join(line + good for line, _ in BAD))
    bad: list[Bad] = []
    found = _all(path, aside=bad.append)
    assert [record.line for record in found] == list(range(2, 2 * len(BAD) + 1, 2))
    assert [one.line for one in bad] == list(range(1, 2 * len(BAD), 2))
    assert {record.text for record in found} == {"good"}
    assert all(reason in one.reason for one, (_, reason) in zip(bad, BAD, strict=True))
    with pytest.raises(InputError, match=r"a\.jsonl:1: .*not JSON"):
        _all(path)


@pytest.mark.parametrize("size", [99, 100, 101, 2_000_000])
def test_the_line_after_one_that_is_too_long_is_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr(readers, "LONGEST_LINE", 100)
    path = tmp_path / "a.jsonl"
    first = b'{"text": "' + b"a" * (size - 12) + b'"}\n'  # of `size` bytes and the line end
    path.write_bytes(first + b"".join(_lines(["second", "third"])))
    bad: list[Bad] = []
    found = [(record.line, record.text) for record in _all(path, aside=bad.append)]
    assert found[-2:] == [(2, "second"), (3, "third")]
    assert [one.line for one in bad] == [1] * (size > 99)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz"])
@pytest.mark.parametrize("unit", ["file", "line"])
def test_a_compressed_file_of_no_bytes_is_set_aside(tmp_path, name, unit):
    (tmp_path / name).write_bytes(b"")
    bad: list[Bad] = []
    assert _all(tmp_path, Reading(unit=unit), bad.append) == []
    assert bad == [Bad(str(tmp_path / name), 1, "the file is empty")]


@pytest.mark.parametrize("unit", ["file", "paragraph", "line"])
def test_bad_text_files_are_set_aside(tmp_path, unit):
    for name, content in {"a.txt": b"good", "b.txt": b"bad \xff", "c.md.gz": gzip.compress(b"fine")}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "d.txt").write_bytes(b"")
    bad: list[Bad] = []
    assert [one.text for one in _all(tmp_path, Reading(unit=unit), bad.append)] == ["good", "fine"]
    # An empty file is no document; as lines or paragraphs it has none.
    expected = ["b.txt", "d.txt"] if unit == "file" else ["b.txt"]
    assert [pathlib.Path(one.file).name for one in bad] == expected


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz", "a.txt.zst", "a.parquet"])
def test_truncated_and_foreign_files_are_one_sentence(tmp_path, name, rng):
    path = tmp_path / name
    text = "".join(map(chr, rng.integers(97, 123, 50_000)))
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": [text]}), path)
    else:
        _pack(path, json.dumps({"text": text}).encode() + b"\n")
    content = path.read_bytes()
    assert len(_all(path)) == 1
    for damaged in (content[:-5], content[: len(content) // 2], b"no such format" * 9, b""):
        path.write_bytes(damaged)
        if damaged or name.endswith("parquet"):
            with pytest.raises(InputError, match="cannot be read") as caught:
                _all(path, aside=lambda _: None)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_files_are_found_once_in_order_without_hidden_ones(tmp_path):
    for name in ("b.jsonl", "a.txt", "sub/c.jsonl.gz", ".hidden/d.jsonl", ".e.txt", "f.exe", "g.parquet.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [one.name.removeprefix(f"{tmp_path}/") for one in find([str(tmp_path), str(tmp_path / "*.txt")])]
    assert names == ["a.txt", "b.jsonl", "sub/c.jsonl.gz"]
    names = [one.name.removeprefix(f"{tmp_path}/") for one in find([f"{tmp_path}/**/*.jsonl*"])]
    assert names == ["b.jsonl", "sub/c.jsonl.gz"]
    (tmp_path / "link.txt").symlink_to("a.txt")
    assert len(find([str(tmp_path / "a.txt"), f"{tmp_path}/sub/../a.txt", str(tmp_path / "link.txt")])) == 1
    (tmp_path / "odd[1].txt").write_bytes(b"x")
    assert len(find([str(tmp_path / "odd[1].txt")])) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "nothing to read"),
        (["no-such.jsonl"], "no file"),
        (["*.none"], "no file"),
        (["pyproject.toml"], "not known"),
    ],
)
def test_inputs_that_name_nothing_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        find(inputs)


def test_links_to_nothing_are_refused(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone.jsonl")
    for name in ("a.jsonl", "*.jsonl"):
        with pytest.raises(InputError, match=r"a\.jsonl cannot be read \(No such file"):
            find([str(tmp_path / name)])


def test_empty_folder_and_folder_named_as_a_file(tmp_path):
    with pytest.raises(InputError, match="holds no file"):
        find([str(tmp_path)])
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        find([str(tmp_path / "a.jsonl")])


def test_splits_of_files_part_the_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(json.dumps({"id": n, "text": "x"}).encode() + b"\n" for n in range(400)))
    parts = [{record.id for record in _all(path, Reading(split=name))} for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 400
    # 80, 5 and 15 % of 400; four standard errors of a binomial count are 4 sqrt(400 p (1 - p)).
    for part, p in zip(parts, (0.8, 0.05, 0.15), strict=True):
        assert abs(len(part) - 400 * p) < 4 * (400 * p * (1 - p)) ** 0.5
    with pytest.raises(InputError, match="no split 'dev'"):
        _all(path, Reading(split="dev"))


def _by_split(given, reading):
    """Return the split of each text."""
    return {
        record.text: name
        for name in ("train", "validation", "test")
        for record in _all(given, dataclasses.replace(reading, split=name))
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_the_split_is_that_of_the_text_wherever_it_is(tmp_path, monkeypatch, name):
    texts = [f"document {number}" for number in range(300)]
    content = _lines(texts) if name == "a.jsonl" else [f"{text}\n\n".encode() for text in texts]
    reading = Reading(unit="paragraph")
    path = tmp_path / name
    path.write_bytes(b"".join(content))
    splits = _by_split(path, reading)
    assert sorted(splits) == sorted(texts)
    assert set(splits.values()) == {"train", "validation", "test"}
    monkeypatch.chdir(tmp_path)
    assert _by_split(name, reading) == splits
    path.write_bytes(b"".join(content[::-1]))
    assert _by_split(path, reading) == splits
    moved = path.rename(tmp_path / f"moved-{name}")
    assert _by_split(moved, reading) == splits


def test_one_id_is_in_one_split_whatever_its_file_and_text(tmp_path):
    for name in "ab":
        rows = [json.dumps({"id": number, "text": f"{name}{number}"}) + "\n" for number in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    splits = _by_split(tmp_path, Reading())
    assert all(splits[f"a{number}"] == splits[f"b{number}"] == split_of(str(number)) for number in range(200))


def test_named_sources_are_inputs():
    (one,) = find(["source:sotu"])
    found = list(itertools.islice(read(one, Reading(domain="mine", split="test")), 3))
    assert len(found) == 3
    assert all(record.domain == "sotu" and record.text and record.file == "source:sotu" for record in found)
    (unknown,) = find(["source:nothing"])
    with pytest.raises(InputError, match="no source 'nothing'"):
        list(read(unknown, Reading()))


def test_hub_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (one,) = find(["hub:owner/name"])
    with pytest.raises(InputError, match=r"install toedit\[hub\]"):
        list(read(one, Reading()))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.txt.gz"])
def test_progress_reaches_the_size_of_the_file(tmp_path, name):
    path = _pack(tmp_path / name, b"".join(_lines(["word"] * 2000)))
    told: list[int] = []
    (one,) = find([str(path)])
    assert list(read(one, Reading(), advance=told.append))
    assert sum(told) == one.size == path.stat().st_size
