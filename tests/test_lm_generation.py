"""Generation: draws against NumPy, the cache against full passes, prompts, corpora that resume."""

import dataclasses
import json
import re
import types
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zstandard
from families import FAMILIES, LLAMA, lively
from flax import nnx
from scipy import stats

from lm.data.sources import Document
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.generation import corpus, decode, prompts
from lm.generation.sampling import SamplingConfig, document_words, draw, pick, uniforms
from lm.generation.unconditional import generate, generate_tokens
from lm.model.decoder import Decoder, make
from lm.weights.huggingface import write as write_model
from lm.weights.load import Pretrained, load
from paper.commands.generate import Generate

CALL = nnx.jit(Decoder.__call__)
DRAW = jax.jit(draw, static_argnums=1)
LONG = LLAMA.changed(context=300)
GREEDY = SamplingConfig(temperature=0)


def _prompts(rng, lengths=(1, 7, 16, 3, 12), size=50):
    return [rng.integers(0, size, length).tolist() for length in lengths]


def _names(number):
    return [f"document/{one}" for one in range(number)]


# --- draws ---------------------------------------------------------------------------------------------------


def _kept(logits, config):
    """Return the probabilities of a draw by the definition, with sorting, float64."""
    weight = np.exp((logits - logits.max()) / config.temperature)
    order = np.argsort(-weight, kind="stable")
    upto = np.concatenate([[0], np.cumsum(weight[order])])
    kept = np.zeros(len(weight), bool)
    for rank, token in enumerate(order):
        first = np.searchsorted(-weight[order], -weight[token])  # rank of the first token as likely as this one
        few = not config.top_k or first < config.top_k
        kept[token] = few and (first == 0 or upto[first] < config.top_p * upto[-1])
        assert rank >= first
    return np.where(kept, weight, 0) / np.sum(weight[kept])


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.7),
        SamplingConfig(top_k=5),
        SamplingConfig(top_p=0.6),
        SamplingConfig(temperature=1.5, top_k=20, top_p=0.9),
        SamplingConfig(top_k=1),
        SamplingConfig(top_p=1e-6),
    ],
    ids=str,
)
def test_draws_have_the_probabilities_of_the_definition(rng, config):
    size, draws = 70, 40_000
    logits = 2 * rng.standard_normal(size).astype(np.float32)
    logits[10:14] = logits[3]  # ties are kept or dropped together
    expected = draws * _kept(logits.astype(np.float64), config)
    rows = jnp.broadcast_to(jnp.asarray(logits), (draws, size))
    drawn = DRAW(rows, config, jnp.int32(5), jnp.zeros((draws, 2), jnp.uint32), jnp.arange(draws))
    counts = np.bincount(np.asarray(drawn), minlength=size)
    assert not np.any(counts[expected == 0])
    likely = expected >= 5  # where the chi-square distribution is a good approximation
    seen = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    if len(wanted) > 1:
        # Seven such tests, one seed: a right program fails at 1e-4 in fewer than one of 1,400 choices of it.
        assert stats.chisquare(seen, wanted).pvalue > 1e-4
    else:
        assert seen[0] == draws


def test_the_likeliest_are_all_kept_and_greedy_takes_the_first_of_them():
    logits = jnp.broadcast_to(jnp.asarray([0.0, 3.0, 1.0, 3.0]), (40, 4))
    arguments = (jnp.int32(0), jnp.zeros((40, 2), jnp.uint32), jnp.arange(40))
    assert set(DRAW(logits, SamplingConfig(top_k=1), *arguments).tolist()) == {1, 3}
    assert set(DRAW(logits, GREEDY, *arguments).tolist()) == {1}


@pytest.mark.parametrize("size", [1, 31, 32, 1000, 1024])
def test_greedy_takes_the_first_of_equals_wherever_they_lie(rng, size):
    logits = -rng.integers(1, 4, size=(200, size)).astype(np.float32)  # below what fills up the last block
    logits[:, : size // 2] -= rng.integers(0, 4, size=(200, 1))
    found = DRAW(logits, GREEDY, jnp.int32(0), jnp.zeros((200, 2), jnp.uint32), jnp.arange(200))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.argmax(logits, axis=1))


