"""The ledger as a step of `make reproduce`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper.claims.ledger import CLAIMS
from paper.claims.table import as_data, evaluate_all

CONFIG: dict[str, Any] = {
    "claims": [claim.id for claim in CLAIMS],
    "seed": None,
    "seeds": sorted({claim.seed for claim in CLAIMS if claim.seed is not None}),
}
SECONDS = 36.0
NEEDS: tuple[str, ...] = ()


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Evaluate every claim; return summary, counts and the tables of entries and comparisons."""
    del config, needs, folder
    entries = evaluate_all(CLAIMS, lambda index, claim: progress(index / len(CLAIMS), claim.id))
    return as_data(entries)
