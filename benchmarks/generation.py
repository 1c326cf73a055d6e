"""Tokens per second of decoding with SmolLM2 on the CPU: ours against transformers' generate, same prompts."""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _peers
from lm.data import sources
from lm.generation import decode
from lm.generation.sampling import SamplingConfig
from lm.memory import keep_freed_memory
from lm.model.config import Compute
from lm.weights.load import load
from paper.results import processor

PROMPT, TOKENS = 32, 96  # tokens of a prompt; to make for each
SIZES = (1, 8, 32)
DRAWS = {"greedy": SamplingConfig(temperature=0), "sampled": SamplingConfig(temperature=0.8, top_p=0.95)}
COMPUTES: tuple[Compute, ...] = ("bfloat16", "float32")
PASSES = 2
LIMIT = 110  # seconds for torch; what it has by then counts
FOLDER = Path("results/bench")
SUMMARY = Path(__file__).with_suffix(".md")


def ours(prompts: np.ndarray, compute: Compute) -> list[dict[str, Any]]:
    """The better of two warm passes for each batch size and way of drawing, prompts included."""
    pretrained = load("smollm2", compute=compute)
    weights = decode.prepare(pretrained.model)
    found = []
    for size in SIZES:
        names = [f"document {number}" for number in range(size)]
        for name, sampling in DRAWS.items():
            # No end: every row makes all of its tokens.
            request = decode.Request(sampling, TOKENS, (), pretrained.tokenizer.size)
            asked, best = prompts[:size].tolist(), np.inf
            for number in range(1 + PASSES):
                start = time.perf_counter()
                made = decode.decode(weights, asked, names, request, 0, prompt_places=PROMPT, rows=size)
                best = min(best, time.perf_counter() - start) if number else np.inf
                assert all(len(one.tokens) == TOKENS for one in made)
            row = {"type": compute, "draw": name, "batch": size, "tokens_per_second": size * TOKENS / best}
            found.append(row)
            print(row, flush=True)
    return found


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    tokenizer = load("smollm2").tokenizer
    (ids,) = tokenizer.encode([next(iter(sources.load("sotu", "test"))).text])
    prompts = np.asarray(ids[: PROMPT * max(SIZES)], np.int64).reshape(-1, PROMPT)
    data: dict[str, Any] = {"ours": [row for compute in COMPUTES for row in ours(prompts, compute)]}
    sampled = DRAWS["sampled"]
    data["torch"] = _peers.measure(
        "_generation_torch.py",
        LIMIT,
        prompts=prompts,
        sizes=SIZES,
        tokens=TOKENS,
        temperature=sampled.temperature,
        top_p=sampled.top_p,
    )
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    data["machine"] = {
        "processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "python": platform.python_version(), **versions, **data["torch"].pop("versions", {}),
    }  # fmt: skip
    return data


def table(data: dict[str, Any]) -> str:
    """The numbers as a text in Markdown."""
    machine = data["machine"]
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("python", "jax", "flax", "torch", "transformers") if name in machine
    )
    lines = [
        "# Decoding with SmolLM2-135M",
        "",
        f"Tokens per second while {TOKENS} tokens are made after each of a batch of prompts of {PROMPT} tokens "
        f"(presidential speeches), prompts included. {machine['processor']}, {machine['cores']} cores, load "
        f"{machine['load']:.1f} at the end; {versions}. Command: `python -m benchmarks generation`.",
        "",
        "| draw | batch | ours, bfloat16 | ours, float32 | transformers, bfloat16 | transformers, float32 | ratio of "
        "the best |",
        "|---|---|---|---|---|---|---|",
    ]
    ratios = []
    for draw in DRAWS:
        for size in SIZES:
            cells, best = [], []
            for rows in (data["ours"], data["torch"].get("rows", [])):
                rates = {
                    row["type"]: row["tokens_per_second"]
                    for row in rows
                    if row["draw"] == draw and row["batch"] == size
                }
                cells += [f"{rates[kind]:.1f}" if kind in rates else "not measured" for kind in COMPUTES]
                best.append(max(rates.values(), default=float("nan")))
            ratios.append(best[0] / best[1])
            lines.append(f"| {draw} | {size} | {' | '.join(cells)} | {ratios[-1]:.2f} |")
    known = [ratio for ratio in ratios if np.isfinite(ratio)]
    conclusion = (
        f"ours is {min(known):.2f} to {max(known):.2f} times as fast as transformers in its better type"
        if known
        else "no interpreter with torch and transformers here, so nothing to compare with"
    )
    sampled = DRAWS["sampled"]
    lines += [
        "",
        f"Draws are at temperature {sampled.temperature} from the top {sampled.top_p} of the distribution. Ours "
        "are keyed by document and position. No text ends before its last token, so all rows are busy to the end.",
        "",
        f"Conclusion: {conclusion}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write results/bench/generation.json and the summary beside this file."""
    keep_freed_memory()
    data = measure()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "generation.json").write_text(json.dumps(data, indent=1))
    text = table(data)
    SUMMARY.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