def test_a_draw_depends_on_seed_document_and_position_and_not_on_the_row(rng):
    logits = jnp.asarray(rng.standard_normal((6, 1000)).astype(np.float32))
    words, position = document_words(_names(6)), np.arange(6)
    config = SamplingConfig(top_p=0.9)
    whole = DRAW(logits, config, jnp.int32(1), words, position)
    order = rng.permutation(6)
    assert DRAW(logits[order], config, jnp.int32(1), words[order], position[order]).tolist() == whole[order].tolist()
    assert DRAW(logits[2:3], config, jnp.int32(1), words[2:3], position[2:3]).tolist() == whole[2:3].tolist()
    one = float(uniforms(jnp.int32(1), words[:1], position[:1])[0])
    others = [uniforms(jnp.int32(2), words[:1], position[:1]), uniforms(jnp.int32(1), words[1:2], position[:1])]
    others += [uniforms(jnp.int32(1), words[:1], position[1:2]), uniforms(jnp.int32(1), words[:1], position[:1], 1)]
    assert one not in [float(other[0]) for other in others]


def test_pick_never_takes_a_weight_of_zero():
    weight = np.zeros((3, 100), np.float32)
    weight[:, [31, 32, 99]] = 1, 2, 1
    drawn = pick(jnp.asarray(weight), jnp.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))]))
    assert drawn.tolist() == [31, 32, 99]


def test_a_seed_of_32_bits_and_any_top_k_can_be_drawn_with(rng):
    words, position = document_words(_names(50)), np.arange(50)
    for seed in (0, 5, 2**31 - 1):
        assert uniforms(np.uint32(seed), words, position).tolist() == uniforms(seed, words, position).tolist()
    logits = jnp.asarray(rng.standard_normal((50, 70)).astype(np.float32))
    everything, more = (DRAW(logits, SamplingConfig(top_k=k), np.uint32(5), words, position) for k in (70, 10**11))
    assert everything.tolist() == more.tolist()


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": 1e-9}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}]
)
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(InputError):
        SamplingConfig(**bad)


# --- decoding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_with_the_cache_is_the_argmax_of_full_passes(rng, family):
    model = lively(FAMILIES[family].changed(context=300), rng)
    asked = _prompts(rng)
    request = decode.Request(GREEDY, 12, (7,), 48)
    found = decode.decode(decode.prepare(model), asked, _names(5), request, 0, prompt_places=16, rows=8)
    for prompt, one in zip(asked, found, strict=True):
        text = one.tokens.tolist()
        logits = np.array(CALL(model, jnp.asarray([prompt + text + [0] * (40 - len(prompt) - len(text))])))[0]
        logits[:, 48:] = -np.inf  # ids that the request excludes
        logits[len(prompt) - 1, 7] = -np.inf  # a document has at least one token
        wanted = logits.argmax(axis=1)[len(prompt) - 1 :]
        assert text == wanted[: len(text)].tolist()
        assert len(text) == 12 if one.finished == "length" else wanted[len(text)] == 7


def test_logits_with_the_cache_are_those_of_full_passes(rng):
    model, asked = lively(LONG, rng), _prompts(rng)
    weights = decode.prepare(model)
    request = decode.Request(GREEDY, 10, (), 50)
    running = decode.start(weights, asked, _names(5), request, 0, 16)
    running = decode.advance(weights, running, request, 0)
    # The tenth token is drawn and fed in the next step.
    logits, _ = jax.jit(decode.step)(weights, running)
    for row, prompt in enumerate(asked):
        text = prompt + np.asarray(running.text)[row].tolist()
        wanted = np.asarray(CALL(model, jnp.asarray([text + [0] * (40 - len(text))])))[0, len(text) - 1]
        # float32 rounds at 6e-8; sums of 48 factors through two layers lose a few tens of that.
        np.testing.assert_allclose(logits[row], wanted, rtol=0, atol=1e-5 * np.max(np.abs(wanted)))


