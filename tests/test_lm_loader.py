"""Packing, mixtures and the training iterator: every token once, exact shares, the same batches on any processes."""

import collections
import itertools
import json
import math
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.data import corpus as token_files
from lm.data import packing
from lm.data.corpus import Corpus
from lm.data.loader import Batch, Loader, local_rows
from lm.data.mixture import Mixture, Part, balanced
from lm.data.packing import Order, Stream
from lm.errors import InputError

END = 60_000


def _corpus(lengths, first=0):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    names = tuple(f"d{number}" for number in range(len(lengths)))
    tokens = (first + np.arange(starts[-1])).astype(np.uint16)
    return Corpus(tokens, starts, names, names, names, np.asarray(lengths))


@pytest.mark.parametrize("n", [1, 2, 5, 16, 64, 255, 256, 257, 5000])
def test_order_is_a_permutation_that_its_key_decides(n):
    found = Order(n, "a")(np.arange(n))
    assert sorted(found) == list(range(n))
    assert np.array_equal(Order(n, "a")(np.arange(n)[::-1])[::-1], found)
    assert n < 5 or not np.array_equal(Order(n, "b")(np.arange(n)), found)


def test_orders_are_uniform():
    draws = 1500
    counts = collections.Counter(tuple(Order(3, f"key {number}")(np.arange(3)).tolist()) for number in range(draws))
    expected = draws / 6
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in itertools.permutations(range(3)))
    assert chi_square < 20.5  # 0.999 quantile of 5 degrees of freedom


@pytest.mark.parametrize("group", [2, 5, 65536])
def test_every_token_of_an_epoch_is_once_in_the_stream(group, monkeypatch):
    monkeypatch.setattr(packing, "GROUP", group)
    corpus = _corpus([3, 1, 5, 0, 2, 17, 4])
    stream = Stream(corpus, END, "key")
    assert stream.epoch == len(corpus.tokens) + len(corpus)
    ids, segment = stream.take(0, 3 * stream.epoch)
    orders = set()
    for epoch in np.split(ids, 3):
        documents = [tuple(part[1:].tolist()) for part in np.split(epoch, np.flatnonzero(epoch == END))[1:]]
        assert sorted(documents) == sorted(tuple(corpus.document(number).tolist()) for number in range(7))
        orders.add(tuple(documents))
    assert len(orders) == 3
    assert np.array_equal(np.diff(segment), (ids[1:] == END).astype(np.int32))
    for start, count in itertools.product(range(0, 70, 3), (1, 4, 40)):
        again, part = stream.take(start, count)
        assert np.array_equal(again, ids[start : start + count])
        assert np.array_equal(part, segment[start : start + count] - segment[start])


def test_rows_are_the_stream_cut():
    stream = Stream(_corpus([3, 11, 5, 2]), END, "key")
    ids, _ = stream.take(0, 101)
    rows = [stream.row(number, 10) for number in range(10)]
    assert np.array_equal(np.concatenate([row[0] for row in rows]), ids[:-1])
    assert np.array_equal(np.concatenate([row[1] for row in rows]), ids[1:])
    for inputs, _, segments in rows:
        assert segments.dtype == inputs.dtype == np.int32
        assert segments[0] == 0
        assert np.array_equal(np.diff(segments), (inputs[1:] == END).astype(np.int32))


SHARES = [
    ["1"],
    ["0", "1"],
    ["1/2", "1/2"],
    ["1/3", "2/3"],
    ["0.001", "0.999"],
    ["0.1", "0.2", "0.7"],
    ["1/7", "2/7", "1/14", "1/14", "3/7"],
    ["0.01"] * 10 + ["0.9"],
    ["0.11", "0.13", "0.17", "0.19", "0.4"],
]


@pytest.mark.parametrize("shares", SHARES)
def test_shares_are_exact_within_a_row_after_any_number_of_rows(shares):
    fractions = [Fraction(share) for share in shares]
    chosen = balanced(fractions)
    k = sum(share > 0 for share in fractions)
    bound = 1 - Fraction(1, 2 * k - 2) if k > 1 else Fraction(0)
    counts = [0] * len(shares)
    for row, part in enumerate(chosen.tolist(), 1):
        counts[part] += 1
        assert all(abs(count - share * row) <= bound < 1 for count, share in zip(counts, fractions, strict=True))
    assert counts == [share * len(chosen) for share in fractions]


def _mixture(shares=("0.3", "0.7"), seed=0, T=8):
    parts = [Part("a", _corpus([5] * 40), shares[0]), Part("b", _corpus([9] * 30, 1000), shares[1])]
    return Mixture(parts, END, T, seed)


def test_mixture_takes_from_each_part_what_it_says():
    mixture, T = _mixture(), 8
    for rows in (0, 1, 7, 10, 25, 133):
        taken = [mixture[row] for row in range(rows)]
        use = mixture.use(rows)
        from_b = [bool((targets[targets != END] >= 1000).all()) for _, targets, _ in taken]
        assert [one.rows for one in use] == [rows - sum(from_b), sum(from_b)]
        assert [one.tokens for one in use] == [one.rows * T for one in use]
        assert [one.available for one in use] == [40 * 6, 30 * 10]
        assert all(one.epochs == one.tokens / one.available for one in use)
        assert abs(sum(from_b) - 0.7 * rows) < 1
    # Part a: its rows one after the other are its own stream.
    own = [row for row in range(40) if mixture.part(row)[0] == 0]
    assert [mixture.part(row)[1] for row in own] == list(range(len(own)))
    ids, _ = Stream(_corpus([5] * 40), END, "0/a").take(0, len(own) * T + 1)
    assert np.array_equal(np.concatenate([mixture[row][0] for row in own]), ids[:-1])


