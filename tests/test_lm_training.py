"""Training: loss, gradients, optimiser, checkpoints, metrics, signals; on the bytes of a real text."""

import asyncio
import dataclasses
import functools
import gc
import json
import math
import os
import pathlib
import signal
import struct
import sys
import types
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (generated)

from lm.data.corpus import Corpus
from lm.data.loader import Loader
from lm.data.mixture import Part
from lm.errors import InputError
from lm.model.config import ModelConfig
from lm.model.decoder import make, named
from lm.model.packed import PADDING
from lm.model.parameters import is_matrix, parameters
from lm.model.sharding import make_mesh
from lm.train import checkpoint
from lm.train import step as steps
from lm.train.checkpoint import DamagedCheckpoint
from lm.train.config import TrainConfig, learning_rate, optimizer
from lm.train.loop import Data, train
from lm.train.loss import cross_entropy
from lm.train.metrics import flops_per_token
from lm.train.signals import Stopped
from lm.train.step import Batch, gradient
from paper.commands.train import Train, amount, shares
from paper.errors import InputError as PaperError

TEXT = (pathlib.Path(__file__).parent / "data" / "speech.txt").read_bytes()
BYTES = np.frombuffer(TEXT, np.uint8).astype(np.int32)
END = 256
MODEL = ModelConfig(257, context=32, width=32, layers=1, heads=2, hidden=64)
CONFIG = TrainConfig(steps=24, batch=4, learning_rate=1e-2, warmup=3, save_every=5)
ULP = float(np.finfo(np.float32).eps)


def corpus(paragraphs):
    """Return a corpus of the paragraphs of the text, tokenised to bytes."""
    documents = [np.frombuffer(part, np.uint8) for part in TEXT.split(b"\n") if part][paragraphs]
    names = [str(number) for number in range(len(documents))]
    sizes = np.asarray([len(document) for document in documents])
    return Corpus(np.concatenate(documents), np.concatenate([[0], np.cumsum(sizes)]), names, names, names, sizes)


DATA = Data((Part("first", corpus(slice(0, 8)), "1/4"), Part("rest", corpus(slice(8, None)), "3/4")), END)


