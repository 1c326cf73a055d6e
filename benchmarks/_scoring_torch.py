"""Scoring SmolLM2 with transformers, served to benchmarks.scoring by an interpreter that has torch.

`python _scoring_torch.py GGUF IDS.npz`: IDS.npz holds `tokens` and `starts` of documents, and `end`, the end-of-text
id. A run gives seconds and the mean nats per token.
"""

import copy
import functools
import itertools
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
from _serve import serve
from _smollm2_torch import load

BATCH = 8  # documents of similar lengths together, padded to the longest


def batches(tokens, starts, end):
    """Return inputs and targets of each batch; -100 where nothing is a target."""
    documents = sorted((tokens[a:b] for a, b in itertools.pairwise(starts)), key=len)
    made = []
    for first in range(0, len(documents), BATCH):
        chosen = documents[first : first + BATCH]
        inputs = torch.full((len(chosen), max(map(len, chosen))), int(end))
        targets = torch.full_like(inputs, -100)
        for row, ids in enumerate(chosen):
            inputs[row, 1 : len(ids)] = torch.tensor(ids[:-1].astype(np.int64))
            targets[row, : len(ids)] = torch.tensor(ids.astype(np.int64))
        made.append((inputs, targets))
    return made


def nats(model, made):
    """Return the negative log-likelihood of all targets; padding is on the right, where no target sees it."""
    total = 0.0
    with torch.inference_mode():
        for inputs, targets in made:
            logits = model(inputs, use_cache=False).logits
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum"
            ).item()
    return total


def run(model, made, number):
    """Score all documents once."""
    start = time.perf_counter()
    total = nats(model, made)
    return {"seconds": time.perf_counter() - start, "nats": total / number}


def main():
    """Offer float32 and bfloat16."""
    arrays = np.load(sys.argv[2])
    made, number = batches(arrays["tokens"], arrays["starts"], arrays["end"]), len(arrays["tokens"])
    loaded, _, _ = load(pathlib.Path(sys.argv[1]))
    models = {"float32": loaded, "bfloat16": copy.deepcopy(loaded).to(torch.bfloat16)}
    ways = {f"transformers, {name}": functools.partial(run, model, made, number) for name, model in models.items()}
    serve(ways, {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}})


if __name__ == "__main__":
    main()
