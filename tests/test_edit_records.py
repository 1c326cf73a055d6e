"""Stretches of inputs: together they are the file, and the damaged ones are set aside."""

import gzip
import hashlib
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lm.data import readers, sources
from lm.data.readers import BOM, Input, Reading
from lm.editing import records as module
from lm.editing.chunks import chunks
from lm.editing.inputs import Task
from lm.editing.records import Aside, Item, check_field, records
from lm.errors import InputError

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
TEXT = BOM + b"one\r\ntwo\n\n \t\r\nNUL \x00\xff\n\xe2\x82\nlast line of three\n\n\n\r\n"
UNITS = {
    "file": [(1, TEXT[3:])],
    "line": [(1, b"one"), (2, b"two"), (5, b"NUL \x00\xff"), (6, b"\xe2\x82"), (7, b"last line of three")],
    "paragraph": [(1, b"one\r\ntwo"), (5, b"NUL \x00\xff\n\xe2\x82\nlast line of three")],
}


def _all(path, reading=None, **changes):
    return list(records(Input(str(path)), reading or Reading(**changes)))


def _documents(stretches):
    """Items with a text, and the text."""
    return [(one, one.text) for one in stretches if isinstance(one, Item) and one.text is not None]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_units_of_text(tmp_path, ending, unit, end):
    path = tmp_path / f"a.txt{ending}"
    content = TEXT.rstrip(b"\r\n") + end
    path.write_bytes(PACK[ending](content))
    found = _all(path, unit=unit, domain="d")
    assert b"".join(one.raw for one in found) == content
    documents = _documents(found)
    expected = UNITS[unit] if unit != "file" else [(1, content[3:])]
    assert [(one.number, text) for one, text in documents] == expected
    for one, text in documents:
        assert one.raw[one.begin : one.begin + len(text)] == text
        assert (one.domain, one.field) == ("d", None)
        assert one.key == "sha256:" + hashlib.sha256(text).hexdigest()[:16]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n", b" ", b"x", BOM, BOM + b"\n\nx"])
@pytest.mark.parametrize("unit", UNITS)
def test_small_texts(tmp_path, content, unit):
    path = tmp_path / "a.md"
    path.write_bytes(content)
    assert b"".join(one.raw for one in _all(path, unit=unit)) == content


def test_long_lines_pass_and_long_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 10)
    path = tmp_path / "a.txt"
    for content in (b"short\n" + b"x" * 40 + b"\nshort\n", b"x" * 25, b"aaaa\nbbbb\ncccc\n" + b"y" * 11):
        path.write_bytes(content)
        for unit in ("line", "paragraph"):
            found = _all(path, unit=unit)
            assert b"".join(one.raw for one in found) == content
            (aside,) = (one for one in found if isinstance(one, Aside))
            assert "stays as it is" in aside.reason
            assert not any(b"x" in text or b"y" in text for _, text in _documents(found))
        with pytest.raises(InputError, match="too long for one document"):
            _all(path)
    path = tmp_path / "a.jsonl"
    content = b'{"text":""}\n' + b"{}\n" * 2
    path.write_bytes(content)
    found = _all(path)
    assert [(type(one), one.number) for one in found] == [(Aside, 1), (Item, 1), (Item, 1), (Aside, 2), (Aside, 3)]
    assert b"".join(one.raw for one in found) == content
    assert found[0] == Aside(1, module.STAYS, b"")


LINES = [
    (b'{"id": "x", "text": "one"}\n', ("x", b"one")),
    (b'{"id": 7, "text": ""}\r\n', ("7", b"")),
    (b"\n", None),
    (b" \r\n", None),
    (b'{"text": "a\\u00e9\\ud83d\\ude00", "id": null}\n', "a\u00e9\U0001f600".encode()),
    (b'{"text": "first", "text": "second"}\n', b"second"),
    (b'{"text": {"text": 1}, "text": "\\/"}\n', b"/"),
    ('{"text": "caf\u00e9"}\n'.encode(), "caf\u00e9".encode()),
    (b'{"id": "\\ud800", "text": "key"}\n', ("\\ud800", b"key")),
    (b'{"text": 1}\n', "no text"),
    (b'{"text": null}\n', None),
    (b'{"id": 8, "n": ' + b"1" * 5000 + b', "text": "long"}\n', ("8", b"long")),
    (b'{"text": ' + b"1" * 5000 + b"}\n", "no text"),
    (b'{"n": ' + b"1" * 5000 + b', "text": "x"\n', "not JSON"),
    (b'{"other": "x"}\n', "missing"),
    (b'{"text": "x"\n', "not JSON"),
    (b'["text"]\n', "no JSON object"),
    (b'{"text": "\xff"}\n', "not UTF-8"),
    (b'{"text": "\\ud800"}\n', "half a surrogate pair, which is not UTF-8"),
    (b'{"text": "tab\tin it"}\n', "not JSON"),
    (b"\x00\n", "not JSON"),
    (b"[" * 100_000 + b"\n", "not JSON"),
    (b'{"id": "", "text": "last"}', b"last"),
]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("mark", [b"", BOM])
def test_lines_of_json(tmp_path, ending, mark):
    path = tmp_path / f"a.jsonl{ending}"
    content = mark + b"".join(line for line, _ in LINES)
    path.write_bytes(PACK[ending](content))
    found = _all(path)
    assert b"".join(one.raw for one in found) == content
    assert [one.number for one in found] == [*range(1, len(LINES) + 1)]
    for one, (_, expected) in zip(found, LINES, strict=True):
        match expected:
            case str():
                assert isinstance(one, Aside)
                assert expected in one.reason
            case None:
                assert isinstance(one, Item)
                assert one.text is None
            case _:
                assert isinstance(one, Item)
                text = expected if isinstance(expected, bytes) else expected[1]
                key = f"sha256:{hashlib.sha256(text).hexdigest()[:16]}" if isinstance(expected, bytes) else expected[0]
                assert (one.text, one.key, one.field) == (text, key, "text")


TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_rows_of_parquet(tmp_path, kind):
    path = tmp_path / "a.parquet"
    texts = ["one", None, "", "caf\u00e9", "one"]
    ids = ["a", "b", "", None, "e"]
    pq.write_table(pa.table({"n": range(5), "text": pa.array(texts).cast(kind), "id": ids}), path, row_group_size=2)
    found = [one for one in _all(path, domain="d") if isinstance(one, Item)]
    assert [one.number for one in found] == [1, 2, 3, 4, 5]
    assert [one.text for one in found] == [None if text is None else text.encode() for text in texts]
    assert [one.key[:7] for one in found] == ["a", "", "sha256:", "sha256:", "e"]
    assert all(one.raw == (one.text or b"") for one in found)


def test_columns_of_parquet_that_are_no_text(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1], "text": [["x"]]}), path)
    with pytest.raises(InputError, match=r"holds list.*, no text; name the column"):
        _all(path)
    with pytest.raises(InputError, match=r"no column 'body'.* among n, text; name the column"):
        _all(path, field="body")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        _all(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, ["id", "text", "id"]), path)
    with pytest.raises(InputError, match="several columns 'id'; rename or remove"):
        _all(path)


def test_damaged_compression_and_splits_are_refused(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"text": "x"}\n' * 1000)[:-5])
    with pytest.raises(InputError, match="cannot be read"):
        _all(path)
    with pytest.raises(InputError, match="edited whole, not by split"):
        _all(path, split="train")


def test_zeros_behind_a_gzip_file_are_no_damage(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b'{"text": "x"}\n')
    path.write_bytes(whole + whole + bytes(512))
    assert b"".join(one.raw for one in _all(path)) == b'{"text": "x"}\n' * 2
    for damaged in (whole + b"rest", whole[:-5], whole[:10] + b"\xff" + whole[11:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.jsonl\.gz cannot be read \(.*; mend or replace the file"):
            _all(path)


def test_wide_windows_of_zstd_are_told_with_a_remedy(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    for log, fits in ((27, True), (28, False)):
        wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=log)
        stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        path.write_bytes(stream.compress(b'{"text": "x"}\n') + stream.flush())
        if fits:
            assert len(_all(path)) == 1
            continue
        with pytest.raises(InputError, match=r"by zstd --long.*; write it again without \(zstd -d --long=31 -c a"):
            _all(path)


def test_progress_is_the_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "x"}\n' * 2000))
    told = []
    list(records(Input(str(path)), Reading(), told.append))
    assert sum(told) == path.stat().st_size


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_chunks_of_long_records_know_the_bytes_that_were_read(tmp_path, name):
    texts = [hashlib.shake_256(b"%d" % number).hexdigest(21_000) for number in range(300)]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, compression="none")
    else:
        line = '{"text": "%s"}' if name.endswith("jsonl") else "%s"
        path.write_text("".join(line % text + "\n" for text in texts))
    reading = Reading(unit="line")
    found = list(chunks(Task(str(path), name, "x", path.stat().st_size), reading, 4 << 20))
    assert len(found) == 3
    assert sum(chunk.size for chunk in found) == path.stat().st_size
    for chunk in found:  # a reader is up to a buffer of 1 MiB ahead
        assert chunk.size == pytest.approx(sum(len(one.raw) for one in chunk.stretches), abs=1.1 * (1 << 20))


def test_named_sources_are_lines_of_json():
    stretches = list(records(Input("source:sotu"), Reading(domain="x", split="test")))
    expected = list(sources.load("sotu", "test"))
    assert len(stretches) == len(expected) > 3
    for number, (one, document) in enumerate(zip(stretches, expected, strict=True), 1):
        assert isinstance(one, Item)
        assert json.loads(one.raw) == vars(document)
        assert one.raw.endswith(b"}\n")
        assert (one.number, one.key, one.domain, one.field) == (number, document.id, "sotu", "text")
        assert one.text == document.text.encode()
    with pytest.raises(InputError, match="no split 'half'"):
        list(records(Input("source:sotu"), Reading(split="half")))


def test_hub_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"install toedit\[hub\]"):
        list(records(Input("hub:owner/name"), Reading()))
    assert readers.TOO_LONG == "the line is longer than 64 MB"


def test_records_that_all_lack_the_field_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"id": 1, "text": "a"}', "", "damaged", *(f'{{"id": {n}, "text": "b"}}' for n in range(200))]

    def check(lines):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        check_field(Input(str(path)), Reading(field="body"))

    with pytest.raises(InputError, match="have no field 'body'; they have id, text: name"):
        check([lines[0], *lines[3:]])
    # One with the field among the first hundred, or one damaged in another way, is no sign of a wrong name.
    check([*lines[3:90], '{"body": "c"}', *lines[90:]])
    check(['{"body": null}'])
    check(lines)
    check([""])
    check_field(Input(str(path)), Reading())
