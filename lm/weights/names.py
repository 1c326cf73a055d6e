"""How the published families name and lay out what `lm.model.parameters` lists: a table, no classes.

Sources: the configurations and the modules of Hugging Face transformers; the converters and the architectures of
llama.cpp for GGUF.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a parameter is in a checkpoint.

    Attributes:
        name: of the tensor, with {layer} for those of the blocks.
        transposed: whether it is stored (out, in).
        third: which third of a tensor's last axis (before transposing: of the outputs) it is; None is all of it.
    """

    name: str
    transposed: bool = False
    third: int | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to a published family.

    Attributes:
        name: `model_type` in config.json.
        architecture: of transformers.
        keys: config.json's key of each `ModelConfig` field that it states.
        defaults: values of keys that config.json may leave out, as transformers fills them in.
        fixed: `ModelConfig` fields that are the same in every model of the family.
        demanded: keys that must have this value, or be absent, for the decoder to compute the model.
        bias: `ModelConfig.attention_bias` where config.json's `bias_key` is true; the family has no such key otherwise.
        bias_key: of config.json.
        rope_share: `ModelConfig.rope_share` where config.json states none; 1 for families that cannot have another.
        prefix: of every tensor but the head's; published files sometimes leave it out.
        places: of each parameter.
    """

    name: str
    architecture: str
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    demanded: Mapping[str, Any]
    prefix: str
    places: Mapping[str, Place]
    bias: str = "none"
    bias_key: str = "attention_bias"
    rope_share: float = 1.0


_KEYS = {
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
    "tied": "tie_word_embeddings",
}
_DEFAULTS = {"num_key_value_heads": None, "hidden_act": "silu", "tie_word_embeddings": False}


def _linear(module: str, name: str) -> dict[str, Place]:
    return {
        f"blocks.{name}": Place(f"model.layers.{{layer}}.{module}.weight", transposed=True),
        f"blocks.{name}_bias": Place(f"model.layers.{{layer}}.{module}.bias"),
    }


def _norm(module: str, name: str) -> dict[str, Place]:
    return {f"{name}_scale": Place(f"{module}.weight"), f"{name}_bias": Place(f"{module}.bias")}


_PROJECTIONS = {
    "embedding": Place("model.embed_tokens.weight"),
    "unembedding": Place("lm_head.weight", transposed=True),
    **_linear("self_attn.q_proj", "query"),
    **_linear("self_attn.k_proj", "key"),
    **_linear("self_attn.v_proj", "value"),
    **_linear("self_attn.o_proj", "output"),
    **_linear("mlp.gate_proj", "gate"),
    **_linear("mlp.up_proj", "up"),
    **_linear("mlp.down_proj", "down"),
}
_BEFORE = {
    **_norm("model.norm", "norm"),
    **_norm("model.layers.{layer}.input_layernorm", "blocks.attention_norm"),
    **_norm("model.layers.{layer}.post_attention_layernorm", "blocks.hidden_norm"),
}
_AFTER = {
    **_norm("model.norm", "norm"),
    **_norm("model.layers.{layer}.post_attention_layernorm", "blocks.attention_norm"),
    **_norm("model.layers.{layer}.post_feedforward_layernorm", "blocks.hidden_norm"),
}
_QUERY_KEY = {
    "blocks.query_norm_scale": Place("model.layers.{layer}.self_attn.q_norm.weight"),
    "blocks.key_norm_scale": Place("model.layers.{layer}.self_attn.k_norm.weight"),
}
_GPT2 = {
    "embedding": Place("transformer.wte.weight"),
    "position": Place("transformer.wpe.weight"),
    "unembedding": Place("lm_head.weight", transposed=True),
    **_norm("transformer.ln_f", "norm"),
    **_norm("transformer.h.{layer}.ln_1", "blocks.attention_norm"),
    **_norm("transformer.h.{layer}.ln_2", "blocks.hidden_norm"),
    **{
        f"blocks.{name}{suffix}": Place(f"transformer.h.{{layer}}.{module}.{kind}", third=third)
        for name, module, third in (
            ("query", "attn.c_attn", 0),
            ("key", "attn.c_attn", 1),
            ("value", "attn.c_attn", 2),
            ("output", "attn.c_proj", None),
            ("up", "mlp.c_fc", None),
            ("down", "mlp.c_proj", None),
        )
        for suffix, kind in (("", "weight"), ("_bias", "bias"))
    },
}

_RMS = {**_KEYS, "epsilon": "rms_norm_eps"}
_SLIDING = {"use_sliding_window": False}
_FAMILIES = (
    Family(
        name="llama",
        architecture="LlamaForCausalLM",
        keys={**_RMS, "head_size": "head_dim"},
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-6, "head_dim": None, "attention_bias": False},
        fixed={"norm": "rms", "query_key_norm": "none", "gated": True, "position": "rotary"},
        demanded={"mlp_bias": False},
        bias="all",
        prefix="model.",
        places={**_PROJECTIONS, **_BEFORE},
    ),
    Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        keys=_RMS,
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-6},
        fixed={
            "norm": "rms",
            "query_key_norm": "none",
            "attention_bias": "qkv",
            "gated": True,
            "position": "rotary",
        },
        demanded=_SLIDING,
        prefix="model.",
        places={**_PROJECTIONS, **_BEFORE},
    ),
    Family(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        keys={**_RMS, "head_size": "head_dim"},
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-6, "head_dim": 128, "attention_bias": False},
        fixed={"norm": "rms", "query_key_norm": "head", "gated": True, "position": "rotary"},
        demanded=_SLIDING,
        bias="all",
        prefix="model.",
        places={**_PROJECTIONS, **_BEFORE, **_QUERY_KEY},
    ),
    Family(
        name="gpt2",
        architecture="GPT2LMHeadModel",
        keys={
            "vocabulary": "vocab_size",
            "context": "n_positions",
            "width": "n_embd",
            "layers": "n_layer",
            "heads": "n_head",
            "hidden": "n_inner",
            "activation": "activation_function",
            "epsilon": "layer_norm_epsilon",
            "tied": "tie_word_embeddings",
        },
        defaults={
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        fixed={
            "norm": "layer",
            "norm_bias": True,
            "query_key_norm": "none",
            "attention_bias": "all",
            "hidden_bias": True,
            "gated": False,
            "position": "learned",
        },
        demanded={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        prefix="transformer.",
        places=_GPT2,
    ),
    Family(
        name="olmo",
        architecture="OlmoForCausalLM",
        keys={**_KEYS, "clip_qkv": "clip_qkv"},
        defaults={**_DEFAULTS, "clip_qkv": None, "attention_bias": False},
        fixed={
            "norm": "layer-plain",
            "epsilon": 1e-5,
            "query_key_norm": "none",
            "gated": True,
            "position": "rotary",
        },
        demanded={},
        bias="all",
        prefix="model.",
        places=_PROJECTIONS,
    ),
    Family(
        name="olmo2",
        architecture="Olmo2ForCausalLM",
        keys=_RMS,
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-5, "attention_bias": False},
        fixed={
            "norm": "rms",
            "norm_place": "after",
            "query_key_norm": "whole",
            "gated": True,
            "position": "rotary",
        },
        demanded={},
        bias="all",
        prefix="model.",
        places={**_PROJECTIONS, **_AFTER, **_QUERY_KEY},
    ),
    Family(
        name="stablelm",
        architecture="StableLmForCausalLM",
        keys={**_KEYS, "epsilon": "layer_norm_eps"},
        defaults={**_DEFAULTS, "layer_norm_eps": 1e-5, "use_qkv_bias": False},
        fixed={
            "norm": "layer",
            "norm_bias": True,
            "query_key_norm": "none",
            "gated": True,
            "position": "rotary",
        },
        demanded={"use_parallel_residual": False, "qk_layernorm": False},
        bias="qkv",
        bias_key="use_qkv_bias",
        rope_share=0.25,
        prefix="model.",
        places={**_PROJECTIONS, **_BEFORE},
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {"silu": "silu", "swish": "silu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh"}
)
"""`ModelConfig.activation` by the name in config.json."""


@dataclasses.dataclass(frozen=True)
class GgufArchitecture:
    """What is particular to an architecture of llama.cpp.

    Attributes:
        fixed: `ModelConfig` fields that are the same in every file of the architecture.
        permuted: whether the rows of the query's and key's weights alternate between the two halves of each head.
        fused: whether query, key and value are one tensor.
        after: whether the norms stand after the branches.
    """

    fixed: Mapping[str, Any]
    permuted: bool = False
    fused: bool = False
    after: bool = False

    def places(self) -> dict[str, Place]:
        """Return where each parameter is."""
        found = {
            "embedding": Place("token_embd.weight"),
            "position": Place("position_embd.weight"),
            "unembedding": Place("output.weight", transposed=True),
            **_norm("output_norm", "norm"),
            **_norm(f"blk.{{layer}}.{'post_attention_norm' if self.after else 'attn_norm'}", "blocks.attention_norm"),
            **_norm(f"blk.{{layer}}.{'post_ffw_norm' if self.after else 'ffn_norm'}", "blocks.hidden_norm"),
            "blocks.query_norm_scale": Place("blk.{layer}.attn_q_norm.weight"),
            "blocks.key_norm_scale": Place("blk.{layer}.attn_k_norm.weight"),
        }
        modules = {"output": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
        thirds: dict[str, int] = {}
        if self.fused:
            modules |= {"query": "attn_qkv", "key": "attn_qkv", "value": "attn_qkv"}
            thirds = {"query": 0, "key": 1, "value": 2}
        else:
            modules |= {"query": "attn_q", "key": "attn_k", "value": "attn_v"}
        for name, module in modules.items():
            third = thirds.get(name)
            found[f"blocks.{name}"] = Place(f"blk.{{layer}}.{module}.weight", transposed=True, third=third)
            found[f"blocks.{name}_bias"] = Place(f"blk.{{layer}}.{module}.bias", third=third)
        return found


_ROTARY = {"norm": "rms", "activation": "silu", "gated": True, "position": "rotary"}
GGUF_ARCHITECTURES: Mapping[str, GgufArchitecture] = MappingProxyType(
    {
        "llama": GgufArchitecture(_ROTARY, permuted=True),
        "qwen2": GgufArchitecture(_ROTARY),
        "qwen3": GgufArchitecture({**_ROTARY, "query_key_norm": "head"}),
        "gpt2": GgufArchitecture(
            {"norm": "layer", "norm_bias": True, "activation": "gelu-tanh", "gated": False, "position": "learned"},
            fused=True,
        ),
        "olmo": GgufArchitecture({**_ROTARY, "norm": "layer-plain", "epsilon": 1e-5}, permuted=True),
        "olmo2": GgufArchitecture({**_ROTARY, "norm_place": "after", "query_key_norm": "whole"}, after=True),
        "stablelm": GgufArchitecture({**_ROTARY, "norm": "layer", "norm_bias": True}),
    }
)
"""By `general.architecture`."""
