"""Decoding with SmolLM2 on transformers' generate, run by itself in an interpreter that has torch.

`python _generation_torch.py GGUF IDS.npz` prints a JSON line whenever it knows more: for each type of the numbers, way
of drawing and batch size, tokens per second (the better of two passes, prompts included). IDS.npz holds `prompts` of
one length, `sizes` of batches, `tokens` to make for each prompt, `temperature` and `top_p` of the draws.
"""

import json
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
from _smollm2_torch import load

PASSES = 2


def main():
    """Measure bfloat16 and float32, the fast one first."""
    given = np.load(sys.argv[2])
    prompts, tokens = torch.tensor(given["prompts"]), int(given["tokens"])
    draws = {
        "greedy": {"do_sample": False},
        "sampled": {
            "do_sample": True,
            "temperature": float(given["temperature"]),
            "top_p": float(given["top_p"]),
            "top_k": 0,
        },
    }
    loaded, _, _ = load(pathlib.Path(sys.argv[1]))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    found = {"versions": versions, "rows": []}
    for kind in (torch.bfloat16, torch.float32):
        model = loaded.to(kind)
        # No end: every row makes all of its tokens.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        model.generate(prompts[:1], max_new_tokens=2)
        for size in given["sizes"].tolist():
            for name, how in draws.items():
                best = float("inf")
                for _ in range(PASSES):
                    start = time.perf_counter()
                    made = model.generate(prompts[:size], max_new_tokens=tokens, **how)
                    best = min(best, time.perf_counter() - start)
                assert made.shape[1] == prompts.shape[1] + tokens, made.shape
                rate = size * tokens / best
                row = {"type": str(kind).removeprefix("torch."), "draw": name, "batch": size, "tokens_per_second": rate}
                found["rows"].append(row)
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
