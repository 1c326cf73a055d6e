"""Phase diagram of high-confidence editing: error after many generations against a_1 and T/d."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from theory.confidence import limit_threshold
from theory.phase import crossing, limit_crossing, phase_cell
from theory.state_evolution import state_evolution

CONFIG: dict[str, Any] = {
    "seed": 20250103,
    "d": 20,
    "generations": 60,
    "ratios": [2, 3, 4, 6, 10, 15, 20, 40, 100],
    "shares": [
        0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
        0.95,
    ],
    "frames": 16,
    "replicates": 32,
    "limit_samples": 5000,
    "limit_solutions": 3,
    "dimensions": [5, 10, 40, 80],
    "dimension_ratios": [3, 10, 20],
    "dimension_shares": [0.3, 0.5, 0.7],
    "long": [
        {"ratio": 2, "share": 0.6},
        {"ratio": 2, "share": 0.8},
        {"ratio": 3, "share": 0.8},
        {"ratio": 5, "share": 0.9},
        {"ratio": 20, "share": 0.9},
    ],
    "long_generations": 600,
}  # fmt: skip
SECONDS = 57.0
NEEDS: tuple[str, ...] = ()
LEVEL = 2.0  # the paper's constant


def _cell(config: dict[str, Any], d: int, ratio: int, share: float, generations: int, tag: int) -> dict[str, Any]:
    sequence = np.random.SeedSequence([config["seed"], tag, d, ratio, round(1000 * share)])
    cell = phase_cell(
        d * ratio, d, share, generations,
        frames=config["frames"], replicates=config["replicates"], seed=sequence,
    )  # fmt: skip
    return {"d": d, "ratio": ratio, "share": share, "generations": generations, **vars(cell)}


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Return the grid, the shares where it crosses 2 v, the T/d -> infinity line and dependence on d and n."""
    shares = np.asarray(config["shares"], float)
    line = [
        state_evolution(
            limit_threshold(share),
            config["generations"],
            samples=config["limit_samples"],
            solutions=config["limit_solutions"],
            seed=config["seed"],
        )
        for share in shares
    ]
    root, root_se = limit_crossing(
        LEVEL, config["generations"], samples=config["limit_samples"], solutions=3, seed=config["seed"]
    )
    grid, threshold = [], []
    for index, ratio in enumerate(config["ratios"]):
        progress(0.2 + 0.55 * index / len(config["ratios"]), f"T/d = {ratio}")
        row = [_cell(config, config["d"], ratio, share, config["generations"], 0) for share in config["shares"]]
        grid += row
        found = crossing(
            shares, np.array([c["final"] for c in row]), np.array([c["standard_error"] for c in row]), LEVEL
        )
        levels = [cell["share"] for cell in row if cell["status"] != "level"]
        threshold.append(
            {
                "ratio": ratio,
                "share_at_2v": found[0] if found else None,
                "standard_error": found[1] if found else None,
                "first_share_not_level": min(levels) if levels else None,
            }
        )
    threshold.append({"ratio": None, "share_at_2v": root, "standard_error": root_se, "first_share_not_level": None})
    progress(0.78, "dependence on d")
    dimension = [
        _cell(config, d, ratio, share, config["generations"], 1)
        for d in config["dimensions"]
        for ratio in config["dimension_ratios"]
        for share in config["dimension_shares"]
    ]
    progress(0.9, "long runs")
    long = [
        _cell(config, config["d"], case["ratio"], case["share"], config["long_generations"], 2)
        for case in config["long"]
    ]
    return {
        "d": config["d"],
        "generations": config["generations"],
        "ratios": config["ratios"],
        "shares": config["shares"],
        "limit": {
            "error": [curve.error[-1] for curve in line],
            "standard_error": [curve.standard_error[-1] for curve in line],
        },
        "limit_share_at_2v": root,
        "limit_share_at_2v_standard_error": root_se,
        "tables": {"grid": grid, "threshold": threshold, "dimension": dimension, "long": long},
    }
