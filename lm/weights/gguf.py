"""GGUF files of llama.cpp: configuration, tokenizer and weights, dequantised to float32.

The header is read here, with every length checked against the file's end: the gguf package's own reader takes seconds
for a vocabulary and reads past a truncated file in silence. Its tables of types and its dequantisation are used.
"""

import itertools
import math
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from jax.sharding import Mesh

from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.model.config import Compute, ModelConfig, RopeScaling
from lm.model.decoder import Decoder
from lm.weights.names import GGUF_ARCHITECTURES
from lm.weights.place import check_shapes, naming, place_all, stored_shapes

READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_WHOLE = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "rope.dimension_count",
)
_ROPE_FACTORS = "rope_freqs.weight"  # Llama 3.1 and later: what each rotary frequency is divided by


class Tensor(NamedTuple):
    """A tensor of a GGUF file: its type, its shape (rows first) and where its bytes are."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    size: int


class GgufFile:
    """Metadata and tensors of a GGUF file; tensors are read one at a time."""

    def __init__(self, path: pathlib.Path):
        """Read the header.

        Raises:
            InputError: no GGUF file of version 2 or 3, truncated, damaged, or with a type that is not `READABLE`.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._read_header(file, path.stat().st_size)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); give the path of a GGUF file") from error
        except InputError:
            raise
        except (ValueError, struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
            raise InputError(f"{path} is not a whole GGUF file ({error}); fetch it again") from error

    def _read_header(self, file: BinaryIO, end: int) -> None:
        reader = _Reader(file, end)
        if reader.take(4) != b"GGUF" or (version := reader.scalar("I")) not in (2, 3):
            raise ValueError("it does not begin as version 2 or 3 does")
        tensors, pairs = reader.scalar("Q"), reader.scalar("Q")
        self.metadata: dict[str, Any] = {"version": version}
        for _ in range(pairs):
            key = reader.string()
            self.metadata[key] = reader.value(reader.scalar("I"))
        headers = {}
        for _ in range(tensors):
            name = reader.string()
            if name in headers:
                raise ValueError(f"it has two tensors {name}")
            shape = tuple(reader.scalar("Q") for _ in range(reader.scalar("I")))[::-1]
            headers[name] = (shape, reader.scalar("I"), reader.scalar("Q"))
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment}")
        data = -(-file.tell() // alignment) * alignment
        self.tensors: dict[str, Tensor] = {}
        for name, (shape, number, offset) in headers.items():
            kind = GGMLQuantizationType(number)
            if kind.name not in READABLE:
                raise InputError(
                    f"the tensor {name} of {self.path} is of type {kind.name}; only {', '.join(READABLE)} can be read"
                )
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % block:
                raise ValueError(f"the tensor {name} has rows of {shape[-1:]} and its type blocks of {block}")
            if offset % alignment:
                raise ValueError(f"the tensor {name} begins at byte {offset}, between multiples of {alignment}")
            size = math.prod(shape) // block * block_bytes
            if data + offset + size > end:
                raise ValueError(f"the tensor {name} ends at byte {data + offset + size} and the file at {end}")
            self.tensors[name] = Tensor(kind, shape, data + offset, size)
        in_order = sorted(self.tensors.items(), key=lambda one: one[1].start)
        for (name, one), (behind, other) in itertools.pairwise(in_order):
            if one.start + one.size > other.start:
                raise ValueError(f"its tensors {name} and {behind} share bytes")

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return rows start..stop of a tensor, dequantised: float32.

        Raises:
            InputError: the file has become shorter since its header was read.
        """
        tensor = self.tensors[name]
        row = tensor.size // tensor.shape[0]
        if len(tensor.shape) == 1:  # no rows, and a block may hold several numbers
            return self._read(tensor, tensor.start, tensor.size, (1, -1)).reshape(-1)[start:stop]
        return self._read(tensor, tensor.start + start * row, (stop - start) * row, (stop - start, -1))

    def _read(self, tensor: Tensor, offset: int, size: int, rows: tuple[int, int]) -> np.ndarray:
        raw = np.fromfile(self.path, np.uint8, size, offset=offset)
        if raw.size != size:
            raise InputError(f"{self.path} has become shorter while it was read; fetch it again")
        return quants.dequantize(raw.reshape(rows), tensor.kind)


class _Reader:
    """Little-endian values from a file, none beyond its end."""

    def __init__(self, file: BinaryIO, end: int):
        self._file, self._end = file, end

    def take(self, size: int) -> bytes:
        if size > self._end - self._file.tell():
            raise ValueError(f"it ends at byte {self._end}, inside the header")
        return self._file.read(size)

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.scalar("I"), self.scalar("Q")
            if inner == _STRING:
                return [self.string() for _ in range(length)]
            if inner in _SCALARS:
                code = _SCALARS[inner]
                content = self.take(length * struct.calcsize(f"<{code}"))
                return list(struct.unpack(f"<{length}{code}", content))
        elif kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        raise ValueError(f"its header has a value of the unknown type {kind}")


def read_config(file: GgufFile, compute: Compute = "float32") -> ModelConfig:
    """Return the configuration that a file's metadata and tensors describe.

    Raises:
        InputError: an architecture that is not known here, missing metadata, or what the decoder cannot compute.
    """
    name = str(file.metadata.get("general.architecture"))
    if name not in GGUF_ARCHITECTURES:
        raise InputError(f"{file.path} has the architecture {name!r}; only {', '.join(GGUF_ARCHITECTURES)} can be read")
    try:
        return _config_of(file, name, compute)
    except (TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file.path} states an impossible size ({error}); fetch it again") from error


def _config_of(file: GgufFile, name: str, compute: Compute) -> ModelConfig:
    metadata, tensors = file.metadata, file.tensors
    fixed = GGUF_ARCHITECTURES[name].fixed

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{name}.{key}", default)
        if value is None:
            raise InputError(f"{file.path} does not state {name}.{key}; fetch it again")
        return value

    if get("expert_count", 0) or get("use_parallel_residual", False) or get("attention.sliding_window", 0):
        raise InputError(f"{file.path} uses experts, parallel branches or a sliding window, which are not supported")
    if "token_embd.weight" not in tensors:
        raise InputError(f"{file.path} lacks the tensor token_embd.weight; fetch it again")
    if name == "stablelm" and "blk.0.attn_q_norm.weight" in tensors:
        raise InputError(f"{file.path} normalises queries per head with separate scales, which is not supported")
    for key in _WHOLE:
        if not isinstance(get(key, 1), int):
            raise ValueError(f"{name}.{key} is {get(key)!r}, no whole number")
    width, heads = get("embedding_length"), get("attention.head_count")
    head_size = get("attention.key_length", width // heads)
    first = "blk.0.attn_qkv" if GGUF_ARCHITECTURES[name].fused else "blk.0.attn_q"
    epsilon = "attention.layer_norm_rms_epsilon" if fixed["norm"] == "rms" else "attention.layer_norm_epsilon"
    bias = "none" if f"{first}.bias" not in tensors else "qkv" if "blk.0.attn_output.bias" not in tensors else "all"
    values = {
        "vocabulary": tensors["token_embd.weight"].shape[0],
        "context": get("context_length"),
        "width": width,
        "layers": get("block_count"),
        "heads": heads,
        "kv_heads": get("attention.head_count_kv", heads),
        "head_size": head_size,
        "hidden": get("feed_forward_length"),
        "epsilon": fixed["epsilon"] if "epsilon" in fixed else _short(get(epsilon)),
        "attention_bias": bias,
        "hidden_bias": "blk.0.ffn_up.bias" in tensors,
        "clip_qkv": metadata.get(f"{name}.attention.clamp_kqv") or None,
        "tied": "output.weight" not in tensors,
        "compute": compute,
    }
    if fixed["position"] == "rotary":
        values["rope_base"] = get("rope.freq_base", 10_000.0)
        rotated = get("rope.dimension_count", head_size)
        share = rotated / head_size
        # Cut to a whole number, as transformers does too, the product may be one too small: 13.999... of 14.
        values["rope_share"] = share if int(head_size * share) == rotated else math.nextafter(share, 1)
        values["rope_scaling"] = _rope_scaling(file, get)
    with naming(file.path):
        return ModelConfig(**{**values, **fixed})


def _short(value: float) -> float:
    """Return the shortest decimal number that is this one in float32: 1e-05, stored as 9.99999975e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(file: GgufFile, get: Any) -> RopeScaling | None:
    kind = get("rope.scaling.type", "none")
    if kind == "linear":
        factor = get("rope.scaling.factor")
        with naming(file.path):
            return RopeScaling("linear", factor)
    if kind != "none":
        raise InputError(f"{file.path} stretches its rotary positions by {kind!r}, which is not supported")
    if _ROPE_FACTORS not in file.tensors:
        return None
    # The file has only the resulting divisors: of the published settings, the one that gives them is taken.
    factors = file.read(_ROPE_FACTORS, 0, file.tensors[_ROPE_FACTORS].shape[0])
    with naming(file.path):
        found = RopeScaling("llama3", round(float(factors.max()), 3))
    frequency = get("rope.freq_base", 10_000.0) ** (-np.arange(factors.size) / factors.size)
    waves = found.original_context * frequency / (2 * math.pi)
    share = np.clip((waves - found.low_frequency) / (found.high_frequency - found.low_frequency), 0, 1)
    expected = 1 / ((1 - share) / found.factor + share)
    if not np.allclose(factors, expected, rtol=1e-4):
        raise InputError(
            f"{file.path} stretches its rotary positions in a way that is not Llama 3's; it cannot be read"
        )
    return found


def load(
    path: pathlib.Path, compute: Compute = "float32", mesh: Mesh | None = None, *, inference: bool = False
) -> tuple[Decoder, Tokenizer]:
    """Return the model and the tokenizer of a GGUF file.

    Args:
        path: of the file.
        compute: type of the factors of the decoder's products.
        mesh: of devices, over which the parameters are shared out.
        inference: see `lm.weights.load.load`.

    Raises:
        InputError: the file is missing, damaged, or holds what cannot be computed here.
    """
    file = GgufFile(path)
    config = read_config(file, compute)
    architecture = GGUF_ARCHITECTURES[file.metadata["general.architecture"]]
    places = architecture.places()
    found = {name: tensor.shape for name, tensor in file.tensors.items() if name != _ROPE_FACTORS}
    check_shapes(str(path), stored_shapes(config, places), found)
    with naming(path):
        tokenizer = Tokenizer.from_gguf(file.metadata)
        tokenizer.check_fits(config.vocabulary)
    heads = {
        places[name].name.format(layer=layer): count
        for part, count in (("query", config.heads), ("key", config.kv_heads))
        for name in (f"blocks.{part}", f"blocks.{part}_bias")
        for layer in range(config.layers)
    }

    def read(name: str, start: int, stop: int) -> np.ndarray:
        if not architecture.permuted or name not in heads:
            return file.read(name, start, stop)
        return unpermuted(file.read(name, 0, file.tensors[name].shape[0]), heads[name])[start:stop]

    return place_all(config, places, read, mesh, inference=inference), tokenizer


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows in the order of transformers: llama.cpp interleaves the two halves of each head.

    Args:
        weight: (heads K, in), or a bias (heads K,).
        heads: that share its rows.
    """
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
