"""A small configuration of each published family, and models of them whose every parameter matters."""

import jax.numpy as jnp
import numpy as np

from lm.model.config import ModelConfig
from lm.model.decoder import Decoder, from_arrays
from lm.model.parameters import is_matrix, parameters

LLAMA = ModelConfig(vocabulary=50, context=64, width=32, layers=2, heads=4, kv_heads=2, hidden=48)
FAMILIES = {
    "llama": LLAMA,
    "gpt2": LLAMA.changed(
        kv_heads=4,
        norm="layer",
        norm_bias=True,
        attention_bias="all",
        hidden_bias=True,
        activation="gelu-tanh",
        gated=False,
        position="learned",
    ),
    "olmo": LLAMA.changed(norm="layer-plain", clip_qkv=0.5),
    "olmo2": LLAMA.changed(norm_place="after", query_key_norm="whole", tied=False),
    "qwen2": LLAMA.changed(attention_bias="qkv"),
    "qwen3": LLAMA.changed(head_size=16, query_key_norm="head"),
    "stablelm": LLAMA.changed(norm="layer", norm_bias=True, rope_share=0.25),
}


def lively(config: ModelConfig, rng: np.random.Generator) -> Decoder:
    """Return a random model with large matrices, and scales and biases that are not one and zero."""
    arrays = {}
    for name, one in parameters(config).items():
        spread, mean = (0.16, 0.0) if is_matrix(name, config) else (0.1, float(name.endswith("_scale")))
        arrays[name] = jnp.asarray(mean + spread * rng.standard_normal(one.shape), jnp.float32)
    return from_arrays(config, arrays)
