"""Tokens per second of scoring SmolLM2 on the CPU: ours against transformers with torch, same texts, in turn."""

import functools
from typing import Any

import numpy as np

from benchmarks import _turns
from lm.data import sources
from lm.data.corpus import Corpus
from lm.data.passages import cut
from lm.data.tokenising import from_documents
from lm.evaluation.scoring import Scorer, log_probabilities, positions, prepare
from lm.evaluation.windows import blocks
from lm.model.config import Compute
from lm.model.packed import PADDING
from lm.startup import before_jax
from lm.weights.load import fetch_smollm2, load

TOKENS, CHARACTERS = 5000, 1000  # to score; of a document at most
ROUNDS = 5
COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")


def flops(scorer: Scorer, corpus: Corpus) -> float:
    """Multiplications and additions that a token needs in matrix products, causal attention counted once."""
    c = scorer.config
    matrices = 2 * c.width * (c.query_width + c.key_width) + (3 if c.gated else 2) * c.width * c.hidden
    seen = float((corpus.lengths * (corpus.lengths + 1) / 2).sum() / len(corpus.tokens))
    return 2 * (c.layers * matrices + c.vocabulary * c.width) + 4 * c.layers * c.query_width * seen


def ours(scorer: Scorer, corpus: Corpus, end: int) -> dict[str, float]:
    """Score the corpus once."""
    seconds, scores = _turns.timed(lambda: log_probabilities(scorer, corpus, end))
    return {"seconds": seconds, "nats": -float(scores.mean(dtype=np.float64))}


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    machine, pretrained = _turns.Machine(), load("smollm2")
    documents, size = [], 0
    for one in cut(sources.load("sotu", "test"), CHARACTERS):
        documents.append(one)
        size += len(one.text)
        if size > 4.5 * TOKENS:
            break
    corpus, end = from_documents(documents, pretrained.tokenizer), pretrained.tokenizer.end
    scorers = {compute: prepare(pretrained.model, compute) for compute in COMPUTES}
    packed = list(blocks(corpus, end, pretrained.model.config.context, positions(pretrained.model.config)))
    held = sum(int((block.segments != PADDING).sum()) for block in packed)
    texts = {"tokens": corpus.tokens, "starts": corpus.starts, "end": end}
    with _turns.torch("_scoring_torch.py", str(fetch_smollm2()), **texts) as peer:
        ways = {f"ours, {name}": functools.partial(ours, one, corpus, end) for name, one in scorers.items()}
        rates = {f"products, {name}": functools.partial(_turns.product_rate, name) for name in COMPUTES}
        runs = _turns.in_turn(ways | rates | peer["ways"], ROUNDS)
    return {
        "tokens": len(corpus.tokens),
        "documents": len(corpus),
        "filled": held / sum(block.inputs.size for block in packed),
        "flops": flops(scorers["float32"], corpus) * len(corpus.tokens),
        "runs": runs,
        "machine": machine.described("jax", "jaxlib", "flax", **peer["versions"]),
    }


def table(data: dict[str, Any]) -> str:
    """The numbers as a text in Markdown."""
    runs = data["runs"]
    lines = [
        "# Scoring SmolLM2-135M",
        "",
        f"Log-probabilities of {data['tokens']:,} tokens in {data['documents']} passages of presidential speeches of "
        f"at most {CHARACTERS:,} characters, each alone; all ways in turn, {ROUNDS} rounds, medians. "
        f"{_turns.sentence(data['machine'])} Command: `python -m benchmarks scoring`.",
        "",
        "| what | tokens/s | share of the matrix products' rate | first pass, s | nats/token |",
        "|---|---|---|---|---|",
    ]
    for name, those in runs.items():
        if name.startswith("products"):
            continue
        _, share = _turns.share(those, data["flops"], runs[f"products, {name.rsplit(' ', maxsplit=1)[-1]}"])
        lines.append(
            f"| {name} | {data['tokens'] / np.median(_turns.seconds(those)):.0f} | {share} "
            f"| {those[0]['seconds']:.1f} | {those[-1]['nats']:.5f} |"
        )
    lines += ["", f"Packed rows are filled to {100 * data['filled']:.0f} %.", ""]
    ours_, peer = _turns.best(runs, "ours"), _turns.best(runs, "transformers")
    if ours_ and peer:
        ratio, words = _turns.times_faster(runs[ours_], runs[peer])
        verdict = "met" if ratio >= 1.2 else "missed"
        lines.append(f"Conclusion: {words} as fast as transformers in its best type (aim 1.2: {verdict}).")
    else:
        lines.append("Conclusion: no interpreter with torch and transformers here, so nothing to compare with.")
    exact, near = (runs[f"ours, {compute}"][-1]["nats"] for compute in COMPUTES)
    lines[-1] += f" bfloat16 products change the perplexity by {100 * (np.exp(near - exact) - 1):+.2f} %."
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print the table and write results/bench/scoring.json and its summary."""
    before_jax()
    data = measure()
    _turns.save("scoring", data, table(data))


if __name__ == "__main__":
    main()
