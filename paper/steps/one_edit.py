"""One edit: error against the edited share for high, low and random selection; finite T; one-sided rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from theory.confidence import (
    Band,
    band_moments,
    limit_threshold,
    one_edit,
    one_edit_limit,
    threshold_band,
    threshold_for_share,
)
from theory.engines import random_edits
from theory.rank_frame import Selection, residual_rule

CONFIG: dict[str, Any] = {
    "seed": 20250101,
    "T": 100,
    "d": 10,
    "shares": [0.02 * k for k in range(1, 50)],
    "measured_shares": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "frames": 64,
    "frames_again": 1024,  # of the point that lies farthest from its exact value
    "replicates": 128,
    "sizes": [20, 40, 80, 160, 320, 640, 1280],
    "ratio": 10,
    "size_share": 0.5,
}
SECONDS = 5.0
NEEDS: tuple[str, ...] = ()
RULES: tuple[Selection, ...] = ("high-confidence", "low-confidence")


def _limits(shares: list[float], ratio: float) -> dict[str, list[float]]:
    """The law at fixed T/d; a one-sided rule edits the residuals below a quantile."""
    values: dict[str, list[float]] = {name: [] for name in (*RULES, "random", "one-sided")}
    for share in shares:
        for name in RULES:
            a, _, kappa = band_moments(threshold_band(limit_threshold(share, name), name))
            values[name].append(one_edit_limit(a, kappa, ratio))
        values["random"].append(one_edit_limit(share, share, ratio))
        a, _, kappa = band_moments(Band(-np.inf, float(norm.ppf(share))))
        values["one-sided"].append(one_edit_limit(a, kappa, ratio))
    return values


def _score(row: dict[str, Any]) -> float:
    return abs(row["error"] - row["exact"]) / row["standard_error"]


def _again(config: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return a row measured anew, with other numbers and more frames: the largest of many scores says little."""
    run = residual_rule(
        config["T"], config["d"], 2, row["threshold"], selection=row["rule"],
        frames=config["frames_again"], replicates=config["replicates"],
        seed=np.random.SeedSequence([config["seed"], len(config["measured_shares"])]),
    )  # fmt: skip
    return row | {"error": run.error[1], "standard_error": run.standard_error[1]}


def _measured(config: dict[str, Any], progress: Callable[[float, str], None]) -> list[dict[str, Any]]:
    """Monte Carlo in the fit-test form beside the exact value, for each rule and share."""
    T, d, rows = config["T"], config["d"], []
    for index, share in enumerate(config["measured_shares"]):
        progress(0.5 * index / len(config["measured_shares"]), f"share {share}")
        for offset, name in enumerate(RULES):
            tau = threshold_for_share(T, d, share, name)
            sequence = np.random.SeedSequence([config["seed"], index, offset])
            run = residual_rule(
                T, d, 2, tau, selection=name,
                frames=config["frames"], replicates=config["replicates"], seed=sequence,
            )  # fmt: skip
            rows.append(
                {
                    "rule": name,
                    "share": share,
                    "threshold": tau,
                    "error": run.error[1],
                    "standard_error": run.standard_error[1],
                    "share_measured": run.share[0],
                    "share_standard_error": run.share_standard_error[0],
                    "exact": one_edit(T, d, threshold_band(tau, name)),
                }
            )
        count = round(share * T)
        random = random_edits(T, d, (count,), draws=4, seed=config["seed"] + index)
        a = count / T
        rows.append(
            {
                "rule": "random",
                "share": a,
                "threshold": None,
                "error": random.error[1],
                "standard_error": random.standard_error[1],
                "share_measured": a,
                "share_standard_error": 0.0,
                "exact": 1 + a + (T - d) / (T + 2) * a * (1 - a) * T / (T - 1),
            }
        )
    return rows


def _finite(config: dict[str, Any], progress: Callable[[float, str], None]) -> list[dict[str, Any]]:
    """Exact error minus limit at fixed T/d as T grows, and the gap times T."""
    rows = []
    for index, T in enumerate(config["sizes"]):
        progress(0.5 + 0.5 * index / len(config["sizes"]), f"T = {T}")
        d = T // config["ratio"]
        for name in RULES:
            tau = threshold_for_share(T, d, config["size_share"], name)
            studentised = tau / np.sqrt(1 - d / T)
            a, _, kappa = band_moments(threshold_band(studentised, name))
            limit = one_edit_limit(a, kappa, config["ratio"])
            exact = one_edit(T, d, threshold_band(tau, name))
            rows.append(
                {"rule": name, "T": T, "d": d, "exact": exact, "limit": limit, "gap_times_T": T * (exact - limit)}
            )
    return rows


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Return limit curves, measured points with exact values, and the finite-T correction."""
    ratio = config["T"] / config["d"]
    measured = _measured(config, progress)
    finite = _finite(config, progress)
    sampled = [row for row in measured if row["rule"] != "random"]  # the random engine is exact to rounding
    scores = [_score(row) for row in sampled]
    again = _again(config, max(sampled, key=_score))
    return {
        "T": config["T"],
        "d": config["d"],
        "shares": config["shares"],
        "limit": _limits(config["shares"], ratio),
        "limit_wide": _limits(config["shares"], np.inf),
        "largest_score": max(scores),
        "largest_again": {"rule": again["rule"], "share": again["share"], "score": _score(again)},
        "rms_score": float(np.sqrt(np.mean(np.square(scores)))),
        "scores": len(scores),
        "tables": {"measured": measured, "finite": finite},
    }
