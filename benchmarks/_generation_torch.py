"""Decoding with SmolLM2 on transformers' generate, served to benchmarks.generation by an interpreter that has torch.

`python _generation_torch.py GGUF IDS.npz`: IDS.npz holds `prompts` of one length, `sizes` of batches, `tokens` to make
for each prompt, `temperature` and `top_p` of the draws. A run gives seconds, prompts included.
"""

import copy
import functools
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
from _serve import serve
from _smollm2_torch import load


def run(model, prompts, tokens, how):
    """Continue the prompts once."""
    start = time.perf_counter()
    made = model.generate(prompts, max_new_tokens=tokens, **how)
    assert made.shape[1] == prompts.shape[1] + tokens, made.shape
    return {"seconds": time.perf_counter() - start}


def main():
    """Offer each way of drawing, batch size and type of the numbers."""
    given = np.load(sys.argv[2])
    prompts, tokens = torch.tensor(given["prompts"]), int(given["tokens"])
    temperature, top_p = float(given["temperature"]), float(given["top_p"])
    draws = {
        "greedy": {"do_sample": False},
        "sampled": {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0},
    }
    loaded, _, _ = load(pathlib.Path(sys.argv[1]))
    # No end: every row makes all of its tokens.
    loaded.generation_config.eos_token_id = None
    loaded.generation_config.pad_token_id = 0
    models = {"bfloat16": copy.deepcopy(loaded).to(torch.bfloat16), "float32": loaded}
    ways = {
        f"transformers, {draw}, {size}, {name}": functools.partial(run, model, prompts[:size], tokens, how)
        for draw, how in draws.items()
        for size in given["sizes"].tolist()
        for name, model in models.items()
    }
    serve(ways, {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}})


if __name__ == "__main__":
    main()
