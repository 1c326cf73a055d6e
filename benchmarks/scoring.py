"""Tokens per second of scoring SmolLM2 on the CPU: ours against transformers with torch, same texts, same run."""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _peers
from lm.data import sources
from lm.data.corpus import Corpus
from lm.data.passages import cut
from lm.data.tokenising import from_documents
from lm.evaluation.scoring import Scorer, log_probabilities, positions, prepare
from lm.evaluation.windows import blocks
from lm.memory import keep_freed_memory
from lm.model.config import Compute
from lm.model.decoder import PADDING
from lm.weights.load import load
from paper.results import processor

TOKENS, CHARACTERS = 10_000, 1000  # to score; of a document at most
LIMIT = 120  # seconds for torch; what it has by then counts
COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")
FOLDER = Path("results/bench")
SUMMARY = Path(__file__).with_suffix(".md")


def gflops(compute: Compute) -> float:
    """Best of five matrix products of order 2048 with float32 sums."""
    a = jnp.ones((2048, 2048), compute)
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    product(a).block_until_ready()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def flops(scorer: Scorer, corpus: Corpus) -> float:
    """Multiplications and additions that a token needs in matrix products, causal attention counted once."""
    c = scorer.config
    matrices = 2 * c.width * (c.query_width + c.key_width) + (3 if c.gated else 2) * c.width * c.hidden
    seen = float((corpus.lengths * (corpus.lengths + 1) / 2).sum() / len(corpus.tokens))
    return 2 * (c.layers * matrices + c.vocabulary * c.width) + 4 * c.layers * c.query_width * seen


def ours(scorer: Scorer, corpus: Corpus, end: int) -> dict[str, float]:
    """Best of two warm passes, and the first one with compilation."""
    start = time.perf_counter()
    scores = log_probabilities(scorer, corpus, end)
    cold, best = time.perf_counter() - start, np.inf
    for _ in range(2):
        start = time.perf_counter()
        scores = log_probabilities(scorer, corpus, end)
        best = min(best, time.perf_counter() - start)
    rate = len(scores) / best
    return {
        "tokens_per_second": rate,
        "cold_seconds": cold,
        "nats": -float(scores.mean(dtype=np.float64)),
        "gflops": rate * flops(scorer, corpus) / 1e9,
    }


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    pretrained = load("smollm2")
    documents, size = [], 0
    for one in cut(sources.load("sotu", "test"), CHARACTERS):
        documents.append(one)
        size += len(one.text)
        if size > 4.5 * TOKENS:
            break
    corpus, end = from_documents(documents, pretrained.tokenizer), pretrained.tokenizer.end
    data: dict[str, Any] = {"tokens": len(corpus.tokens), "documents": len(corpus), "ours": {}}
    for compute in COMPUTES:
        scorer = prepare(pretrained.model, compute)
        data["ours"][compute] = {**ours(scorer, corpus, end), "matmul_gflops": gflops(compute)}
        print(f"{compute}: {data['ours'][compute]['tokens_per_second']:.0f} tokens/s", flush=True)
    packed = list(blocks(corpus, end, pretrained.model.config.context, positions()))
    held = sum(int((block.segments != PADDING).sum()) for block in packed)
    data["filled"] = held / sum(block.inputs.size for block in packed)
    data["torch"] = _peers.measure("_scoring_torch.py", LIMIT, tokens=corpus.tokens, starts=corpus.starts, end=end)
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
        "# Scoring SmolLM2-135M",
        "",
        f"Log-probabilities of {data['tokens']:,} tokens in {data['documents']} passages of presidential speeches of "
        f"at most {CHARACTERS:,} characters, each alone. {machine['processor']}, {machine['cores']} cores, load "
        f"{machine['load']:.1f} at the end; {versions}. Command: `python -m benchmarks scoring`.",
        "",
        "| what | tokens/s | share of the matrix products' rate | first pass, s | nats/token |",
        "|---|---|---|---|---|",
    ]
    for compute, row in data["ours"].items():
        lines.append(
            f"| ours, {compute} | {row['tokens_per_second']:.0f} | {100 * row['gflops'] / row['matmul_gflops']:.0f} % "
            f"of {row['matmul_gflops']:.0f} GFLOP/s | {row['cold_seconds']:.1f} | {row['nats']:.5f} |"
        )
    for name, row in data["torch"].items():
        lines.append(
            f"| transformers, {name} | {row['tokens_per_second']:.0f} | | {row['warm_seconds']:.1f} "
            f"| {row['nats']:.5f} |"
        )
    lines += ["", f"Packed rows are filled to {100 * data['filled']:.0f} %.", ""]
    best = max((row["tokens_per_second"] for row in data["ours"].values()), default=0.0)
    if data["torch"]:
        peer = max(row["tokens_per_second"] for row in data["torch"].values())
        ratio = best / peer
        verdict = "met" if ratio >= 1.2 else "missed"
        lines.append(f"Conclusion: {ratio:.2f} times transformers in its best form (aim 1.2: {verdict}).")
    else:
        lines.append("Conclusion: no interpreter with torch and transformers here, so nothing to compare with.")
    exact, near = (data["ours"][compute]["nats"] for compute in COMPUTES)
    lines[-1] += f" bfloat16 products change the perplexity by {100 * (np.exp(near - exact) - 1):+.2f} %."
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print the table and write results/bench/scoring.json and the summary beside this file."""
    keep_freed_memory()
    data = measure()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "scoring.json").write_text(json.dumps(data, indent=1))
    text = table(data)
    SUMMARY.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
