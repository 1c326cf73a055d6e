"""Algorithm 1 with SmolLM2 on transformers and torch, served to benchmarks.editing by an interpreter that has them.

`python _editing_torch.py GGUF IDS.npz`: IDS.npz holds `tokens` and `starts` of documents, `end`, the end-of-text id,
`threshold`, `top_k` and `temperature`. A run gives seconds, selected and changed tokens.

Documents of similar lengths are passed together; the head sees no padding; candidates are sought only where a token is
selected.
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

POSITIONS = 2048  # of a batch, padding included: of 512 to 8,192 about the fastest
ROWS = 512  # logits at a time


def batches(documents):
    """Return numbers of documents, passed together: similar lengths, about POSITIONS with the padding."""
    order, made = sorted(range(len(documents)), key=lambda number: len(documents[number])), []
    for number in order:
        if not made or (len(made[-1]) + 1) * len(documents[number]) > POSITIONS:
            made.append([])
        made[-1].append(number)
    return made


def padded(documents, end):
    """Return inputs and targets of documents, a row each; -1 where nothing is a target, behind all that is."""
    longest = max(map(len, documents))
    inputs = torch.full((len(documents), longest), end)
    targets = torch.full((len(documents), longest), -1)
    for row, ids in enumerate(documents):
        inputs[row, 1 : len(ids)] = ids[:-1]
        targets[row, : len(ids)] = ids
    return inputs, targets


def edit(model, documents, end, threshold, top_k, temperature):
    """Return the edited documents and the number of selected tokens; padding is on the right, where nothing sees it."""
    edited, selected = [None] * len(documents), 0
    with torch.inference_mode():
        for chosen in batches(documents):
            inputs, targets = padded([documents[number] for number in chosen], end)
            there = targets >= 0
            states, target = model.model(inputs, use_cache=False).last_hidden_state[there], targets[there]
            after = target.clone()
            first = torch.zeros_like(there)
            first[:, 0] = True
            editable = ~first[there]
            for begin in range(0, len(target), ROWS):
                rows = slice(begin, begin + ROWS)
                logits = model.lm_head(states[rows]).float()
                own = logits.gather(1, target[rows, None])[:, 0]
                confident = ((own - logits.logsumexp(1)).exp() >= threshold) & editable[rows]
                if confident.any():
                    top, ids = logits[confident].topk(top_k, dim=1)
                    drawn = torch.multinomial(torch.softmax(top / temperature, 1), 1)
                    after[rows][confident] = ids.gather(1, drawn)[:, 0]
                    selected += int(confident.sum())
            parts = after.split([len(documents[number]) for number in chosen])
            for number, part in zip(chosen, parts, strict=True):
                edited[number] = part
    return edited, selected


def run(model, documents, settings):
    """Edit all documents once."""
    start = time.perf_counter()
    edited, selected = edit(model, documents, *settings)
    seconds = time.perf_counter() - start
    changed = sum(int((a != b).sum()) for a, b in zip(edited, documents, strict=True))
    return {"seconds": seconds, "selected": selected, "changed": changed}


def main():
    """Offer bfloat16 and float32."""
    given = np.load(sys.argv[2])
    documents = [
        torch.tensor(given["tokens"][a:b].astype(np.int64)) for a, b in itertools.pairwise(given["starts"].tolist())
    ]
    settings = int(given["end"]), float(given["threshold"]), int(given["top_k"]), float(given["temperature"])
    torch.manual_seed(0)
    loaded, _, _ = load(pathlib.Path(sys.argv[1]))
    models = {"float32": loaded, "bfloat16": copy.deepcopy(loaded).to(torch.bfloat16)}
    ways = {f"transformers, {name}": functools.partial(run, one, documents, settings) for name, one in models.items()}
    serve(ways, {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}})


if __name__ == "__main__":
    main()
