"""One GPU: training GPT-2 124M, and editing, scoring and generating with SmolLM2 and larger models, against torch.

`python -m benchmarks gpu` does all parts, `python -m benchmarks.gpu PART...` some. Both sides are measured in turn on
the same card, bfloat16 products on both. It needs a GPU, and gives one sentence without.
"""

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _turns
from benchmarks.editing import needed

ROUNDS = 3
TRAINING = {"context": 1024, "steps": 12, "batches": (32, 64)}  # sequence of GPT-2; updates of a run; rows of a batch
DOMAINS, TOKENS = ("sotu", "novels", "legal"), 3_000_000  # of text for SmolLM2, about
CONTEXT = 2048  # longest window of SmolLM2 here: every piece whole, as on the other side
GENERATION = {"prompt": 32, "tokens": 128, "rows": (128, 512), "temperature": 0.8, "top_p": 0.95}
DATASHEET = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12}  # FLOP/s of dense bfloat16 products
# Llama 3.2 1B and Llama 3 8B (Grattafiori et al. 2024), as transformers names their sizes.
LARGE: dict[str, dict[str, Any]] = {
    "1B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
LARGE_TOKENS = {"1B": 512, "8B": 128}  # documents of 1,024 random tokens


def pieces() -> Iterator[str]:
    """Yield consecutive pieces of documents: half of 1,024 tokens, the others of 64 to 1,024 on a logarithmic scale."""
    from lm.data import sources

    rng, done = np.random.default_rng(0), 0
    files = [iter(sources.load(domain, "train")) for domain in DOMAINS]
    while done < 4.2 * TOKENS:  # characters a token, about
        for file in files:
            document, at = next(file, None), 0
            text = "" if document is None else document.text
            while at < len(text):
                size = 4 * (1024 if rng.random() < 0.5 else int(np.exp(rng.uniform(np.log(64), np.log(1024)))))
                yield text[at : at + size]
                at += size
                done += size


def product_rate() -> dict[str, float]:
    """Return the rate of matrix products of random bfloat16 numbers, GFLOP/s."""
    from lm.train.metrics import measure_peak

    seconds, peak = _turns.timed(lambda: measure_peak("bfloat16"))
    return {"seconds": seconds, "gflops": peak / 1e9}


def trained(batch: int, *, across: bool) -> _turns.Way:
    """Return what trains GPT-2 124M on random tokens: first with compilation, then some updates a call."""
    import jax

    from lm.model.presets import preset
    from lm.model.sharding import make_mesh
    from lm.train import step
    from lm.train.config import TrainConfig

    model = preset("gpt2-124m", compute="bfloat16")
    config, mesh = TrainConfig(100_000, batch=batch, learning_rate=6e-4, across=across), make_mesh()
    update, made = step.updater(model, config, mesh), []

    def run() -> dict[str, Any]:
        first = not made
        if first:
            shape = (1, batch, model.context + 1)
            token = np.random.default_rng(0).integers(model.vocabulary, size=shape).astype(np.int32)
            arrays = token[..., :-1], token[..., 1:], np.zeros_like(token[..., 1:])
            rows = step.Batch(*(jax.device_put(array, step.batch_sharding(mesh)) for array in arrays))
            stop = jax.device_put(np.zeros(1, np.int32), step.stop_sharding(mesh))
            made[:] = [step.start(model, config, mesh), rows, stop]

        def steps() -> Any:
            measures: Any = None
            for _ in range(TRAINING["steps"]):
                made[0], measures = update(*made)
            return jax.block_until_ready(measures)

        seconds, measures = _turns.timed(steps)
        return {"seconds": seconds / (1 if first else TRAINING["steps"]), "loss": float(measures.loss)}

    return run


def training() -> dict[str, Any]:
    """Measure training."""
    from lm.model.presets import preset
    from lm.train.metrics import flops_per_token

    runs, versions = {}, {}
    for batch in TRAINING["batches"]:
        ways = {
            f"ours, documents apart, {batch} rows": trained(batch, across=False),
            f"ours, {batch} rows": trained(batch, across=True),
        }
        with _turns.torch("_gpu_torch.py", "training", json.dumps(TRAINING | {"batches": [batch]})) as peer:
            runs |= _turns.in_turn(ways | peer["ways"] | {f"products, {batch} rows": product_rate}, ROUNDS)
            versions |= peer["versions"]
    tokens = {
        name: int(name.rsplit(", ", 1)[-1].removesuffix(" rows")) * TRAINING["context"]
        for name in runs
        if not name.startswith("products")
    }
    work = {name: flops_per_token(preset("gpt2-124m")) * count for name, count in tokens.items()}
    return {"runs": runs, "tokens": tokens, "work": work, "versions": versions}


def edited(prior: Any, documents: list[Any]) -> dict[str, Any]:
    """Decide on the documents once."""
    from lm.editing.config import EditConfig
    from lm.editing.prior import decisions

    seconds, found = _turns.timed(lambda: decisions(prior, documents, EditConfig()))
    number, rows = sum(len(one.tokens) for one in documents), sum(int(np.isfinite(x.probability).sum()) for x in found)
    return {
        "seconds": seconds,
        "flops": needed(prior.scorer.config, documents, rows, number),
        "head_rows": rows / number,
        "selected": sum(int(one.selected.sum()) for one in found),
        "changed": sum(int(one.changed(d.tokens).sum()) for one, d in zip(found, documents, strict=True)),
    }


def _settings(end: int) -> list[Any]:
    from lm.editing.config import EditConfig

    config = EditConfig()
    return [end, config.threshold, config.top_k, config.temperature]


def _arrays(documents: list[Any]) -> dict[str, np.ndarray]:
    lengths = [len(one.tokens) for one in documents]
    return {"tokens": np.concatenate([one.tokens for one in documents]), "starts": np.cumsum([0, *lengths])}


def smollm2() -> dict[str, Any]:
    """Measure editing, scoring and generating with SmolLM2."""
    from lm.data.sources import Document
    from lm.data.tokenising import from_documents
    from lm.editing.documents import DocumentEncoder
    from lm.editing.prior import prepare_prior
    from lm.evaluation.scoring import log_probabilities, prepare
    from lm.generation import decode
    from lm.generation.sampling import SamplingConfig
    from lm.weights.load import fetch_smollm2, load

    pretrained = load("smollm2", compute="bfloat16")
    texts, tokenizer = list(pieces()), pretrained.tokenizer
    documents = DocumentEncoder(tokenizer)([text.encode() for text in texts], [str(n) for n in range(len(texts))])
    corpus = from_documents([Document(str(n), "", "", "train", text) for n, text in enumerate(texts)], tokenizer)
    prior, scorer, weights = (
        prepare_prior(pretrained, context=CONTEXT),
        prepare(pretrained.model),
        decode.prepare(pretrained.model),
    )
    sampling = SamplingConfig(temperature=GENERATION["temperature"], top_p=GENERATION["top_p"])
    request = decode.Request(sampling, GENERATION["tokens"], (), tokenizer.size)
    prompts = np.concatenate([one.tokens for one in documents])[: GENERATION["prompt"] * max(GENERATION["rows"])]
    asked = prompts.reshape(-1, GENERATION["prompt"]).tolist()
    tokens = {"editing": len(corpus.tokens), "scoring": len(corpus.tokens)}

    def score() -> dict[str, Any]:
        seconds, found = _turns.timed(lambda: log_probabilities(scorer, corpus, tokenizer.end, context=CONTEXT))
        return {"seconds": seconds, "nats": -float(found.mean(dtype=np.float64))}

    def generate(rows: int) -> dict[str, Any]:
        names = [str(number) for number in range(rows)]
        given = {"prompt_places": GENERATION["prompt"], "rows": rows}
        seconds, made = _turns.timed(lambda: decode.decode(weights, asked[:rows], names, request, 0, **given))
        assert all(len(one.tokens) == GENERATION["tokens"] for one in made)
        return {"seconds": seconds}

    ways: dict[str, _turns.Way] = {
        "ours, editing": functools.partial(edited, prior, documents),
        "ours, scoring": score,
        "products": product_rate,
    }
    for rows in GENERATION["rows"]:
        ways[f"ours, generation, {rows}"] = functools.partial(generate, rows)
        tokens[f"generation, {rows}"] = rows * GENERATION["tokens"]
    sizes = GENERATION | {"settings": _settings(tokenizer.end)}
    arguments = "smollm2", json.dumps(sizes), str(fetch_smollm2())
    with _turns.torch("_gpu_torch.py", *arguments, **_arrays(documents)) as peer:
        runs = _turns.in_turn(ways | peer["ways"], ROUNDS)
    every = len(corpus.tokens)
    work = {
        "ours, scoring": needed(scorer.config, documents, every, 0),
        "ours, editing": runs["ours, editing"][-1]["flops"],
    }
    work |= {f"transformers, {what}": needed(scorer.config, documents, every, 0) for what in ("editing", "scoring")}
    return {"runs": runs, "tokens": tokens, "work": work, "documents": len(documents), "versions": peer["versions"]}


def large(size: str) -> dict[str, Any]:
    """Measure editing with a Llama of random weights, on random tokens."""
    from lm.editing.documents import TokenizedDocument
    from lm.editing.prior import prepare_prior
    from lm.model.config import ModelConfig
    from lm.model.decoder import make
    from lm.weights.load import Pretrained, load

    s = LARGE[size]
    config = ModelConfig(
        vocabulary=s["vocab_size"], context=s["max_position_embeddings"], width=s["hidden_size"],
        layers=s["num_hidden_layers"], heads=s["num_attention_heads"], kv_heads=s["num_key_value_heads"],
        head_size=s["head_dim"], hidden=s["intermediate_size"], rope_base=500_000.0, tied=s["tie_word_embeddings"],
        compute="bfloat16",
    )  # fmt: skip
    tokenizer, rng = load("tiny").tokenizer, np.random.default_rng(0)
    documents = [
        TokenizedDocument(
            str(n), rng.integers(config.vocabulary, size=1024), np.zeros((1024, 2)), np.ones(1024, bool), b""
        )
        for n in range(LARGE_TOKENS[size])
    ]
    prior = prepare_prior(Pretrained(make(config, 0), tokenizer, size, "0" * 64, False))
    gc.collect()  # the float32 weights
    ways = {"ours, editing": functools.partial(edited, prior, documents), "products": product_rate}
    arguments = "large", json.dumps(s | {"settings": _settings(tokenizer.end)})
    with _turns.torch("_gpu_torch.py", *arguments, **_arrays(documents)) as peer:
        runs = _turns.in_turn(ways | peer["ways"], ROUNDS)
    number = len(documents) * 1024
    work = {
        "ours, editing": runs["ours, editing"][-1]["flops"],
        "transformers, editing": needed(config, documents, number, 0),
    }
    return {"runs": runs, "tokens": {"editing": number}, "work": work, "versions": peer["versions"]}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "training": training,
    "smollm2": smollm2,
    **{size: functools.partial(large, size) for size in LARGE},
}
TITLES = {
    "training": "Training GPT-2 124M: rows of 1,024 random tokens, AdamW with clipping",
    "smollm2": "SmolLM2-135M: editing (P >= 0.99, the 8 likeliest), scoring, and 128 tokens made after prompts of 32",
    "1B": "Editing with a Llama 3.2 1B of random weights: documents of 1,024 random tokens",
    "8B": "Editing with a Llama 3 8B of random weights: documents of 1,024 random tokens",
}


