"""The ledger's entries about language models, apart from `claims` so that a new model does not re-run the theory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper.claims import editing, lm
from paper.claims.table import as_data, evaluate_all

CONFIG: dict[str, Any] = {"seed": None, "level": lm.LEVEL, "least_rate": lm.LEAST_RATE}
SECONDS = 1.0
NEEDS: tuple[str, ...] = ("lm_iterate", "lm_edit", "lm_edit_again")


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Evaluate the entries; return summary, counts and tables with the columns of the step `claims`."""
    del config, folder
    committed = {"edit": needs["lm_edit"]["data"]["committed"], "again": needs["lm_edit_again"]["data"]["committed"]}
    claims = (*lm.claims(needs["lm_iterate"]["data"]), *editing.claims(committed))
    return as_data(evaluate_all(claims, lambda index, claim: progress(index / len(claims), claim.id)))
