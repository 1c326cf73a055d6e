"""The paper's bound 2v (eq. 6, 43) against the process under the proof's own assumption, and beyond it.

Disjoint blocks are eq. 16 taken at its word, M_i M_j = 0: under it the paper's eq. 36 gives 1 + sum a_i <= 2 in
units of v. Random rows of geometrically decaying number are the second part of Theorem 2.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sim.regression import DisjointEdits, RandomEdits, Rule, Setting, simulate
from theory.bounds import paper_error
from theory.closed_forms import disjoint_continuum, disjoint_limit, honest_error
from theory.curve import Curve
from theory.engines import disjoint_edits, random_edits
from theory.schedules import consecutive_blocks, geometric_counts

CONFIG: dict = {
    "seed": 0,
    "T": 200,
    "d": 10,
    "blocks": 10,
    "share": 0.5,
    "decay": 0.9,
    "edits": 15,
    "designs": 400,
    "noise_replicates": 50,
    "theory_draws": 2000,
}
SECONDS = 15.0
NEEDS: tuple[str, ...] = ()


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Literal simulation, exact engine and eq. 36 for disjoint blocks and for geometric random edits.

    Returns:
        "disjoint" and "random": counts, error, standard_error, theory, theory_standard_error, paper (eq. 36),
        first_above_2v (first generation whose simulated error exceeds 2 v by 4 standard errors), all in units
        of v; "disjoint" also limit (T/d to infinity) and continuum (2e - 1); "tables".
    """
    T, d, draws, seed = (config[key] for key in ("T", "d", "theory_draws", "seed"))
    blocks = (T // config["blocks"],) * config["blocks"]
    decaying = geometric_counts(T, config["share"], config["decay"], config["edits"] + 1)
    progress(0.0, "disjoint blocks")
    disjoint = _compare(
        config, DisjointEdits(blocks), blocks,
        disjoint_edits(T, d, consecutive_blocks(blocks, T), draws=draws, seed=seed),
    )  # fmt: skip
    disjoint["limit"] = [disjoint_limit(n, 1 / config["blocks"]) for n in range(config["blocks"] + 1)]
    disjoint["continuum"] = disjoint_continuum(1.0)
    progress(0.5, "random rows")
    random = _compare(config, RandomEdits(decaying), decaying, random_edits(T, d, decaying, draws=100, seed=seed))
    rows = [
        {"rows": name, "generation": index + 1}
        | {key: part[key][index] for key in ("error", "standard_error", "theory", "theory_standard_error", "paper")}
        for name, part in (("disjoint", disjoint), ("random", random))
        for index in range(len(part["error"]))
    ]
    return {"disjoint": disjoint, "random": random, "tables": {"paper_bound": rows}}


def _compare(config: dict, rule: Rule, counts: tuple[int, ...], theory: Curve) -> dict:
    T, d = config["T"], config["d"]
    result = simulate(
        Setting(T, d), rule, generations=len(counts) + 1, designs=config["designs"],
        noise_replicates=config["noise_replicates"], seed=config["seed"],
    )  # fmt: skip
    v = honest_error(T, d)
    error, standard_error = result.error / v, result.standard_error / v
    above = np.flatnonzero(error - 4 * standard_error > 2)
    return {
        "counts": list(counts),
        "error": error.tolist(),
        "standard_error": standard_error.tolist(),
        "theory": theory.error.tolist(),
        "theory_standard_error": theory.standard_error.tolist(),
        "paper": np.asarray(paper_error(T, counts)).tolist(),
        "first_above_2v": int(above[0]) + 1 if above.size else None,
    }
