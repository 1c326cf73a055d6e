"""Tokens per second of training on the CPU: this package's update against the same model in PyTorch, in turn.

The model is GPT-2's in small.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import _turns
from benchmarks._serve import serve
from lm.model.config import Compute

SIZES = {"vocabulary": 2048, "context": 256, "width": 256, "layers": 4, "heads": 4, "hidden": 1024, "batch": 16}
SECONDS = 1.5  # of timed steps for each way of running in a round
ROUNDS = 18  # short ones: a machine shared with others changes its speed by half from minute to minute
COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")


def flops() -> float:
    """Operations of matrix products for a token, forwards and twice that backwards, causal attention counted once."""
    D, L = SIZES["width"], SIZES["layers"]
    matrices = L * (4 * D * D + 2 * D * SIZES["hidden"]) + SIZES["vocabulary"] * D
    return 6 * matrices + 12 * L * D * (SIZES["context"] + 1) / 2


def shapes() -> list[tuple[int, int, int]]:
    """Rows, inner size and columns of the products of a step, attention apart: forwards, and two each backwards."""
    N, D, H = SIZES["batch"] * SIZES["context"], SIZES["width"], SIZES["hidden"]
    layer = [(D, D)] * 4 + [(D, H), (H, D)]
    weights = layer * SIZES["layers"] + [(D, SIZES["vocabulary"])]
    return [shape for i, o in weights for shape in ((N, i, o), (N, o, i), (i, N, o))]


def products() -> dict[str, float]:
    """Seconds of the bfloat16 products of a step, each alone, the median of 5; sums and results are float32."""
    import jax
    import jax.numpy as jnp

    from lm.model.matmul import product

    multiply = jax.jit(product)
    seconds = {}
    for n, i, o in set(shapes()):
        x, w = jnp.ones((n, i), jnp.bfloat16), jnp.ones((i, o), jnp.bfloat16)
        jax.block_until_ready(multiply(x, w))
        times = [_turns.timed(lambda x=x, w=w: jax.block_until_ready(multiply(x, w)))[0] for _ in range(5)]
        seconds[n, i, o] = statistics.median(times)
    return {"seconds": sum(seconds[shape] for shape in shapes())}


def prepared(compute: Compute) -> Callable[[], dict[str, Any]]:
    """Return what trains on random tokens: first with compilation, then for about `SECONDS` whenever it is called."""
    import jax

    from lm.model.config import ModelConfig
    from lm.model.sharding import make_mesh
    from lm.train import step
    from lm.train.config import TrainConfig

    model = ModelConfig(
        vocabulary=SIZES["vocabulary"], context=SIZES["context"], width=SIZES["width"], layers=SIZES["layers"],
        heads=SIZES["heads"], kv_heads=SIZES["heads"], head_size=SIZES["width"] // SIZES["heads"],
        hidden=SIZES["hidden"], norm="layer", norm_bias=True, epsilon=1e-5, attention_bias="all", hidden_bias=True,
        activation="gelu-tanh", gated=False, position="learned", tied=True, compute=compute,
    )  # fmt: skip
    config, mesh = TrainConfig(steps=100_000, batch=SIZES["batch"], learning_rate=1e-3), make_mesh()
    state, update = step.start(model, config, mesh), step.updater(model, config, mesh)
    shape = (1, SIZES["batch"], SIZES["context"] + 1)
    token = np.random.default_rng(0).integers(SIZES["vocabulary"], size=shape).astype(np.int32)
    arrays = token[..., :-1], token[..., 1:], np.zeros_like(token[..., 1:])
    batch = step.Batch(*(jax.device_put(array, step.batch_sharding(mesh)) for array in arrays))
    stop = jax.device_put(np.zeros(1, np.int32), step.stop_sharding(mesh))
    compiled: Any = None

    def run() -> dict[str, Any]:
        nonlocal state, compiled
        if compiled is None:
            start = time.perf_counter()
            compiled = update.lower(state, batch, stop).compile()  # pyright: ignore[reportFunctionMemberAccess]
            for _ in range(3):
                state, _ = compiled(state, batch, stop)
            jax.block_until_ready(state)
            return {"seconds": time.perf_counter() - start}
        times, loss = [], 0.0
        while sum(times) < SECONDS or len(times) < 3:
            start = time.perf_counter()
            state, measures = jax.block_until_ready(compiled(state, batch, stop))
            loss = float(measures.loss)
            times.append(time.perf_counter() - start)
        traffic = float(compiled.cost_analysis()["bytes accessed"])
        return {"seconds": statistics.median(times), "loss": loss, "bytes": traffic}

    return run


def bandwidth() -> dict[str, float]:
    """Best of five passes that read and write 512 MiB, beyond the caches; GB/s, and the seconds of the best."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones(2**27, jnp.float32)
    passing = jax.jit(lambda x: x + 1)
    passing(a).block_until_ready()
    seconds = min(_turns.timed(lambda: passing(a).block_until_ready())[0] for _ in range(5))
    return {"seconds": seconds, "gbytes": 2 * a.nbytes / seconds / 1e9}