@pytest.mark.parametrize("sizes", [decode.ON_CPU, dataclasses.replace(decode.ON_ACCELERATOR, recent=128)])
def test_a_document_does_not_depend_on_its_batch(sizes, monkeypatch, rng):
    """Order, number of rows, other documents, shrinking of the batch and growth of the cache leave it as it is."""
    monkeypatch.setattr(decode, "sizes", lambda: sizes)
    model, asked = lively(LONG, rng), _prompts(rng, rng.integers(1, 17, 40))
    weights, names = decode.prepare(model), _names(40)
    request = decode.Request(SamplingConfig(top_p=0.98), 140, (7,), 50)

    def decoded(chosen, rows):
        some = decode.decode(
            weights, [asked[n] for n in chosen], [names[n] for n in chosen], request, 3, prompt_places=16, rows=rows
        )
        return [(one.tokens.tolist(), one.finished) for one in some]

    whole = decoded(range(40), 64)
    lengths = [len(tokens) for tokens, _ in whole]
    assert max(lengths) > sizes.recent + 1  # the recent part of the cache joined the long one
    assert sum(length < 100 for length in lengths) > 8  # and the batch became smaller
    order = rng.permutation(40)
    assert decoded(order, 64) == [whole[n] for n in order]
    assert decoded([5, 17, 3], 8) == [whole[n] for n in (5, 17, 3)]


def test_prompts_and_limit_must_fit_into_the_context(rng):
    weights = decode.prepare(lively(LONG, rng))
    request = decode.Request(GREEDY, 300, (7,), 50)
    with pytest.raises(InputError, match="context of 300"):
        decode.decode(weights, [[1, 2]], ["a"], request, 0, prompt_places=16, rows=1)


def test_unconditional_documents_fill_the_context_or_end(rng):
    config = dataclasses.replace(LLAMA, context=24)
    model = lively(config, rng)
    documents = generate(model, 49, _names(10), 0)
    assert all(1 <= len(one) <= 24 and 49 not in one for one in documents)
    assert len({tuple(one) for one in documents}) == 10
    again = generate(model, 49, [*_names(3), "document/9"], 0)
    assert [one.tolist() for one in again] == [documents[n].tolist() for n in (0, 1, 2, 9)]
    some = generate_tokens(model, 49, 100, "x", 0)
    assert sum(len(one) for one in some) == 100


# --- prompts -------------------------------------------------------------------------------------------------

TEXT = "The Senate met in the morning. " * 3 + "It voted on the budget; nobody objected! Then everybody went home. " * 8


@pytest.fixture(scope="module")
def chat() -> Tokenizer:
    """A small tokenizer with the tokens and the template of ChatML."""
    texts = [TEXT, *prompts.REQUESTS.values(), *(one for some in prompts.AUDIENCES.values() for one in some)]
    base = json.loads(Tokenizer.train([*texts, "user assistant system"] * 2, 500).to_json())
    for name in ("<|im_start|>", "<|im_end|>"):
        number = 1 + max(one["id"] for one in base["added_tokens"])
        base["added_tokens"].append({**base["added_tokens"][0], "id": number, "content": name})
    template = "{% if no %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}<|im_start|>"
    return Tokenizer.from_json(json.dumps(base), template)


def _documents(number=4):
    return {
        name: [Document(f"{name}/{n}", f"{name}/{n}", name, "train", f"{n}. {TEXT}") for n in range(number)]
        for name in ("speeches", "novels")
    }


def _asked(numbers, chat, seed):
    asked = prompts.seeded(prompts.KINDS, _documents(), chat, seed)
    return [asked(number) for number in numbers]


def test_prompts_ask_for_each_kind_with_a_snippet_of_a_document(chat):
    made = _asked(range(60), chat, 0)
    assert [one.kind for one in made[:4]] == ["textbook", "story", "article", "textbook"]
    assert {one.source for one in made} == {"speeches", "novels"}
    assert len({one.text for one in made}) > 40
    for one in made:
        quoted = re.search(r'"(.*)"$', one.text, re.DOTALL)
        assert quoted
        assert quoted[1] in f"{one.document.split('/')[1]}. {TEXT}"
        assert len(chat.encode([quoted[1]])[0]) <= prompts.SNIPPET
        assert chat.decode(one.ids).decode() == f"system\nBe kind\nuser\n{one.text}\nassistant\n"


def test_a_prompt_depends_on_seed_and_number_only(chat):
    made = _asked(range(20), chat, 0)
    assert _asked(range(12, 14), chat, 0) == made[12:14]
    other = _asked(range(20), chat, 1)
    assert [one.text for one in other] != [one.text for one in made]


