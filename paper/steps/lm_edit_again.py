"""Editing again and again with a real prior (the paper's table 15): a sample live, beside the committed run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper.results import ROOT
from paper.steps.lm_edit import beginnings

CONFIG: dict[str, Any] = {
    "seed": 0,
    "prior": "smollm2",
    "sources": ["sotu", "novels", "python"],
    "split": "test",
    "characters": 2500,
    "documents": 1,  # a source
    "presets": ["paper", "released"],
    "generations": 2,
}
COMMITTED = "paper/results/editing/again.json"
FILES = (COMMITTED, "paper/steps/lm_edit.py")
SECONDS = 40.0
NEEDS: tuple[str, ...] = ()


def rows(data: dict[str, Any], run: str) -> list[dict[str, Any]]:
    """Return a table of every generation.

    Args:
        data: of `lm.editing.generations.iterate`.
        run: what the column of this name says.
    """
    made = []
    for preset, setting in data["settings"].items():
        for row in setting["generations"]:
            edit, drift = row.get("edit"), row.get("drift")
            made.append(
                {
                    "run": run,
                    "preset": preset,
                    "generation": row["generation"],
                    "tokens": row["tokens"],
                    "selected": row["selected"],
                    "selected_share": row["selected_share"]["value"],
                    "selected_share_se": row["selected_share"]["standard_error"],
                    "predicted_share": row["predicted_share"]["value"],
                    "more_than_predicted_se": row["more_than_predicted"]["standard_error"],
                    "effective_edit_rate": edit and edit["effective_edit_rate"]["value"],
                    "redrawn": edit and edit["redrawn"]["value"],
                    "crossings": edit and edit["crossings"]["value"],
                    "crossings_se": edit and edit["crossings"]["standard_error"],
                    "mean_log_probability_change": row["mean_log_probability_change"]["value"],
                    "mean_log_probability_change_se": row["mean_log_probability_change"]["standard_error"],
                    "edit_distance": drift and drift["edit_distance"]["value"],
                    "new_fourgrams": drift and drift["new_4grams"]["value"],
                }
            )
    return made


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Edit a sample generation after generation; return it beside the committed run.

    Raises:
        InputError: no network, a download that is not the pinned content, an unwritable cache.
    """
    del needs, folder
    from lm.editing.config import PRESETS
    from lm.editing.generations import iterate
    from lm.editing.prior import prepare_prior
    from lm.weights.load import load

    progress(0.0, f"fetching and reading {config['prior']}")
    prior = prepare_prior(load(config["prior"], compute="bfloat16", inference=True))
    documents = [
        (one.id, name, text.encode())
        for name in config["sources"]
        for one, text in beginnings(name, config["split"], config["documents"], config["characters"])
    ]
    live = iterate(
        prior,
        documents,
        {name: PRESETS[name] for name in config["presets"]},
        config["generations"],
        lambda share, message: progress(0.1 + 0.9 * share, message),
    )
    committed = json.loads((ROOT / COMMITTED).read_text(encoding="utf-8"))
    return {
        "live": live,
        "committed": committed,
        "tables": {"generations": [*rows(live, "live sample"), *rows(committed["result"], "committed")]},
    }
