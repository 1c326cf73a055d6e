"""Generations of every rule on a real text of a few kB, resumed after a kill between two units."""

import json
import math
import pathlib

import pytest

from lm import iterate
from lm.data.passages import passages
from lm.data.prepare import Prepared
from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.evaluation.perplexity import Evaluation
from lm.iterate import IterateConfig, run_unit, units

DATA = pathlib.Path(__file__).parent / "data"


def _documents():
    for name in ("speech", "novel"):
        text = (DATA / f"{name}.txt").read_text(encoding="utf-8")
        for number, passage in enumerate(passages(text)):
            yield Document(f"{name}/{number}", f"{name}/{number // 8}", name, "train", passage)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([document.text for document in _documents()], 300)


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return from_documents(_documents(), tokenizer)


ITERATE = {
    "rules": ["replace", "accumulate", "edit", "edit-random"],
    "generations": 2,
    "seeds": [0],
    "share": 0.125,
    "candidates": 8,
    "temperature": 1.0,
    "steps": 6,
    "batch": 4,
    "learning_rate": 1e-2,
    "width": 32,
    "layers": 1,
    "context": 32,
    "corpus": {},
}


def _generations(folder, corpus, tokenizer):
    config = IterateConfig.from_json(ITERATE)
    prepared = Prepared(tokenizer, corpus, corpus, corpus, {})
    for unit in units(config):
        run_unit(config, prepared, folder, unit, lambda fraction, message: None)
    return [json.loads(iterate._Place(folder).done(*unit).read_text()) for unit in units(config)]


def test_generations_of_every_rule(corpus, tokenizer, tmp_path):
    found = _generations(tmp_path, corpus, tokenizer)
    by_name = {(unit["rule"], unit["generation"]): unit for unit in found}
    M = len(corpus.tokens)
    assert [by_name["accumulate", g]["corpus"]["tokens"] for g in (1, 2)] == [2 * M, 3 * M]
    for rule in ("replace", "edit", "edit-random"):
        assert by_name[rule, 2]["corpus"]["tokens"] == M
    for generation in (1, 2):
        edit, control = (by_name[rule, generation]["edit"] for rule in ("edit", "edit-random"))
        editable = M - len(corpus)
        assert edit["selected"] == math.ceil(0.125 * editable)
        assert edit["changed"] == control["changed"] > 0
        assert edit["testable"]
    first = json.loads((tmp_path / "seed0" / "human-0" / "metrics.jsonl").read_text().splitlines()[0])
    edited = json.loads((tmp_path / "seed0" / "edit-1" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(edited["loss"], abs=0.02)  # the same weights see nearly the same text
    evaluation = Evaluation.from_json(found[0]["evaluation"])
    assert evaluation.score().tokens == M
    again = tmp_path / "again"
    again.mkdir()
    # What a kill between two units leaves: finished units stay, the last is made anew with the same bytes.
    for name in ("human-0", "replace-1"):
        (again / "seed0").mkdir(exist_ok=True)
        (tmp_path / "seed0" / name).rename(again / "seed0" / name)
    assert _generations(again, corpus, tokenizer) == found


def test_bad_iterations_are_refused():
    for wrong in ({"rules": ["edit-random"]}, {"rules": ["nothing"]}, {"generations": 0}, {"seeds": []}):
        with pytest.raises(InputError):
            IterateConfig.from_json(ITERATE | wrong)
