"""Scoring SmolLM2 with transformers, run by itself in an interpreter that has torch.

`python _scoring_torch.py GGUF IDS.npz` prints one JSON line: for each way of running, tokens per second (the best of
two passes), seconds before the first timed pass and the mean nats per token. IDS.npz holds `tokens` and `starts` of
documents, and `end`, the end-of-text id.
"""

import itertools
import json
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
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


def main():
    """Measure float32 and bfloat16, eager, and the faster one compiled."""
    path, arrays = pathlib.Path(sys.argv[1]), np.load(sys.argv[2])
    made, number = batches(arrays["tokens"], arrays["starts"], arrays["end"]), len(arrays["tokens"])
    found = {}
    loaded, _, _ = load(path)
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("bfloat16 compiled", None)):
        model = torch.compile(loaded, dynamic=True) if kind is None else loaded.to(kind)
        start = time.perf_counter()
        total = nats(model, made if kind is None else made[:1])
        warm, best = time.perf_counter() - start, float("inf")
        for _ in range(2 if kind != torch.float32 else 1):
            start = time.perf_counter()
            total = nats(model, made)
            best = min(best, time.perf_counter() - start)
        found[name] = {"tokens_per_second": number / best, "warm_seconds": warm, "nats": total / number}
        found["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