def test_a_snippet_of_text_without_sentences_is_cut_to_size(chat, rng):
    for text in ("x" * 5000, "word " * 3000, "é" * 3000 + " and " * 30):
        piece = prompts.snippet(text, rng, chat)
        assert piece
        assert piece in text
        assert len(chat.encode([piece])[0]) <= prompts.SNIPPET


def test_no_source_and_a_source_of_short_documents_are_refused(chat, tmp_path):
    with pytest.raises(InputError, match="leave this source out"):
        prompts.seeded(prompts.KINDS, {"s": [Document("s/0", "0", "s", "train", "Too short.")]}, chat, 0)
    with pytest.raises(InputError, match="list of sources is empty"):
        corpus.write(tmp_path / "c.jsonl", _pretrained(chat), CONFIG, {})
    assert list(tmp_path.iterdir()) == []


def test_prompts_are_made_a_batch_at_a_time(chat, tmp_path, monkeypatch):
    made = []
    snippet = prompts.snippet
    monkeypatch.setattr(prompts, "snippet", lambda *given: made.append(1) or snippet(*given))
    monkeypatch.setattr(corpus, "sizes", lambda: dataclasses.replace(decode.ON_CPU, rows=32))

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "decode", stop)
    with pytest.raises(KeyboardInterrupt):
        corpus.write(tmp_path / "c.jsonl", _pretrained(chat), CONFIG, _documents())
    assert len(made) == 32


# --- corpora -------------------------------------------------------------------------------------------------


def _pretrained(chat=None):
    tokenizer = chat or Tokenizer.train([TEXT], 280)
    config = dataclasses.replace(LONG, vocabulary=tokenizer.size + 3)
    return Pretrained(make(config, 0), tokenizer, "tiny", "0" * 64, tokenizer.instruct)


def _records(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


CONFIG = corpus.CorpusConfig(150, tokens=20, seed=4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "whole.jsonl"
    corpus.write(path, _pretrained(), CONFIG, {})
    return path.read_bytes()


def test_records_say_how_a_document_was_made(tmp_path, chat):
    path, pretrained = tmp_path / "c.jsonl", _pretrained(chat)
    config = dataclasses.replace(CONFIG, documents=7, sampling=SamplingConfig(0.8, 30, 0.9))
    corpus.write(path, pretrained, config, _documents())
    records = _records(path)
    asked = _asked(range(7), chat, 4)
    assert [one["id"] for one in records] == [one.id for one in asked]
    assert [one["prompt"] for one in records] == [one.text for one in asked]
    for one in records:
        assert (one["model"], one["model_sha256"], one["seed"]) == ("tiny", "0" * 64, 4)
        assert (one["temperature"], one["top_k"], one["top_p"], one["limit"]) == (0.8, 30, 0.9, 20)
        assert one["finished"] in ("end", "length")
        assert 1 <= one["tokens"] <= 20
        assert (one["tokens"] == 20) or one["finished"] == "end"
        assert one["seed_document"].startswith(one["seed_source"])


@pytest.mark.parametrize("kept", [0, 1, 900, 0.5, 0.95])
def test_an_interrupted_corpus_goes_on_to_the_same_bytes(tmp_path, undisturbed, kept):
    path = tmp_path / "c.jsonl"
    size = int(kept * len(undisturbed)) if isinstance(kept, float) else kept
    path.with_name("c.jsonl.partial").write_bytes(undisturbed[:size])
    told = []
    corpus.write(path, _pretrained(), CONFIG, {}, lambda documents, tokens: told.append((documents, tokens)))
    assert path.read_bytes() == undisturbed
    assert sum(documents for documents, _ in told) == 150
    assert not path.with_name("c.jsonl.partial").exists()


def test_fewer_documents_are_the_beginning_of_more(tmp_path, undisturbed):
    corpus.write(tmp_path / "c.jsonl.zst", _pretrained(), dataclasses.replace(CONFIG, documents=40), {})
    with zstandard.open(tmp_path / "c.jsonl.zst", "rb") as file:
        assert file.read().splitlines() == undisturbed.splitlines()[:40]


def test_a_complete_corpus_is_left_alone_and_another_is_refused(tmp_path, undisturbed):
    path = tmp_path / "c.jsonl"
    path.write_bytes(undisturbed)
    before = path.stat().st_mtime_ns
    corpus.write(path, _pretrained(), CONFIG, {})
    assert path.stat().st_mtime_ns == before
    for other in ({"seed": 5}, {"tokens": 21}, {"documents": 151}):
        with pytest.raises(InputError, match="choose another --out"):
            corpus.write(path, _pretrained(), dataclasses.replace(CONFIG, **other), {})
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="line 1 of"):
        corpus.write(path, _pretrained(), CONFIG, {})
    with pytest.raises(InputError, match="end it in"):
        corpus.write(tmp_path / "c.txt", _pretrained(), CONFIG, {})
    with pytest.raises(InputError, match="cannot be written"):
        corpus.write(path / "c.jsonl", _pretrained(), CONFIG, {})


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path, undisturbed):
    for name, pack in (("c.jsonl", bytes), ("c.jsonl.zst", zstandard.compress)):
        path = tmp_path / name
        for content in (pack(b'{"text": "mine"}'), pack(undisturbed[:-1]), b'{"text": "mine"}'):
            path.write_bytes(content)
            with pytest.raises(InputError, match="remove the file or choose another --out"):
                corpus.write(path, _pretrained(), CONFIG, {})
            assert path.read_bytes() == content


