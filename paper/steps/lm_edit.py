"""Token-level editing of real text with a real prior: a sample live, beside the committed run."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper.results import ROOT, write_bytes

if TYPE_CHECKING:
    from lm.data.sources import Document
    from lm.data.splits import Split

CONFIG: dict[str, Any] = {
    "seed": 0,
    "prior": "smollm2",
    "sources": ["sotu", "novels", "python"],
    "split": "test",
    "characters": 3000,  # of a document: its beginning, so that several documents share the tokens
    "documents": 2,  # a source
    "preset": "released",
    "verified": 2,  # documents that are edited a second time and compared
}
COMMITTED = "paper/results/editing/summary.json"
FILES = (COMMITTED,)
SECONDS = 45.0
NEEDS: tuple[str, ...] = ()


def beginnings(name: str, split: "Split", documents: int, characters: int) -> "list[tuple[Document, str]]":
    """Return some documents of a source, the first in the order of the hashes of their names, and their beginnings.

    Args:
        name: of the source.
        split: of the source.
        documents: how many.
        characters: of each, at most.
    """
    from lm.data import sources

    chosen = sorted(sources.load(name, split), key=lambda one: hashlib.sha256(one.id.encode()).digest())[:documents]
    return [(one, one.text[:characters]) for one in chosen]


def _write_inputs(config: dict[str, Any], folder: Path) -> list[str]:
    """Write the beginnings of some documents of each source as JSON lines; return the files."""
    paths = []
    for name in config["sources"]:
        lines = [
            json.dumps({"id": one.id, "text": text}, ensure_ascii=False) + "\n"
            for one, text in beginnings(name, config["split"], config["documents"], config["characters"])
        ]
        path = folder / "inputs" / name / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(lines).encode())
        paths.append(str(path))
    return paths


def rows(summary: dict[str, Any], run: str) -> list[dict[str, Any]]:
    """Return a table by domain of a run's counts and of its sample's log-probabilities.

    Args:
        summary: of `lm.editing.statistics.summary`.
        run: what the column of this name says.
    """
    made = []
    for name, counts in [*summary["domains"].items(), ("all", summary["total"])]:
        sample = summary["sample"]["total" if name == "all" else "domains"]
        scores = sample if name == "all" else sample[name]
        level = scores["mean_log_probability"]
        made.append(
            {
                "run": run,
                "domain": name,
                "documents": counts["documents"],
                "tokens": counts["tokens"],
                "selected_share": counts["selected_share"]["value"],
                "selected_share_se": counts["selected_share"]["standard_error"],
                "effective_edit_rate": counts["effective_edit_rate"]["value"],
                "effective_edit_rate_se": counts["effective_edit_rate"]["standard_error"],
                "sampled_documents": scores["documents"],
                "log_probability_before": level["before"]["value"],
                "log_probability_after": level["after"]["value"],
                "change": level["change"]["value"],
                "change_se": level["change"]["standard_error"],
            }
        )
    return made


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Edit a sample, verify it, and return its counts beside those of the committed run.

    Raises:
        InputError: no network, a download that is not the pinned content, an unwritable cache or folder.
    """
    del needs
    from lm.editing.check import verify
    from lm.editing.config import PRESETS
    from lm.editing.inputs import find_tasks
    from lm.editing.prior import prepare_prior
    from lm.editing.run import Settings, Step
    from lm.editing.run import run as edit
    from lm.weights.load import load

    progress(0.0, f"fetching and reading {config['prior']}")
    prior = prepare_prior(load(config["prior"], compute="bfloat16", inference=True))
    inputs = _write_inputs(config, folder)
    settings = Settings(dataclasses.replace(PRESETS[config["preset"]], seed=config["seed"]), sample=1.0)
    tasks, out = find_tasks(inputs, folder / "edited"), folder / "edited"
    total, done = sum(task.size for task in tasks), 0.0

    def tell(step: Step) -> None:
        nonlocal done
        done += step.size
        progress(0.1 + 0.7 * done / total, f"editing {step.name}")

    summary = edit(tasks, out, prior, settings, progress=tell).summary
    progress(0.8, "verifying")
    checked = verify(tasks, out, prior, documents=config["verified"], seed=config["seed"])
    home = folder.parent.parent
    write_bytes(home / "edits.html", (out / "edits.html").read_bytes())
    committed = json.loads((ROOT / COMMITTED).read_text(encoding="utf-8"))
    progress(1.0, "done")
    return {
        "sha256": prior.sha256,
        "live": summary,
        "committed": committed,
        "verified": checked._asdict(),
        "tables": {"editing": [*rows(summary, "live sample"), *rows(committed["summary"], "committed")]},
    }
