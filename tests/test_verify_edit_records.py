"""Every document of every named source, and one of 10 MB: edited anywhere, written, undone, the same bytes."""

import hashlib
import itertools
import resource

import numpy as np
import pytest

from lm.data import sources
from lm.data.readers import Input, Reading, open_content
from lm.editing.config import EditConfig
from lm.editing.decide import Decisions
from lm.editing.documents import DocumentEncoder, drawable
from lm.editing.edits import applied, edit, join_tables, read_edits, write_table
from lm.editing.output import encode_part, join
from lm.editing.prior import decisions, prepare_prior
from lm.editing.records import Item, records
from lm.editing.undo import undo_file
from lm.weights.load import load

pytestmark = pytest.mark.slow

PRETRAINED = load("tiny")
ENCODER = DocumentEncoder(PRETRAINED.tokenizer)
CAN = np.flatnonzero(drawable(PRETRAINED.tokenizer, PRETRAINED.tokenizer.size))
SCORED = 100_000  # bytes of each source that the prior decides on; the rest is decided by chance
CHUNK = 200  # documents


def _by_chance(document, rng):
    M = len(document.tokens)
    changed = document.editable & (rng.random(M) < rng.choice([0.0, 0.02, 0.3, 1.0]))
    gone = changed & (rng.random(M) < 0.2)
    token = np.where(changed & ~gone, rng.choice(CAN, M), document.tokens).astype(np.int32)
    nothing = np.zeros(M, np.float32)
    return Decisions(nothing, changed & ~gone, gone, token, nothing, nothing)


def _sha256(path):
    file, content = open_content(path)
    state = hashlib.sha256()
    with file, content:
        while piece := content.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def _round_trip(given, name, folder, rng, decide):
    """Edit, write, undo; return the changed tokens, all tokens, and the hash of the input."""
    stretches = records(Input(given), Reading())
    outs, tables, counts, before = [], [], np.zeros(2, int), hashlib.sha256()
    for number in itertools.count():
        items = [one for one in itertools.islice(stretches, CHUNK) if isinstance(one, Item)]
        if not items:
            break
        documents = ENCODER([one.text or b"" for one in items], [one.key for one in items])
        made = decide(number, documents)
        done = edit(name, items, documents, made, ENCODER.vocabulary)
        counts += (done.table.num_rows, sum(len(document.tokens) for document in documents))
        before.update(b"".join(one.raw for one in items))
        outs.append(folder / f"{number}.part")
        outs[-1].write_bytes(encode_part(name, items, done.raws))
        tables.append(folder / f"{number}.edits")
        write_table(done.table, tables[-1])
    join(None, name, "text", outs, folder / name)
    join_tables(tables, folder / "edits")
    undo_file(folder / name, read_edits(folder / "edits"), [], folder / "back")
    assert hashlib.sha256((folder / "back").read_bytes()).hexdigest() == before.hexdigest()
    after = hashlib.sha256()
    for _, raw in applied(name, records(Input(given), Reading()), read_edits(folder / "edits")):
        after.update(raw)
    assert after.hexdigest() == _sha256(folder / name) != before.hexdigest()
    return counts


@pytest.mark.parametrize("name", sources.SOURCES)
def test_sources_come_back(tmp_path, rng, name):
    prior = prepare_prior(PRETRAINED)
    config = EditConfig(threshold=0.5, delete_below=1e-4)

    def decide(number, documents):
        if number:
            return [_by_chance(document, rng) for document in documents]
        size = np.cumsum([len(document.text) for document in documents])
        scored = max(1, int(np.searchsorted(size, SCORED)))
        rest = [_by_chance(document, rng) for document in documents[scored:]]
        return decisions(prior, documents[:scored], config) + rest

    changed, tokens = _round_trip(f"source:{name}", f"{name}.jsonl.zst", tmp_path, rng, decide)
    assert 0.02 < changed / tokens < 0.98


def test_a_document_of_10_megabytes(tmp_path, rng):
    words = np.array(["word", "caf\u00e9", "\U0001f600", "\r\n", "\n\n", "x = 1;", "\u4f60\u597d", '"', "\\"])
    given = tmp_path / "a.txt"
    given.write_bytes(b"\xff \x00".join(" ".join(rng.choice(words, 200_000)).encode() for _ in range(12))[: 10 << 20])
    assert given.stat().st_size == 10 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _round_trip(str(given), "a.txt.gz", tmp_path, rng, lambda _, documents: [_by_chance(documents[0], rng)])
    # ru_maxrss is in KiB. Python's strings and lists of a slice and of the edits, and arrays of 21 bytes a token.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
