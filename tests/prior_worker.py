"""A prior on four devices, in a process that has them: `python prior_worker.py RESULT.json`."""

import json
import pathlib
import sys

import numpy as np
from families import LLAMA, lively

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder
from lm.editing.prior import decisions, prepare_prior
from lm.model.config import Compute
from lm.model.sharding import make_mesh
from lm.weights.load import Pretrained

MESHES: tuple[tuple[str, Compute], ...] = (
    ("alone", "float32"),
    ("alone", "bfloat16"),
    ("data", "float32"),
    ("data", "bfloat16"),
    ("sharded", "float32"),
)


def run():
    """Return decisions of one device, of copies on four, and of a model shared out over four."""
    text = (pathlib.Path(__file__).parent / "data" / "speech.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.train([text], 290)
    model = lively(LLAMA.changed(vocabulary=300), np.random.default_rng(3))
    pretrained = Pretrained(model, tokenizer, "random", "0" * 64, False)
    texts = [part.encode() for part in text.split("\n") if part][:10]
    documents = DocumentEncoder(tokenizer)(texts, [str(number) for number in range(len(texts))])
    meshes = {"alone": None, "data": make_mesh(data=4), "sharded": make_mesh(fsdp=2, tensor=2)}
    found = {}
    for name, compute in MESHES:
        prior = prepare_prior(pretrained, compute=compute, context=32, positions=256, mesh=meshes[name])
        made = decisions(prior, documents, EditConfig(threshold=0.3), full=True)
        found[f"{name} {compute}"] = {
            part: np.concatenate([getattr(document, part) for document in made]).tolist()
            for part in ("probability", "token")
        }
    return found


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(json.dumps(run()))
