"""Error curves at T = 1000, d = 100, 100 generations: ours against the usual NumPy loop, and peak memory.

The usual way draws X and all noise for every repeat, forms one pseudo-inverse and steps through the generations.
Its time to a relative standard error s at every generation is (time of one repeat) * max_n Var_n/(s mean_n)^2,
mean and variance measured over the repeats run. Every ratio is within one run of this module on one machine.
"""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks import _turns

T, D, GENERATIONS = 1000, 100, 100
COUNTS = (100,) * (GENERATIONS - 1)
TARGET = 1e-4  # relative standard error, at every generation
REPEATS = 60  # of the usual way
SHARE = 0.125  # edited at the first edit by the high-confidence rule
REPLICATES = 100


def usual_repeat(rng: np.random.Generator, tau: float | None) -> np.ndarray:
    """One repeat of the process as it is usually written, errors in units of v; random rows where tau is None."""
    X = rng.standard_normal((T, D))
    P = np.linalg.pinv(X)
    y = rng.standard_normal(T)
    errors = np.empty(GENERATIONS)
    for n in range(GENERATIONS):
        w = P @ y
        errors[n] = w @ w
        if n + 1 < GENERATIONS:
            fit = X @ w
            rows = rng.choice(T, COUNTS[n], replace=False) if tau is None else np.flatnonzero(np.abs(y - fit) <= tau)
            y[rows] = fit[rows] + rng.standard_normal(rows.size)
    return errors * (T - D - 1) / D


def usual(tau: float | None) -> dict[str, float]:
    """Seconds per repeat of the usual way, and repeats it needs for the target."""
    rng = np.random.default_rng(0)
    usual_repeat(rng, tau)
    start = time.perf_counter()
    errors = np.array([usual_repeat(rng, tau) for _ in range(REPEATS)])
    seconds = (time.perf_counter() - start) / REPEATS
    relative = errors.std(axis=0, ddof=1) / errors.mean(axis=0)
    return {"seconds_per_repeat": seconds, "repeats_needed": float((relative.max() / TARGET) ** 2)}


def faster_usual(tau: float | None) -> dict[str, float]:
    """The usual way with one BLAS thread or with the default number, whichever is faster here."""
    runs = [in_fresh_process(f"usual({tau!r})", **env)["value"] for env in ({"OPENBLAS_NUM_THREADS": "1"}, {})]
    return min(runs, key=lambda run: run["seconds_per_repeat"])


def engine(draws: int) -> tuple[float, float]:
    """Seconds and largest relative standard error of the exact engine for random rows."""
    from theory.engines import random_edits

    start = time.perf_counter()
    curve = random_edits(T, D, COUNTS, draws=draws, seed=1)
    return time.perf_counter() - start, float(np.max(curve.standard_error / curve.error))


def fit_test(tau: float, frames: int, replicates: int) -> tuple[float, float]:
    """Seconds and largest relative standard error of theory's Monte Carlo for the high-confidence rule."""
    from theory.rank_frame import residual_rule

    start = time.perf_counter()
    curve = residual_rule(T, D, GENERATIONS, tau, frames=frames, replicates=replicates, seed=1)
    return time.perf_counter() - start, float(np.max(curve.standard_error / curve.error))


def literal(tau: float | None, designs: int, replicates: int) -> tuple[float, float]:
    """Seconds and largest relative standard error of the literal simulator."""
    from sim.regression import ConfidenceEdits, RandomEdits, Setting, simulate

    rule = RandomEdits(COUNTS) if tau is None else ConfidenceEdits(tau)
    start = time.perf_counter()
    result = simulate(
        Setting(T, D), rule, generations=GENERATIONS, designs=designs, noise_replicates=replicates, seed=1
    )
    return time.perf_counter() - start, float(np.max(result.standard_error / result.error))


def in_fresh_process(call: str, **environment: str) -> dict:
    """Runs one of this module's functions in a new interpreter: its value, wall seconds and peak memory."""
    code = (
        "import json, resource; from benchmarks import regression as r; value = r." + call + ";"
        "print(json.dumps([value, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))"
    )
    start = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | environment
    ).stdout
    wall = time.perf_counter() - start
    value, peak = json.loads(out.splitlines()[-1])
    return {"value": value, "wall_seconds": wall, "peak_bytes": peak}