def test_nothing_is_left_of_what_was_refused_or_is_complete(tmp_path, undisturbed):
    """A request that does not fit; a process that was killed after it had named a compressed corpus."""
    path = tmp_path / "c.jsonl.zst"
    partial = path.with_name("c.jsonl.zst.partial")
    with pytest.raises(InputError, match="context of 300"):
        corpus.write(path, _pretrained(), dataclasses.replace(CONFIG, tokens=301), {})
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(zstandard.compress(undisturbed))
    for left in (b"", undisturbed[:-100], undisturbed):
        partial.write_bytes(left)
        corpus.write(path, _pretrained(), CONFIG, {})
        assert list(tmp_path.iterdir()) == [path]
    partial.write_bytes(b"something else\n")
    corpus.write(path, _pretrained(), CONFIG, {})
    assert partial.read_bytes() == b"something else\n"


def test_a_document_has_at_most_as_many_tokens_as_fit(tmp_path, chat):
    assert corpus.tokens_that_fit(_pretrained()) == 300
    assert corpus.tokens_that_fit(_pretrained(chat)) == 301 - prompts.PLACES
    pretrained = _pretrained()
    long = types.SimpleNamespace(config=dataclasses.replace(pretrained.model.config, context=1000))
    assert corpus.tokens_that_fit(pretrained._replace(model=cast("Decoder", long))) == 384
    short = make(dataclasses.replace(pretrained.model.config, context=24), 0)
    write_model(tmp_path / "model", short, pretrained.tokenizer)
    out = tmp_path / "c.jsonl"
    assert Generate(out, 3, str(tmp_path / "model")).run() == 0
    assert {one["limit"] for one in _records(out)} == {24}


def test_the_help_says_how_many_documents_are_kept_at_a_time():
    said = Generate.__doc__ or ""
    assert f"{decode.ON_CPU.rows} on a CPU, {decode.ON_ACCELERATOR.rows} on an accelerator" in said


def test_the_command_writes_a_corpus_of_a_model_in_a_folder(tmp_path):
    pretrained = _pretrained()
    write_model(tmp_path / "model", pretrained.model, pretrained.tokenizer)
    out = tmp_path / "c.jsonl"
    assert Generate(out, 3, str(tmp_path / "model"), tokens=10, top_k=20).run() == 0
    loaded = load(str(tmp_path / "model"))
    records = _records(out)
    assert [one["id"] for one in records] == [f"unconditional-{number:06d}" for number in range(3)]
    assert {one["model_sha256"] for one in records} == {loaded.sha256}
    whole = Generate(out, 3, str(tmp_path / "model"))
    for bad in ({"documents": 0}, {"tokens": 0}, {"model": "nothing"}, {"temperature": -1.0}):
        with pytest.raises(InputError):
            dataclasses.replace(whole, **bad).run()
