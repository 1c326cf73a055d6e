"""Write results/report.html: the ledger, every figure and every table in one self-contained page."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper.report import page
from paper.results import ROOT, write_text

CONFIG: dict[str, Any] = {
    "title": "ToEdit: does synthetic data collapse models, and does token-level editing prevent it?"
}
EDITS = "paper/results/editing/edits.html"
FILES = (EDITS,)
SECONDS = 2.0
NEEDS = (
    "curves",
    "gerstgrasser",
    "paper_bound",
    "limits",
    "one_edit",
    "confidence",
    "phase",
    "toys",
    "tokens",
    "audit",
    "claims",
    "lm_data",
    "lm_smollm2",
    "lm_edit",
    "lm_edit_again",
    "lm_train",
    "lm_experiments",
    "lm_claims",
    "figures",
)


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Write the page next to the steps' folders; return its hash."""
    results = folder.parent.parent.parent
    edits = (ROOT / EDITS).read_text(encoding="utf-8")
    html = page(config["title"], needs, results / "figures", edits)
    write_text(results / "report.html", html)
    return {"files": {"../report.html": hashlib.sha256(html.encode()).hexdigest()}}
