"""Weights and tokenizers against transformers and the tokenizers library."""

import dataclasses
import importlib
import importlib.util
import inspect
import json
import pathlib
import sys
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import nnx

from lm.data.tokenizer import Tokenizer
from lm.model.config import RopeScaling
from lm.weights import huggingface
from lm.weights.load import load

# transformers warns of its own future; nothing here depends on it.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
HERE = pathlib.Path(__file__).parent
EPSILON = float(np.finfo(np.float32).eps)
# float32 in another order: sums of up to 96 terms, two dozen in a row, and angles of up to 32 that cos and sin take
# with an absolute error of 32 units: 500 units in the last place of the largest logit.
UNITS = 500


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


references = _load("make_family_references")
transformers = importlib.import_module("transformers")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a plain text"], 257)


def logits(model, tokens):
    graph, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state: nnx.merge(graph, state)(jnp.asarray(tokens)))(state))


def units(found, expected):
    """Return the largest difference in units in the last place of the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max() / EPSILON)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", references.CASES)
def test_every_family_both_ways(case, seed, tmp_path, tokenizer, record_property):
    random = np.random.default_rng([seed, len(case)])
    heads = 2 * int(random.integers(1, 4))
    sizes = {"layers": int(random.integers(1, 4)), "heads": heads, "width": 8 * heads}
    sizes |= {"hidden": int(random.integers(9, 97)), "vocabulary": int(random.integers(257, 400))}
    theirs = references.random_model(case, seed, **sizes)
    tokens = random.integers(0, 257, (2, 32))
    expected = references.logits_of(theirs, tokens)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs", 32)
    ours, _ = huggingface.load(tmp_path / "theirs")
    found = logits(ours, tokens)
    record_property("units", units(found, expected))
    assert units(found, expected) < UNITS
    huggingface.write(tmp_path / "ours", ours, tokenizer, largest_file=20_000)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(theirs)
    assert not any(report.values())
    assert units(references.logits_of(again.eval(), tokens), expected) == 0
    print(f"{case} seed {seed}: {units(found, expected):.1f} units, {np.abs(found - expected).max():.1e}")


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("stablelm", {"rope_share": 1.0}),
        ("olmo2", {"norm_place": "before"}),
        ("olmo", {"clip_qkv": None}),
        ("llama-3.1", {"rope_scaling": None}),
        ("llama-3.1", {"rope_scaling": RopeScaling("llama3", 4.0, 1.0, 4.0, 32)}),
        ("llama-linear", {"rope_scaling": None}),
        ("llama", {"rope_base": 9_000.0}),
        ("llama", {"epsilon": 1e-3}),
        ("gpt2", {"activation": "silu"}),
        ("qwen3", {"query_key_norm": "none"}),
    ],
)
def test_a_wrong_setting_is_seen(case, change, tmp_path, tokenizer):
    theirs = references.random_model(case, 0)
    tokens = np.random.default_rng(0).integers(0, 257, (1, 32))
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, 32)
    model, _ = huggingface.load(tmp_path)
    graph, state = nnx.split(model)
    wrong = nnx.merge(graph, state)
    wrong.config = wrong.blocks.config = dataclasses.replace(model.config, **change)
    assert units(logits(wrong, tokens), references.logits_of(theirs, tokens)) > 4 * UNITS


TEXTS = {
    "prose": (HERE.parent / "data" / "speech.txt").read_text(encoding="utf-8")[:2000],
    "code": inspect.getsource(json.JSONDecoder)[:2000],
    "digits": " ".join(f"{7919 * number} {number / 7:.5f}, {number}%;" for number in range(60)),
    "unicode": "Zażółć gęślą jaźń — “naïve” 漢字かな交じり 한국어 עברית العربية "
    "🎉👩\u200d👩\u200d👧 ½ ² ﬁ\u00a0\u2028\u200b e\u0301 \r\n\t x",
    "specials": "<|endoftext|> and <|im_start|>system\n<|im_end|> are <repo_name> text <|endoftext|>",
    "spaces": "  two\n\n\n   three \t\n end  ",
    "empty": "",
}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    found = load("smollm2")
    folder = tmp_path_factory.mktemp("smollm2")
    huggingface.write(folder, found.model, found.tokenizer)
    return found, folder


def test_smollm2_whole(smollm2):
    ours, folder = smollm2
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == "LlamaForCausalLM"
    for name in ("prose", "code", "digits"):
        (ids,) = ours.tokenizer.encode([TEXTS[name]])
        tokens = np.array([[ours.tokenizer.end, *ids[:199]]])
        assert tokens.size == 200
        expected = references.logits_of(theirs, tokens)
        found = logits(ours.model, tokens)
        error, largest = np.abs(found - expected).max(), np.abs(expected).max()
        print(f"{name}: {units(found, expected):.0f} units, {error:.1e} of {largest:.0f}")
        # Thirty layers, each with sums of 576 and 1536 terms in another order (their errors grow as the root).
        assert units(found, expected) < 2000
        assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.99


def test_smollm2_token_ids(smollm2):
    ours, folder = smollm2
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for name, text in TEXTS.items():
        (ids,) = ours.tokenizer.encode([text])
        assert ours.tokenizer.decode(ids) == text.encode(), name
        assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], name
        if name != "specials":  # which the library alone takes for special tokens
            assert ids == reference.encode(text, add_special_tokens=False).ids, name
        assert not set(ids) & set(theirs.all_special_ids)


def test_smollm2_chat(smollm2):
    ours, folder = smollm2
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [("system", "Be brief."), ("user", "What is 12 times 12?\n"), ("assistant", "144"), ("user", "Why?")]
    expected = theirs.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        add_generation_prompt=True,
        return_dict=True,
    )
    assert ours.tokenizer.chat(messages) == list(expected["input_ids"])
    assert theirs.eos_token_id == ours.tokenizer.stops[-1]


# Of the published tokenizer.json files of Llama 3 and Qwen 2, which differ in how many digits stand together.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"llama3": PATTERN.replace("DIGITS", "{1,3}"), "qwen2": PATTERN.replace("DIGITS", "")}


@pytest.mark.parametrize("kind", ["gpt2", "digits", *PATTERNS])
def test_other_tokenizers_by_pieces(kind, tmp_path):
    """Published forms of tokenizer.json: ids equal the library's and transformers', which cut nothing beforehand."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    reference = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind not in PATTERNS)]
    if kind == "digits":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    if kind in PATTERNS:
        steps.insert(0, pre_tokenizers.Split(tokenizers.Regex(PATTERNS[kind]), "isolated"))
    if kind == "qwen2":
        reference.normalizer = normalizers.NFC()
    reference.pre_tokenizer, reference.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    reference.train_from_iterator(TEXTS.values(), trainer)
    reference.add_special_tokens(["<|endoftext|>"])
    reference.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert ours.separable
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    random, alphabet = np.random.default_rng(0), list("aBst1 .,\n\t\r\u00a0é漢 \u2028'½(-_\u0301\u2019\"s ")
    noise = ["".join(random.choice(alphabet, random.integers(1, 20))) for _ in range(2000)]
    for text in [*TEXTS.values(), *noise]:
        (ids,) = ours.encode([text])
        if "<|" not in text:
            assert ids == reference.encode(text).ids, repr(text)
        if text in TEXTS.values():
            assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], repr(text)
        normal = unicodedata.normalize("NFC", text) if kind == "qwen2" else text
        assert ours.decode(ids) == normal.encode()
        assert ours.round_trips(text) == (normal == text)
