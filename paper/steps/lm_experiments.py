"""The experiments on synthetic data: a part of each made live, the whole from committed results.

Live: the mixture at three shares of the external synthetic text and three seeds; three generations of two rules; and
one model of the experiment on edited text, chosen by the hash of the commit. Each is compared with the committed
result: a new replication lies inside the prediction interval 95 times in 100.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from lm.experiments.designs import EXPERIMENTS, Cell, edited, iterate, mixture
from lm.experiments.presets import Preset, find_preset
from lm.experiments.tables import LEVEL, tables
from lm.experiments.workers import make
from paper.audit import SHARES
from paper.beside import beside, paper_changes
from paper.errors import InputError
from paper.results import ROOT, git
from paper.words import short_commit

COMMITTED = ROOT / "paper" / "results" / "experiments" / "laptop"
# Made with `toedit experiment NAME --preset gpu --sizes 8M-tokens-17m` on a GPU; nothing of them is made live.
LARGER = ROOT / "paper" / "results" / "experiments" / "gpu" / "8M-tokens-17m"
LARGER_SIZE, LARGER_NAMES = "17M", ("mixture", "edited")
FILES = (
    *(f"paper/results/experiments/laptop/{name}.json" for name in EXPERIMENTS),
    *(f"paper/results/experiments/gpu/8M-tokens-17m/{name}.json" for name in LARGER_NAMES),
    "lm/data/smollm2_corpus.jsonl.zst",
)
CONFIG: dict[str, Any] = {
    "seed": 0,
    "preset": "laptop",
    "mixture_shares": [0, 50, 100],
    "iterate_rules": ["replace", "edit"],
    "iterate_generations": 3,
    "iterate_seeds": [0],
}
# Label, tables and condition of `paper.beside.paper_changes`.
PAPER_CURVES = {"paper, table 1": ("1", ""), "paper, table 17": ("13, 17", "epoch 5")}
SECONDS = 400.0
CORES = 2  # it starts a process a core itself
NEEDS: tuple[str, ...] = ()


def committed(names: Iterable[str] = tuple(EXPERIMENTS), folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return committed results of experiments by name.

    Args:
        names: of the experiments.
        folder: with their results; by default those of the small models.

    Raises:
        InputError: one is missing or damaged.
    """
    found = {}
    for name in names:
        path = (folder or COMMITTED) / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path.relative_to(ROOT)} cannot be read; restore it from the repository, or make it again by "
                "`python -m paper.full_experiments`"
            ) from error
    return found


def live_cells(config: dict[str, Any], preset: Preset) -> dict[str, list[Cell]]:
    """Return the models that are made live, by experiment; the slow edit first, beside which others are trained."""
    shares = dataclasses.replace(preset, shares=tuple(config["mixture_shares"]))
    chains = dataclasses.replace(preset, seeds=tuple(config["iterate_seeds"]))
    arms = [cell for cell in edited(preset) if cell.edit is not None]
    chosen = arms[int(git("rev-parse", "HEAD") or "0", 16) % len(arms)]
    source = next(cell for cell in edited(preset) if cell.edit is None and cell.seed == chosen.seed)
    return {
        "edited": [chosen, source],
        "mixture": [cell for cell in mixture(shares) if cell.about["synthetic"] != "self"],
        "iterate": iterate(chains, config["iterate_rules"], config["iterate_generations"]),
    }


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Train the live models and return their tables, the committed ones, and both compared.

    Raises:
        InputError: what fetching raises; a committed result that is missing.
    """
    del needs
    preset = find_preset(config["preset"])
    whole, larger = committed(), committed(LARGER_NAMES, LARGER)
    cells = live_cells(config, preset)
    stage = make([cell.run for some in cells.values() for cell in some], folder, preset.setup, progress)
    live = {name: tables(stage, some) for name, some in cells.items()}
    commit = git("rev-parse", "HEAD") or "no checkout"
    return {
        "committed": whole,
        "larger": {"size": LARGER_SIZE, "committed": larger},
        "live": live,
        "paper": {label: paper_curve(*table) for label, table in PAPER_CURVES.items()},
        "tables": {
            "beside_the_paper": beside(whole),
            "beside_the_paper_larger": beside(larger),
            "live_against_committed": [
                row for name in cells for row in compared(name, live[name], whole[name], commit)
            ],
            **{
                name: [row for row in one["data"]["tables"]["arms"] if _reported(row, one)]
                for name, one in {**whole, **{f"{name}_larger": one for name, one in larger.items()}}.items()
            },
        },
    }


def paper_curve(tables: str, condition: str) -> list[list[float]]:
    """Return [share in percent, mean change of log-perplexity in nats] of the paper's tables."""
    changes = {share: paper_changes(tables, condition, share).values() for share in SHARES[1:]}
    return [[0.0, 0.0], *([float(share), statistics.fmean(values)] for share, values in changes.items())]


def _reported(row: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Return whether a row is of the end of the runs."""
    return row["step"] == max(other["step"] for other in whole["data"]["tables"]["arms"])


def compared(name: str, live: dict[str, Any], whole: dict[str, Any], commit: str) -> list[dict[str, Any]]:
    """Return each live model's human loss, and its change, beside those of its arm's committed replications.

    `half_width` and `change_half_width` are of Student's 95 % prediction interval of one new replication: t s
    sqrt(1 + 1/n). The changes, from the human-only model of the same seed, are what is reported, and vary less.
    """
    rows = []
    kept = whole["data"]["tables"]["perplexity"]
    last = max(row["step"] for row in kept)
    for row in live["tables"]["perplexity"]:
        if row["domain"] != "human" or row["step"] != last:
            continue
        others = [one for one in kept if (one["arm"], one["step"], one["domain"]) == (row["arm"], last, "human")]
        same = [one["nats"] for one in others if one["seed"] == row["seed"]]
        mean, half, within = _predicted([one["nats"] for one in others], row["nats"])
        mean_change, half_change, within_change = _predicted([one["change"] for one in others], row["change"])
        rows.append(
            {
                "experiment": name,
                "arm": row["arm"],
                "seed": row["seed"],
                "live_nats": row["nats"],
                "committed_nats": mean,
                "half_width": half,
                "same_seed_nats": same[0] if same else None,
                "within": within,
                "live_change": row["change"],
                "committed_change": mean_change,
                "change_half_width": half_change,
                "change_within": within_change,
                "live": short_commit(commit),
                "committed": short_commit(whole["commit"]),
            }
        )
    return rows


def _predicted(values: list[float], new: float) -> tuple[float | None, float | None, bool | None]:
    """Return the mean of replications, their prediction interval's half-width, and whether a new one is inside.

    The last two are None for fewer than two, and where all are the same, as the human-only model's changes are.
    """
    if len(values) < 2 or len(set(values)) == 1:
        return (statistics.fmean(values) if values else None), None, None
    factor = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * math.sqrt(1 + 1 / len(values))
    mean, half = statistics.fmean(values), factor * statistics.stdev(values)
    return mean, half, abs(new - mean) <= half