def table(data: Mapping[str, Any]) -> str:
    """Return all parts as a text in Markdown."""
    device, peak = data["device"], DATASHEET.get(data["device"])
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    lines = [
        f"# {device}",
        "",
        f"{ROUNDS} rounds, both sides in turn, medians; bfloat16 products, float32 sums and logits on our side, "
        f"transformers with autocast (training) or in bfloat16. {versions}. Command: `python -m benchmarks gpu`.",
        "",
        "MFU counts the operations of the matrix products that the work needs, as a share of the rate of products of "
        "order 8192 of random numbers measured in the same rounds, and of the datasheet's "
        f"{'unknown rate' if peak is None else f'{peak / 1e12:.0f} TFLOP/s'}. In training attention counts whole "
        "(Chowdhery et al. 2022), elsewhere only what is causal.",
    ]
    for part, found in data["parts"].items():
        lines += ["", f"## {TITLES[part]}", "", *_rows(part, found, peak)]
    return "\n".join([*lines, ""])


def _rows(part: str, found: Mapping[str, Any], peak: float | None) -> list[str]:
    runs = found["runs"]
    lines = [
        "| what | tokens/s | MFU, of products measured | MFU, of the datasheet | first run, s |",
        "|---|---|---|---|---|",
    ]
    for name, those in runs.items():
        if name.startswith("products"):
            continue
        seconds = np.median(_turns.seconds(those))
        what = name if part == "training" else name.split(", ", 1)[1]
        shares = ["", ""]
        if name in found["work"]:
            rates = runs.get(f"products, {name.rsplit(', ', 1)[-1]}") or runs["products"]
            shares[0] = f"{100 * _turns.share(those, found['work'][name], rates)[0]:.0f} %"
            shares[1] = "" if peak is None else f"{100 * found['work'][name] / seconds / peak:.0f} %"
        lines.append(
            f"| {name} | {found['tokens'][what] / seconds:,.0f} | {' | '.join(shares)} | {those[0]['seconds']:.1f} |"
        )
    return [*lines, "", *_conclusions(part, found)]


