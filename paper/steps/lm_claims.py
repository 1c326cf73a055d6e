"""The ledger's entries about language models, apart from `claims` so that a new model does not re-run the theory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm.experiments.tables import LEVEL, UNTESTABLE
from paper.claims import editing, experiments
from paper.claims.table import as_data, evaluate_all

CONFIG: dict[str, Any] = {"seed": None, "level": LEVEL, "least_rate": UNTESTABLE}
SECONDS = 1.0
NEEDS: tuple[str, ...] = ("lm_experiments", "lm_edit", "lm_edit_again")


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Evaluate the entries; return summary, counts and tables with the columns of the step `claims`."""
    del config, folder
    committed = {"edit": needs["lm_edit"]["data"]["committed"], "again": needs["lm_edit_again"]["data"]["committed"]}
    small, larger = (needs["lm_experiments"]["data"][name] for name in ("committed", "larger"))
    claims = (
        *experiments.claims(small),
        *experiments.claims(larger["committed"], larger["size"]),
        *editing.claims(committed),
    )
    return as_data(evaluate_all(claims, lambda index, claim: progress(index / len(claims), claim.id)))
