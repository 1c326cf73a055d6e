"""Model folders of Hugging Face: config.json, safetensors, tokenizer, both ways."""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open

from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.model.config import Compute, ModelConfig
from lm.model.decoder import Decoder, named
from lm.model.parameters import parameters
from lm.weights.names import FAMILIES, Family
from lm.weights.place import BLOCK, check_shapes, naming, place_all, stored_shapes
from lm.weights.published import config_of, describe, family_of

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST_FILE = 5_000_000_000  # bytes, beyond which weights are cut into several files
_HEAD = "lm_head.weight"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
# Constants that some files keep among the weights: causal masks, rotary frequencies.
_CONSTANTS = re.compile(r"\.(attn\.(masked_)?bias|rotary_emb\.inv_freq)$")


class _Stored(NamedTuple):
    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


def read_config(folder: pathlib.Path, compute: Compute = "float32") -> tuple[ModelConfig, str]:
    """Return the configuration in a folder's config.json and the name of its family.

    Raises:
        InputError: no config.json, a damaged one, an unknown family, or what the decoder cannot compute.
    """
    path = folder / CONFIG
    about = _read_json(path)
    family = _family_in(path, about)
    with _stated(path):
        config = config_of(about, family)
    return dataclasses.replace(config, compute=compute), family.name


def _family_in(path: pathlib.Path, about: Mapping[str, Any]) -> Family:
    name, architectures = about.get("model_type"), about.get("architectures")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None or (architectures and architectures != [family.architecture]):
        known = ", ".join(family.architecture for family in FAMILIES.values())
        raise InputError(f"{path} is of the architecture {architectures or name}; only {known} can be read")
    return family


@contextlib.contextmanager
def _stated(path: pathlib.Path) -> Iterator[None]:
    """Name the file in what is wrong with its values."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path} has a missing or impossible value ({error!r}); fetch it again") from error


def load(
    folder: pathlib.Path, compute: Compute = "float32", mesh: Mesh | None = None, *, inference: bool = False
) -> tuple[Decoder, Tokenizer]:
    """Return the model and the tokenizer of a folder.

    Args:
        folder: with config.json, safetensors (one file, or several with their index) and a tokenizer.
        compute: type of the factors of the decoder's products.
        mesh: of devices, over which the parameters are shared out.
        inference: see `lm.weights.load.load`.

    Raises:
        InputError: a file is missing or damaged, or they do not belong together, or hold what cannot be computed here.
    """
    config, name = read_config(folder, compute)
    tokenizer = Tokenizer.from_folder(folder)
    with naming(folder):
        tokenizer.check_fits(config.vocabulary)
    family = FAMILIES[name]
    stored = _tensors(folder, family)
    embedding = family.places["embedding"].name
    if config.tied and _HEAD in stored and embedding in stored:
        # As in transformers, a head that is not the embedding is used, whatever config.json says.
        if _equal(stored[embedding], stored[_HEAD]):
            del stored[_HEAD]
        else:
            config = dataclasses.replace(config, tied=False)
    check_shapes(str(folder), stored_shapes(config, family.places), {name: one.shape for name, one in stored.items()})

    def read(name: str, start: int, stop: int) -> np.ndarray:
        one = stored[name]
        row = math.prod(one.shape[1:])
        return _numbers(one, start * row, stop * row).reshape(stop - start, *one.shape[1:])

    return place_all(config, family.places, read, mesh, inference=inference), tokenizer


def _numbers(one: _Stored, start: int, stop: int) -> np.ndarray:
    """Return the numbers start..stop of a tensor, in one row."""
    found = np.fromfile(one.file, one.dtype, stop - start, offset=one.start + start * one.dtype.itemsize)
    if found.size != stop - start:
        raise InputError(f"{one.file} has become shorter while it was read; fetch it again")
    return found


def _equal(one: _Stored, other: _Stored) -> bool:
    """Return whether two tensors hold the same numbers, of which memory holds a part at a time."""
    size = math.prod(one.shape)
    parts = ((start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))
    return one.shape == other.shape and all(
        np.array_equal(_numbers(one, *part), _numbers(other, *part)) for part in parts
    )


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a folder's weight files, sorted by name.

    Raises:
        InputError: there are none, or one that the index names is missing.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if not (folder / INDEX).is_file():
            raise InputError(f"{folder} has no {WEIGHTS} and no {INDEX}; only safetensors weights can be read")
        listed = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise InputError(f"{folder / INDEX} has no weight_map; fetch it again")
        names = sorted(set(listed.values()))
    for name in names:
        # A name from a file is never a way out of its folder.
        if pathlib.PurePath(name).name != name or not (folder / name).is_file():
            raise InputError(f"the weight file {name} is not in {folder}; fetch it again")
    return [folder / name for name in names]


def sha256_of_weights(folder: pathlib.Path) -> str:
    """Return the SHA-256 of the weight files' content, one after the other, hexadecimal."""
    state = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def _tensors(folder: pathlib.Path, family: Family) -> dict[str, _Stored]:
    found = {}
    for path in weight_files(folder):
        for name, one in _header(path).items():
            if _CONSTANTS.search(name):
                continue
            full = name if name.startswith((family.prefix, "lm_head.")) else family.prefix + name
            if full in found:
                raise InputError(f"the tensor {name} is twice in {folder}; fetch it again")
            found[full] = one
    return found


