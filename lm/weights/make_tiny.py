"""Writes the tiny prior that is shipped, from a run of `toedit train`: `python -m lm.weights.make_tiny RUN/final`.

The run's command is in tiny/README.md. Weights are rounded to bfloat16, which halves the folder. So small a model is
never sure of a token; the scale of its last norm is doubled, which doubles the logits, so that it has an opinion at the
paper's threshold of .99.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from lm.weights.huggingface import CONFIG, WEIGHTS
from lm.weights.load import TINY

SHARPENED, FACTOR = "model.norm.weight", 2
COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def make(trained: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the tiny prior's files; each is written beside and renamed.

    Args:
        trained: folder that `toedit train` made, float32 weights in one file.
        folder: that exists.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as beside:
        made = pathlib.Path(beside)
        tensors = load_file(trained / WEIGHTS)
        tensors[SHARPENED] = tensors[SHARPENED] * FACTOR
        tensors = {name: np.asarray(array, jnp.bfloat16) for name, array in tensors.items()}
        save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
        about = json.loads((trained / CONFIG).read_text(encoding="utf-8")) | {"dtype": "bfloat16"}
        (made / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for name in COPIED:
            shutil.copyfile(trained / name, made / name)
        for path in made.iterdir():
            path.chmod(0o644)
            path.replace(folder / path.name)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m lm.weights.make_tiny", description=__doc__)
    parser.add_argument("trained", type=pathlib.Path)
    make(parser.parse_args().trained, TINY)


if __name__ == "__main__":
    main()