def _conclusions(part: str, found: Mapping[str, Any]) -> list[str]:
    runs, lines = found["runs"], []
    rate = np.median(
        [run["gflops"] for name, those in runs.items() if name.startswith("products") for run in those[1:]]
    )
    lines.append(f"Products measured: {rate / 1e3:.0f} TFLOP/s.")
    if part == "training":
        speed = {name: found["tokens"][name] / np.median(_turns.seconds(runs[name])) for name in found["tokens"]}
        theirs = max(value for name, value in speed.items() if name.startswith("transformers"))
        for apart, words in ((True, "documents of a row kept apart"), (False, "rows of one piece, as theirs")):
            ours = [name for name in speed if name.startswith("ours") and ("apart" in name) == apart]
            best = max(speed[name] for name in ours)
            lines.append(f"Best against best, {words}: {best / theirs:.2f} times transformers (aim 1.1).")
        return lines
    for what in found["tokens"]:
        if f"transformers, {what}" in runs:
            _, words = _turns.times_faster(runs[f"ours, {what}"], runs[f"transformers, {what}"])
            lines.append(f"{what.capitalize()}: {words} as fast as transformers.")
    selected = [runs[f"{side}, editing"][-1] for side in ("ours", "transformers") if f"{side}, editing" in runs]
    if selected:
        lines.append("Selected tokens: " + " and ".join(f"{one['selected']:,}" for one in selected) + ".")
    return lines


def main() -> None:
    """Measure the parts named on the command line of this module, or all."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch has its share of the card
    import jax

    if jax.default_backend() != "gpu":
        print("benchmarks: no GPU that JAX can use, so there is nothing to measure")
        return
    path = Path("results/bench/gpu.json")
    named = [part for part in sys.argv[1:] if part in PARTS]
    data: dict[str, Any] = {"parts": {}}
    if named and path.exists():
        data = json.loads(path.read_text())
    for part in named or PARTS:
        found = PARTS[part]()
        gc.collect()
        data["device"] = jax.devices()[0].device_kind
        data["versions"] = _turns.Machine().described("jax", "jaxlib", "flax", **found["versions"])["versions"]
        data["parts"][part] = found
        _turns.save("gpu", data, table(data), data["device"])


if __name__ == "__main__":
    main()