def check(folder: pathlib.Path) -> None:
    """Read a model's files, all but the numbers; raises InputError if one is lost, or damaged so that it shows."""
    read_config(folder)
    Tokenizer.from_folder(folder)
    for path in weight_files(folder):
        _header(path)


def _header(path: pathlib.Path) -> dict[str, _Stored]:
    try:
        with safe_open(path, framework="numpy"):
            pass  # the library checks that header and content fit together; the tensors are read without a map
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); fetch it again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, one in header.items():
        if one["dtype"] not in _DTYPES:
            raise InputError(
                f"the tensor {name} of {path} is of type {one['dtype']}; only {', '.join(_DTYPES)} are read"
            )
        start = 8 + size + one["data_offsets"][0]
        found[name] = _Stored(path, np.dtype(_DTYPES[one["dtype"]]), tuple(one["shape"]), start)
    return found


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the folder of a model") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object; fetch it again")
    return found


def write(folder: pathlib.Path, model: Decoder, tokenizer: Tokenizer, largest_file: int = LARGEST_FILE) -> None:
    """Write a model's folder, which transformers and `load` read; each file is written beside and renamed.

    Memory holds one tensor at a time besides the model.

    Args:
        folder: made if it is not there; weights of an earlier model in it are replaced.
        model: with float32 parameters.
        tokenizer: that it was trained with.
        largest_file: bytes of tensors beyond which the weights are cut into several files with an index.

    Raises:
        InputError: the configuration is of no published family, the tokenizer does not fit, or the disk refuses.
    """
    family = family_of(model.config)
    tokenizer.check_fits(model.config.vocabulary)
    about = describe(model.config, family)
    about |= {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.stops[-1]}
    generation = {key: about[key] for key in ("bos_token_id", "eos_token_id")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _write_weights(folder, model, family, largest_file)
        tokenizer.save(folder, model.config.context)
        _write_text(folder / "generation_config.json", json.dumps(generation, indent=1) + "\n")
        _write_text(folder / CONFIG, json.dumps(about, indent=1) + "\n")
        for path in folder.glob("model*.safetensors*"):
            if path.name not in names:
                path.unlink()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}); free it or choose another"
        ) from error


def _write_weights(folder: pathlib.Path, model: Decoder, family: Family, largest_file: int) -> set[str]:
    """Write the weight files and return the names of all that belong to them."""
    shapes = dict(stored_shapes(model.config, family.places))
    groups: list[list[str]] = [[]]
    for name, shape in shapes.items():
        full = sum(_bytes_of(shapes[one]) for one in groups[-1]) + _bytes_of(shape) > largest_file
        if full and groups[-1]:
            groups.append([])
        groups[-1].append(name)
    if len(groups) == 1:
        _write_safetensors(folder / WEIGHTS, model, family, {name: shapes[name] for name in groups[0]})
        return {WEIGHTS}
    index = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _write_safetensors(folder / file, model, family, {name: shapes[name] for name in group})
        index |= dict.fromkeys(group, file)
    total = sum(map(_bytes_of, shapes.values()))
    _write_text(folder / INDEX, json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1) + "\n")
    return {INDEX, *index.values()}


def _bytes_of(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)


def _write_safetensors(
    path: pathlib.Path, model: Decoder, family: Family, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Write tensors one by one: the library's writer would hold all of them twice."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + _bytes_of(shape)]}
        end += _bytes_of(shape)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors lie on multiples of 8 bytes
    arrays = named(model)
    parts: dict[str, list[tuple[str, int | None]]] = {}
    for ours, one in parameters(model.config).items():
        for layer in range(model.config.layers) if one.axes[0] == "layer" else [None]:
            parts.setdefault(family.places[ours].name.format(layer=layer), []).append((ours, layer))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".weights-") as beside:
        with (pathlib.Path(beside) / path.name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, shape in shapes.items():
                pieces = []
                for ours, layer in sorted(parts[name], key=lambda part: family.places[part[0]].third or 0):
                    piece = np.asarray(arrays[ours] if layer is None else arrays[ours][layer], np.float32)
                    pieces.append(piece)
                whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
                whole = whole.T if family.places[parts[name][0][0]].transposed else whole
                assert whole.shape == shape
                file.write(np.ascontiguousarray(whole).data)
        (pathlib.Path(beside) / path.name).replace(path)


def _write_text(path: pathlib.Path, text: str) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".config-") as beside:
        (pathlib.Path(beside) / path.name).write_text(text, encoding="utf-8")
        (pathlib.Path(beside) / path.name).replace(path)
