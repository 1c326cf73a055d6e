"""Weights in and out: Hugging Face folders and GGUF files."""

import contextlib
import dataclasses
import json
import math
import pathlib
import struct
import subprocess
import sys

import gguf as gguf_package
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.model.config import ModelConfig, RopeScaling
from lm.model.decoder import Decoder, from_arrays, named
from lm.model.parameters import parameters
from lm.weights import gguf, huggingface, load
from lm.weights.load import load as load_pretrained
from lm.weights.names import FAMILIES
from lm.weights.published import family_of

REFERENCES = np.load(pathlib.Path(__file__).parent / "data" / "families.npz")
CASES = sorted({name.split("/")[0] for name in REFERENCES.files})
# float32 in another order: sums of up to 24 terms, a dozen in a row, and angles of up to 24 that cos and sin take with
# an absolute error of 24 units: 200 units in the last place of the largest logit; a wrong setting makes 10,000.
UNITS = 200


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a plain text"], 257)


def write_case(folder: pathlib.Path, case: str, tokenizer: Tokenizer, **changes) -> pathlib.Path:
    """Make a folder as transformers wrote it; `changes` go into config.json."""
    folder.mkdir()
    prefix = f"{case}/tensor/"
    tensors = {
        name.removeprefix(prefix): REFERENCES[name].astype(np.float32)
        for name in REFERENCES.files
        if name.startswith(prefix)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(str(REFERENCES[f"{case}/config"])) | changes
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(folder, 32)
    return folder


def logits(model: Decoder, tokens: np.ndarray) -> np.ndarray:
    graph, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state: nnx.merge(graph, state)(jnp.asarray(tokens)))(state))


def random_model(seed: int = 0, **config) -> Decoder:
    sizes = {"vocabulary": 257, "context": 16, "width": 8, "layers": 2, "heads": 2, "hidden": 12}
    found, random = ModelConfig(**{**sizes, **config}), np.random.default_rng(seed)
    arrays = {name: random.normal(size=one.shape).astype(np.float32) for name, one in parameters(found).items()}
    return from_arrays(found, {name: jnp.asarray(array) for name, array in arrays.items()})


def assert_same(found: Decoder, expected: Decoder) -> None:
    assert found.config == expected.config
    for name, array in named(expected).items():
        np.testing.assert_array_equal(np.asarray(named(found)[name]), np.asarray(array), err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_logits_of_every_family_and_its_files_again(case, tmp_path, tokenizer):
    folder = write_case(tmp_path / "theirs", case, tokenizer)
    model, _ = huggingface.load(folder)
    expected = REFERENCES[f"{case}/logits"]
    found = logits(model, REFERENCES[f"{case}/tokens"].astype(np.int32))[:, :, : expected.shape[2]]
    tolerance = UNITS * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    huggingface.write(tmp_path / "ours", model, tokenizer)
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "ours", folder))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    again, tokenizer_again = huggingface.load(tmp_path / "ours")
    assert_same(again, model)
    assert tokenizer_again.sha256 == tokenizer.sha256


def test_every_family_is_referenced():
    named_families = {json.loads(str(REFERENCES[f"{case}/config"]))["model_type"] for case in CASES}
    assert named_families == FAMILIES.keys()


OLD = {"rope_parameters": None}


@pytest.mark.parametrize(
    ("case", "changes", "expected"),
    [
        ("qwen3", {"rope_theta": 7.0}, {"rope_base": 7.0}),
        ("llama-3.1", {"rope_scaling": {"type": "linear", "factor": 2}}, {"rope_scaling": RopeScaling("linear", 2.0)}),
        ("stablelm-bias", {"partial_rotary_factor": 0.25}, {"rope_share": 0.25}),
        ("stablelm-bias", {}, {"rope_share": 0.25}),
        ("llama-linear", {"head_dim": None, "num_key_value_heads": None}, {"head_size": 4, "kv_heads": 2}),
        ("gpt2", {"n_inner": None}, {"hidden": 32}),
    ],
)
def test_configurations_of_earlier_versions(case, changes, expected, tmp_path, tokenizer):
    changes = ({} if case == "stablelm-bias" and not changes else OLD) | OLD | changes
    if case == "stablelm-bias":
        changes |= {"head_dim": None, "hidden_size": 16}
    config, _ = huggingface.read_config(write_case(tmp_path / "model", case, tokenizer, **changes))
    assert {name: getattr(config, name) for name in expected} == expected


