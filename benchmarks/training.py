"""Tokens per second of training on the CPU: this package's update against the same model in PyTorch, same run.

The model is GPT-2's in small. The interpreter that has torch is named by the environment variable
TOEDIT_PEERS_PYTHON; without it this one is tried, and the comparison is left out if it has none.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from paper.results import processor

SIZES = {"vocabulary": 2048, "context": 256, "width": 256, "layers": 4, "heads": 4, "hidden": 1024, "batch": 16}
SECONDS = 5.0  # of timed steps for each way of running
COMPUTES = ("float32", "bfloat16")
FOLDER = Path("results/bench")
SUMMARY = Path(__file__).with_suffix(".md")


def flops() -> float:
    """Operations of matrix products for a token, forwards and twice that backwards, causal attention counted once."""
    D, L = SIZES["width"], SIZES["layers"]
    matrices = L * (4 * D * D + 2 * D * SIZES["hidden"]) + SIZES["vocabulary"] * D
    return 6 * matrices + 12 * L * D * (SIZES["context"] + 1) / 2


def ours(compute: str) -> dict[str, Any]:
    """Train on random tokens for about `SECONDS`; return the median speed and seconds to compile."""
    import jax
    import numpy as np

    from lm.model.config import ModelConfig
    from lm.model.sharding import make_mesh
    from lm.train import step
    from lm.train.config import TrainConfig

    model = ModelConfig(
        vocabulary=SIZES["vocabulary"], context=SIZES["context"], width=SIZES["width"], layers=SIZES["layers"],
        heads=SIZES["heads"], kv_heads=SIZES["heads"], head_size=SIZES["width"] // SIZES["heads"],
        hidden=SIZES["hidden"], norm="layer", norm_bias=True, epsilon=1e-5, attention_bias="all", hidden_bias=True,
        activation="gelu-tanh", gated=False, position="learned", tied=True,
        compute="bfloat16" if compute == "bfloat16" else "float32",
    )  # fmt: skip
    config, mesh = TrainConfig(steps=100_000, batch=SIZES["batch"], learning_rate=1e-3), make_mesh()
    state, update = step.start(model, config, mesh), step.updater(model, config, mesh)
    shape = (1, SIZES["batch"], SIZES["context"] + 1)
    token = np.random.default_rng(0).integers(SIZES["vocabulary"], size=shape).astype(np.int32)
    arrays = token[..., :-1], token[..., 1:], np.zeros_like(token[..., 1:])
    batch = step.Batch(*(jax.device_put(array, step.batch_sharding(mesh)) for array in arrays))
    stop = jax.device_put(np.zeros(1, np.int32), step.stop_sharding(mesh))
    start = time.perf_counter()
    compiled: Any = update.lower(state, batch, stop).compile()  # pyright: ignore[reportFunctionMemberAccess]
    ready, times, loss = time.perf_counter() - start, [], 0.0
    for _ in range(3):
        state, _ = compiled(state, batch, stop)
    while sum(times) < SECONDS or len(times) < 5:
        start = time.perf_counter()
        state, measures = jax.block_until_ready(compiled(state, batch, stop))
        loss = float(measures.loss)
        times.append(time.perf_counter() - start)
    tokens = SIZES["batch"] * SIZES["context"]
    return {
        "tokens_per_second": tokens / statistics.median(times), "first_steps_seconds": ready, "steps": len(times),
        "loss": loss, "bytes_per_token": float(compiled.cost_analysis()["bytes accessed"]) / tokens,
        "matmul_gflops": gflops(compute), "bandwidth_gbytes": bandwidth(),
    }  # fmt: skip


def _best(call: Any, *arguments: Any) -> float:
    call(*arguments).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)


def gflops(compute: str) -> float:
    """Best of five matrix products of order 2048 with float32 sums."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048), compute)
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    return 2 * 2048**3 / _best(product, a) / 1e9


