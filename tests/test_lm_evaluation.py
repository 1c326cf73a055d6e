"""Windows, packing, scores that depend on nothing but the document, perplexity and its standard errors, bad input."""

import csv
import dataclasses
import functools
import json
import math
import pathlib
import threading
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.data.corpus import Corpus
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.evaluation import scoring
from lm.evaluation.lanes import in_lanes
from lm.evaluation.perplexity import Evaluation, evaluate, join, ratio
from lm.evaluation.scoring import chosen_log_probabilities, log_probabilities, prepare, scores
from lm.evaluation.windows import SHORTEST, blocks, pack, pack_counted, row_length, shortest_rows
from lm.model.config import ModelConfig
from lm.model.decoder import from_arrays, make, named
from lm.model.packed import PADDING
from lm.weights import huggingface
from paper.commands import evaluate as command
from paper.commands.evaluate import Evaluate
from paper.errors import InputError as PaperError
from paper.results import plain

V, END, CONTEXT = 97, 96, 300
DATA = pathlib.Path(__file__).parent / "data"
# float32 sums in another order: 100 units in the last place of logits, which are below 20 here.
TOLERANCE = 100 * float(np.finfo(np.float32).eps) * 20
LENGTHS = [5, 300, 301, 700, 1, 30, 0, 100, 256, 257, 2, 0]


