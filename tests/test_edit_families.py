"""A prior of each published family edits documents; tokenizers that normalise lose nothing."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES, lively
from flax import nnx

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder, Vocabulary
from lm.editing.edits import edit
from lm.editing.prior import decisions, prepare_prior
from lm.editing.records import Item
from lm.model.decoder import Decoder
from lm.weights.huggingface import write
from lm.weights.load import TINY, load

CALL = nnx.jit(Decoder.__call__)
ROWS = 1030  # of the embeddings: six more than the tokenizer has ids, as in published models
TEXTS = (
    "Fellow citizens of the Senate and of the House: naïve, 中文 😀 <|endoftext|>\r\n".encode(),
    b"def main(self):\n    return None\n" * 12,  # longer than the context
    b"",
)
KEYS = ("a", "b", "c")
CONTEXT = 64
CONFIG = EditConfig(keep_original=False)


def _expected(model, end, tokens):
    """Return P of a document's tokens by one pass over all of it, float64."""
    inputs = np.zeros((1, CONTEXT), int)
    inputs[0, : len(tokens)] = [end, *tokens[:-1]]
    logits = np.asarray(CALL(model, jnp.asarray(inputs)), np.float64)[0, : len(tokens)]
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weight / weight.sum(axis=1, keepdims=True))[np.arange(len(tokens)), tokens]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prior_of_each_family_edits(family, tmp_path, rng):
    tokenizer = Tokenizer.from_folder(TINY)
    write(tmp_path, lively(FAMILIES[family].changed(vocabulary=ROWS, layers=1), rng), tokenizer)
    pretrained = load(str(tmp_path))
    prior = prepare_prior(pretrained, compute="float32", positions=256)
    documents = DocumentEncoder(tokenizer)(TEXTS, KEYS)
    assert len(documents[0].tokens) <= CONTEXT < len(documents[1].tokens)
    full = decisions(prior, documents, CONFIG, full=True)
    expected = _expected(pretrained.model, tokenizer.end, documents[0].tokens)
    # float32 logits up to about 30 by other sums: 100 units in the last place, doubled in the log-odds, is 7e-4.
    np.testing.assert_allclose(full[0].probability, expected, rtol=7e-4)

    # The threshold is put in the widest gap of the third quarter, so that rounding decides nothing.
    known = np.sort(np.concatenate([one.probability[1:] for one in full]))
    middle = known[len(known) // 2 : 3 * len(known) // 4]
    gap = int(np.argmax(middle[1:] / middle[:-1]))
    threshold = float(np.sqrt(middle[gap] * middle[gap + 1]))
    found = decisions(prior, documents, dataclasses.replace(CONFIG, threshold=threshold), full=True)
    for document, one, whole in zip(documents, found, full, strict=True):
        assert np.array_equal(one.selected, (whole.probability >= threshold) & document.editable)
        assert np.array_equal(one.selected, one.changed(document.tokens))
        assert (one.token < tokenizer.end).all()  # neither padding nor end-of-text
    assert sum(int(one.selected.sum()) for one in found) > 20

    items = [Item(number, text, text, key) for number, (text, key) in enumerate(zip(TEXTS, KEYS, strict=True), 1)]
    edited = edit("a.txt", items, documents, found, Vocabulary(tokenizer))
    rows = edited.table.to_pylist()
    for number, (document, one) in enumerate(zip(documents, found, strict=True), 1):
        pieces = [
            tokenizer.decode([int(new)]) if new != old else document.text[slice(*span)]
            for old, new, span in zip(document.tokens, one.token, document.spans, strict=True)
        ]
        assert edited.raws[number - 1] == b"".join(pieces)
        edited.raws[number - 1].decode()  # still UTF-8
        assert len([row for row in rows if row["record"] == number]) == one.changed(document.tokens).sum()


def _normalising():
    about = json.loads((TINY / "tokenizer.json").read_text())
    about["normalizer"] = {"type": "NFC"}
    return Tokenizer.from_json(json.dumps(about))


def test_what_a_normalising_tokenizer_composes_stays_as_it_is(tmp_path, rng):
    tokenizer = _normalising()
    text = "Le cafe\u0301 d'A\u030angstro\u0308m: déjà vu, and plain words behind it.".encode()
    (ids,) = tokenizer.encode([text.decode()])
    assert tokenizer.decode(ids) != text  # decoding would lose bytes
    write(tmp_path, lively(FAMILIES["qwen2"].changed(vocabulary=ROWS, layers=1), rng), tokenizer)
    prior = prepare_prior(load(str(tmp_path)), compute="float32", positions=256)
    documents = DocumentEncoder(prior.tokenizer)([text], ["a"])
    assert documents[0].tokens.tolist() == ids
    found = decisions(prior, documents, dataclasses.replace(CONFIG, threshold=0.0), full=True)
    assert np.array_equal(found[0].selected, documents[0].editable)
    edited = edit("a.txt", [Item(1, text, text, "a")], documents, found, Vocabulary(prior.tokenizer))
    rows = edited.table.to_pylist()
    assert len(rows) == documents[0].editable.sum() > 10
    # Nothing but the edited bytes changes: what lies between the edits comes back in order.
    place, rest = 0, edited.raws[0]
    for row in rows:
        kept = text[place : row["at"]]
        assert rest.startswith(kept + row["new"])
        assert text[row["at"] :].startswith(row["old"])
        place, rest = row["at"] + len(row["old"]), rest[len(kept + row["new"]) :]
    assert rest == text[place:]
    for composed in ("e\u0301", "A\u030a", "o\u0308"):
        assert composed.encode() in edited.raws[0]
