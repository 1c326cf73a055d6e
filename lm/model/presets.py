"""Published models by name, and small ones for the CPU."""

from typing import Any

from lm.errors import InputError
from lm.model.config import ModelConfig

_GPT2 = ModelConfig(
    vocabulary=50_257,
    context=1024,
    width=768,
    layers=12,
    heads=12,
    hidden=3072,
    norm="layer",
    norm_bias=True,
    attention_bias="all",
    hidden_bias=True,
    activation="gelu-tanh",
    gated=False,
    position="learned",
)
_OLMO = ModelConfig(vocabulary=50_304, context=2048, width=2048, layers=16, heads=16, hidden=8192, norm="layer-plain")

PRESETS: dict[str, ModelConfig] = {
    # For two CPU cores: seconds, and minutes.
    "tiny": ModelConfig(vocabulary=1024, context=128, width=64, layers=2, heads=2, hidden=192),
    "small": ModelConfig(vocabulary=4096, context=256, width=256, layers=4, heads=4, hidden=768),
    # GPT-2's form at the size that benchmarks train on a CPU.
    "gpt2-3m": _GPT2.changed(vocabulary=2048, context=256, width=256, layers=4, heads=4, hidden=1024),
    # Radford et al. 2019.
    "gpt2-124m": _GPT2,
    "gpt2-355m": _GPT2.changed(width=1024, layers=24, heads=16, hidden=4096),
    # Groeneveld et al. 2024. The paper's OLMo-237M has no published configuration: this one is chosen here, with
    # OLMo's choices and the 236.8 million parameters that its name says.
    "olmo-237m": _OLMO.changed(width=768, layers=28, heads=12, hidden=2048),
    "olmo-1b": _OLMO,
    # Grattafiori et al. 2024 (Llama 3: no scaling of the rotary frequencies yet).
    "llama3-8b": ModelConfig(
        vocabulary=128_256,
        context=8192,
        width=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        hidden=14_336,
        rope_base=500_000.0,
        tied=False,
    ),
    # Allal et al. 2025.
    "smollm2-135m": ModelConfig(
        vocabulary=49_152,
        context=8192,
        width=576,
        layers=30,
        heads=9,
        kv_heads=3,
        hidden=1536,
        rope_base=100_000.0,
    ),
    # Yang et al. 2024.
    "qwen2-0.5b": ModelConfig(
        vocabulary=151_936,
        context=131_072,
        width=896,
        layers=24,
        heads=14,
        kv_heads=2,
        hidden=4864,
        epsilon=1e-6,
        attention_bias="qkv",
        rope_base=1_000_000.0,
    ),
}


def preset(name: str, **changes: Any) -> ModelConfig:
    """Return a preset's configuration with some fields changed.

    Args:
        name: of `PRESETS`.
        **changes: fields of `ModelConfig`.

    Raises:
        InputError: unknown preset, or changes that do not fit it.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name].changed(**changes)