def serve_ours() -> None:
    """Offer our ways in a process that starts as the command `toedit train` starts."""
    from lm.startup import before_jax

    before_jax()
    ways = {f"ours, {compute}": prepared(compute) for compute in COMPUTES}
    rates = {f"products, {compute}": functools.partial(_turns.product_rate, compute) for compute in COMPUTES}
    serve(ways | rates | {"pass over memory": bandwidth, "ours, products": products}, {})


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    machine = _turns.Machine()
    command = [sys.executable, "-c", "from benchmarks import training; training.serve_ours()"]
    with (
        _turns.served(command) as own,
        _turns.torch("_training_torch.py", json.dumps(SIZES), str(SECONDS), json.dumps(shapes())) as peer,
    ):
        runs = _turns.in_turn(own["ways"] | peer["ways"], ROUNDS)
    return {
        "sizes": SIZES,
        "flops": flops() * SIZES["batch"] * SIZES["context"],
        "runs": runs,
        "machine": machine.described("jax", "jaxlib", "optax", **peer["versions"]),
    }


def table(data: dict[str, Any]) -> str:
    """The numbers as a text in Markdown."""
    runs, tokens = dict(data["runs"]), SIZES["batch"] * SIZES["context"]
    alone = {side: runs.pop(f"{side}, products", []) for side in ("ours", "torch")}
    width = np.median([run["gbytes"] for run in runs["pass over memory"][1:]])
    lines = [
        "# Training a small GPT-2",
        "",
        f"Width {SIZES['width']}, {SIZES['layers']} layers, {SIZES['heads']} heads, vocabulary {SIZES['vocabulary']}, "
        f"{SIZES['batch']} x {SIZES['context']} tokens, AdamW with clipping; all ways in turn, {ROUNDS} rounds of "
        f"{SECONDS:g} s each, medians. {_turns.sentence(data['machine'])} Command: `python -m benchmarks training`.",
        "",
        f"Matrix products are of order 2048; a pass over memory reaches {width:.0f} GB/s. Memory traffic is what XLA "
        "counts, caches included; the first steps are those with compilation.",
        "",
        "| what | tokens/s | share of the matrix products' rate | memory traffic, GB/s | first steps, s |",
        "|---|---|---|---|---|",
    ]
    for name, those in runs.items():
        if not name.startswith(("ours", "torch")):
            continue
        median, last = np.median(_turns.seconds(those)), those[-1]
        _, share = _turns.share(those, data["flops"], runs[f"products, {name.rsplit(' ', maxsplit=1)[-1]}"])
        traffic = f"{last['bytes'] / median / 1e9:.0f}" if "bytes" in last else ""
        lines.append(f"| {name} | {tokens / median:.0f} | {share} | {traffic} | {those[0]['seconds']:.1f} |")
    best, peer = _turns.best(runs, "ours"), _turns.best(runs, "torch")
    if best and peer:
        _, words = _turns.times_faster(alone["torch"], alone["ours"])
        alone_ms = 1e3 * np.median(_turns.seconds(alone["torch"]))
        lines += [
            "",
            f"The bfloat16 products of a step alone, attention apart, take PyTorch {alone_ms:.0f} ms: {words} as fast "
            "as we do, whose results are float32.",
        ]
        _, words = _turns.times_faster(runs[best], runs[peer])
        mean, error = _turns.mean_times_faster(runs[best], runs[peer])
        verdict = "aim 1.2 met" if mean >= 1.2 else "at least 1 met, aim 1.2 missed" if mean >= 1 else "1 missed"
        lines += [
            "",
            f"Conclusion: {words} as fast as PyTorch, best against best; geometric mean {mean:.2f} +- {error:.2f} "
            f"(standard error), by which: {verdict}.",
        ]
    else:
        lines += ["", "Conclusion: no interpreter with torch here, so nothing to compare with."]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print the table and write results/bench/training.json and its summary."""
    data = measure()
    _turns.save("training", data, table(data))


if __name__ == "__main__":
    main()
