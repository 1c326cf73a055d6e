"""SmolLM2 in transformers, read from its GGUF file with nothing of this project's own reader."""

import pathlib

import gguf
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(path: pathlib.Path) -> tuple[transformers.LlamaForCausalLM, Tokenizer, int]:
    """Return the model in float32, the tokenizer and the id of end-of-text."""
    reader = gguf.GGUFReader(path)
    value = {name: field.contents() for name, field in reader.fields.items()}
    heads, kv_heads = value["llama.attention.head_count"], value["llama.attention.head_count_kv"]
    config = transformers.LlamaConfig(
        vocab_size=len(value["tokenizer.ggml.tokens"]),
        hidden_size=value["llama.embedding_length"],
        intermediate_size=value["llama.feed_forward_length"],
        num_hidden_layers=value["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=value["llama.context_length"],
        rms_norm_eps=value["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": value["llama.rope.freq_base"]},
        tie_word_embeddings=True,
    )
    state = {}
    for tensor in reader.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in ("token_embd.weight", "output_norm.weight"):
            name = {"token_embd.weight": "model.embed_tokens", "output_norm.weight": "model.norm"}[tensor.name]
        else:
            _, layer, kind, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{NAMES[kind]}"
            if kind in ("attn_q", "attn_k"):  # llama.cpp turns neighbours, transformers halves of a head
                count = heads if kind == "attn_q" else kv_heads
                rows, columns = array.shape
                array = array.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        state[f"{name}.weight"] = torch.tensor(array, dtype=torch.float32)
    model = transformers.LlamaForCausalLM(config)
    left = model.load_state_dict(state, strict=False)
    assert left.missing_keys in ([], ["lm_head.weight"]), left
    assert not left.unexpected_keys, left
    model.tie_weights()
    ids = {token: number for number, token in enumerate(value["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in value["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return model.eval(), tokenizer, ids["<|endoftext|>"]
