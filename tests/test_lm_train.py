"""Training, resuming after a kill, evaluation and the generations, on a real text of a few kB."""

import json
import math
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm import corpus as token_files
from lm import iterate, sources, train
from lm.corpus import Corpus
from lm.errors import InputError
from lm.evaluate import evaluate, log_probabilities, ratio
from lm.iterate import IterateConfig, evaluation_of, run_unit, units
from lm.model import ModelConfig, make
from lm.prepare import Prepared
from lm.sources import Document
from lm.tokens import train_vocabulary
from lm.train import TrainConfig, load_weights, save_weights

DATA = pathlib.Path(__file__).parent / "data"
V = 300


def _documents():
    for name in ("speech", "novel"):
        text = (DATA / f"{name}.txt").read_text(encoding="utf-8")
        for number, passage in enumerate(sources.passages(text)):
            yield Document(f"{name}/{number}", f"{name}/{number // 8}", name, "train", passage)


@pytest.fixture(scope="module")
def vocabulary():
    return train_vocabulary([document.text for document in _documents()], V)


@pytest.fixture(scope="module")
def corpus(vocabulary):
    return token_files.tokenize(list(_documents()), vocabulary)


CONFIG = TrainConfig(steps=30, batch=4, learning_rate=1e-2, warmup=3, save_every=5)


@pytest.fixture(scope="module")
def trained(corpus, vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    folder.mkdir(exist_ok=True)
    model = train.train(ModelConfig.tiny(V), CONFIG, corpus, vocabulary.end, folder)
    return model, folder


def test_training_learns_and_records(trained, corpus, vocabulary):
    model, folder = trained
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 31))
    assert records[0]["loss"] == pytest.approx(math.log(V), rel=0.05)
    # Below the entropy of the token frequencies: more than the unigrams was learned is not asked of 30 steps.
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    assert records[-1]["learning_rate"] == pytest.approx(1e-3, rel=0.1)
    after, before = (evaluate(m, corpus, vocabulary.end).score() for m in (model, make(ModelConfig.tiny(V), 0)))
    assert after.perplexity < 0.7 * before.perplexity


KILLED = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import test_lm_train as t
vocabulary = t.train_vocabulary([document.text for document in t._documents()], t.V)
corpus = t.token_files.tokenize(list(t._documents()), vocabulary)
folder = pathlib.Path(sys.argv[1])
def progress(fraction, message):
    (folder / "step").write_text(message)
