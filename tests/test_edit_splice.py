"""Edits as splices of raw bytes: the output says what it should, and undone it is the input, for any bytes."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.data.readers import BOM, COMPRESSIONS, Input, Reading, open_content
from lm.editing.decide import Decisions
from lm.editing.documents import DocumentEncoder, TokenizedDocument, drawable
from lm.editing.edits import DELETED, SCHEMA, Edited, applied, apply, edit, join_tables, read_edits, undo, write_table
from lm.editing.output import encode_part, join
from lm.editing.records import Aside, Item, records
from lm.editing.splice import places, spelt, splice
from lm.editing.undo import undo_file
from lm.errors import InputError
from lm.weights.load import load

TOKENIZER = load("tiny").tokenizer
ENCODER = DocumentEncoder(TOKENIZER)
CAN = np.flatnonzero(drawable(TOKENIZER, TOKENIZER.size))

TEXTS = [
    "",
    "a",
    "\U0001f600",
    "plain words, and more of them",
    "<|endoftext|> is text, and so is <|im_start|>user",
    "quotes \" and ' and \\ and / and \\n and \\\\n and \\u00e9",
    "CRLF\r\nand LF\n\n\ttab \b\f\x00 NUL\x7f",
    "caf\u00e9 na\u00efve \u2028 \ufeff mark",
    "\u05e9\u05dc\u05d5\u05dd \u202e\u0645\u0631\u062d\u0628\u0627\u202c \u4f60\u597d",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea e\u0301",
]
INVALID = [b"\xff\xfe words \x80 and \xe2\x82", b"\xed\xa0\x80 \xc3\x28 text \xf0\x9f\x98", bytes(range(128, 256))]


def _decisions(document: TokenizedDocument, rng, share: float, deleted: float) -> Decisions:
    """Any edits of the editable tokens; of share 1 each is another token than before, or none."""
    M = len(document.tokens)
    token = rng.choice(CAN, M).astype(np.int32)
    token = np.where(token == document.tokens, CAN[CAN != token[:1].sum()][0], token) if share == 1 else token
    selected = document.editable & (rng.random(M) < share)
    gone = selected & (rng.random(M) < deleted)
    numbers = rng.random((3, M)).astype(np.float32)
    return Decisions(
        numbers[0], selected & ~gone, gone, np.where(selected & ~gone, token, document.tokens), numbers[1], numbers[2]
    )


def _after(document, made):
    """The edited text by its definition, token for token: what is in no changed token stays."""
    pieces, done = [], 0
    for index in np.flatnonzero(made.changed(document.tokens)):
        begin, end = document.spans[index]
        pieces += [document.text[done:begin], b"" if made.deleted[index] else TOKENIZER.decode([made.token[index]])]
        done = end
    return b"".join([*pieces, document.text[done:]])


def _text_of(item):
    assert item.text is not None
    return item.text


class Run(NamedTuple):
    """An edited file: the input, the output, the table, what was set aside, and the texts by record."""

    given: pathlib.Path
    output: pathlib.Path
    table: pathlib.Path
    asides: list[Aside]
    texts: dict[int, bytes]


def _edit(given: pathlib.Path, folder: pathlib.Path, reading: Reading, rng, share=0.3, deleted=0.2, chunk=3) -> Run:
    """Edit a file by chance, in chunks of some stretches, as a driver would."""
    stretches = list(records(Input(str(given)), reading))
    outs, tables, texts = [], [], {}
    name, output = given.name, folder / f"out-{given.name}"
    for first in range(0, len(stretches) or 1, chunk):
        items = [one for one in stretches[first : first + chunk] if isinstance(one, Item)]
        with_text = [one for one in items if one.text is not None]
        documents = ENCODER([_text_of(one) for one in with_text], [one.key for one in with_text])
        made = [_decisions(document, rng, share, deleted) for document in documents]
        done = edit(name, with_text, documents, made, ENCODER.vocabulary)
        texts |= {one.number: _after(*both) for one, *both in zip(with_text, documents, made, strict=True)}
        raws = {one.number: raw for one, raw in zip(with_text, done.raws, strict=True)}
        chosen = [raws[one.number] if one.text is not None else one.raw for one in items]
        outs.append(folder / f"{first}.part")
        outs[-1].write_bytes(encode_part(name, items, chosen))
        tables.append(folder / f"{first}.edits")
        write_table(done.table, tables[-1])
    join(given, name, reading.field, outs, output)
    table = folder / "edits.parquet"
    join_tables(tables, table)
    return Run(given, output, table, [one for one in stretches if isinstance(one, Aside)], texts)


def _content(path):
    file, content = open_content(path)
    with file, content:
        return content.read()


def _check_bytes(run: Run, folder, reading):
    """Undone the output is the input; applied to the original, the edits give the output."""
    back = folder / "back"
    undo_file(run.output, read_edits(run.table), run.asides, back, reading.field)
    assert back.read_bytes() == _content(run.given)
    stretches = records(Input(str(run.given)), reading)
    assert b"".join(raw for _, raw in applied("f", stretches, read_edits(run.table))) == _content(run.output)
    by_record = {one.record: one for one in read_edits(run.table)}
    for one in records(Input(str(run.given)), reading):
        if one.number in by_record and isinstance(one, Item) and one.text is not None:
            assert undo(apply(one.raw, by_record[one.number]), by_record[one.number]) == one.raw


SHARES = [(0.3, 0.2), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]


@pytest.mark.parametrize("ending", ["txt", "md.gz", "text.zst"])
@pytest.mark.parametrize("unit", ["file", "paragraph", "line"])
@pytest.mark.parametrize(("share", "deleted"), SHARES)
def test_text(tmp_path, rng, ending, unit, share, deleted):
    reading = Reading(unit=unit)
    for number, mark in enumerate((b"", BOM)):
        stretches = [*(text.encode() for text in TEXTS), *INVALID]
        rng.shuffle(stretches)
        ends = rng.choice(np.array([b"\n", b"\r\n", b"\n\n", b"\r\n \t\r\n", b"\n\n\n"]), len(stretches)).tolist()
        content = mark + b"".join(a + b for a, b in zip(stretches, [*ends[1:], b""], strict=True))
        folder = tmp_path / str(number)
        folder.mkdir()
        given = folder / f"a.{ending}"
        parts = [given.with_suffix(".a"), given.with_suffix(".b")]
        for part, half in zip(parts, (content[:50], content[50:]), strict=True):
            part.write_bytes(encode_part(given.name, [Item(1, b"")], [half]))
        join(None, given.name, "text", parts, given)
        run = _edit(given, folder, reading, rng, share, deleted)
        _check_bytes(run, folder, reading)
        expected = [
            run.texts.get(one.number, b"").join([one.raw[: one.begin], one.raw[one.begin + len(one.text) :]])
            if isinstance(one, Item) and one.text is not None
            else one.raw
            for one in records(Input(str(given)), reading)
        ]
        assert b"".join(expected) == _content(run.output)
        if share:
            assert _content(run.output) != content
        if share == 0:
            assert _content(run.output) == content


def _spellings(text: str, rng):
    """The text as JSON strings: to ASCII, to UTF-8, and with escapes that nobody needs."""
    yield json.dumps(text)
    yield json.dumps(text, ensure_ascii=False)
    units = np.frombuffer(text.encode("utf-16-be"), ">u2")
    yield '"' + "".join(f"\\u{unit:04{'xX'[rng.integers(2)]}}" for unit in units) + '"'
    odd = {"/": "\\/", "a": "\\u0061", "\n": "\\u000A", '"': "\\u0022", "\\": "\\\\"}
    yield '"' + "".join(odd.get(one, json.dumps(one, ensure_ascii=False)[1:-1]) for one in text) + '"'


def _lines(rng):
    """Lines of JSON around each text, spaced and ordered in odd ways, and damaged ones between them."""
    frames = [
        '{"text": %s}',
        '{"id": "\\u00e9", "text":%s,"n": 1.50}',
        ' \t{ "n" : [1, {"text": "not this", "x": null}] , "text" : %s , "z" : -0e1 } \r',
        '{"text": "not this\\"", "text": "nor this", "a": true, "text": %s}',
        '{"te\\u0078t": %s, "\u00e9": "\U0001f600"}',
        '{"a": NaN, "text": %s, "b": {"c": []}, "d": {}}',
    ]
    yield b'{"n": ' + b"12" * 2500 + b', "text": "numbers of any length are copied"}'
    damaged = [b'{"text": 1}', b'{"text": "\xff"}', b"{", b"", b"\x00", b'{"text": "\\udc00"}', b" \r"]
    for text in TEXTS:
        for spelling in _spellings(text, rng):
            frame = frames[rng.integers(len(frames))]
            yield (frame % spelling).encode()
            if rng.random() < 0.3:
                yield damaged[rng.integers(len(damaged))]
    yield from damaged


@pytest.mark.parametrize("ending", ["jsonl", "ndjson.gz", "jsonl.zst"])
@pytest.mark.parametrize(("share", "deleted"), SHARES)
def test_json(tmp_path, rng, ending, share, deleted):
    content = BOM + b"\n".join(_lines(rng))
    given = tmp_path / f"a.{ending}"
    given.write_bytes(encode_part(given.name, [Item(1, b"")], [content]))
    run = _edit(given, tmp_path, Reading(), rng, share, deleted, chunk=7)
    _check_bytes(run, tmp_path, Reading())
    kept = [one for one in records(Input(str(given)), Reading()) if isinstance(one, Item)]
    lines = _content(run.output).split(b"\n")
    if run.asides[-1].raw == content.split(b"\n")[-1]:
        lines.pop()
    for one, line in zip(kept, lines, strict=True):
        if one.text is None:
            assert line == one.raw.rstrip(b"\n")
            continue
        raws = [raw.removeprefix(BOM) for raw in (one.raw, line)]
        before, after = (json.loads(raw, object_pairs_hook=list, parse_int=str) for raw in raws)
        row = json.loads(raws[1], parse_int=str)
        assert row["text"].encode() == run.texts[one.number]
        # All fields, also the unread ones of a name that comes again, in their order, and the kind of the characters.
        text = max(place for place, (name, _) in enumerate(before) if name == "text")
        before[text] = after[text] = ("text", "")
        assert repr(before) == repr(after)  # NaN is not NaN
        assert line.isascii() == one.raw.isascii() or not one.raw.isascii()
        # Outside the string nothing changed.
        literal = json.dumps(one.text.decode())
        if literal.encode() in one.raw:
            first, _, last = one.raw.rpartition(literal.encode())
            assert line.startswith(first)
            assert (line + b"\n").endswith(last or b"\n")


@pytest.mark.parametrize("ascii_only", [True, False])
def test_places_in_json_strings(rng, ascii_only):
    """Against a scan of the string character by character."""
    characters = ["a", '"', "\\", "/", "\n", "\x00", "\u00e9", "\u07ff", "\u0800", "\uffff", "\U0001f600", "\U0010ffff"]
    for _ in range(200):
        text = "".join(rng.choice(characters, rng.integers(0, 12)))
        pieces = []
        for one in text:
            ways = list(_spellings(one, rng))
            pieces.append(ways[0 if ascii_only else rng.integers(4)][1:-1].encode())
        head, tail = ("{" if ascii_only else '\ufeff {"\u00e9": 1, ').encode() + b'"text": "', b'"}'
        item = Item(1, head + b"".join(pieces) + tail, text.encode(), field="text")
        assert json.loads(item.raw.removeprefix(BOM))["text"] == text
        inside = np.cumsum([0, *(len(one.encode()) for one in text)])
        expected = len(head) + np.cumsum([0, *map(len, pieces)])
        assert places(item, inside).tolist() == expected.tolist()
        both = np.stack([inside[:-1], inside[1:]], axis=1)
        assert places(item, both).tolist() == np.stack([expected[:-1], expected[1:]], axis=1).tolist()
        (new,) = spelt(item, [b'\xc3\xa9"'])
        assert new == (b'\\u00e9\\"' if ascii_only else b'\xc3\xa9\\"')


KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("codec", ["NONE", "zstd"])
def test_parquet(tmp_path, rng, kind, codec):
    texts = rng.permutation([*TEXTS, *TEXTS, None, None, *(["the same words"] * 600)]).tolist()
    if pa.types.is_binary(kind):
        texts += INVALID
    number = len(texts)
    content = pa.array([text.encode() if isinstance(text, str) else text for text in texts], pa.binary())
    columns = {
        "n": pa.array(range(number), pa.uint16()),
        "text": content.cast(kind),
        "id": pa.array([f"r{n}" for n in range(number)]).dictionary_encode(),
        "nested": [{"a": [n], "text": "x"} if n % 3 else None for n in range(number)],
        "time": pa.array(range(number), pa.timestamp("us", "UTC")),
    }
    given = tmp_path / "a.parquet"
    pq.write_table(
        pa.table(columns).replace_schema_metadata({"huggingface": '{"info": 1}', "pandas": "{}"}),
        given,
        row_group_size=250,
        compression=codec,
        use_compliant_nested_type=codec == "zstd",
    )
    table = pq.read_table(given)
    run = _edit(given, tmp_path, Reading(), rng, 0.3, 0.2, chunk=100)
    found = pq.read_table(run.output)
    assert found.drop(["text"]).equals(table.drop(["text"]), check_metadata=True)
    before, after = pq.ParquetFile(given), pq.ParquetFile(run.output)
    wide = kind if not pa.types.is_dictionary(kind) else pa.dictionary(pa.int32(), kind.value_type)
    assert after.schema_arrow.field("text").type == wide
    assert after.schema_arrow.remove(1).equals(before.schema_arrow.remove(1), check_metadata=True)
    assert after.metadata.format_version == before.metadata.format_version
    assert [after.metadata.row_group(n).num_rows for n in range(after.num_row_groups)] == [
        before.metadata.row_group(n).num_rows for n in range(before.num_row_groups)
    ]
    for place in range(before.metadata.num_columns):
        old, new = (one.metadata.row_group(0).column(place) for one in (before, after))
        assert (old.path_in_schema, old.compression) == (new.path_in_schema, new.compression)
    values = found["text"].cast(pa.large_binary()) if not pa.types.is_dictionary(kind) else found["text"]
    values = [value.encode() if isinstance(value, str) else value for value in values.to_pylist()]
    assert values == [run.texts.get(row) for row in range(1, number + 1)]
    assert values.count(None) == 2
    assert values != content.to_pylist()
    back = tmp_path / "back.parquet"
    undo_file(run.output, read_edits(run.table), [], back)
    assert pq.read_table(back)["text"].to_pylist() == table["text"].to_pylist()
    assert pq.read_table(back).drop(["text"]).equals(table.drop(["text"]), check_metadata=True)


def test_large_row_groups_of_parquet_become_several(tmp_path, rng, monkeypatch):
    from lm.editing import columns

    monkeypatch.setattr(columns, "LARGEST_GROUP", 10_000)
    given = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["words of a row " * 4] * 2000}), given)
    run = _edit(given, tmp_path, Reading(), rng, 0.1, 0.0, chunk=500)
    assert pq.ParquetFile(run.output).num_row_groups > 3
    assert [text.encode() for text in pq.read_table(run.output)["text"].to_pylist()] == list(run.texts.values())


def _about(path):
    group = pq.ParquetFile(path).metadata.row_group(0)
    coded = [group.column(place).has_dictionary_page for place in range(group.num_columns)]
    return coded, [one.column_index for one in group.sorting_columns]


def test_dictionaries_and_sorting_of_parquet_stay(tmp_path, rng):
    given, number = tmp_path / "a.parquet", 40
    words = [f"words of row {n}" for n in range(number)]
    table = pa.table({"n": range(number), "text": words, "nested": [{"text": word} for word in words], "z": words})
    named = [pq.SortingColumn(place) for place in (2, 0, 1, 3)]
    for coded in (["text"], ["n", "nested.text"], False, True):
        options: dict[str, Any] = {"use_dictionary": coded, "sorting_columns": named}
        pq.write_table(table, given, row_group_size=15, **options)
        run = _edit(given, tmp_path, Reading(), rng)
        # What comes after the text no longer sorts the rows.
        assert _about(run.output) == (_about(given)[0], [2, 0])
    with pq.ParquetWriter(given, table.schema) as writer:
        writer.write_table(table)
    assert _about(_edit(given, tmp_path, Reading(), rng).output) == (_about(given)[0], [])


def test_lines_that_are_too_long_come_back(tmp_path, rng, monkeypatch):
    from lm.editing import records as module

    monkeypatch.setattr(module, "LONGEST_LINE", 100)
    given, line = tmp_path / "a.jsonl", b'{"text": "some words of a line to be edited"}\n'
    for end in (b"\n", b""):
        given.write_bytes(line + b"damaged\n" + b'{"text": "' + b"x" * 300 + b'"}\n' + line * 3 + b"y" * 200 + end)
        run = _edit(given, tmp_path, Reading(), rng, 0.9, 0.1)
        assert [one.number for one in run.asides] == [2, 3, 7]
        assert list(run.texts) == [1, 4, 5, 6]
        assert b"x" * 300 in _content(run.output)
        assert _content(run.output).endswith(b"y" * 200 + end)
        undo_file(run.output, read_edits(run.table), run.asides, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == given.read_bytes()
        stretches = records(Input(str(given)), Reading())
        raws = (raw for _, raw in applied("f", stretches, read_edits(run.table)))
        assert b"".join(raws) == _content(run.output)


def test_no_rows_and_no_bytes(tmp_path, rng):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    run = _edit(tmp_path / "a.parquet", tmp_path, Reading(), rng)
    assert pq.read_table(run.output).num_rows == 0
    for ending in COMPRESSIONS:
        given = tmp_path / f"a.jsonl{ending}"
        join(None, given.name, "text", [], given)
        run = _edit(given, tmp_path, Reading(), rng)
        assert _content(run.output) == b""
        assert run.output.read_bytes() != b""


def test_utf8_stays_utf8(tmp_path, rng):
    given = tmp_path / "a.txt"
    given.write_text("\n".join(TEXTS), encoding="utf-8")
    for _ in range(5):
        assert _edit(given, tmp_path, Reading(), rng, 0.5, 0.3).output.read_bytes().decode()


def _one(text=b"some words to be edited, and some more", **kind):
    raw = b'{"text": "' + text + b'"}\n' if kind else text
    return Item(7, raw, text, "key", "d", **kind), ENCODER([text], ["key"])[0]


def test_rows_of_the_table(rng):
    item, document = _one(field="text")
    made = _decisions(document, rng, 0.5, 0.3)
    done = edit("a/b.jsonl", [item], [document], [made], ENCODER.vocabulary)
    assert isinstance(done, Edited)
    assert done.table.schema == SCHEMA
    index = np.flatnonzero(made.changed(document.tokens))
    assert len(index) > 3
    for row, place in zip(done.table.to_pylist(), index, strict=True):
        begin, end = document.spans[place]
        gone = bool(made.deleted[place])
        assert row == {
            "file": "a/b.jsonl",
            "record": 7,
            "document": "key",
            "index": place,
            "begin": begin,
            "end": end,
            "old_token": document.tokens[place],
            "new_token": DELETED if gone else made.token[place],
            "p_old": made.probability[place],
            "p_new": made.new_probability[place],
            "at": begin + len(b'{"text": "'),
            "old": document.text[begin:end],
            "new": b"" if gone else json.dumps(TOKENIZER.decode([made.token[place]]).decode())[1:-1].encode(),
        }


def test_tokens_that_are_not_editable_are_never_changed(rng):
    item, document = _one()
    made = _decisions(document, rng, 0.5, 0)
    token = made.token.copy()
    token[0] += 1
    with pytest.raises(ValueError, match="not editable"):
        edit("f", [item], [document], [made._replace(token=token)], ENCODER.vocabulary)


def _with_at(table, values):
    place = table.schema.get_field_index("at")
    return table.set_column(place, table.schema.field("at"), pa.array(values, pa.int64()))


def test_other_files_are_refused(tmp_path, rng):
    given = tmp_path / "a.txt"
    given.write_bytes(b"some words of a line\nand of the next, and more\nlast\n")
    reading = Reading(unit="line")
    run = _edit(given, tmp_path, reading, rng, 1.0, 0.0)
    output = run.output.read_bytes()
    edits = list(read_edits(run.table))
    for damage in (lambda raw: raw.swapcase(), lambda raw: raw[: len(raw) // 2], lambda raw: b""):
        given.write_bytes(damage(given.read_bytes()))
        with pytest.raises(InputError, match=r"give the file that belongs to the table of edits"):
            list(applied("a.txt", records(Input(str(given)), reading), edits))
        run.output.write_bytes(damage(output))
        with pytest.raises(InputError, match=r"give the file that belongs to the table of edits"):
            undo_file(run.output, edits, [], tmp_path / "back")
    with pytest.raises(InputError, match="record 1 is not what was edited, at byte"):
        apply(b"other bytes than these were", edits[0])
    with pytest.raises(InputError, match="record 1 is not what was given by the edits"):
        undo(b"other bytes than these were", edits[0])
    table = pq.read_table(run.table)
    for damaged, said in (
        (table.take([*range(table.num_rows)][::-1]), "in a wrong order; restore"),
        (table.take([0, 0]), "record 1 in a wrong order"),
        (_with_at(table, [-5] * table.num_rows), "record 1 in a wrong order"),
        (_with_at(table, [None] * table.num_rows), "lacks values; restore"),
        (pa.concat_tables([table, table.slice(0, 1)]), "record 1 in a wrong order"),
        (table.drop_columns(["p_new"]), "no table of edits"),
    ):
        pq.write_table(damaged, run.table)
        with pytest.raises(InputError, match=said):
            list(read_edits(run.table))
    pq.write_table(pa.table({"a": [1]}), run.table)
    with pytest.raises(InputError, match="no table of edits"):
        list(read_edits(run.table))
    assert not (tmp_path / "back").exists()


def test_parts_are_reproducible_and_whole(tmp_path):
    content = b"words and words " * 100
    for name in ("a.txt", "a.txt.gz", "a.jsonl.zst"):
        parts = [encode_part(name, [Item(1, b""), Item(2, b"")], [half, content]) for half in (b"", content, b"")]
        assert parts[0] == parts[2] == encode_part(name, [Item(1, b"")], [content])
        paths = [tmp_path / f"{n}.part" for n in range(3)]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        join(None, name, "text", paths, tmp_path / name)
        assert _content(tmp_path / name) == content * 4
        assert (tmp_path / name).read_bytes() == b"".join(parts)
    assert encode_part("a.gz", [], [])[4:8] == bytes(4)  # no time


def test_splices():
    assert splice(b"abcdef", [1, 3], [2, 3], [b"XX", b"-"]) == b"aXXc-def"
    assert splice(b"abc", [], [], []) == b"abc"
    assert splice(b"abc", [0, 1], [1, 3], [b"", b""]) == b""


def test_many_edits_come_back_by_record(tmp_path, rng, monkeypatch):
    from lm.editing import edits as module

    monkeypatch.setattr(module, "ROWS", 8)  # records go over the borders of what is read together
    given = tmp_path / "a.txt"
    given.write_bytes(b"some words of a line, and more\n" * 40)
    run = _edit(given, tmp_path, Reading(unit="line"), rng, 0.9, 0.1)
    assert [one.record for one in read_edits(run.table)] == [*range(1, 41)]
    _check_bytes(run, tmp_path, Reading(unit="line"))