def bandwidth() -> float:
    """Best of five passes that read and write 512 MiB, beyond the caches; GB/s."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones(2**27, jnp.float32)
    return 2 * a.nbytes / _best(jax.jit(lambda x: x + 1), a) / 1e9


def in_fresh_process(compute: str) -> dict[str, Any]:
    """`ours` in a new interpreter, started as the command `toedit train` starts."""
    code = (
        "import json; from lm.memory import keep_freed_memory; keep_freed_memory();"
        f"from benchmarks import training; print(json.dumps(training.ours({compute!r})))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def peers() -> dict[str, Any]:
    """What `_training_torch.py` measures; nothing where there is no torch."""
    python = os.environ.get("TOEDIT_PEERS_PYTHON")
    if python is None:
        if importlib.util.find_spec("torch") is None:
            return {"runs": {}}
        python = sys.executable
    command = [python, str(Path(__file__).with_name("_training_torch.py")), json.dumps(SIZES), str(SECONDS)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def measure() -> dict[str, Any]:
    """All numbers of this module."""
    load = os.getloadavg()[0]
    data = {"sizes": SIZES, "flops_per_token": flops(), "ours": {c: in_fresh_process(c) for c in COMPUTES}}
    for compute, row in data["ours"].items():
        print(f"{compute}: {row['tokens_per_second']:.0f} tokens/s", flush=True)
    torch = peers()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "numpy")}
    if torch["runs"]:
        versions["torch"] = torch["version"]
    machine = {"processor": processor(), "cores": os.cpu_count(), "load": load, "python": platform.python_version()}
    return {**data, "torch": torch["runs"], "machine": machine | versions}


def table(data: dict[str, Any]) -> str:
    """The numbers as a text in Markdown."""
    machine, ours_, torch = data["machine"], data["ours"], data["torch"]
    rate = {compute: row["matmul_gflops"] for compute, row in ours_.items()}
    width = max(row["bandwidth_gbytes"] for row in ours_.values())
    names = ("python", "jax", "jaxlib", "optax", "torch")
    versions = ", ".join(f"{name} {machine[name]}" for name in names if name in machine)
    lines = [
        "# Training a small GPT-2",
        "",
        f"Width {SIZES['width']}, {SIZES['layers']} layers, {SIZES['heads']} heads, vocabulary {SIZES['vocabulary']}, "
        f"{SIZES['batch']} x {SIZES['context']} tokens, AdamW with clipping. {machine['processor']}, "
        f"{machine['cores']} cores, load {machine['load']:.1f} at the start; {versions}. "
        "Command: `python -m benchmarks training`.",
        "",
        f"Matrix products of order 2048 reach {rate['float32']:.0f} GFLOP/s in float32 and {rate['bfloat16']:.0f} in "
        f"bfloat16; a pass over memory {width:.0f} GB/s. Memory traffic is what XLA counts, caches included.",
        "",
        "| what | tokens/s | share of the matrix products' rate | memory traffic, GB/s | compile, s |",
        "|---|---|---|---|---|",
    ]
    for name, row in [(f"ours, {c}", row) for c, row in ours_.items()] + [(f"torch, {n}", r) for n, r in torch.items()]:
        speed = row["tokens_per_second"]
        share = speed * data["flops_per_token"] / 1e9 / rate[name.rsplit(" ", maxsplit=1)[-1]]
        traffic = f"{speed * row['bytes_per_token'] / 1e9:.0f}" if "bytes_per_token" in row else ""
        lines.append(f"| {name} | {speed:.0f} | {100 * share:.0f} % | {traffic} | {row['first_steps_seconds']:.1f} |")
    if torch:
        verdicts = []
        for compute in COMPUTES:
            peer = max(row["tokens_per_second"] for name, row in torch.items() if name.endswith(compute))
            verdicts.append(f"{ours_[compute]['tokens_per_second'] / peer:.2f} in {compute}")
        best = max(row["tokens_per_second"] for row in ours_.values())
        ratio = best / max(row["tokens_per_second"] for row in torch.values())
        verdict = "aim 1.2 met" if ratio >= 1.2 else "at least 1 met, aim 1.2 missed" if ratio >= 1 else "1 missed"
        lines += ["", f"Conclusion: {ratio:.2f} times PyTorch, best against best ({verdict}); {', '.join(verdicts)}."]
    else:
        lines += ["", "Conclusion: no interpreter with torch here, so nothing to compare with."]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print the table and write results/bench/training.json and the summary beside this file."""
    data = measure()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "training.json").write_text(json.dumps(data, indent=1))
    text = table(data)
    SUMMARY.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