def batch(parts=1, rows=8):
    """Return rows of the text with two segments each, some of them with padding."""
    T = MODEL.context
    begin = [int(at) for at in np.random.default_rng(1).integers(0, len(BYTES) - T, rows)]
    window = np.asarray([BYTES[at : at + T + 1] for at in begin])
    segments = np.broadcast_to(np.arange(T) >= T // 2, (rows, T)).astype(np.int32)
    segments[np.asarray(begin) % 3 == 0, -5:] = PADDING
    arrays = (window[:, :-1], window[:, 1:], segments)
    return Batch(*(jnp.asarray(array).reshape(parts, rows // parts, T) for array in arrays))


@pytest.fixture(scope="module")
def weights():
    # Eight times the starting weights: then attention and far tokens matter to the loss.
    return {name: array * (8 if is_matrix(name, MODEL) else 1) for name, array in named(make(MODEL, 0)).items()}


slope = jax.jit(gradient, static_argnums=(0, 1))


def assert_same(found, wanted):
    """The loss and each parameter's gradient to 100 units in the last place of their largest entries.

    The sums behind an entry have up to 256 terms, whose rounding errors add up like their root or, at worst,
    like their number times 1/2.
    """
    assert float(found[0]) == pytest.approx(float(wanted[0]), rel=100 * ULP)
    for name, array in wanted[1].items():
        scale = float(jnp.abs(array).max())
        assert scale > 0, name
        assert float(jnp.abs(found[1][name] - array).max()) < 100 * ULP * scale, name


@pytest.fixture(scope="module")
def whole(weights):
    return slope(MODEL, CONFIG.loss_chunk, weights, batch())


@pytest.mark.parametrize("remat", ["matmuls", "full"])
def test_remat_leaves_loss_and_gradient(remat, weights, whole):
    assert_same(slope(dataclasses.replace(MODEL, remat=remat), CONFIG.loss_chunk, weights, batch()), whole)


def test_accumulation_over_unevenly_padded_parts_leaves_loss_and_gradient(weights, whole):
    parts = 4
    padded = np.sum(np.asarray(batch(parts).segments) == PADDING, axis=(1, 2))
    assert len(set(padded.tolist())) > 1, "the test needs parts with different numbers of targets"
    assert_same(slope(MODEL, CONFIG.loss_chunk, weights, batch(parts)), whole)


def test_across_documents_a_row_is_one(weights):
    given = batch()
    across = jax.jit(functools.partial(gradient, MODEL, CONFIG.loss_chunk, across=True))(weights, given)
    joined = given._replace(segments=jnp.where(given.segments == PADDING, PADDING, 0))
    assert_same(across, slope(MODEL, CONFIG.loss_chunk, weights, joined))
    apart = slope(MODEL, CONFIG.loss_chunk, weights, given)
    assert abs(float(across[0]) - float(apart[0])) > 1e-4
    assert "across" not in CONFIG.describe()
    assert dataclasses.replace(CONFIG, across=True).describe()["across"]


def test_chunked_loss_leaves_loss_and_gradient(weights, whole):
    # Three chunks for 256 tokens, the last one filled up.
    assert_same(slope(MODEL, 100, weights, batch()), whole)


def test_packing_and_padding_leave_loss_and_gradient(weights):
    """Documents of 9, 14 and 20 bytes: packed, packed with padding in between rows, and alone with padding."""
    T = MODEL.context
    lengths = (9, 14, 20)
    documents = [BYTES[at : at + length + 1] for at, length in zip((0, 100, 500), lengths, strict=True)]

    def rows(layout):
        inputs, targets = np.zeros((2, len(layout), T), np.int32)
        segments = np.full((len(layout), T), PADDING, np.int32)
        for row, members in enumerate(layout):
            at = 0
            for number in members:
                document = documents[number]
                place = slice(at, at + len(document) - 1)
                inputs[row, place], targets[row, place] = document[:-1], document[1:]
                segments[row, place] = number
                at = place.stop
        return Batch(*(jnp.asarray(array)[None] for array in (inputs, targets, segments)))

    alone = slope(MODEL, CONFIG.loss_chunk, weights, rows([[0], [1], [2], []]))
    for layout in ([[0, 1], [2], [], []], [[1], [], [0, 2], []]):
        assert_same(slope(MODEL, CONFIG.loss_chunk, weights, rows(layout)), alone)
    mixed = rows([[0, 1], [2], [], []])
    blurred = mixed._replace(segments=jnp.where(mixed.segments == PADDING, PADDING, 0))
    found = slope(MODEL, CONFIG.loss_chunk, weights, blurred)
    assert abs(float(found[0] - alone[0])) > 1e-3, "segments must matter, or the test shows nothing"


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_chunked_cross_entropy_is_that_of_log_softmax(compute, rng):
    N, D, V = 50, 16, 300
    states, head = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((N, D), (D, V)))
    targets, weights = jnp.asarray(rng.integers(0, V, N)), jnp.asarray(rng.integers(0, 2, N), jnp.float32)

    def plain(states, head):
        states, head = (factor.astype(compute).astype(jnp.float32) for factor in (states, head))
        logits = jax.nn.log_softmax(jnp.dot(states, head, precision="highest"))
        return -jnp.sum(weights * jnp.take_along_axis(logits, targets[:, None], 1)[:, 0])

    def chunked(states, head):
        return cross_entropy(states, head, targets, weights, 16, compute)[0]

    wanted = jax.value_and_grad(plain, (0, 1))(states, head)
    found = jax.value_and_grad(lambda *x: 3 * chunked(*x), (0, 1))(states, head)
    assert float(chunked(states, head)) == pytest.approx(float(wanted[0]), rel=20 * ULP)
    assert float(cross_entropy(states, head, targets, weights, 16, compute)[1]) == float(weights.sum())
    # In bfloat16 the gradient of a logit is a factor too: 2^-9 each, less in a sum of many.
    unit = 100 * ULP if compute == "float32" else 2**-8
    for a, b in zip(found[1], wanted[1], strict=True):
        assert float(jnp.abs(a / 3 - b).max()) < unit * float(jnp.abs(b).max())


def test_weight_decay_of_matrices_only():
    model = dataclasses.replace(MODEL, norm="layer", norm_bias=True, attention_bias="all", hidden_bias=True)
    config = dataclasses.replace(CONFIG, warmup=0)
    values = {name: jnp.ones(one.shape) for name, one in parameters(model).items()}
    transform = optimizer(model, config)
    zero = jax.tree.map(jnp.zeros_like, values)
    changes: Any = jax.jit(lambda values: transform.update(zero, transform.init(values), values)[0])(values)
    rate = float(np.asarray(learning_rate(config)(0)))
    for name, change in changes.items():
        vector = name.endswith(("_scale", "_bias"))
        assert np.asarray(change) == pytest.approx(0.0 if vector else -rate * config.weight_decay), name


def test_update_is_that_of_adamw_by_hand(weights):
    """Loshchilov & Hutter 2019, algorithm 2, first update: the bias-corrected moments are g and g^2."""
    config, mesh, rows = CONFIG, make_mesh(), batch(rows=4)
    state = steps.start(MODEL, config, mesh, weights)
    before = {name: np.asarray(array) for name, array in weights.items()}
    loss, g = slope(MODEL, config.loss_chunk, weights, rows)
    norm = math.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in g.values()))
    state, measures = steps.updater(MODEL, config, mesh)(state, rows, jnp.zeros(1, jnp.int32))
    assert float(measures.loss) == pytest.approx(float(loss), rel=20 * ULP)
    assert float(measures.gradient_norm) == pytest.approx(norm, rel=1e-5)
    assert norm > config.clip
    rate = float(measures.learning_rate)
    for name, old in before.items():
        clipped = np.asarray(g[name]) * config.clip / norm
        decay = config.weight_decay * old if is_matrix(name, MODEL) else 0
        wanted = old - rate * (clipped / (np.abs(clipped) + config.epsilon) + decay)
        # g / |g| is of order 1 whatever g is: compare where the rounding of g does not matter.
        sure = np.abs(clipped) > 1e-3 * np.abs(clipped).max()
        assert np.abs(np.asarray(state.parameters[name]) - wanted)[sure].max() < 1e-2 * rate, name


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_schedules(schedule):
    config = TrainConfig(steps=100, warmup=10, learning_rate=2.0, schedule=schedule, decay_share=0.3)
    rate = np.asarray([learning_rate(config)(done) for done in range(100)])
    assert rate[:10] == pytest.approx(np.arange(1, 11) / 10 * 2)
    assert rate[-1] == pytest.approx(0.2)
    assert (np.diff(rate[9:]) <= 0).all()
    if schedule == "cosine":
        assert rate[54] == pytest.approx(0.2 + 0.9 * 2 * 0.5)  # half way
    else:
        assert rate[9:70] == pytest.approx(2.0)
        assert rate[84] == pytest.approx(1.1)


def test_flops_by_hand():
    D, F, V, T = 32, 64, 257, 32
    matrices = 4 * D * D + 3 * D * F + V * D
    norms = 2 * D + D
    assert flops_per_token(MODEL) == 6 * (matrices + norms) + 12 * D * T


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return named(train(MODEL, CONFIG, DATA, folder, tensorboard=True)), folder


def test_training_learns_and_records(undisturbed):
    _, folder = undisturbed
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 25))
    assert [record["tokens"] for record in records] == list(range(128, 24 * 128 + 1, 128))
    assert records[0]["loss"] == pytest.approx(math.log(257), rel=0.02)
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["learning_rate"] == pytest.approx(1e-3)
    speeds = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    assert all(speed["tokens_per_second"] > 0 for speed in speeds)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["20", "24"]


