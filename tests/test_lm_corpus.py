"""Token files, encoding of much text, and `toedit tokenize`."""

import dataclasses
import json
import os
import pathlib
import random
import resource
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import tokenizers

from lm.data import corpus as token_files
from lm.data import encoding, replacing, tokenising
from lm.data.corpus import Corpus, Writer
from lm.data.encoding import Encoder
from lm.data.readers import Record
from lm.data.repeated import RepeatedIds
from lm.data.replacing import SET_ASIDE
from lm.data.tokenising import from_documents, tokenize
from lm.data.tokenizer import _LLAMA3, BYTE_OF, PIECE, Tokenizer
from lm.errors import InputError
from paper.commands.tokenize import Tokenize
from paper.errors import InputError as PaperError

DATA = pathlib.Path(__file__).parent / "data"


def _record(name: str, text: str) -> Record:
    return Record(name, f"work of {name}", "domain", text, "file", 1)


@pytest.fixture(scope="module")
def texts():
    return [(DATA / f"{name}.txt").read_text(encoding="utf-8") for name in ("speech", "novel")]


@pytest.fixture(scope="module")
def documents(texts):
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n\n") if paragraph]
    odd = ["caf\u00e9 \U0001f600 \x00\r\n\ttabs  <|endoftext|> 1234\u200d", " ", "\n\n", "a"]
    return [_record(f"d{number}", text) for number, text in enumerate(paragraphs + odd)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return Tokenizer.train(texts, 600)


@pytest.fixture
def corpus(documents, tokenizer):
    return from_documents(documents, tokenizer)


def _same(one: Corpus, other: Corpus) -> bool:
    arrays = ("tokens", "starts", "sizes")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        list(getattr(one, name)) == list(getattr(other, name)) for name in token_files.COLUMNS
    )


def test_documents_come_back_from_their_ids(documents, tokenizer, corpus):
    assert [tokenizer.decode(corpus.document(number)).decode() for number in range(len(corpus))] == [
        document.text for document in documents
    ]
    assert corpus.tokens.dtype == np.uint16
    assert corpus.sizes.tolist() == [len(document.text.encode()) for document in documents]
    assert corpus.tokens.tolist() == [
        number for document in documents for number in tokenizer.encode([document.text])[0]
    ]