t.train.train(t.ModelConfig.tiny(t.V), t.CONFIG, corpus, vocabulary.end, folder, progress)
"""


def test_killed_run_goes_on_to_the_same_bytes(trained, tmp_path):
    code = KILLED.format(tests=str(pathlib.Path(__file__).parent))
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "state.safetensors").exists():
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "metrics.jsonl").exists(), "the run ended before it could be killed"
    subprocess.run(command, check=True)
    _, folder = trained
    for name in ("state.safetensors", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(trained, corpus, vocabulary, tmp_path):
    _, folder = trained
    for name, content in (
        ("state.safetensors", (folder / "state.safetensors").read_bytes()),
        ("damaged.safetensors", (folder / "state.safetensors").read_bytes()[:-50]),
    ):
        (tmp_path / name).write_bytes(content)
    other = TrainConfig(steps=31, batch=4, learning_rate=1e-2, warmup=3, save_every=5)
    with pytest.raises(InputError, match="another run"):
        train.train(ModelConfig.tiny(V), other, corpus, vocabulary.end, tmp_path)
    (tmp_path / "damaged.safetensors").replace(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        train.train(ModelConfig.tiny(V), CONFIG, corpus, vocabulary.end, tmp_path)


def test_divergence_names_the_step_and_keeps_the_checkpoint(corpus, vocabulary, tmp_path, monkeypatch):
    original = train.loss
    calls = []

    def broken(model, inputs, targets, segments):
        calls.append(1)
        late = jnp.sum(model.norm[...] ** 2) > 1.02 * model.config.width
        return jnp.where(late, jnp.nan, original(model, inputs, targets, segments) - jnp.sum(model.norm[...]))

    monkeypatch.setattr(train, "loss", broken)
    jax.clear_caches()
    config = TrainConfig(steps=20, batch=2, learning_rate=5e-3, warmup=0, save_every=2)
    with pytest.raises(InputError, match=r"became nan at step \d+ .* lower the learning rate"):
        train.train(ModelConfig.tiny(V), config, corpus, vocabulary.end, tmp_path)
    jax.clear_caches()
    assert calls
    assert (tmp_path / "state.safetensors").exists()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_weights_come_back(trained, corpus, vocabulary, tmp_path):
    model, _ = trained
    save_weights(tmp_path / "w.safetensors", model)
    again = load_weights(tmp_path / "w.safetensors", ModelConfig.tiny(V))
    for a, b in zip(nnx.to_flat_state(nnx.state(model)), nnx.to_flat_state(nnx.state(again)), strict=True):
        assert np.array_equal(a[1][...], b[1][...])
    with pytest.raises(InputError, match="another configuration"):
        load_weights(tmp_path / "w.safetensors", ModelConfig.tiny(V, "bfloat16"))


def test_packed_documents_score_as_alone():
    model, end = make(ModelConfig.tiny(V), 0), V - 1
    state = nnx.state(model, nnx.Param)  # weights so large that a token far away matters
    nnx.update(model, jax.tree.map(lambda leaf: leaf * (8 if leaf.ndim > 1 else 1), state))
    call = nnx.jit(type(model).__call__)
    first, second = np.split(np.random.default_rng(0).integers(0, end, 40), [17])
    row = np.concatenate([[end], first, [end], second])
    segments = np.repeat([0, 1], [18, 24])
    packed = np.asarray(call(model, jnp.asarray(row[None]), jnp.asarray(segments[None])))[0]
    for part, place in ((row[:18], slice(0, 18)), (row[18:], slice(18, 42))):
        padded = np.pad(part, (0, 42 - len(part)))
        alone = np.asarray(call(model, jnp.asarray(padded[None]), jnp.zeros((1, 42), int)))[0, : len(part)]
        # float32: 100 units in the last place of the largest logit.
        assert np.abs(packed[place] - alone).max() < 100 * np.finfo(np.float32).eps * np.abs(alone).max()
    mixed = np.asarray(call(model, jnp.asarray(row[None]), jnp.zeros((1, 42), int)))[0]
    assert np.abs(mixed[19:] - packed[19:]).max() > 0.01 * np.abs(packed).max()


def test_perplexity_by_hand_and_its_standard_error(trained, corpus, vocabulary):
    model, _ = trained
    scores = log_probabilities(model, corpus, vocabulary.end).astype(float)
    assert np.isfinite(scores).all()
    number = int(np.argmax(corpus.lengths))
    document, T = corpus.document(number).astype(np.int32), model.config.context
    assert len(document) > T, "the test needs a document longer than the context"
    last = np.asarray(nnx.jit(type(model).__call__)(model, document[None, -T - 1 : -1]))[0, -1].astype(float)
    expected = last[document[-1]] - np.logaddexp.reduce(last)
    assert scores[corpus.starts[number + 1] - 1] == pytest.approx(expected, abs=1e-4)
    found = evaluate(model, corpus, vocabulary.end)
    score = found.score()
    assert score.perplexity == pytest.approx(math.exp(-scores.mean()), rel=1e-9)
    assert score.bits_per_byte == pytest.approx(-scores.sum() / math.log(2) / corpus.sizes.sum(), rel=1e-9)
    parts = [found.score(domain) for domain in ("novel", "speech")]
    assert sum(part.tokens for part in parts) == score.tokens == len(corpus.tokens)
    assert found.macro_perplexity() == pytest.approx(np.mean([part.perplexity for part in parts]))
    assert found.difference(found) == (0.0, 0.0)


def test_ratio_error_covers_what_resampling_finds():
    random = np.random.default_rng(0)
    tokens = random.integers(50, 500, (4000, 30)).astype(float)
    nll = tokens * (2 + 0.3 * random.normal(size=tokens.shape))
    values, errors = np.asarray([ratio(n, t) for n, t in zip(nll, tokens, strict=True)]).T
    # 4,000 replications: the sd is known to 1.1 %; the estimator is biased by about 1/(2 C) of itself, C = 30.
    assert errors.mean() == pytest.approx(values.std(), rel=0.06)
    naive = nll.std() / math.sqrt(30)  # the standard error of a plain mean of sums is far away
    assert naive > 5 * values.std()
    assert ratio(nll[0, :1], tokens[0, :1])[1] is None


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


def _generations(folder, corpus, vocabulary):
    config = IterateConfig.from_json(ITERATE)
    prepared = Prepared(vocabulary, corpus, corpus, corpus, {})
    for unit in units(config):
        run_unit(config, prepared, folder, unit, lambda fraction, message: None)
    return [json.loads(iterate._Place(folder).done(*unit).read_text()) for unit in units(config)]


def test_generations_of_every_rule(corpus, vocabulary, tmp_path):
    found = _generations(tmp_path, corpus, vocabulary)
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
    evaluation = evaluation_of(found[0]["evaluation"])
    assert evaluation.score().tokens == M
    again = tmp_path / "again"
    again.mkdir()
    # What a kill between two units leaves: finished units stay, the last is made anew with the same bytes.
    for name in ("human-0", "replace-1"):
        (again / "seed0").mkdir(exist_ok=True)
        (tmp_path / "seed0" / name).rename(again / "seed0" / name)
    assert _generations(again, corpus, vocabulary) == found


def test_bad_iterations_are_refused():
    for wrong in ({"rules": ["edit-random"]}, {"rules": ["nothing"]}, {"generations": 0}, {"seeds": []}):
        with pytest.raises(InputError):
            IterateConfig.from_json(ITERATE | wrong)


def test_corpus_selection_keeps_documents(corpus):
    chosen = corpus.select([5, 2])
    assert isinstance(chosen, Corpus)
    assert np.array_equal(chosen.document(1), corpus.document(2))
    assert chosen.ids == (corpus.ids[5], corpus.ids[2])
    assert token_files.join([chosen, chosen]).ids == chosen.ids * 2