def test_sharded_weights_bfloat16_and_names_of_base_models(tmp_path, tokenizer):
    model = random_model(tied=False)
    huggingface.write(tmp_path, model, tokenizer, largest_file=10_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    assert_same(huggingface.load(tmp_path)[0], model)
    parts = huggingface.sha256_of_weights(tmp_path)
    huggingface.write(tmp_path, model, tokenizer)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert huggingface.sha256_of_weights(tmp_path) != parts
    first = (tmp_path / "model.safetensors").read_bytes()
    huggingface.write(tmp_path, model, tokenizer)
    assert (tmp_path / "model.safetensors").read_bytes() == first
    # As a base model in bfloat16, with constants that are no weights.
    tensors = load_file(tmp_path / "model.safetensors")
    tensors = {name.removeprefix("model."): array.astype(jnp.bfloat16) for name, array in tensors.items()}
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    found, expected = named(huggingface.load(tmp_path)[0]), named(model)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array.astype(jnp.bfloat16).astype(jnp.float32), err_msg=name)


@pytest.mark.parametrize("as_bfloat16", [False, True])
def test_a_head_that_is_not_the_embedding_is_used_whatever_the_configuration_says(
    as_bfloat16, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(huggingface, "BLOCK", 1000)  # numbers, less than the two tensors have
    model = random_model(tied=False)
    huggingface.write(tmp_path, model, tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert_same(huggingface.load(tmp_path)[0], model)
    tensors = load_file(tmp_path / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].astype(jnp.bfloat16 if as_bfloat16 else np.float32)
    tensors |= {"lm_head.weight": head, "model.embed_tokens.weight": head.astype(np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert huggingface.load(tmp_path)[0].config.tied
    tensors["lm_head.weight"][-1, -1] += 1  # the last number alone
    save_file(tensors, tmp_path / "model.safetensors")
    assert not huggingface.load(tmp_path)[0].config.tied


MEMORY = """
import pathlib, resource, sys
import jax, jax.numpy as jnp, numpy as np
from safetensors import safe_open
from lm.evaluation.scoring import prepare
from lm.model.decoder import named
from lm.model.sharding import make_mesh, shardings
from lm.weights import huggingface
jnp.zeros(1).block_until_ready()
folder = pathlib.Path(sys.argv[1])
before = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
mesh = make_mesh(fsdp=2, tensor=2) if jax.device_count() == 4 else None
narrow = sys.argv[2] == "bfloat16"
model, _ = huggingface.load(folder, sys.argv[2], mesh, inference=narrow)
if narrow and mesh is None:
    scorer = prepare(model)  # which cuts the blocks apart
# Not getrusage, which counts the parent's memory before the exec.
peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
peak = int(peak.split()[1]) * 1024 - before
arrays = named(model)
if mesh is not None:
    for name, wanted in shardings(model.config, mesh).items():
        assert arrays[name].sharding == wanted, name
    assert {shard.data.shape for shard in arrays["blocks.up"].addressable_shards} == {(model.config.layers, 512, 1408)}
with safe_open(folder / "model.safetensors", framework="numpy") as file:
    for name, theirs, layer in (
        ("embedding", "model.embed_tokens.weight", None),
        ("blocks.down", "model.layers.1.mlp.down_proj.weight", 1),
        ("unembedding", "lm_head.weight", None),
    ):
        ours = np.asarray(arrays[name] if layer is None else arrays[name][layer])
        expected = file.get_tensor(theirs)
        np.testing.assert_array_equal(ours, expected if layer is None and name == "embedding" else expected.T)
print(peak / (folder / "model.safetensors").stat().st_size)
"""


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("devices", [1, 4])
def test_memory_while_reading_is_little_more_than_the_weights(devices, compute, tmp_path, tokenizer):
    config = {"vocabulary": 1200, "width": 1024, "hidden": 2816, "heads": 16, "tied": False}
    config["layers"] = 2 if compute == "float32" else 4  # of half the bytes
    path = tmp_path / "model.safetensors"
    huggingface.write(tmp_path, random_model(**config), tokenizer)
    save_file({name: array.astype(jnp.dtype(compute)) for name, array in load_file(path).items()}, path)
    assert path.stat().st_size > 100e6
    environment = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(pathlib.Path(load.__file__).parents[2])}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-c", MEMORY, str(tmp_path), compute]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.3


@pytest.mark.parametrize(
    ("case", "changes", "reason"),
    [
        ("llama-3.1", {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "MambaForCausalLM"),
        ("llama-3.1", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ("llama-3.1", {"model_type": ["llama"]}, "architecture"),
        ("llama-3.1", {"mlp_bias": True}, "mlp_bias"),
        ("llama-3.1", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama-3.1", {"hidden_act": "relu"}, "relu"),
        ("llama-3.1", {"vocab_size": "many"}, "vocab_size"),
        ("llama-3.1", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ("llama-3.1", {"rope_parameters": {"rope_type": "llama3"}}, "factor"),
        ("llama-3.1", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama-3.1", {"rope_scaling": "linear", "rope_parameters": None}, "impossible"),
        ("llama-3.1", {"rope_parameters": {"rope_theta": 0}}, "rope_base"),
        ("llama-3.1", {"rms_norm_eps": "small"}, "small"),
        ("llama-3.1", {"rms_norm_eps": None}, "epsilon"),
        ("llama-3.1", {"rms_norm_eps": -1e-5}, "epsilon"),
        ("stablelm-bias", {"rope_parameters": {"partial_rotary_factor": 2.0}}, "share of a head"),
        ("llama-3.1", {"num_hidden_layers": 10**12}, "lacks the tensor model.layers.2"),
        ("llama-3.1", {"num_key_value_heads": 5}, "5 key heads"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("stablelm-bias", {"use_parallel_residual": True}, "use_parallel_residual"),
        ("stablelm-bias", {"qk_layernorm": True}, "qk_layernorm"),
        ("olmo", {"hidden_size": 16}, "q_proj.weight|embed_tokens.weight"),
        ("olmo", {"num_hidden_layers": 3}, "lacks the tensor model.layers.2"),
        ("olmo", {"num_hidden_layers": 1}, "no use for"),
        ("olmo", {"vocab_size": 300}, "embed_tokens.weight"),
        ("olmo", {"vocab_size": 200}, "model: the tokenizer has 257 ids"),
        ("olmo", {"vocab_size": 5000}, "257 ids"),
    ],
)
def test_configurations_that_cannot_be_read(case, changes, reason, tmp_path, tokenizer):
    folder = write_case(tmp_path / "model", case, tokenizer, **changes)
    with pytest.raises(InputError, match=reason):
        huggingface.load(folder)


def cut(path: pathlib.Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def retyped(folder: pathlib.Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: array.astype(np.int8) for name, array in tensors.items()}, folder / "model.safetensors")


def escaping(folder: pathlib.Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def sharded_but_one(folder: pathlib.Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    files = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not a JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "vocab_size"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 200_000), "config.json is not JSON"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "only safetensors"),
        (lambda folder: cut(folder / "model.safetensors", 0), "not a whole safetensors"),
        (lambda folder: cut(folder / "model.safetensors", 100), "not a whole safetensors"),
        (lambda folder: cut(folder / "model.safetensors", 9000), "not a whole safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 500), "not a whole safetensors"),
        (retyped, "type I8"),
        (escaping, "is not in"),
        (sharded_but_one, "model-00002-of-00002.safetensors is not in"),
    ],
)
def test_damaged_folders(damage, reason, tmp_path, tokenizer):
    folder = write_case(tmp_path / "model", "olmo", tokenizer)
    damage(folder)
    with pytest.raises(InputError, match=reason):
        load_pretrained(str(folder))


def test_configurations_of_no_family_are_not_written(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no published family"):
        huggingface.write(tmp_path / "model", random_model(norm="layer-plain", position="learned"), tokenizer)
    with pytest.raises(InputError, match="257 ids"):
        huggingface.write(tmp_path / "model", random_model(vocabulary=200), tokenizer)
    assert not (tmp_path / "model").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        huggingface.write(tmp_path / "file", random_model(), tokenizer)


@pytest.mark.parametrize("preset", ["llama", "qwen2", "gpt2", "stablelm"])
def test_families_are_told_by_configuration_alone(preset):
    config = {
        "llama": {},
        "qwen2": {"attention_bias": "qkv"},
        "gpt2": {
            "norm": "layer", "norm_bias": True, "attention_bias": "all", "hidden_bias": True,
            "activation": "gelu-tanh", "gated": False, "position": "learned",
        },
        "stablelm": {"norm": "layer", "norm_bias": True, "rope_share": 0.25},
    }[preset]  # fmt: skip
    assert family_of(ModelConfig(300, compute="bfloat16", remat="full", **config)).name == preset


# --- GGUF


@pytest.fixture(scope="module")
def merged() -> Tokenizer:
    return Tokenizer.train(["so so so"], 258)


def gguf_names(model: Decoder, architecture: str) -> dict[str, np.ndarray]:
    """Return the tensors that llama.cpp's converter would write, by the rules of that program."""
    c, arrays = model.config, {name: np.asarray(array) for name, array in named(model).items()}
    found = {"token_embd.weight": arrays.pop("embedding")}
    for ours, theirs in (("position", "position_embd.weight"), ("unembedding", "output.weight")):
        if ours in arrays:
            found[theirs] = arrays.pop(ours) if ours == "position" else arrays.pop(ours).T
    after = architecture == "olmo2"
    modules = {
        "attention_norm": "post_attention_norm" if after else "attn_norm",
        "hidden_norm": "post_ffw_norm" if after else "ffn_norm",
        "query_norm": "attn_q_norm", "key_norm": "attn_k_norm", "query": "attn_q", "key": "attn_k", "value": "attn_v",
        "output": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down", "norm": "output_norm",
    }  # fmt: skip
    for name, array in arrays.items():
        inner = name.removeprefix("blocks.")
        module, kind = inner, "weight"
        for suffix in ("_scale", "_bias"):
            if inner.endswith(suffix):
                module, kind = inner.removesuffix(suffix), "bias" if suffix == "_bias" else "weight"
        for layer in range(c.layers):
            one = array[layer] if name != inner else array
            one = one.T if one.ndim == 2 else one
            if architecture in ("llama", "olmo") and module in ("query", "key"):
                # llama.cpp: (heads, 2, K/2, ...) becomes (heads, K/2, 2, ...)
                heads = c.heads if module == "query" else c.kv_heads
                one = one.reshape(heads, 2, -1, *one.shape[1:]).swapaxes(1, 2).reshape(one.shape)
            prefix = f"blk.{layer}." if name != inner else ""
            found[f"{prefix}{modules[module]}.{kind}"] = np.ascontiguousarray(one)
    if architecture == "gpt2":
        for layer in range(c.layers):
            for kind in ("weight", "bias"):
                parts = [found.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
                found[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
    return found


def write_gguf(
    path: pathlib.Path, model: Decoder, architecture: str, tokenizer: Tokenizer, kinds=None, **extra
) -> None:
    """Write a file with the gguf package's writer; `kinds` are quantised types by the end of a tensor's name."""
    c, writer = model.config, gguf_package.GGUFWriter(path, architecture)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_size)
    (writer.add_layer_norm_rms_eps if c.norm == "rms" else writer.add_layer_norm_eps)(c.epsilon)
    if c.position == "rotary":
        writer.add_rope_freq_base(c.rope_base)
        writer.add_rope_dimension_count(c.rotated)
    if c.clip_qkv is not None:
        writer.add_clamp_kqv(c.clip_qkv)
    ids = json.loads(tokenizer.to_json())
    tokens = [*sorted(ids["model"]["vocab"], key=ids["model"]["vocab"].get), "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges([" ".join(pair) for pair in ids["model"]["merges"]])
    for key, value in extra.items():
        writer.add_key_value(key, value, gguf_package.GGUFValueType.get_type(value))
    for name, array in gguf_names(model, architecture).items():
        kind = next((kind for end, kind in (kinds or {}).items() if name.endswith(end)), None)
        if kind is None:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf_package.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ARCHITECTURES = {
    "llama": {"kv_heads": 1, "head_size": 6},
    "llama with biases": {"attention_bias": "all", "tied": False},
    "qwen2": {"attention_bias": "qkv", "tied": False},
    "qwen3": {"query_key_norm": "head", "head_size": 6},
    "gpt2": {
        "norm": "layer", "norm_bias": True, "attention_bias": "all", "hidden_bias": True,
        "activation": "gelu-tanh", "gated": False, "position": "learned",
    },
    "olmo": {"norm": "layer-plain", "clip_qkv": 8.0, "tied": False},
    "olmo2": {"norm_place": "after", "query_key_norm": "whole", "tied": False},
    "stablelm": {"norm": "layer", "norm_bias": True, "rope_share": 0.5, "attention_bias": "qkv", "tied": False},
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gguf_of_every_architecture(name, tmp_path, merged):
    model = random_model(vocabulary=258, **ARCHITECTURES[name])
    path = tmp_path / "model.gguf"
    write_gguf(path, model, name.split()[0], merged)
    found = load_pretrained(str(path))
    assert_same(found.model, model)
    assert found.tokenizer.encode(["so sure"]) == merged.encode(["so sure"])
    assert (found.tokenizer.end, found.instruct, len(found.sha256)) == (257, False, 64)


def halves(block: bytes, *starts: int) -> list[float]:
    return [float(np.frombuffer(block[start : start + 2], np.float16)[0]) for start in starts]


def one_block(kind: str, b: bytes) -> list[float]:
    """Return the numbers of a block, one by one, by the definitions of llama.cpp's formats."""
    if kind == "Q8_0":
        (d,) = halves(b, 0)
        return [d * x for x in struct.unpack("32b", b[2:])]
    if kind == "Q4_0":
        (d,) = halves(b, 0)
        return [d * ((b[2 + i % 16] >> 4 * (i // 16)) % 16 - 8) for i in range(32)]
    if kind == "Q4_1":
        d, m = halves(b, 0, 2)
        return [d * ((b[4 + i % 16] >> 4 * (i // 16)) % 16) + m for i in range(32)]
    if kind == "Q4_K":
        d, m = halves(b, 0, 2)
        s, found = b[4:16], []
        for j in range(8):  # 8 groups of 32 numbers with a 6-bit scale and a 6-bit minimum each
            if j < 4:
                scale, least = s[j] % 64, s[j + 4] % 64
            else:
                scale = s[j + 4] % 16 + 16 * (s[j - 4] >> 6)
                least = (s[j + 4] >> 4) + 16 * (s[j] >> 6)
            group = b[16 + 32 * (j // 2) : 48 + 32 * (j // 2)]
            found += [d * scale * ((x >> 4 * (j % 2)) % 16) - m * least for x in group]
        return found
    assert kind == "Q6_K"
    (d,) = halves(b, 208)
    scales, found = struct.unpack("16b", b[192:208]), []
    for i in range(256):
        half, j = divmod(i, 128)
        quarter, k = divmod(j, 32)
        low = (b[64 * half + 32 * (quarter % 2) + k] >> 4 * (quarter // 2)) % 16
        high = (b[128 + 32 * half + k] >> 2 * quarter) % 4
        found.append(d * scales[i // 16] * (low + 16 * high - 32))
    return found


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"])
def test_quantised_types_against_their_definitions(kind, tmp_path, rng):
    number = gguf_package.GGMLQuantizationType[kind]
    length, size = gguf_package.GGML_QUANT_SIZES[number]
    blocks = rng.integers(0, 256, (6, size), np.uint8)
    for start in {"Q6_K": (208,), "Q4_1": (0, 2), "Q4_K": (0, 2)}.get(kind, (0,)):
        blocks[:, start : start + 2] = rng.normal(size=(6, 1)).astype(np.float16).view(np.uint8)
    writer = gguf_package.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("before", np.zeros(3, np.float32))
    writer.add_tensor("one", blocks.reshape(3, -1), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.GgufFile(tmp_path / "one.gguf")
    expected = np.array([one_block(kind, bytes(block)) for block in blocks]).reshape(3, 2 * length)
    # A product and a sum in float32.
    np.testing.assert_allclose(file.read("one", 0, 3), expected, rtol=4e-7, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(file.read("one", 1, 2), file.read("one", 0, 3)[1:2])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_a_quantised_model_and_the_packages_own_reader(kind, tmp_path, merged):
    model = random_model(vocabulary=258, width=32, hidden=64)
    number, path = gguf_package.GGMLQuantizationType[kind], tmp_path / "model.gguf"
    write_gguf(path, model, "qwen2", merged, {"ffn_down.weight": number, "token_embd.weight": number})
    found = named(load_pretrained(str(path)).model)
    reader = gguf_package.GGUFReader(path)
    theirs = {one.name: gguf_package.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    np.testing.assert_array_equal(found["embedding"], theirs["token_embd.weight"])
    np.testing.assert_array_equal(found["blocks.down"][1], theirs["blk.1.ffn_down.weight"].T)
    original = np.asarray(named(model)["blocks.down"])
    error = np.abs(np.asarray(found["blocks.down"]) - original).max() / np.abs(original).max()
    # Half a step of 4 bits is 1/16 (Q4_0 lacks one step on one side), of 8 bits 1/256, of the short floats less.
    assert 0 < error < {"Q4_0": 0.13, "Q4_1": 0.07}.get(kind, 0.005)
    metadata = gguf.GgufFile(path).metadata
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            assert metadata[key] == field.contents(), key


def test_rotary_scaling_of_gguf(tmp_path, merged):
    path = tmp_path / "model.gguf"
    model = random_model(vocabulary=258, head_size=16, context=32, rope_base=5e5)
    write_gguf(path, model, "qwen2", merged, **{"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 2.0})
    assert gguf.read_config(gguf.GgufFile(path)).rope_scaling == RopeScaling("linear", 2.0)
    for scaling, reason in (
        ({"qwen2.rope.scaling.type": "yarn"}, r"model\.gguf stretches .* 'yarn'"),
        ({"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 0.0}, r"model\.gguf: a rotary scaling of"),
    ):
        write_gguf(path, model, "qwen2", merged, **scaling)
        with pytest.raises(InputError, match=reason):
            load_pretrained(str(path))
    # Llama 3.1 as converted: factors of 8 pairs, for waves of 8192 tokens and less.
    factors = []
    for pair in range(8):
        wave = 2 * math.pi * 5e5 ** (pair / 8)
        smooth = (8192 / wave - 1) / (4 - 1)
        factors.append(1.0 if wave < 8192 / 4 else 8.0 if wave > 8192 else 1 / ((1 - smooth) / 8 + smooth))
    for scale, works in ((1.0, True), (np.linspace(1, 2, 8), False)):
        names = {**gguf_names(model, "qwen2"), "rope_freqs.weight": (np.array(factors) * scale).astype(np.float32)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "gguf_names", lambda *_, names=names: names)
            write_gguf(path, model, "qwen2", merged)
        if works:
            assert load_pretrained(str(path)).model.config.rope_scaling == RopeScaling("llama3", 8.0)
        else:
            with pytest.raises(InputError, match="rotary"):
                load_pretrained(str(path))


def test_the_rotated_coordinates_of_gguf_are_counted_exactly(tmp_path, merged):
    path, count, size = tmp_path / "model.gguf", 30, 44
    assert int(size * (count / size)) < count
    model = random_model(vocabulary=258, norm="layer", norm_bias=True, head_size=size, rope_share=(count + 0.1) / size)
    write_gguf(path, model, "stablelm", merged)
    assert gguf.read_config(gguf.GgufFile(path)).rotated == count


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tokenizer.ggml.pre": "tekken"}, "model.gguf: .*tekken"),
        ({"tokenizer.ggml.model": "llama"}, "model.gguf: .*byte-level"),
        ({"qwen2.expert_count": 8}, "experts"),
        ({"qwen2.attention.head_count": 0}, "impossible"),
        ({"qwen2.attention.head_count": 3}, "cannot share|cannot be cut|even"),
        ({"qwen2.block_count": 3}, "lacks the tensor"),
        ({"qwen2.block_count": 1}, "no use for"),
        ({"qwen2.embedding_length": "wide"}, "impossible"),
        ({"qwen2.block_count": 2.0}, "no whole number"),
        ({"qwen2.block_count": 2**32 - 1}, "lacks the tensor"),
        ({"qwen2.rope.freq_base": 0.0}, "model.gguf: rope_base"),
        ({"qwen2.rope.dimension_count": 4096}, "model.gguf: the share of a head"),
        ({"general.architecture": "mamba"}, "mamba"),
        ({"qwen2.context_length": None}, "context_length"),
        ({"tokenizer.ggml.merges": None}, "merges"),
        ({"tokenizer.ggml.merges": ["x"]}, "tokenizer"),
        ({"tokenizer.ggml.merges": [7]}, "do not fit"),
        ({"tokenizer.ggml.token_type": [1] * 258}, "end-of-text"),
        ({"tokenizer.ggml.token_type": [1] * 257}, "do not fit"),
    ],
)
def test_gguf_metadata_that_cannot_be_used(changes, reason, tmp_path, merged, monkeypatch):
    path = tmp_path / "model.gguf"
    write_gguf(path, random_model(vocabulary=258), "qwen2", merged)
    file = gguf.GgufFile(path)
    file.metadata = {key: value for key, value in {**file.metadata, **changes}.items() if value is not None}
    monkeypatch.setattr(gguf, "GgufFile", lambda _: file)
    with pytest.raises(InputError, match=reason):
        gguf.load(path)


def test_gguf_files_that_are_cut_or_damaged(tmp_path, merged, rng):
    path = tmp_path / "model.gguf"
    write_gguf(path, random_model(vocabulary=258, layers=1), "qwen2", merged)
    whole = path.read_bytes()
    for size in [0, 3, 4, 20, *rng.integers(24, len(whole) - 32, 100)]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"not a whole GGUF file|cannot be read"):
            gguf.GgufFile(path)
    header = whole.index(b"token_embd.weight")
    for place in rng.integers(0, header + 200, 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):  # and no other exception
            file = gguf.GgufFile(path)
            gguf.read_config(file)
            Tokenizer.from_gguf(file.metadata)
    path.write_bytes(b"PK" + whole[2:])
    with pytest.raises(InputError, match="does not begin"):
        load_pretrained(str(path))
    write_gguf(path, random_model(vocabulary=258), "qwen2", merged)
    types = gguf_package.GGMLQuantizationType
    changed = bytearray(path.read_bytes())
    at = changed.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 16
    changed[at : at + 4] = struct.pack("<I", types.Q2_K)
    path.write_bytes(changed)
    with pytest.raises(InputError, match="of type Q2_K; only"):
        load_pretrained(str(path))


@pytest.mark.parametrize(
    ("name", "offset", "reason"),
    [
        (b"blk.0.ffn_up.weight", None, "two tensors blk.0.ffn_up.weight"),
        (b"blk.0.ffn_up.weight", 0, "share bytes"),
        (b"blk.0.ffn_up.weight", 7, "between multiples of 32"),
    ],
)
def test_gguf_tensors_that_lie_on_each_other(name, offset, reason, tmp_path, merged):
    path = tmp_path / "model.gguf"
    write_gguf(path, random_model(vocabulary=258), "qwen2", merged)
    changed = bytearray(path.read_bytes())
    if offset is None:
        at = changed.index(name.replace(b"0", b"1"))
        changed[at : at + len(name)] = name
    else:
        at = changed.index(name) + len(name) + 4 + 16 + 4
        changed[at : at + 8] = struct.pack("<Q", offset)
    path.write_bytes(changed)
    with pytest.raises(InputError, match=reason):
        gguf.GgufFile(path)


# --- by name


def test_names_of_models(tmp_path, monkeypatch):
    for name in ("no-such-model", str(tmp_path / "no.gguf")):
        with pytest.raises(InputError, match="there is no model"):
            load_pretrained(name)
    with pytest.raises(InputError, match="OWNER/NAME"):
        load_pretrained("hf:../../etc")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load_pretrained(str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="extra `hub`"):
        load_pretrained("hf:owner/name")


def test_models_of_the_hub_without_a_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="hf:owner/name cannot be fetched"):
        load_pretrained("hf:owner/name")


def test_compute_is_the_callers(tmp_path, tokenizer):
    model = random_model()
    huggingface.write(tmp_path, model, tokenizer)
    found = load_pretrained(str(tmp_path), compute="bfloat16")
    assert found.model.config == dataclasses.replace(model.config, compute="bfloat16")
    assert {array.dtype for array in named(found.model).values()} == {jnp.dtype("float32")}