def test_token_files_come_back_whatever_the_batches(corpus, tmp_path, monkeypatch):
    # Few names a row group, so that a small corpus has several.
    monkeypatch.setattr(token_files, "NAMES_GROUP", 7)
    monkeypatch.setattr(token_files, "BLOCK", 50)
    token_files.write(corpus, tmp_path / "one", {"source": "test"}, size=600)
    with Writer(tmp_path / "two", 600, {"source": "test"}) as writer:
        for first in range(0, len(corpus), 10):
            part = corpus.select(range(first, min(first + 10, len(corpus))))
            writer.append(part.tokens, part.lengths, part.ids, part.works, part.domains, part.sizes)
    for name in ("one", "two"):
        found, notes = token_files.read(tmp_path / name)
        assert isinstance(found.tokens, np.memmap)
        assert _same(found, corpus)
        assert notes == {
            "source": "test",
            "documents": len(corpus),
            "tokens": len(corpus.tokens),
            "vocabulary": 600,
            "sha256": token_files.digest(corpus),
        }
        assert found.ids == corpus.ids
        assert found.ids[-1] == corpus.ids[-1]
        assert found.works[5:20] == corpus.works[5:20]
        with pytest.raises(IndexError):
            found.ids[len(corpus)]
        found.release()
        assert _same(found.select([9, 2]), corpus.select([9, 2]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    table = pq.read_table(tmp_path / "one" / "documents.parquet")
    assert table.column("ids").to_pylist() == list(corpus.ids)


def test_digest_sees_every_part(corpus):
    changed = np.array(corpus.tokens)
    changed[3] += 1
    moved = np.array(corpus.starts)
    moved[1] += 1
    others = [
        dataclasses.replace(corpus, tokens=changed),
        dataclasses.replace(corpus, starts=moved),
        dataclasses.replace(corpus, sizes=corpus.sizes + 1),
        *(
            dataclasses.replace(corpus, **{name: (*getattr(corpus, name)[:-1], "other")})
            for name in token_files.COLUMNS
        ),
    ]
    assert len({token_files.digest(one) for one in [corpus, *others]}) == len(others) + 1
    wide = dataclasses.replace(corpus, tokens=corpus.tokens.astype(np.uint32))
    assert token_files.digest(wide) == token_files.digest(corpus)


@pytest.mark.parametrize("name", ["tokens.npy", "starts.npy", "sizes.npy", "documents.parquet", "about.json"])
def test_damage_is_seen(corpus, tmp_path, name):
    folder = tmp_path / "corpus"
    token_files.write(corpus, folder, {})
    whole = (folder / name).read_bytes()
    cases = [whole[: len(whole) // 2], b"", b"other"]
    if name.endswith(".npy"):
        cases.append(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    for content in cases:
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match="remove them and try again"):
            token_files.read(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        token_files.read(folder)


def test_damaged_headers_are_one_sentence(corpus, tmp_path):
    folder = tmp_path / "corpus"
    token_files.write(corpus, folder, {})
    whole = (folder / "tokens.npy").read_bytes()
    headers = [whole[:10] + bytes([byte]) + whole[11:] for byte in b"('\"\n\x00 #\\"]
    headers += [whole[:place] + b"(" + whole[place + 1 :] for place in range(11, 80)]
    headers += [whole[:place] + b"\n  x\n y" + whole[place + 7 :] for place in range(11, 60)]
    refused = 0
    for content in headers:
        (folder / "tokens.npy").write_bytes(content)
        try:
            token_files.read(folder)  # some say the same with other spaces
        except InputError as error:
            assert "remove them and try again" in str(error)  # noqa: PT017 (not all of them raise)
            refused += 1
    assert refused > 100
    with (folder / "tokens.npy").open("wb") as file:
        np.savez(file, tokens=np.zeros(3))
    with pytest.raises(InputError, match="remove them and try again"):
        token_files.read(folder)


def test_arrays_of_objects_are_never_loaded(corpus, tmp_path):
    folder = tmp_path / "corpus"
    token_files.write(corpus, folder, {})
    np.save(folder / "tokens.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        token_files.read(folder)


def test_writer_leaves_what_was_there_when_it_fails(corpus, tmp_path):
    folder = tmp_path / "corpus"
    token_files.write(corpus, folder, {})
    for tokens, lengths in (([1, 2], [3]), ([-1], [1]), ([600], [1])):
        with pytest.raises(InputError), Writer(folder, 600, {}) as writer:
            writer.append(np.array(tokens), lengths, ["a"], ["a"], ["a"], [1])
    with pytest.raises(KeyboardInterrupt), Writer(folder, 600, {}):
        raise KeyboardInterrupt
    assert _same(token_files.read(folder)[0], corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.parametrize("most", [2, 100, 10_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(corpus, tmp_path, most):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))  # stands for the disk: no file may be longer
    try:
        with pytest.raises(InputError, match=r"cannot be written .* make room there"):
            token_files.write(corpus, tmp_path / "corpus", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_only_token_files_are_replaced(corpus, tmp_path):
    (tmp_path / "letters").write_text("dear")
    folder = tmp_path / "corpus"
    token_files.write(corpus, folder, {})
    (folder / "thesis.tex").write_text("dear")
    for name, about in (("a", "{}"), ("b", "[]"), ("c", "nothing")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text(about)
    for there in (tmp_path, tmp_path / "letters", folder, *(tmp_path / name for name in "abc")):
        with pytest.raises(InputError, match="holds more than token files; name another folder"):
            token_files.write(corpus, there, {})
    assert (folder / "thesis.tex").read_text() == (tmp_path / "letters").read_text() == "dear"
    (folder / "thesis.tex").unlink()
    (folder / "about.json").write_text("damaged")
    (folder / "tokenizer.json").write_text("{}")
    token_files.write(corpus, folder, {})
    (folder / "tokens.npy").unlink()
    token_files.write(corpus, folder, {})
    assert _same(token_files.read(folder)[0], corpus)


def test_a_place_below_a_file_is_one_sentence(corpus, tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "corpus", tmp_path / "file" / "sub" / "corpus"):
        with pytest.raises(InputError, match=r"\(a file is where a folder must be\); choose another folder"):
            token_files.write(corpus, folder, {})


def test_what_killed_writers_left_is_removed_and_nothing_else(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "[c]orpus*"
    for name, inside in (
        ("stale000", "new/tokens.npy"),
        ("replaced", "old/tokens.npy"),
        ("alive000", "new/tokens.npy"),
        ("foreign0", "new/thesis.tex"),
        ("foreign1", "thesis.tex"),
        ("halfway0", "new/tokens.npy"),
        ("halfway0", "old/tokens.npy"),
    ):
        path = tmp_path / f".{folder.name}-{name}" / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / f".{folder.name}-empty000").mkdir()
    (tmp_path / f".{folder.name}-empty000-more").mkdir()
    lock = os.open(tmp_path / f".{folder.name}-alive000", os.O_RDONLY)
    replacing.fcntl.flock(lock, replacing.fcntl.LOCK_EX)

    def left():
        return {path.name.removeprefix(f".{folder.name}-") for path in tmp_path.iterdir()} - {folder.name}

    everything = left()
    token_files.write(corpus, folder, {})
    assert left() == everything  # all young: one of them may be another writer's, just before it locks
    monkeypatch.setattr(replacing, "SECONDS", -1)
    token_files.write(corpus, folder, {})
    os.close(lock)
    assert left() == {"alive000", "foreign0", "foreign1", "halfway0", "empty000-more"}


def test_a_writer_at_work_is_not_removed_by_another(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(replacing, "SECONDS", -1)
    with Writer(tmp_path / "corpus", 600, {}):
        token_files.write(corpus, tmp_path / "corpus", {})
    assert len(token_files.read(tmp_path / "corpus")[0]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_empty_corpora_and_wide_ids(tmp_path, tokenizer):
    token_files.write(from_documents([], tokenizer), tmp_path / "empty", {})
    assert len(token_files.read(tmp_path / "empty")[0]) == 0
    with Writer(tmp_path / "wide", 1 << 17, {}) as writer:
        writer.append(np.array([(1 << 17) - 1]), [1], ["a"], ["a"], ["a"], [1])
    assert token_files.read(tmp_path / "wide")[0].tokens.tolist() == [(1 << 17) - 1]


PRE = {
    "gpt2": lambda bytes_: bytes_,
    "digits": lambda bytes_: {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_],
    },
    "llama3": lambda bytes_: {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False},
            {**bytes_, "use_regex": False},
        ],
    },
    "added": lambda bytes_: bytes_,
    "none": lambda bytes_: {**bytes_, "use_regex": False},
    "prefix": lambda bytes_: {**bytes_, "add_prefix_space": True},
}


@pytest.fixture(scope="module")
def odd_texts():
    pieces = [*"aAzZ09 \n\t\r.,!?'\"-(){}_~`@[]\x00\x1c\x85\xa0\u2003\u2028\xe9\xdf\u4e2d\u0301\xbd\u0663\xb2"]
    pieces += ["'s", "'re", "'LL", "'ll", "the", " the", "  ", "\n\n", "\r\n", "\U0001f600", "<|endoftext|>"]
    pieces += ["\u2014", "\u2019", " \u201c", "\u200a", "\u200b", "don't", " 12", "  3"]
    random_ = random.Random(20241216)
    return ["".join(random_.choices(pieces, k=random_.randint(0, 14))) for _ in range(6000)]


@pytest.fixture(scope="module")
def across(odd_texts):
    """A tokenizer that merges whatever stands side by side, so that its ids show every cut."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=6000, initial_alphabet=sorted(BYTE_OF), show_progress=False)
    made.train_from_iterator([text.replace("<|endoftext|>", "") for text in odd_texts], trainer)
    made.add_special_tokens(["<|endoftext|>"])
    return json.loads(made.to_str())


@pytest.mark.parametrize("kind", ["gpt2", "digits", "llama3", "added", "none"])
def test_piecewise_ids_are_the_librarys(across, odd_texts, texts, kind, monkeypatch):
    about = across | {"pre_tokenizer": PRE[kind](across["pre_tokenizer"] | {"use_regex": True})}
    if kind == "added":
        plain = dict.fromkeys(["special", "lstrip", "rstrip", "single_word", "normalized"], False)
        about["added_tokens"] = [*about["added_tokens"], {"id": 7000, "content": "the", **plain}]
    made = Tokenizer.from_json(json.dumps(about))
    assert (made.separable, made.like_gpt2) == (kind != "none", kind in ("gpt2", "digits"))
    around = [f"a{one}b {one} 1{one}2({one}  {one}a'{one}s{one}" for one in map(chr, range(0x3100))]
    encoder = Encoder(made)
    for batch in (odd_texts[:1], odd_texts, around, texts, odd_texts[:50], [], [""], [" "]):
        assert all("".join(PIECE.findall(text)) == text for text in batch)
        encoded = encoder(batch, batch)
        expected = made.encode_whole(batch)
        assert encoded.tokens.tolist() == [number for ids in expected for number in ids]
        assert encoded.lengths == [len(ids) for ids in expected]
        assert encoded.sizes == [len(text.encode()) for text in batch]
        monkeypatch.setattr(encoding, "MOST_KEPT", 0 if batch is around else 300_000)  # once all are forgotten


def test_each_piece_is_encoded_once(tokenizer, monkeypatch):
    asked = []

    def noted(self, texts):
        asked.extend(texts)
        return whole(self, texts)

    whole = Tokenizer.encode_whole
    monkeypatch.setattr(Tokenizer, "encode_whole", noted)
    encoder = Encoder(tokenizer)
    for batch in (["a house, the house"], ["(the house)", "house the"], ["The house"]):
        encoder(batch, batch)
    assert [text for text in asked if text] == ["\na house\n, the", "\n(\nthe\n)\nhouse", "\nThe"]


@pytest.mark.parametrize("kind", ["gpt2", "prefix", "normalizer"])
def test_texts_that_do_not_come_back_are_refused(tokenizer, documents, kind, tmp_path):
    about = json.loads(tokenizer.to_json())
    if kind == "normalizer":
        about["normalizer"] = {"type": "NFC"}
    else:
        about["pre_tokenizer"] = PRE[kind](about["pre_tokenizer"])
    made = Tokenizer.from_json(json.dumps(about))
    given = [*documents[:3], _record("the odd one", "cafe\u0301 composed by NFC")]
    if kind == "gpt2":
        assert len(from_documents(given, made)) == 4
        return
    name = "the odd one" if kind == "normalizer" else documents[0].id
    with pytest.raises(InputError, match=f"does not give back the bytes of {name};"):
        tokenize(given, made, tmp_path / "out", {})
    assert not list(tmp_path.iterdir())
    encoder = Encoder(made)
    for _ in range(2):  # what is refused once is refused again
        with pytest.raises(InputError, match="does not give back"):
            encoder([record.text for record in given], [record.id for record in given])


def test_processes_write_the_same_files(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenising, "BATCH", 3000)
    one = tokenize(iter(documents), tokenizer, tmp_path / "one", {"a": 1})
    two = tokenize(iter(documents), tokenizer, tmp_path / "two", {"a": 1}, processes=2)
    assert _same(one, two)
    assert _same(one, from_documents(documents, tokenizer))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "tokenizer.json" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert Tokenizer.from_folder(tmp_path / "two").sha256 == tokenizer.sha256


def _killed(*_):
    os.kill(os.getpid(), 9)


def test_a_killed_process_is_one_sentence(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenising, "BATCH", 3000)
    monkeypatch.setattr(tokenising, "_encode_there", _killed)
    with pytest.raises(InputError, match="a process that encodes was killed"):
        tokenize(documents, tokenizer, tmp_path / "corpus", {}, processes=2)
    assert not list(tmp_path.iterdir())


def test_repeated_ids_are_counted_in_bounded_memory(monkeypatch):
    few, many = RepeatedIds(), RepeatedIds()
    for number in range(40):
        few.add(f"d{number % 20}")
    assert (few.count, few.is_all) == (20, True)
    monkeypatch.setattr("lm.data.repeated.MOST_HELD", 100)
    for number in range(10_000):
        many.add(f"d{number % 5000}")
    assert not many.is_all
    assert 0 < many.count < 200
    assert len(many._seen) <= 100


def _command(tmp_path, *inputs, **options) -> Tokenize:
    return Tokenize(tuple(map(str, inputs)), tmp_path / "out", processes=1, **options)


def test_command_sets_bad_records_aside(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    good = [json.dumps({"id": f"r{number}", "text": f"document {number}"}) for number in range(20)]
    source.write_text("\n".join([good[0], "{broken", '{"txt": 1}', *good[1:]]) + "\n")
    assert _command(tmp_path, source, tokenizer="train:260", domain="mine").run() == 0
    printed = capsys.readouterr()
    assert "20 documents" in printed.out
    assert "2 damaged records set aside" in printed.err
    listed = [json.loads(line) for line in (tmp_path / "out" / SET_ASIDE).read_text().splitlines()]
    assert [(one["file"], one["line"]) for one in listed] == [(str(source), 2), (str(source), 3)]
    corpus, notes = token_files.read(tmp_path / "out")
    assert list(corpus.ids) == [f"r{number}" for number in range(20)]
    assert set(corpus.domains) == {"mine"}
    assert notes["set_aside"] == 2
    made = Tokenizer.from_folder(tmp_path / "out")
    assert notes["tokenizer_sha256"] == made.sha256
    assert made.decode(corpus.document(7)) == b"document 7"
    with pytest.raises(InputError, match=r"in\.jsonl:2: "):
        _command(tmp_path, source, tokenizer=str(tmp_path / "out"), strict=True).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "train:many"}, "no number of ids"),
        ({"tokenizer": "no-such-file.json"}, "there is no tokenizer no-such-file.json; name smollm2"),
        ({"tokenizer": "no-such-file.gguf"}, "no-such-file.gguf"),
        ({"tokenizer": "train:300", "split": "dev"}, "no split 'dev'"),
        ({"tokenizer": "train:300", "field": "body"}, r"1 record set aside, first .*in\.jsonl:1: .* 'body' is missing"),
        ({"tokenizer": "tiny", "field": "body"}, r"'body' is missing\); name the field of the text with --field"),
        ({"tokenizer": "tiny", "split": "validation"}, r"no document with text in the inputs \(split validation\)"),
    ],
)
def test_command_refuses_bad_options(tmp_path, options, message):
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises((InputError, PaperError), match=message):
        _command(tmp_path, tmp_path / "in.jsonl", **options).run()
    assert not (tmp_path / "out").exists()


def test_command_replaces_no_folder_with_an_input(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / SET_ASIDE).write_text('{"text": "x"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="lies in the output folder"):
        _command(tmp_path, f"out/{SET_ASIDE}", tokenizer="tiny").run()
    assert (out / SET_ASIDE).exists()


def test_command_tells_of_repeated_ids(tmp_path, capsys):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"id": {n}, "text": "x"}}\n' for n in range(20)))
    assert _command(tmp_path, tmp_path / "a.jsonl", tokenizer="tiny").run() == 0
    assert "warning" not in capsys.readouterr().err
    assert _command(tmp_path, tmp_path / "*.jsonl", tokenizer="tiny").run() == 0
    assert "20 documents with the id of an earlier one" in capsys.readouterr().err
    assert len(set(token_files.read(tmp_path / "out")[0].works)) == 40


_PEAK = """
import pathlib, sys
import numpy as np
from lm.data.corpus import Writer, digest, read
from lm.data.mixture import Mixture, Part
from lm.evaluation.windows import blocks

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

folder, megabytes = pathlib.Path(sys.argv[1]), int(sys.argv[2])
random, size, count = np.random.default_rng(0), 4096, 128

def fill(name, batches):
    with Writer(folder / name, 50_000, {}) as writer:
        for batch in range(batches):
            tokens = random.integers(0, 50_000, size * count)
            ids = [f"{batch}/{number}" for number in range(count)]
            writer.append(tokens, [size] * count, ids, ids, ["d"] * count, [size] * count)
    corpus, _ = read(folder / name)
    mixture = Mixture([Part("a", corpus)], 50_000, 1024, 0)
    rows = 2 * len(corpus.tokens) // 1024
    for row in range(0, rows, max(rows // 5000, 1)):
        mixture[row]
    for block in blocks(corpus, 50_000, 1024, 1 << 18):
        pass

fill("small", int(sys.argv[2]) // 4)
before = peak()
fill("large", megabytes)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    megabytes = 80  # 1 MB a batch; compared with a quarter of it, which fills every buffer
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PEAK, str(tmp_path), str(megabytes)],
        capture_output=True,
        text=True,
        check=True,
    )
    # Half of the 60 MB more; about 15 is how the allocator and mapped pages fall, all of it without `release`.
    assert float(done.stdout) < 0.5 * (megabytes - megabytes // 4)
