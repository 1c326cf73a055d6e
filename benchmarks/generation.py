"""Tokens per second of decoding with SmolLM2 on the CPU: ours against transformers' generate, same prompts, in turn."""

import functools
from typing import Any

import numpy as np

from benchmarks import _turns
from lm.data import sources
from lm.generation import decode
from lm.generation.sampling import SamplingConfig
from lm.model.config import Compute
from lm.startup import before_jax
from lm.weights.load import fetch_smollm2, load

PROMPT, TOKENS = 32, 96  # tokens of a prompt; to make for each
SIZES = (1, 8, 32)
DRAWS = {"greedy": SamplingConfig(temperature=0), "sampled": SamplingConfig(temperature=0.8, top_p=0.95)}
COMPUTES: tuple[Compute, ...] = ("bfloat16", "float32")
ROUNDS = 3


def ours(weights: decode.Weights, request: decode.Request, prompts: np.ndarray, names: list[str]) -> dict[str, float]:
    """Continue the prompts once, as one batch."""
    asked, rows = prompts.tolist(), len(prompts)
    seconds, made = _turns.timed(
        lambda: decode.decode(weights, asked, names, request, 0, prompt_places=PROMPT, rows=rows)
    )
    assert all(len(one.tokens) == TOKENS for one in made)
    return {"seconds": seconds}


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    machine, vocabulary = _turns.Machine(), load("smollm2").tokenizer
    (ids,) = vocabulary.encode([next(iter(sources.load("sotu", "test"))).text])
    prompts = np.asarray(ids[: PROMPT * max(SIZES)], np.int64).reshape(-1, PROMPT)
    weights = {compute: decode.prepare(load("smollm2", compute=compute).model) for compute in COMPUTES}
    sampled, runs = DRAWS["sampled"], {}
    given = {"prompts": prompts, "tokens": TOKENS, "temperature": sampled.temperature, "top_p": sampled.top_p}
    with _turns.torch("_generation_torch.py", str(fetch_smollm2()), sizes=SIZES, **given) as peer:
        for draw, sampling in DRAWS.items():
            # No end: every row makes all of its tokens.
            request = decode.Request(sampling, TOKENS, (), vocabulary.size)
            for size in SIZES:
                names = [f"document {number}" for number in range(size)]
                ways: dict[str, _turns.Way] = {
                    f"ours, {draw}, {size}, {compute}": functools.partial(ours, one, request, prompts[:size], names)
                    for compute, one in weights.items()
                }
                begin = f"transformers, {draw}, {size}, "
                ways |= {name: way for name, way in peer["ways"].items() if name.startswith(begin)}
                runs |= _turns.in_turn(ways, ROUNDS)
    return {"runs": runs, "machine": machine.described("jax", "jaxlib", "flax", **peer["versions"])}


def table(data: dict[str, Any]) -> str:
    """The numbers as a text in Markdown."""
    lines = [
        "# Decoding with SmolLM2-135M",
        "",
        f"Tokens per second while {TOKENS} tokens are made after each of a batch of prompts of {PROMPT} tokens "
        f"(presidential speeches), prompts included; both sides in turn, {ROUNDS} rounds, medians. "
        f"{_turns.sentence(data['machine'])} Command: `python -m benchmarks generation`.",
        "",
        "| draw | batch | ours, bfloat16 | ours, float32 | transformers, bfloat16 | transformers, float32 | best "
        "against best |",
        "|---|---|---|---|---|---|---|",
    ]
    runs, ratios = data["runs"], []
    for draw in DRAWS:
        for size in SIZES:
            cells = []
            for side in ("ours", "transformers"):
                for compute in COMPUTES:
                    those = runs.get(f"{side}, {draw}, {size}, {compute}")
                    rate = size * TOKENS / np.median(_turns.seconds(those)) if those else None
                    cells.append("not measured" if rate is None else f"{rate:.1f}")
            best, peer = (_turns.best(runs, f"{side}, {draw}, {size}, ") for side in ("ours", "transformers"))
            words = ""
            if best and peer:
                ratio, words = _turns.times_faster(runs[best], runs[peer])
                ratios.append(ratio)
            lines.append(f"| {draw} | {size} | {' | '.join(cells)} | {words} |")
    conclusion = (
        f"ours is {min(ratios):.2f} to {max(ratios):.2f} times as fast as transformers in its better type"
        if ratios
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
    """Measure, print the table and write results/bench/generation.json and its summary."""
    before_jax()
    data = measure()
    _turns.save("generation", data, table(data))


if __name__ == "__main__":
    main()