def matmul_gflops() -> float:
    """Best of five float64 matrix products of order 2048 under XLA."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        a = jnp.ones((2048, 2048))
        product = jax.jit(jnp.matmul)
        product(a, a).block_until_ready()
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            product(a, a).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def measure() -> dict:
    """All numbers of this module."""
    from theory.confidence import threshold_for_share

    machine, tau = _turns.Machine(), float(threshold_for_share(T, D, SHARE))
    gflops = matmul_gflops()
    random_usual, confident_usual = faster_usual(None), faster_usual(tau)
    usual_seconds = random_usual["seconds_per_repeat"] * random_usual["repeats_needed"]

    draws = 2
    engine(draws)
    seconds, reached = engine(draws)
    while reached > TARGET:
        draws *= 2
        seconds, reached = engine(draws)
    cold = in_fresh_process(f"engine({draws})")
    rows = {
        "random, exact engine": {
            "draws": draws, "relative_se": reached, "warm_seconds": seconds, "cold_seconds": cold["wall_seconds"],
            "usual_seconds": usual_seconds, "ratio_warm": usual_seconds / seconds,
            "ratio_cold": usual_seconds / cold["wall_seconds"],
        }
    }  # fmt: skip

    def to_same_error(name: str, call, arguments: str, per_call: str) -> None:
        call()
        seconds, reached = call()
        fresh = in_fresh_process(arguments)
        needed = confident_usual["repeats_needed"] * (TARGET / reached) ** 2
        usual_time = needed * confident_usual["seconds_per_repeat"]
        rows[name] = {
            "size": per_call, "relative_se": reached, "warm_seconds": seconds, "cold_seconds": fresh["wall_seconds"],
            "usual_seconds": usual_time, "ratio_warm": usual_time / seconds,
            "ratio_cold": usual_time / fresh["wall_seconds"],
        }  # fmt: skip

    to_same_error(
        "high-confidence, literal", lambda: literal(tau, 10, REPLICATES), f"literal({tau!r}, 10, {REPLICATES})",
        f"10 X, {REPLICATES} replicates",
    )  # fmt: skip
    to_same_error(
        "high-confidence, fit-test Monte Carlo", lambda: fit_test(tau, 8, 256), f"fit_test({tau!r}, 8, 256)",
        "8 frames, 256 replicates",
    )  # fmt: skip

    peak = in_fresh_process(f"literal(None, {100_000 // 200}, 200)")
    # Two products of 2 T d flops per repeat and generation; the second only where all rows are predicted.
    flops = 4 * T * D * GENERATIONS * 10 * REPLICATES
    reached_gflops = flops / rows["high-confidence, literal"]["warm_seconds"] / 1e9
    return {
        "setting": {"T": T, "d": D, "generations": GENERATIONS, "rows_per_random_edit": COUNTS[0], "tau": tau},
        "usual": {"random": random_usual, "high-confidence": confident_usual, "repeats_run": REPEATS},
        "rows": rows,
        "memory": {
            "repeats": 100_000, "peak_bytes": peak["peak_bytes"], "wall_seconds": peak["wall_seconds"],
            "limit_bytes": 2 * 2**30,
        },
        "matmul": {
            "float64_gflops": gflops, "literal_gflops": reached_gflops, "share": reached_gflops / gflops,
        },
        "machine": machine.described("numpy", "scipy", "jax", "jaxlib"),
    }  # fmt: skip


def table(data: dict) -> str:
    """The numbers as a text in Markdown."""
    memory, matmul = data["memory"], data["matmul"]
    lines = [
        "# Error curves in regression",
        "",
        f"T = {T}, d = {D}, {GENERATIONS} generations. {_turns.sentence(data['machine'])} "
        "Command: `python -m benchmarks regression`.",
        "",
        f"Usual way (a NumPy loop, one `pinv` a repeat; {data['usual']['repeats_run']} repeats timed): "
        + "; ".join(
            f"{name} rows {data['usual'][name]['seconds_per_repeat'] * 1e3:.1f} ms a repeat, "
            f"{data['usual'][name]['repeats_needed']:.2e} repeats for {TARGET:g} relative standard error"
            for name in ("random", "high-confidence")
        )
        + ".",
        "",
        "| what | largest relative standard error | warm, s | cold (fresh process), s | usual way, s | warm ratio "
        "| cold ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in data["rows"].items():
        lines.append(
            f"| {name} | {row['relative_se']:.2e} | {row['warm_seconds']:.3g} | {row['cold_seconds']:.3g} "
            f"| {row['usual_seconds']:.3g} | {row['ratio_warm']:.3g} | {row['ratio_cold']:.3g} |"
        )
    best = max(row["ratio_warm"] for name, row in data["rows"].items() if name.startswith("high-confidence"))
    exact = data["rows"]["random, exact engine"]["ratio_warm"]
    literal = data["rows"]["high-confidence, literal"]["ratio_warm"]
    lines += [
        "",
        f"Memory: {memory['repeats']:,} literal repeats peak at {memory['peak_bytes'] / 2**30:.2f} GiB resident "
        f"(limit 2 GiB), in {memory['wall_seconds']:.0f} s.",
        "",
        f"Matrix products: {matmul['float64_gflops']:.0f} GFLOP/s in float64 on this machine; the literal "
        f"high-confidence run does {matmul['literal_gflops']:.0f} GFLOP/s, {100 * matmul['share']:.0f} % of it "
        "(the rest of its time draws normals).",
        "",
        f"Conclusion: random rows {exact:,.0f} times less than the usual way (aim 100,000: "
        f"{'met' if exact >= 1e5 else 'missed'}); high-confidence rows {best:,.0f} times less (aim 10: "
        f"{'met' if best >= 10 else 'missed'}) by the fit-test Monte Carlo, "
        f"{literal:.1f} times by literal simulation; memory "
        f"{'within' if memory['peak_bytes'] < memory['limit_bytes'] else 'above'} 2 GiB.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes results/bench/regression.json and its summary."""
    start = time.perf_counter()
    data = measure()
    data["wall_seconds"] = time.perf_counter() - start
    data["peak_bytes_of_this_process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _turns.save("regression", data, table(data))


if __name__ == "__main__":
    main()
