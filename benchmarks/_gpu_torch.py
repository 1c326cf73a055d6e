"""Transformers with torch on a GPU, served to benchmarks.gpu.

`python _gpu_torch.py PART SIZES [GGUF] [IDS.npz]`: PART is training, smollm2 or large; SIZES is JSON. A run gives its
seconds; the first one compiles or warms up.
"""

import functools
import json
import pathlib
import sys
import time

import _editing_torch
import numpy as np
import torch
import transformers
from _serve import serve
from _smollm2_torch import load

_editing_torch.POSITIONS, _editing_torch.ROWS = 65_536, 8_192  # of 16,384 and 65,536 the faster on an H200


def timed(call):
    """Return the seconds of a call, once the GPU has done it, and what it returns."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    made = call()
    torch.cuda.synchronize()
    return time.perf_counter() - start, made


def training(sizes, batch, steps):
    """Return what trains GPT-2 on random tokens, in bfloat16 by autocast, compiled, with fused AdamW."""
    prepared = []

    def prepare():
        torch.manual_seed(0)
        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = transformers.GPT2Config(n_positions=sizes["context"], use_cache=False, **none)
        model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="sdpa").cuda().train()
        compiled = torch.compile(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        token = torch.randint(config.vocab_size, (batch, sizes["context"]), device="cuda")

        def step():
            with torch.autocast("cuda", torch.bfloat16):
                loss = compiled(input_ids=token, labels=token).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss

        return step

    def run():
        if not prepared:
            prepared.append(prepare())
            return {"seconds": timed(lambda: [prepared[0]() for _ in range(3)])[0]}
        seconds, losses = timed(lambda: [prepared[0]() for _ in range(steps)])
        return {"seconds": seconds / steps, "loss": losses[-1].item()}

    return run


def editing(model, documents, settings):
    """Edit all documents once."""
    seconds, (edited, selected) = timed(lambda: _editing_torch.edit(model, documents, *settings))
    changed = sum(int((a != b).sum()) for a, b in zip(edited, documents, strict=True))
    return {"seconds": seconds, "selected": selected, "changed": changed}


def scoring(model, documents, end):
    """Sum the log-probabilities of all tokens."""

    def score():
        total = torch.zeros((), dtype=torch.float64)
        with torch.inference_mode():
            for chosen in _editing_torch.batches(documents):
                inputs, targets = _editing_torch.padded([documents[number] for number in chosen], end)
                there = targets >= 0
                states, target = model.model(inputs, use_cache=False).last_hidden_state[there], targets[there]
                for begin in range(0, len(target), _editing_torch.ROWS):
                    rows = slice(begin, begin + _editing_torch.ROWS)
                    logits = model.lm_head(states[rows]).float()
                    total += torch.nn.functional.cross_entropy(logits, target[rows], reduction="sum").double()
        return total

    seconds, total = timed(score)
    return {"seconds": seconds, "nats": total.item() / sum(len(one) for one in documents)}


def generation(model, prompts, tokens, how):
    """Continue the prompts once."""
    seconds, made = timed(lambda: model.generate(prompts, max_new_tokens=tokens, **how))
    assert made.shape[1] == prompts.shape[1] + tokens, made.shape
    return {"seconds": seconds}


def documents_of(given):
    """Return the documents of IDS.npz on the GPU."""
    parts = np.split(given["tokens"].astype(np.int64), given["starts"][1:-1])
    return [torch.tensor(part) for part in parts]


def smollm2(sizes, path, given):
    """Return the ways with SmolLM2 in bfloat16."""
    loaded, _, _ = load(pathlib.Path(path))
    model = loaded.to(torch.bfloat16).cuda()
    # No end: every row makes all of its tokens.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    torch.set_default_device("cuda")
    documents, settings = documents_of(given), sizes["settings"]
    prompts = torch.cat(documents)[: sizes["prompt"] * max(sizes["rows"])].reshape(-1, sizes["prompt"])
    sampled = {"do_sample": True, "temperature": sizes["temperature"], "top_p": sizes["top_p"], "top_k": 0}
    return {
        "transformers, editing": functools.partial(editing, model, documents, settings),
        "transformers, scoring": functools.partial(scoring, model, documents, settings[0]),
    } | {
        f"transformers, generation, {rows}": functools.partial(
            generation, model, prompts[:rows], sizes["tokens"], sampled
        )
        for rows in sizes["rows"]
    }


def large(sizes, given):
    """Return the way that edits with a random Llama in bfloat16."""
    fields = {name: value for name, value in sizes.items() if name != "settings"}
    torch.set_default_device("cuda")
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields)).eval()
    torch.set_default_dtype(torch.float32)
    return {"transformers, editing": functools.partial(editing, model, documents_of(given), sizes["settings"])}


def main():
    """Offer the ways of a part."""
    part, sizes = sys.argv[1], json.loads(sys.argv[2])
    torch.backends.cuda.matmul.allow_tf32 = True
    if part == "training":
        ways = {
            f"transformers, compiled, {batch} rows": training(sizes, batch, sizes["steps"])
            for batch in sizes["batches"]
        }
    elif part == "smollm2":
        ways = smollm2(sizes, sys.argv[3], np.load(sys.argv[4]))
    else:
        ways = large(sizes, np.load(sys.argv[3]))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    serve(ways, {"versions": versions, "device": torch.cuda.get_device_name()})


if __name__ == "__main__":
    main()
