"""Write tests/data/families.npz: for each family a small random model by transformers, its files and its logits.

Run where PyTorch and transformers are installed, from the repository's root:
    python tests/peers/make_family_references.py
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 100.0,
}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}
# Settings beyond the sizes, chosen so that leaving any of them out changes the logits.
CASES = {
    "gpt2": {},
    "gpt2-untied": {"tie_word_embeddings": False},
    "olmo": {"clip_qkv": 0.7},
    "olmo-bias": {"attention_bias": True, "tie_word_embeddings": True},
    "olmo2": {},
    "olmo2-bias": {"attention_bias": True},
    "llama": {},
    "llama-3.1": {"rope_parameters": LLAMA3},
    "llama-linear": {"rope_parameters": LINEAR, "attention_bias": True, "tie_word_embeddings": True},
    "llama-head": {"head_dim": 6},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 6},
    "qwen3-bias": {"head_dim": 6, "attention_bias": True, "tie_word_embeddings": True},
    "stablelm": {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}},
    "stablelm-bias": {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
}
COMMITTED = ("gpt2", "olmo", "olmo2", "llama-3.1", "llama-linear", "qwen2", "qwen3", "stablelm-bias")
CLASSES = {
    "gpt2": transformers.GPT2LMHeadModel,
    "olmo": transformers.OlmoForCausalLM,
    "olmo2": transformers.Olmo2ForCausalLM,
    "llama": transformers.LlamaForCausalLM,
    "qwen2": transformers.Qwen2ForCausalLM,
    "qwen3": transformers.Qwen3ForCausalLM,
    "stablelm": transformers.StableLmForCausalLM,
}


def random_model(
    case: str, seed: int, vocabulary: int = 260, width: int = 8, layers: int = 2, heads: int = 2, hidden: int = 12
) -> transformers.PreTrainedModel:
    """Return a model of a case with random weights, norms and biases included, exact in float16."""
    cls = CLASSES[case.split("-", maxsplit=1)[0]]
    sizes = {"vocab_size": vocabulary, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": None}
    if case.startswith("gpt2"):
        sizes |= {"n_positions": 32, "n_embd": width, "n_layer": layers, "n_head": heads, "n_inner": hidden}
    else:
        sizes |= {"max_position_embeddings": 32, "hidden_size": width, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads // 2, "intermediate_size": hidden}
    model = cls(cls.config_class(**sizes, **CASES[case])).eval()
    random = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        scale = 0.5 if "embed" in name or "wte" in name or "wpe" in name else 1.5 / np.sqrt(width)
        value = random.normal(size=parameter.shape) * scale
        if parameter.ndim == 1:
            value = value + ("bias" not in name)
        parameter.data = torch.tensor(value.astype(np.float16).astype(np.float32))
    return model


def logits_of(model: transformers.PreTrainedModel, tokens: np.ndarray) -> np.ndarray:
    """Return the model's logits, float32, (B, T, V)."""
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def main():
    """Make the arrays and write them."""
    arrays = {}
    for number, case in enumerate(COMMITTED):
        model = random_model(case, number)
        tokens = np.random.default_rng(number).integers(0, 256, (1, 24))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            arrays[f"{case}/config"] = np.array((pathlib.Path(folder) / "config.json").read_text())
            tensors = load_file(pathlib.Path(folder) / "model.safetensors")
        arrays |= {f"{case}/tensor/{name}": tensor.astype(np.float16) for name, tensor in tensors.items()}
        arrays |= {f"{case}/tokens": tokens.astype(np.uint16), f"{case}/logits": logits_of(model, tokens)[:, :, :24]}
        print(case, json.loads(str(arrays[f"{case}/config"]))["architectures"], np.abs(arrays[f"{case}/logits"]).max())
    np.savez_compressed("tests/data/families.npz", **arrays)


if __name__ == "__main__":
    main()