def events(folder):
    """Return (tag, step, value) of every scalar in the event files, without TensorBoard."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


class Killed(BaseException):
    """Stands for a kill: nothing in the loop handles it."""


def killed_at(step):
    def progress(share, message):
        if message.startswith(f"step {step} "):
            raise Killed

    return progress


def stopped_at(step, number):
    def progress(share, message):
        if message.startswith(f"step {step} "):
            os.kill(os.getpid(), number)

    return progress


def assert_same_run(folder, found, undisturbed):
    wanted, whole = undisturbed
    for name, array in wanted.items():
        assert np.array_equal(np.asarray(array).view(np.uint32), np.asarray(found[name]).view(np.uint32)), name
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_run_that_was_killed_and_stopped_goes_on_to_the_same_bits(undisturbed, tmp_path):
    for step in (3, 8):
        with pytest.raises(Killed):
            train(MODEL, CONFIG, DATA, tmp_path, killed_at(step), tensorboard=True)
    for step, number, code in ((11, signal.SIGTERM, 143), (17, signal.SIGINT, 130)):
        with pytest.raises(Stopped) as stopped:
            train(MODEL, CONFIG, DATA, tmp_path, stopped_at(step, number), tensorboard=True)
        assert stopped.value.code == code
        # Metrics are a step behind: the update that ran when the signal came is step + 1.
        assert stopped.value.step == step + 1
        assert str(stopped.value.step) in [path.name for path in (tmp_path / "checkpoints").iterdir()]
    found = named(train(MODEL, CONFIG, DATA, tmp_path, tensorboard=True))
    assert_same_run(tmp_path, found, undisturbed)
    folders = (tmp_path, undisturbed[1])
    mine, wanted = (sorted(event[1:] for event in events(folder) if event[0] == "loss") for folder in folders)
    assert mine == wanted
    assert len(mine) == 24
    assert len((tmp_path / "speed.jsonl").read_text().splitlines()) == 24
    again = named(train(MODEL, CONFIG, DATA, tmp_path, tensorboard=True))
    assert_same_run(tmp_path, again, undisturbed)


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["flip", "cut", "note"])
def test_damaged_checkpoint_is_passed_over(damage, undisturbed, tmp_path, monkeypatch):
    left = []  # what is told on the standard error when garbage is collected
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: left.append(unraisable.exc_value))
    with pytest.raises(Killed):
        train(MODEL, CONFIG, DATA, tmp_path, killed_at(13))
    last = tmp_path / "checkpoints" / "10"
    assert last.exists()
    assert (tmp_path / "checkpoints" / "5").exists()
    path = last / "note" / "metadata" if damage == "note" else largest(last)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data) if damage == "flip" else bytes(data[: len(data) // 2]))
    with pytest.warns(DamagedCheckpoint, match="10 is damaged"):
        found = named(train(MODEL, CONFIG, DATA, tmp_path))
    gc.collect()
    assert left == []
    assert_same_run(tmp_path, found, undisturbed)


def unraisable(thing: object, error: BaseException) -> Any:
    return types.SimpleNamespace(object=thing, exc_value=error)


def test_only_readers_left_behind_are_not_told_of(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: told.append(one.exc_value))
    loop = asyncio.new_event_loop()
    loop.close()
    others = RuntimeError("Event loop is closed"), ValueError("Event loop is left open")
    with checkpoint._quietly():
        with pytest.raises(RuntimeError) as late:
            loop.call_soon_threadsafe(print)
        # As tensorstore's threads tell it when an array is read after orbax has given up.
        sys.unraisablehook(unraisable(None, late.value))
        for error, thing in zip(others, (loop, None), strict=True):
            sys.unraisablehook(unraisable(thing, error))
    assert told == list(others)


def test_nothing_readable_is_refused(tmp_path):
    with pytest.raises(Killed):
        train(MODEL, CONFIG, DATA, tmp_path, killed_at(8))
    for path in (tmp_path / "checkpoints").iterdir():
        (path / "note" / "metadata").write_bytes(b"")
    with (
        pytest.warns(DamagedCheckpoint),
        pytest.raises(InputError, match=r"no checkpoint in .* can be read; remove the folder"),
    ):
        train(MODEL, CONFIG, DATA, tmp_path)


@pytest.mark.parametrize(
    ("model", "config", "data", "named_difference"),
    [
        (
            MODEL,
            dataclasses.replace(CONFIG, learning_rate=2e-2),
            DATA,
            "training.learning_rate 0.01 instead of 0.02",
        ),
        (dataclasses.replace(MODEL, width=64), CONFIG, DATA, "model.width 32 instead of 64"),
        (MODEL, CONFIG, Data(DATA.parts[::-1], END), "data.sha256 [0-9a-f]+ instead of "),
        (MODEL, CONFIG, Data([Part("first", corpus(slice(8)))], END), "data.shares.first 1/4 instead of 1; "),
    ],
)
def test_checkpoint_of_another_run_is_refused(model, config, data, named_difference, undisturbed):
    folder = undisturbed[1]
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"belongs to another run .*{named_difference}.*; use its settings"):
        train(model, config, data, folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_divergence_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30, warmup=0, save_every=1)
    with pytest.raises(InputError, match=r"the (loss|gradient of .*) became \w+ at step 2 \(after 128 tokens\); lower"):
        train(MODEL, config, DATA, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_training_goes_on_from_given_weights(tmp_path):
    given = make(MODEL, 7)
    with pytest.raises(Killed):
        train(MODEL, CONFIG, DATA, tmp_path, killed_at(6), weights=("given", given))
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    loader = Loader(DATA.parts, end=END, context=MODEL.context, batch=4, steps=1, seed=0)
    first = Batch(*(jnp.asarray(array)[None] for array in next(loader)))
    loader.close()
    assert record["loss"] == pytest.approx(float(slope(MODEL, CONFIG.loss_chunk, named(given), first)[0]), rel=20 * ULP)
    assert np.isfinite(np.asarray(named(given)["embedding"])).all(), "the given weights are not used up"
    with pytest.raises(InputError, match="weights given instead of None"):
        train(MODEL, CONFIG, DATA, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"warmup": 24},
        {"learning_rate": 0.0},
        {"clip": -1.0},
        {"beta2": 1.0},
        {"final_share": 2.0},
        {"accumulation": 3},
        {"fsdp": 8},
        {"seed": -1},
        {"seed": 5_000_000_000},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError):
        dataclasses.replace(CONFIG, **wrong)


def test_too_few_devices_are_refused():
    with pytest.raises(InputError, match=r"needs 4 devices and there are \d+; lower an axis"):
        train(MODEL, dataclasses.replace(CONFIG, fsdp=2, tensor=2), DATA)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def progress(share, message):
        with pytest.raises(InputError, match="another run is training in"):
            train(MODEL, CONFIG, DATA, tmp_path)
        raise Killed

    with pytest.raises(Killed):
        train(MODEL, CONFIG, DATA, tmp_path, progress)


def test_runs_of_equal_shapes_compile_once(undisturbed):
    update: Any = steps.updater(MODEL, CONFIG, make_mesh())
    compiled = update._cache_size()
    assert compiled > 0
    for seed in (1, 2):
        with pytest.raises(Killed):
            train(MODEL, dataclasses.replace(CONFIG, seed=seed, save_every=7), DATA, None, killed_at(2))
    assert update._cache_size() == compiled


def test_checksums_see_a_flipped_bit_and_an_exchange(weights):
    transform = optax.identity()
    state = steps.State(jnp.zeros((), jnp.int32), weights, transform.init(weights))
    found = np.asarray(steps.checksums(state))
    name = "blocks.query"
    number = 1 + sorted(weights).index(name)
    array = np.asarray(weights[name]).copy()
    flipped, exchanged = array.copy(), array.copy()
    flipped.view(np.uint32)[0, 2, 3] ^= 1 << 22
    exchanged[0, 0, :2] = exchanged[0, 0, 1::-1]
    for changed in (flipped, exchanged):
        other = np.asarray(steps.checksums(state._replace(parameters={**weights, name: jnp.asarray(changed)})))
        assert np.flatnonzero(other != found).tolist() == [number]


@pytest.mark.parametrize(("one", "other", "distance"), [(5.0, -5.0, 4), (1.0, 2.0, 256)])
def test_checksums_see_the_exchange_of_values_whose_bits_differ_by_a_power_of_two(one, other, distance):
    values = np.ones(300, np.float32)
    values[0], values[distance] = one, other
    exchanged = values.copy()
    exchanged[0], exchanged[distance] = other, one
    for mixed in (True, False):
        sums = [
            np.asarray(steps.checksums(steps.State(jnp.zeros((), jnp.int32), {"w": jnp.asarray(array)}, ()), mixed))
            for array in (values, exchanged)
        ]
        assert (sums[0] != sums[1]).tolist() == [False, mixed]


def test_a_checkpoint_from_before_its_checksums_were_mixed_is_gone_on_from(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "checksums", lambda state: steps.checksums(state, False))
        with pytest.raises(Killed):
            train(MODEL, CONFIG, DATA, tmp_path, killed_at(8))
    path = tmp_path / "checkpoints" / "5" / "note" / "metadata"
    note = json.loads(path.read_text())
    del note["mixed"]
    path.write_text(json.dumps(note))
    assert_same_run(tmp_path, named(train(MODEL, CONFIG, DATA, tmp_path)), undisturbed)


@pytest.mark.parametrize(("text", "number"), [("2M", 2_000_000), ("1.5k", 1500), ("300", 300), ("1B", 10**9)])
def test_amounts_of_tokens(text, number):
    assert amount(text) == number


@pytest.mark.parametrize("text", ["", "M", "-3", "0", "nan", "inf", "2Mx"])
def test_no_amount_is_refused(text):
    with pytest.raises(PaperError, match="is no number of tokens"):
        amount(text)


def test_shares_are_exact_and_the_rest_is_divided():
    assert shares(["sotu", "novels:0.3"]) == {"sotu": Fraction(7, 10), "novels": Fraction(3, 10)}
    assert shares(["a:1/3", "b", "c"]) == dict.fromkeys("abc", Fraction(1, 3))
    assert shares(["a", "b", "c"]) == dict.fromkeys("abc", Fraction(1, 3))
    assert shares(["hub:owner/name"]) == {"hub:owner/name": 1}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["a:0.5", "b:0.4"], "sum to 0.9"),
        (["a:0.5", "b:0.5", "c"], "sum to 1, which leaves nothing for c; lower them"),
        (["a", "a:0.5"], "a is named twice"),
        ([], "nothing to train on"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(given, sentence):
    with pytest.raises(PaperError, match=sentence):
        shares(given)


def test_options_that_do_not_apply_are_refused(tmp_path):
    with pytest.raises(PaperError, match="--width does not apply to a pretrained model"):
        Train(("sotu",), tmp_path / "run", model="smollm2", width=64).run()
    with pytest.raises(InputError, match="no preset 'large'"):
        Train(("sotu",), tmp_path / "run", preset="large").run()
    assert not (tmp_path / "run").exists()
