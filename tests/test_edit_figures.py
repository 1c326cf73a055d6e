"""Pictures of edits: drawn from any statistics, with the paper's numbers as its tables have them."""

import csv
import io
import pathlib

import numpy as np
import pytest
from offsets import encode_with_offsets

from figures import editing, editing_generations
from lm.data.tokenizer import Tokenizer
from lm.editing.config import PRESETS, EditConfig
from lm.editing.decide import Decisions
from lm.editing.documents import TokenizedDocument
from lm.editing.generations import iterate
from lm.editing.prior import prepare_prior
from lm.editing.statistics import Statistics, summary
from lm.weights.load import load
from paper.results import ROOT

TEXT = "$\\frac{$ and 編集 🙂\n\ttabs\x07 "


def _drawn(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png")  # warnings, of glyphs that no font has for one, are errors
    return content.getvalue()


def test_statistics_are_drawn_whatever_the_text_spells():
    tokenizer = Tokenizer.train([TEXT], 270)
    ids, spans = encode_with_offsets(tokenizer, TEXT)
    M = len(ids)
    tokens, number = np.asarray(ids, np.int32), np.linspace(0.01, 0.999, M, dtype=np.float32)
    document = TokenizedDocument("key", tokens, spans, np.arange(M) > 0, TEXT.encode())
    yes, no = np.ones(M, bool), np.zeros(M, bool)
    made = Decisions(number, yes, no, tokens[::-1].copy(), number, number)
    found = Statistics(EditConfig(select="band", threshold=0.5, upper=0.9, delete_below=0.001))
    for domain in (TEXT, "b"):
        found.add([document], [made], [domain])
        found.add_sampled(document, made, domain, number, tokenizer)
    found.add([document], [made._replace(token=tokens)], ["nothing changed"])
    drawn = _drawn(editing.picture(summary(found, tokenizer)))
    assert drawn == _drawn(editing.picture(summary(found, tokenizer)))
    assert _drawn(editing.picture(summary(Statistics(PRESETS["filter"]), tokenizer))) != drawn


def test_generations_are_drawn():
    prior = prepare_prior(load("tiny"), compute="float32", context=64, positions=256)
    documents = [(f"document {n}", "a", b"The Government of the United States " * (n + 1)) for n in range(3)]
    configs = {"one": EditConfig(threshold=0.3), "never": EditConfig(threshold=1.0, select="above")}
    _drawn(editing_generations.picture(iterate(prior, documents, configs, 2)))


@pytest.mark.parametrize("table", ["6", "15"])
def test_the_papers_numbers_are_those_of_its_tables(table):
    path = pathlib.Path(ROOT) / "paper/data/paper-tables.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row and row[0] == table]
    shares = tuple(float(row[4]) for row in rows if row[6] == "%")
    assert shares == {"6": editing.TABLE_6, "15": editing_generations.TABLE_15}[table]
