"""The one table of a decoder's parameters: names, shapes, meaning of the axes, starting values.

Weights are (in, out); the blocks' parameters are stacked, layers first. Everything that handles parameters
(construction, counting, sharding, import and export) reads this table.
"""

import math
from typing import Literal, NamedTuple

from lm.model.config import ModelConfig

Axis = Literal["layer", "vocabulary", "position", "width", "heads", "kv_heads", "head", "hidden"]
Start = Literal["normal", "residual", "ones", "zeros"]


class Parameter(NamedTuple):
    """A parameter.

    Attributes:
        shape: with the layers in front for the blocks'.
        axes: what each axis counts; "heads" and "kv_heads" are all heads' coordinates, "head" those of one.
        start: "normal" of deviation .02, "residual" the same over sqrt(2 L) for what writes to the residual
            stream (GPT-2), "ones", "zeros".
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    start: Start


def _norm(prefix: str, config: ModelConfig, axis: Axis, size: int) -> dict[str, Parameter]:
    if config.norm == "layer-plain":
        return {}
    found = {f"{prefix}_scale": Parameter((size,), (axis,), "ones")}
    if config.norm == "layer" and config.norm_bias:
        found[f"{prefix}_bias"] = Parameter((size,), (axis,), "zeros")
    return found


def _block(config: ModelConfig) -> dict[str, Parameter]:
    D, F, Q, G = config.width, config.hidden, config.query_width, config.key_width
    sizes: dict[str, tuple[Axis, int]] = {"query": ("heads", Q), "key": ("kv_heads", G), "value": ("kv_heads", G)}
    found = _norm("attention_norm", config, "width", D)
    for name, (axis, size) in sizes.items():
        found[name] = Parameter((D, size), ("width", axis), "normal")
        if config.attention_bias != "none":
            found[f"{name}_bias"] = Parameter((size,), (axis,), "zeros")
    if config.query_key_norm == "head":
        for name in ("query", "key"):
            found[f"{name}_norm_scale"] = Parameter((config.head_size,), ("head",), "ones")
    if config.query_key_norm == "whole":
        for name in ("query", "key"):
            axis, size = sizes[name]
            found[f"{name}_norm_scale"] = Parameter((size,), (axis,), "ones")
    found["output"] = Parameter((Q, D), ("heads", "width"), "residual")
    if config.attention_bias == "all":
        found["output_bias"] = Parameter((D,), ("width",), "zeros")
    found |= _norm("hidden_norm", config, "width", D)
    if config.gated:
        found["gate"] = Parameter((D, F), ("width", "hidden"), "normal")
    found["up"] = Parameter((D, F), ("width", "hidden"), "normal")
    found["down"] = Parameter((F, D), ("hidden", "width"), "residual")
    if config.hidden_bias:
        found["up_bias"] = Parameter((F,), ("hidden",), "zeros")
        found["down_bias"] = Parameter((D,), ("width",), "zeros")
    return found


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Return every parameter by name, the blocks' as "blocks.NAME" with L in front of their shapes."""
    D, V = config.width, config.vocabulary
    found = {"embedding": Parameter((V, D), ("vocabulary", "width"), "normal")}
    if config.position == "learned":
        found["position"] = Parameter((config.context, D), ("position", "width"), "normal")
    found |= {
        f"blocks.{name}": Parameter((config.layers, *one.shape), ("layer", *one.axes), one.start)
        for name, one in _block(config).items()
    }
    found |= _norm("norm", config, "width", D)
    if not config.tied:
        found["unembedding"] = Parameter((D, V), ("width", "vocabulary"), "normal")
    return found


def is_matrix(name: str, config: ModelConfig) -> bool:
    """Return whether weight decay applies to a parameter: matrices, embeddings and positions, not norms and biases."""
    return len([axis for axis in parameters(config)[name].axes if axis != "layer"]) > 1


def count_parameters(config: ModelConfig) -> int:
    """Return the number of trainable numbers."""
    return sum(math.prod(one.shape) for one in parameters(config).values())