def _corpus(lengths=LENGTHS, seed=0):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.random.default_rng(seed).integers(0, END, starts[-1]).astype(np.uint16)
    names = tuple(f"document {number}" for number in range(len(lengths)))
    works = tuple(f"work {number // 2}" for number in range(len(lengths)))
    domains = tuple("ab"[number // 6 % 2] for number in range(len(lengths)))
    return Corpus(tokens, starts, names, works, domains, np.asarray(lengths) * 4)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(V, context=CONTEXT, width=32, layers=2, heads=4, kv_heads=2, hidden=48)
    # Weights larger than at the start of training, so that the distributions are far from uniform.
    arrays = {name: array * (8 if array.ndim > 1 else 1) for name, array in named(make(config, 0)).items()}
    return from_arrays(config, arrays)


@pytest.fixture(scope="module")
def corpus():
    return _corpus()


@pytest.fixture(scope="module")
def found(model, corpus):
    return log_probabilities(model, corpus, END)


def _alone(model, ids, previous=END):
    """Log-probabilities of a sequence's tokens, one row, nothing packed: float64 log-softmax of float32 logits."""
    inputs = np.concatenate([[previous], ids[:-1]]).astype(np.int32)
    padded = np.pad(inputs, (0, CONTEXT - len(inputs)))  # one shape; what follows is not seen
    logits = np.asarray(_logits(*nnx.split(model), padded[None]))[0, : len(ids)].astype(float)
    return logits[np.arange(len(ids)), ids] - np.logaddexp.reduce(logits, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graph, state, inputs):
    return nnx.merge(graph, state)(inputs)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("context", "stride"), [(300, None), (300, 300), (300, 150), (64, 7), (1, 1), (1000, None)])
def test_every_token_is_scored_once_after_its_own_document(corpus, context, stride, counted):
    seen = np.zeros(len(corpus.tokens), int)
    for block in blocks(corpus, END, context, 1024, stride, counted=counted):
        assert (block.most is not None) == counted
        assert not counted or block.segments.max() < block.most
        owner = np.searchsorted(corpus.starts, block.place, side="right") - 1
        for row, column in zip(*np.nonzero(block.place >= 0), strict=True):
            place = block.place[row, column]
            seen[place] += 1
            assert block.targets[row, column] == corpus.tokens[place]
            window = block.segments[row] == block.segments[row, column]
            begin = int(np.flatnonzero(window)[0])
            assert window[begin : begin + window.sum()].all(), "segments are contiguous"
            assert window.sum() <= context
            history = column - begin + 1
            step = place - corpus.starts[owner[row, column]]
            before = [END, *corpus.document(owner[row, column])][: step + 1][-history:]
            assert block.inputs[row, begin : column + 1].tolist() == before
            # A later window keeps at least context - stride tokens before its first target.
            assert history >= min(step + 1, context - (stride or context) + 1)
    assert (seen == 1).all()


def test_packing_wastes_little_and_has_few_shapes():
    lengths = np.random.default_rng(1).lognormal(4.5, 1.2, 20_000).astype(int).clip(1, 8192)
    shapes, positions, held = set(), 0, 0
    for block in blocks(_corpus(lengths), END, 8192, 4096):
        shapes.add(block.inputs.shape)
        positions += block.inputs.size
        held += int((block.segments != PADDING).sum())
    assert held == lengths.sum()
    assert held / positions > 0.97
    # One shape for each of the lengths 256, 512, ..., 8192.
    assert len(shapes) <= 6
    assert all(shape[0] * shape[1] == max(4096, shape[1]) for shape in shapes)
    # A corpus of less than a block has one shape.
    assert len({block.inputs.shape for block in blocks(_corpus(), END, CONTEXT, 4096)}) == 1
    assert [row_length(size) for size in (1, 256, 257, 512, 513, 8192)] == [256, 256, 512, 512, 1024, 8192]
    assert pack([250, 5, 4, 3, 2]) == [(256, [0, 1]), (256, [2, 3, 4])]
    # Windows of which no two fit into the shortest rows go into longer ones, at little more than twice their number.
    assert shortest_rows(np.full(100, 120)) == 256
    assert shortest_rows(np.full(100, 150)) == 512
    packed = list(blocks(_corpus(np.full(1000, 150)), END, 8192, 1024))
    assert sum(int((block.place >= 0).sum()) for block in packed) == 150_000
    assert {block.inputs.shape[1] for block in packed[:-1]} <= set(SHORTEST) - {256}
    assert 150_000 / sum(block.inputs.size for block in packed) > 0.85


def test_counted_windows_fill_rows_of_few_lengths():
    sizes = np.random.default_rng(1).lognormal(5.5, 1.2, 20_000).astype(int).clip(1, 4096)
    seen, shapes, positions, held = np.zeros(len(sizes), int), [], 0, 0
    for length, most, rows in pack_counted(sizes):
        shapes.append((length, most))
        for row in rows:
            seen[row] += 1
            size = sizes[row]
            assert len(row) <= most
            assert size.sum() <= length
            assert most == 1 or (size > length // 8).all()
            assert most > 1 or length == 32 or size > 0.8 * length
        positions += length * len(rows)
        held += sizes[np.concatenate(rows)].sum()
    assert (seen == 1).all()
    alone = [4096, 3584, 3072, 2560, 32]
    assert shapes == [*((length, 1) for length in alone), (256, 7), (2048, 7)]
    assert held / positions > 0.9
    assert list(pack_counted(np.zeros(0, int))) == []


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(documents):
        lengths = np.full(documents, 200)
        made = _corpus(lengths)
        np.save(tmp_path / f"{documents}.npy", made.tokens)
        mapped = dataclasses.replace(made, tokens=np.load(tmp_path / f"{documents}.npy", mmap_mode="r"))
        tracemalloc.start()
        count = sum(int((block.place >= 0).sum()) for block in blocks(mapped, END, 128, 4096))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == lengths.sum()
        return found

    small, large = peak(2000), peak(10_000)
    # 1.6 million more tokens, of which 8 bytes a document (lengths, numbers of windows) may be kept a few times.
    assert large - small < 8_000 * 8 * 8


def test_scores_are_those_of_each_document_alone(model, corpus, found):
    assert np.isfinite(found).all()
    for number in range(len(corpus)):
        ids = corpus.document(number).astype(np.int32)
        part = found[corpus.starts[number] : corpus.starts[number + 1]]
        for begin in range(0, len(ids), CONTEXT):
            until = min(begin + CONTEXT, len(ids))
            first = max(until - CONTEXT, 0)
            expected = _alone(model, ids[first:until], END if first == 0 else ids[first - 1])
            assert np.abs(part[begin:until] - expected[begin - first :]).max() < TOLERANCE


def test_scores_do_not_depend_on_the_company(model, corpus, found):
    for order in (range(len(corpus))[::-1], [3, 1, 8]):
        other = corpus.select(list(order))
        again = log_probabilities(model, other, END)
        for place, number in enumerate(order):
            one = again[other.starts[place] : other.starts[place + 1]]
            whole = found[corpus.starts[number] : corpus.starts[number + 1]]
            assert np.abs(one - whole).max(initial=0) < TOLERANCE
    # The tolerance would show a leak: a document seen after another one scores otherwise.
    ids = np.concatenate([corpus.document(7), corpus.document(5)]).astype(np.int32)
    assert np.abs(_alone(model, ids)[100:] - found[corpus.starts[5] : corpus.starts[6]]).max() > 100 * TOLERANCE


def test_logits_a_few_columns_at_a_time_are_the_same(monkeypatch):
    random = np.random.default_rng(0)
    states, head = random.normal(size=(12, 4)).astype(np.float32), random.normal(size=(4, V)).astype(np.float32)
    head[:, 7] *= 30  # a late rise of the largest logit, and logits whose exponentials overflow
    targets = np.concatenate([[0, 7, V - 1], random.integers(0, V, 9)])
    logits = states.astype(float) @ head.astype(float)
    whole = logits[np.arange(12), targets] - np.logaddexp.reduce(logits, axis=1)
    assert np.abs(logits).max() > 89
    for columns in (1, 5, V - 1, V, 2 * V):  # 5 and V - 1 do not divide V
        monkeypatch.setattr(scoring, "COLUMNS", columns)
        jax.clear_caches()
        found = chosen_log_probabilities(
            jnp.asarray(states), jnp.asarray(head), jnp.asarray(targets), compute="float32"
        )
        # Logits of some 100 are rounded to 2^-17.
        assert np.abs(found - whole).max() < TOLERANCE


def test_bfloat16_is_near_and_float32_available(model, corpus, found):
    scorer = prepare(model, "bfloat16")
    assert scorer.head.dtype == scorer.blocks[-1]["down"].dtype == jnp.bfloat16
    assert scorer.rest["embedding"].dtype == scorer.blocks[-1]["hidden_norm_scale"].dtype == jnp.float32
    near = log_probabilities(scorer, corpus, END)
    difference = np.abs(near - found)
    # 8 bits of mantissa: logits of some 20 lose 20 * 2^-9 a rounding, of which two layers make some tens.
    assert 1e-3 < difference.max() < 40 * 20 * 2.0**-9
    again = log_probabilities(prepare(_with_compute(model, "bfloat16"), "float32"), corpus, END)
    np.testing.assert_array_equal(again, found)


def _with_compute(model, compute):
    return from_arrays(dataclasses.replace(model.config, compute=compute), named(model))


def test_perplexity_by_hand(model, corpus, found):
    evaluation = evaluate(model, corpus, END)
    score, nll = evaluation.score(), -found.astype(float)
    assert score.nats_per_token == pytest.approx(nll.mean(), rel=1e-9)
    assert score.perplexity is not None
    assert score.perplexity == pytest.approx(math.exp(nll.mean()), rel=1e-9)
    assert score.bits_per_byte == pytest.approx(nll.sum() / math.log(2) / corpus.sizes.sum(), rel=1e-9)
    assert (score.tokens, score.bytes) == (len(corpus.tokens), corpus.sizes.sum())
    # Two of the twelve documents are empty.
    assert (score.documents, score.works) == (10, 6)
    parts = [evaluation.score(domain) for domain in "ab"]
    assert sum(part.tokens for part in parts) == score.tokens
    assert evaluation.macro_perplexity() == pytest.approx(np.mean([math.exp(part.nats_per_token) for part in parts]))
    assert evaluation.macro_bits_per_byte() == pytest.approx(np.mean([part.bits_per_byte for part in parts]))
    kept = np.flatnonzero(corpus.lengths)
    by_document = np.add.reduceat(nll, corpus.starts[kept])
    assert score.perplexity_document_error == pytest.approx(
        score.perplexity * _error(by_document, corpus.lengths[kept]), rel=1e-6
    )
    work = np.unique([corpus.works[number] for number in kept], return_inverse=True)[1]
    nll_of, tokens_of = np.bincount(work, by_document), np.bincount(work, corpus.lengths[kept])
    bytes_of = np.bincount(work, corpus.sizes[kept])
    assert score.perplexity_error == pytest.approx(score.perplexity * _error(nll_of, tokens_of), rel=1e-6)
    assert score.bits_per_byte_error == pytest.approx(_error(nll_of / math.log(2), bytes_of), rel=1e-6)
    assert score.perplexity_error != pytest.approx(score.perplexity_document_error, rel=1e-3)


def test_a_model_too_bad_for_a_perplexity_has_a_loss():
    lost = 800.0  # nats a token; exp(710) is beyond float64

    def of(*nll):
        count = len(nll)
        documents, tokens = np.arange(count), np.full(count, 10)
        return Evaluation(("v", "w")[:count], ("a", "b")[:count], documents, 10 * np.asarray(nll), tokens, 4 * tokens)

    score = of(lost, lost).score()
    assert (score.nats_per_token, score.bits_per_byte) == pytest.approx((lost, lost / 4 / math.log(2)))
    assert (score.perplexity, score.perplexity_error, score.perplexity_document_error) == (None, None, None)
    assert of(lost, 3.0).score("b").perplexity == pytest.approx(math.exp(3))
    assert of(lost, 3.0).macro_perplexity() is None
    # What can be told is told: of 709.5 +- 0.1, and of the mean of two such perplexities, only this.
    near = of(709.4, 709.6)
    assert near.score().perplexity == pytest.approx(math.exp(709.5))
    assert near.macro_perplexity() is None
    plain(dataclasses.asdict(near.score()) | dataclasses.asdict(score))


def _error(numerator, denominator):
    error = ratio(numerator, denominator)[1]
    assert error is not None
    return error


def test_evaluations_are_kept_and_joined(model, corpus):
    whole = evaluate(model, corpus, END)
    again = Evaluation.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.score("a") == whole.score("a")
    halves = join([evaluate(model, corpus.select(part), END) for part in (range(6), range(6, 12))])
    for domain in ("a", "b", None):
        one, other = whole.score(domain), halves.score(domain)
        assert (one.tokens, one.works, one.documents) == (other.tokens, other.works, other.documents)
        assert one.perplexity == pytest.approx(other.perplexity, rel=1e-5)
        assert one.perplexity_error == pytest.approx(other.perplexity_error, rel=1e-4)
    calls = []
    evaluate(model, corpus, END, progress=calls.append)
    assert calls[-1] == len(corpus.tokens)


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


def test_bad_input_is_one_sentence(model, corpus):
    for lengths in ([], [0, 0]):
        with pytest.raises(InputError, match="no tokens"):
            evaluate(model, _corpus(lengths), END)
    single = evaluate(model, _corpus([1]), END).score()
    assert (single.tokens, single.perplexity_error, single.perplexity_document_error) == (1, None, None)
    for context, stride, message in (
        (301, None, "exceeds"),
        (0, None, "cannot hold"),
        (64, 65, "stride"),
        (64, 0, "stride"),
    ):
        with pytest.raises(InputError, match=message):
            next(scores(prepare(model), corpus, END, stride, context))
    large = dataclasses.replace(corpus, tokens=corpus.tokens + 50)
    with pytest.raises(InputError, match="the model only 97"):
        evaluate(model, large, END)
    arrays = named(model)
    broken = arrays | {"embedding": arrays["embedding"].at[3].set(jnp.nan)}
    with pytest.raises(InputError, match=r"document \d+ a probability that is no number"):
        evaluate(from_arrays(model.config, broken), corpus, END)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model that was never trained, and texts of two domains in paragraphs as records."""
    folder = tmp_path_factory.mktemp("evaluate")
    texts = {name: (DATA / f"{name}.txt").read_text(encoding="utf-8") for name in ("speech", "novel")}
    tokenizer = Tokenizer.train(texts.values(), 300)
    config = ModelConfig(300, context=64, width=16, layers=1, heads=2, hidden=32)
    huggingface.write(folder / "model", make(config, 0), tokenizer)
    for name, text in texts.items():
        records = [{"text": part, "id": f"{name}-{i}"} for i, part in enumerate(text.split("\n\n")[:9]) if part]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return folder


def _command(place, *names, **options):
    return Evaluate(str(place / "model"), tuple(str(place / f"{name}.jsonl") for name in names), **options)


def test_command_prints_and_writes_what_was_scored(place, capsys):
    assert _command(place, "speech", "novel", tokens="all", csv=place / "t.csv", json=place / "r.json").run() == 0
    shown = capsys.readouterr().out
    with (place / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["domain"] for row in rows] == ["novel", "speech", "all tokens (micro)", "all domains (macro)"]
    assert sum(int(row["tokens"]) for row in rows[:2]) == int(rows[2]["tokens"])
    perplexity = [float(row["perplexity"]) for row in rows]
    assert perplexity[3] == pytest.approx(sum(perplexity[:2]) / 2)
    # A model with random weights predicts nothing: about as many choices as there are ids.
    assert 250 < perplexity[2] < 350
    assert f"{perplexity[0]:.2f}" in shown
    assert f"{perplexity[3]:.2f}" in shown
    made = json.loads((place / "r.json").read_text(encoding="utf-8"))
    assert made["data"]["tables"]["perplexity"][0]["documents"] == int(rows[0]["documents"])
    assert made["config"]["compute"] == "bfloat16"


def test_command_takes_a_part_in_the_order_of_hashes(place, capsys, monkeypatch):
    def counts(**options):
        _command(place, "novel", csv=place / "part.csv", **options).run()
        with (place / "part.csv").open(encoding="utf-8") as file:
            row = next(csv.DictReader(file))
        return int(row["documents"]), int(row["tokens"])

    whole = counts(tokens="all")
    assert counts(documents=2)[0] == 2 < whole[0]
    monkeypatch.setattr(command, "TOKENS", 1)
    assert counts()[0] == 1
    assert counts(documents=2)[0] == 2  # without the limit of tokens
    some = counts(tokens=whole[1] // 3)
    assert whole[1] // 3 <= some[1] < whole[1]
    assert "A part of each source" in capsys.readouterr().out
    assert counts(tokens=whole[1]) == whole
    assert "A part of each source" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nothing"}, "no model"),
        ({"source": ("nothing.txt",)}, "no file"),
        ({"source": ("source:nothing",)}, "no source"),
        ({"source": ()}, "nothing to score"),
        ({"tokens": 0}, "--tokens is 0"),
        ({"context": 65}, "exceeds the model's 64"),
        ({"csv": pathlib.Path("/proc/none/t.csv")}, "cannot write"),
    ],
)
def test_command_refuses_bad_input_in_one_sentence(place, options, message):
    with pytest.raises((InputError, PaperError), match=message):
        dataclasses.replace(_command(place, "speech"), **options).run()


def test_lanes_give_the_same_bits_in_the_same_order(model, corpus):
    scorer = prepare(model)
    cut = list(blocks(corpus, END, 256, 256))
    assert len(cut) > 4

    def through(block):
        return scoring.states(scorer, block.inputs, block.segments)

    alone, three = list(in_lanes(cut, through, 1)), list(in_lanes(iter(cut), through, 3))
    assert all(one is block for (one, _), block in zip(three, cut, strict=True))
    for (_, one), (_, other) in zip(alone, three, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lanes_take_few_items_ahead_work_side_by_side_and_raise_in_turn():
    taken, meet = [], threading.Barrier(2, timeout=60)

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    def function(number):
        if number == 12:
            raise InputError("the twelfth is bad")
        if number < 12:
            meet.wait()  # passes only while two are at work
        return np.full(2, number)

    found = in_lanes(items(), function, 2)
    for number, (item, made) in zip(range(12), found, strict=False):
        assert item == number
        np.testing.assert_array_equal(made, [number, number])
        assert len(taken) <= number + 4
    with pytest.raises(InputError, match="twelfth"):
        next(found)