def test_seed_and_name_decide_the_order():
    first = np.concatenate([_mixture()[row][0] for row in range(20)])
    assert np.array_equal(np.concatenate([_mixture()[row][0] for row in range(20)]), first)
    assert not np.array_equal(np.concatenate([_mixture(seed=1)[row][0] for row in range(20)]), first)


def test_bad_mixtures_are_refused():
    good, empty = _corpus([4, 4]), _corpus([0, 0])
    for parts, message in [
        ([], "no parts"),
        ([Part("a", good, "0.5"), Part("b", empty, "0.5")], "part b of the mixture has no tokens"),
        ([Part("a", good, "1"), Part("b", empty, "0")], "part b of the mixture has no tokens"),
        ([Part("a", good, "0.5"), Part("a", good, "0.5")], "two parts of the mixture are named a"),
        ([Part("a", good, "0.5"), Part("b", good, "0.4")], "sum to 0.9, not to 1"),
        ([Part("a", good, "1.5"), Part("b", good, "-0.5")], "outside 0 to 1"),
        ([Part("a", good, "half"), Part("b", good, "0.5")], "is no number"),
        ([Part("a", good, "nan"), Part("b", good, "0.5")], "is no number"),
        ([Part("a", good, math.pi - 3), Part("b", good, Fraction(1) - Fraction(str(math.pi - 3)))], "denominator"),
    ]:
        with pytest.raises(InputError, match=message):
            Mixture(parts, END, 4, 0)
    assert Mixture([Part("a", good, 1)], END, 4, 0).use(10)[0].epochs == 4


BATCH, STEPS = 12, 9


def _loader(local=None, **options):
    parts = [Part("a", _corpus([5] * 40), "0.25"), Part("b", _corpus([9] * 30, 1000), "0.75")]
    given = {"end": END, "context": 8, "batch": BATCH, "steps": STEPS, "seed": 3, "local": local} | options
    return Loader(parts, **given)


def _equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(x, y) for left, right in zip(one, other, strict=True) for x, y in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("processes", [1, 2, 3, 12])
def test_batches_are_the_same_on_any_number_of_processes(processes):
    size = BATCH // processes
    parts = [list(_loader(slice(first, first + size))) for first in range(0, BATCH, size)]
    together = [Batch(*map(np.concatenate, zip(*held, strict=True))) for held in zip(*parts, strict=True)]
    whole = list(_loader())
    assert _equal(together, whole)
    assert [batch.inputs.shape for batch in whole] == [(BATCH, 8)] * STEPS
    mixture = _mixture(("0.25", "0.75"), seed=3)
    assert np.array_equal(whole[4].targets[5], mixture[4 * BATCH + 5][1])


@pytest.mark.parametrize("step", [0, 1, 5, STEPS])
def test_resume_is_exact_also_on_other_processes(step):
    before = _loader()
    taken = list(itertools.islice(before, step))
    state = json.loads(json.dumps(before.get_state()))
    assert state["step"] == before.step == len(taken)
    rest = list(before)
    after = _loader()
    next(after)
    after.set_state(state)
    assert after.step == step
    assert _equal(list(after), rest)
    halves = [_loader(slice(first, first + 6)) for first in (0, 6)]
    for half in halves:
        half.set_state(state)
    together = [Batch(*map(np.concatenate, zip(*held, strict=True))) for held in zip(*halves, strict=True)]
    assert _equal(together, rest)
    for loader in (before, after, *halves):
        loader.close()


def test_longer_run_continues_a_shorter_one_and_other_data_are_refused():
    loader = _loader()
    next(loader)
    state = loader.get_state()
    longer = _loader(steps=2 * STEPS)
    longer.set_state(state)
    assert np.array_equal(next(longer).inputs, next(loader).inputs)
    for options in ({"seed": 4}, {"context": 9}, {"batch": 6}, {"end": 59_999}):
        with pytest.raises(InputError, match="other training data"):
            _loader(**options).set_state(state)
    with pytest.raises(InputError, match="ask for more steps"):
        _loader(steps=2).set_state({**state, "step": 3})
    with pytest.raises(InputError, match=r"another folder|more steps"):
        _loader().set_state({**state, "step": "1"})
    assert _loader().fingerprint == _loader(slice(0, 6)).fingerprint
    corpus = _corpus([5, 6])
    options: dict[str, Any] = {"end": END, "context": 4, "batch": 1, "steps": 1, "seed": 0}
    known = Loader([Part("a", corpus, 1, token_files.digest(corpus))], **options)
    assert known.fingerprint == Loader([Part("a", corpus, 1)], **options).fingerprint


def test_impossible_runs_are_refused_before_the_start():
    for options, message in [
        ({"batch": 0}, "is none"),
        ({"context": 0}, "is none"),
    ]:
        with pytest.raises(InputError, match=message):
            _loader(**options)
    assert [one.rows for one in _loader().use] == [27, 81]


def test_rows_of_this_process_are_those_of_its_devices():
    mesh = jax.make_mesh((1, 1), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    assert local_rows(sharding, BATCH, 8) == slice(0, BATCH)


def test_loader_reads_token_files(tmp_path):
    corpus = _corpus([5, 70, 1, 12])
    token_files.write(corpus, tmp_path / "c", {})
    found, notes = token_files.read(tmp_path / "c")
    options: dict[str, Any] = {"end": END, "context": 8, "batch": 4, "steps": 40, "seed": 0}
    mapped = Loader([Part("a", found, 1, notes["sha256"])], **options)
    held = Loader([Part("a", corpus, 1)], **options)
    assert mapped.fingerprint == held.fingerprint
    assert _equal(list(mapped), list(held))
