"""Configurations of published families: config.json's content to `ModelConfig` and back."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from lm.errors import InputError
from lm.model.config import ModelConfig, RopeScaling
from lm.model.parameters import parameters
from lm.weights.names import ACTIVATIONS, FAMILIES, Family


def config_of(about: Mapping[str, Any], family: Family) -> ModelConfig:
    """Return the configuration that config.json's content describes.

    Args:
        about: content of config.json.
        family: that it names.

    Raises:
        InputError: it asks for what the decoder cannot compute.
        KeyError, TypeError, ValueError, ArithmeticError: a value is missing or of the wrong kind.
    """
    for key, value in family.demanded.items():
        if about.get(key, value) not in (value, None):
            raise InputError(f"{key} is {about[key]!r}, which is not supported; use a model where it is {value!r}")
    if about.get("quantization_config"):
        raise InputError("quantised weights are not supported; use the original model, or its GGUF file")
    if any(kind != "full_attention" for kind in about.get("layer_types") or ()):
        raise InputError("layers with a sliding window are not supported; use a model with full attention")
    about = {**family.defaults, **about}
    values = {field: about[key] for field, key in family.keys.items()}
    if values["activation"] not in ACTIVATIONS:
        raise InputError(f"the activation {values['activation']!r} is not supported; only {', '.join(ACTIVATIONS)} are")
    values["activation"] = ACTIVATIONS[values["activation"]]
    values["hidden"] = 4 * values["width"] if values["hidden"] is None else values["hidden"]
    for field in ("kv_heads", "head_size"):
        if field in values and values[field] is None:
            del values[field]
    for field in ("vocabulary", "context", "width", "layers", "heads", "kv_heads", "head_size", "hidden"):
        if not isinstance(values.get(field, 1), int) or values.get(field, 1) < 1:
            raise InputError(f"{family.keys[field]} is {values[field]!r}; it must be a whole number above 0")
    for field in ("epsilon", "clip_qkv"):
        if values.get(field) is not None:
            values[field] = float(values[field])
    if family.bias_key in about:
        values["attention_bias"] = family.bias if about[family.bias_key] else "none"
    return ModelConfig(**{**values, **_rotary(about, family), **family.fixed})


def _rotary(about: Mapping[str, Any], family: Family) -> dict[str, Any]:
    if family.fixed["position"] != "rotary":
        return {}
    # transformers 5 keeps all under rope_parameters, earlier versions base and share beside rope_scaling.
    stretch = about.get("rope_parameters") or about.get("rope_scaling") or {}
    usual = family.rope_share
    share = float(stretch.get("partial_rotary_factor", about.get("partial_rotary_factor", usual)))
    if usual == 1 and share != 1:
        raise InputError(f"partial_rotary_factor is {share}, which {family.name} does not have; use the original file")
    base = float(stretch.get("rope_theta", about.get("rope_theta", 10_000.0)))
    kind = stretch.get("rope_type", stretch.get("type", "default"))
    scaling = None
    if kind == "linear":
        scaling = RopeScaling("linear", float(stretch["factor"]))
    elif kind == "llama3":
        scaling = RopeScaling(
            "llama3",
            float(stretch["factor"]),
            float(stretch["low_freq_factor"]),
            float(stretch["high_freq_factor"]),
            int(stretch["original_max_position_embeddings"]),
        )
    elif kind != "default":
        raise InputError(f"the rotary scaling {kind!r} is not supported; only linear and llama3 are")
    return {"rope_base": base, "rope_share": share, "rope_scaling": scaling}


def family_of(config: ModelConfig) -> Family:
    """Return the published family that a configuration belongs to.

    Raises:
        InputError: it belongs to none, so that no other program could read its weights.
    """
    plain = dataclasses.replace(config, compute="float32", remat="none")
    for family in FAMILIES.values():
        if parameters(config).keys() <= family.places.keys():
            with contextlib.suppress(InputError):
                if config_of(describe(config, family), family) == plain:
                    return family
    raise InputError(f"no published family is of this configuration; change it to one of {', '.join(FAMILIES)}")


def describe(config: ModelConfig, family: Family) -> dict[str, Any]:
    """Return what config.json says of a model of this family."""
    values = dataclasses.asdict(config)
    values["activation"] = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    about = {"architectures": [family.architecture], "model_type": family.name, "dtype": "float32"}
    about |= {key: values[field] for field, key in family.keys.items()}
    if family.bias_key in family.defaults:
        about[family.bias_key] = config.attention_bias == family.bias
    if config.position == "rotary":
        about["rope_theta"] = config.rope_base
        if family.rope_share != 1:
            about["partial_rotary_factor"] = config.rope_share
        if config.rope_scaling is not None:
            about["rope_scaling"] = {"rope_type": config.rope_scaling.kind, "factor": config.rope_scaling.factor}
        if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
            about["rope_scaling"] |= {
                "low_freq_factor": config.rope_scaling.low_frequency,
                "high_freq_factor": config.rope_scaling.high_frequency,
                "original_max_position_embeddings": config.rope_scaling.original_context,
            }
    return about
