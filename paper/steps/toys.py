"""Gaussian fitting, kernel density estimates and discrete distributions, each beside its closed form."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from sim.discrete import OUTCOMES, run_discrete, run_fixation
from sim.gaussian import run_gaussian
from sim.kde import run_kde
from theory import toys

CONFIG: dict = {
    "seed": 0,
    "generations": 100,
    "seeds": 100,
    # (d, n, replicates): n = 100 where it fits a covariance with room to spare; d = 100 takes n = 316 and, for its
    # cost, 25 replicates
    "gaussian": [[1, 100, 100], [3, 100, 100], [10, 100, 100], [31, 100, 100], [100, 316, 25]],
    "gaussian_subsample": [[1, 100, 100], [3, 100, 100]],
    "single_gaussian_samples": [100, 500, 1000, 10000],
    "single_gaussian_generations": 1000,
    "kde_bandwidths": [0.1, 0.5, 1.0],
    "kde_samples": 100,
    "discrete_outcomes": 100,
    "discrete_samples": 100,
    # (n, replicates, cap in generations): 10^4 generations, less where they would cost over 4e8 draws
    "fixation": [[10, 100, 10000], [100, 100, 10000], [1000, 20, 10000], [10000, 2, 10000], [100000, 2, 250]],
}
SECONDS = 45.0
NEEDS: tuple[str, ...] = ()


def _mean_se(values: np.ndarray) -> dict:
    return {
        "mean": values.mean(1).tolist(),
        "se": (values.std(1, ddof=1) / np.sqrt(values.shape[1])).tolist(),
    }


def _beside(values: np.ndarray, theory: np.ndarray) -> dict:
    out = _mean_se(values)
    out["theory"] = theory.tolist()
    return out


def _gaussian(config: dict) -> list[dict]:
    generations, rows = config["generations"], []
    settings = [(rule, *sizes) for sizes in config["gaussian"] for rule in ("replace", "accumulate")]
    settings += [("accumulate-subsample", *sizes) for sizes in config["gaussian_subsample"]]
    for rule, d, n, seeds in settings:
        run = run_gaussian(rule, d, n, generations, seeds, config["seed"])
        row = {
            "rule": rule,
            "d": d,
            "n": n,
            "replicates": seeds,
            "trace": _beside(run.trace_ratio, toys.variance_curve(rule, n, generations)),
            "mean_error": _beside(run.mean_error, toys.mean_error_curve(rule, n, generations, d)),
            "log_det": _mean_se(run.log_det),
        }
        if rule == "replace":
            drift, spread = toys.log_det_drift(n, d)
            steps = np.arange(1, generations + 1)
            row["log_det"]["theory"] = (drift * steps).tolist()
            row["trace"]["theory_se"] = (toys.trace_deviation(n, d, generations) / np.sqrt(seeds)).tolist()
            row["log_det"]["theory_sd"] = np.sqrt(spread * steps).tolist()
        if rule == "accumulate":
            row["trace_limit"] = toys.accumulate_limit(n)
        rows.append(row)
    return rows


def _single(config: dict) -> list[dict]:
    """One Gaussian in one dimension, many generations: the typical variance falls twice as fast as the mean one."""
    generations, rows = config["single_gaussian_generations"], []
    for n in config["single_gaussian_samples"]:
        run = run_gaussian("replace", 1, n, generations, config["seeds"], config["seed"])
        drift, spread = toys.log_det_drift(n, 1)
        steps = np.arange(1, generations + 1)
        rows.append(
            {
                "n": n,
                "log_variance": _beside(run.log_det, drift * steps),
                "log_variance_theory_sd": np.sqrt(spread * steps).tolist(),
                "variance": _beside(run.trace_ratio, toys.variance_curve("replace", n, generations)),
                "median_variance": np.median(run.trace_ratio, axis=1).tolist(),
            }
        )
    return rows


def _kde(config: dict) -> list[dict]:
    rows = []
    n, generations = config["kde_samples"], config["generations"]
    for rule in ("replace", "accumulate"):
        for h in config["kde_bandwidths"]:
            run = run_kde(rule, h, n, generations, config["seeds"], config["seed"])
            rows.append(
                {
                    "rule": rule,
                    "bandwidth": h,
                    "n": n,
                    "variance": _beside(run.variance, h**2 + toys.variance_curve(rule, n, generations, h**2)),
                    "cross_entropy": _mean_se(run.cross_entropy),
                    "cross_entropy_infinite_n": toys.kde_cross_entropy(rule, h, generations).tolist(),
                }
            )
    return rows


def _discrete(config: dict) -> list[dict]:
    rows = []
    K, n, generations = config["discrete_outcomes"], config["discrete_samples"], config["generations"]
    for rule in toys.RULES:
        run = run_discrete(rule, K, n, generations, config["seeds"], config["seed"])
        row = {
            "rule": rule,
            "outcomes": K,
            "n": n,
            "heterozygosity": _beside(run.heterozygosity, (1 - 1 / K) * toys.variance_curve(rule, n, generations)),
            "entropy": _mean_se(run.entropy),
            "support": _mean_se(run.support.astype(float)),
        }
        if rule == "replace":
            row["support"]["theory"] = toys.support_curve(np.full(K, 1 / K), n, generations).tolist()
        rows.append(row)
    return rows


def _fixation(config: dict) -> list[dict]:
    rows = []
    for n, seeds, cap in config["fixation"]:
        run = run_fixation(n, cap, seeds, config["seed"])
        for i, outcomes in enumerate(OUTCOMES):
            law = np.full(outcomes, 1 / outcomes)
            times = run.time[i]
            rows.append(
                {
                    "n": n,
                    "outcomes": outcomes,
                    "replicates": seeds,
                    "cap": cap,
                    "extrapolated_share": float(run.capped[i].mean()),
                    "mean": float(times.mean()),
                    "se": float(times.std(ddof=1) / np.sqrt(seeds)),
                    "diffusion": toys.fixation_time_diffusion(law, n),
                    "exact": toys.fixation_time(law, n) if n <= 1000 else None,
                }
            )
    return rows


def run(config: dict, needs: dict[str, dict], folder: Path, progress: Callable[[float, str], None]) -> dict:
    """Runs the toys; a list's row is one setting: curves, standard errors, theory where known."""
    del needs, folder
    parts = {
        "fixation": _fixation, "gaussian": _gaussian, "kde": _kde, "discrete": _discrete, "single": _single,
    }  # fmt: skip
    progress(0.0, "all toys")
    done = {}
    with ThreadPoolExecutor(2) as pool:  # half of the time is compilation, which uses one core
        jobs = {pool.submit(part, config): name for name, part in parts.items()}
        for job in as_completed(jobs):
            done[jobs[job]] = job.result()
            progress(len(done) / len(parts), jobs[job])
    gaussian, fixation = done["gaussian"], done["fixation"]
    return {
        "gaussian": gaussian,
        "single_gaussian": done["single"],
        "kde": done["kde"],
        "discrete": done["discrete"],
        "fixation": fixation,
        "fixation_note": "Runs end at their cap (10^4 generations, 250 at n = 10^5); a capped time is the cap plus "
        "the expected remainder -2 n sum_i (1 - p_i) log(1 - p_i) given the proportions reached. At n = 10^5 that is "
        "nearly all of it: a check of the remainder's stability, not of the formula. The K share genealogies.",
        "tables": {
            "toys-fixation": fixation,
            "toys-gaussian": [
                {
                    "rule": row["rule"],
                    "d": row["d"],
                    "n": row["n"],
                    "trace_last": row["trace"]["mean"][-1],
                    "trace_last_se": row["trace"]["se"][-1],
                    "trace_last_theory": row["trace"]["theory"][-1],
                    "mean_error_last": row["mean_error"]["mean"][-1],
                    "mean_error_last_se": row["mean_error"]["se"][-1],
                    "mean_error_last_theory": row["mean_error"]["theory"][-1],
                    "log_det_last": row["log_det"]["mean"][-1],
                }
                for row in gaussian
            ],
        },
    }
