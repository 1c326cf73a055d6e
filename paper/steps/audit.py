"""The audit of the paper's own tables as a step of `make reproduce`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper.audit import audit

CONFIG: dict[str, Any] = {"tables": "paper/data/paper-tables.csv", "sizes": "paper/data/task-sizes.csv", "seed": None}
SECONDS = 1.0
NEEDS: tuple[str, ...] = ()
FILES = (CONFIG["tables"], CONFIG["sizes"])


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Return every table of the audit with the number of faults in each."""
    del config, needs, folder
    progress(0.0, "reading the paper's tables")
    return audit()
