"""The committed results of editing: a million tokens of five domains with SmolLM2, and generations of edits.

`python -m paper.full_editing` makes the files of paper/results/editing again (half an hour on two cores; killed,
it goes on inside the edit). The edit is that of

    toedit edit source:sotu source:legal source:scripture source:biomedical source:security --split test \
      --preset released --stats 0.02 --out results/full/edited
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from paper.results import ROOT, plain, provenance, write_bytes, write_text
from paper.steps.lm_edit import beginnings

OUT = Path("results/full/edited")
FOLDER = ROOT / "paper" / "results" / "editing"
PRIOR, SEED, SPLIT = "smollm2", 0, "test"
DOMAINS = ("sotu", "legal", "scripture", "biomedical", "security")
SAMPLE, VERIFIED = 0.02, 20
# The generations: beginnings of documents of these domains.
AGAIN = ("sotu", "novels", "python")
DOCUMENTS, CHARACTERS, GENERATIONS = 8, 3500, 3


def _write(name: str, data: dict[str, Any], seconds: float) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain({**provenance(), "wall_seconds": round(seconds), **data}), indent=1, ensure_ascii=False)
    write_text(FOLDER / name, text + "\n")


def edit() -> None:
    """Edit and verify; write summary.json and edits.html."""
    from lm.editing.check import verify
    from lm.editing.config import PRESETS
    from lm.editing.inputs import find_tasks
    from lm.editing.prior import prepare_prior
    from lm.editing.run import run
    from lm.editing.settings import Settings
    from lm.weights.load import load

    prior = prepare_prior(load(PRIOR, compute="bfloat16", inference=True))
    settings = Settings(dataclasses.replace(PRESETS["released"], seed=SEED), split=SPLIT, sample=SAMPLE)
    tasks = find_tasks([f"source:{name}" for name in DOMAINS], OUT)
    started = time.perf_counter()
    outcome = run(tasks, OUT, prior, settings, progress=lambda step: print(f"{step.name}: {step.tokens} tokens"))
    seconds = time.perf_counter() - started
    checked = verify(tasks, OUT, prior, documents=VERIFIED, seed=SEED)
    content = {"settings": settings.to_json(), "summary": outcome.summary, "verified": checked._asdict()}
    _write("summary.json", content, seconds)
    write_bytes(FOLDER / "edits.html", (OUT / "edits.html").read_bytes())


def again() -> None:
    """Edit generation after generation; write again.json."""
    from lm.editing.config import PRESETS
    from lm.editing.generations import iterate
    from lm.editing.prior import prepare_prior
    from lm.weights.load import load

    started = time.perf_counter()
    documents = [
        (one.id, name, text.encode()) for name in AGAIN for one, text in beginnings(name, SPLIT, DOCUMENTS, CHARACTERS)
    ]
    presets = {name: dataclasses.replace(PRESETS[name], seed=SEED) for name in ("paper", "released")}
    prior = prepare_prior(load(PRIOR, compute="bfloat16", inference=True))
    result = iterate(prior, documents, presets, GENERATIONS, lambda share, said: print(f"{share:.0%} {said}"))
    _write("again.json", {"result": result}, time.perf_counter() - started)


def main() -> None:
    """Make what the command line names, "edit" or "again"; both by default."""
    from lm.startup import before_jax

    before_jax()
    makers = {"edit": edit, "again": again}
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
