"""Training runs that a test asks for, in a process with devices of its own: `python training_worker.py JSON`.

The JSON is a list of runs: {"folder": path, "mesh": sizes, "kill": step, "nudge": true}; the last two may be left out.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from lm.data.corpus import Corpus
from lm.data.mixture import Part
from lm.model.config import ModelConfig
from lm.model.decoder import Decoder, make, named
from lm.train.config import TrainConfig
from lm.train.distributed import Processes, connect
from lm.train.loop import Data, train

STEPS = 12
MODEL = ModelConfig(257, context=32, width=32, layers=1, heads=2, hidden=64)


class Killed(BaseException):
    """Stands for a kill: nothing in the loop handles it."""


def data():
    """Return the bytes of a real text, a document a paragraph."""
    text = (pathlib.Path(__file__).parent / "data" / "speech.txt").read_bytes()
    documents = [np.frombuffer(part, np.uint8) for part in text.split(b"\n") if part]
    names = [str(number) for number in range(len(documents))]
    sizes = np.asarray([len(document) for document in documents])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Data((Part("speech", Corpus(np.concatenate(documents), starts, names, names, names, sizes)),), 256)


def nudged():
    """Return the starting weights with every value off by one unit in the last place, up or down."""
    rng = np.random.default_rng(0)
    arrays = {
        name: np.nextafter(array, np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32))
        for name, array in named(make(MODEL, 0)).items()
    }
    return "nudged", Decoder(MODEL, jax.tree.map(jax.numpy.asarray, arrays))


def run(folder, mesh, kill=None, nudge=False):
    """Train, from the start or from where the folder is."""
    config = TrainConfig(STEPS, batch=8, learning_rate=1e-2, warmup=3, save_every=5, loss_chunk=128, **mesh)

    def progress(share, message):
        if kill is not None and message.startswith(f"step {kill} "):
            raise Killed

    try:
        train(MODEL, config, data(), pathlib.Path(folder), progress, weights=nudged() if nudge else None)
    except Killed:
        return


if __name__ == "__main__":
    connect(Processes())
    for one in json.loads(sys.argv[1]):
        run(**one)
