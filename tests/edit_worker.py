"""Edits a folder with the tiny prior, in a process of its own that a test can kill: INPUT OUT CHUNK [INDEX/COUNT]."""

import pathlib
import sys

from lm.editing.config import EditConfig
from lm.editing.inputs import find_tasks
from lm.editing.prior import prepare_prior
from lm.editing.run import run
from lm.editing.settings import Settings
from lm.weights.load import load

# A threshold at which a tenth of the tokens are selected, and short windows, of which few shapes are compiled.
EDIT = EditConfig(threshold=0.5, temperature=1.5)
CONTEXT = 32


def main() -> None:
    """Say that it is ready, then edit."""
    out = pathlib.Path(sys.argv[2])
    index, count = map(int, sys.argv[4].split("/")) if len(sys.argv) > 4 else (0, 1)
    prior = prepare_prior(load("tiny"), context=CONTEXT)
    print("ready", flush=True)
    settings = Settings(EDIT, sample=0.1, chunk=int(sys.argv[3]))
    run(find_tasks([sys.argv[1]], out), out, prior, settings, shard=(index, count))


if __name__ == "__main__":
    main()
