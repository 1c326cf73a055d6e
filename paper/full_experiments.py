"""The committed results of the experiments: `make reproduce-full` trains all models of the preset laptop.

An hour and a half on two cores; killed, it goes on where it was. Files: paper/results/experiments/laptop/NAME.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lm.experiments.designs import EXPERIMENTS
from lm.experiments.presets import find_preset
from lm.experiments.tables import tables
from lm.experiments.workers import make
from paper.results import ROOT, git, plain, provenance, write_text
from paper.steps.lm_experiments import COMMITTED

PRESET = "laptop"
FOLDER = ROOT / "results" / "experiments" / PRESET


def begun(folder: Path) -> str:
    """Return the commit whose code made a folder's first models; noted when the folder is new."""
    note = folder / "commit.txt"
    if not note.exists():
        write_text(note, git("rev-parse", "HEAD") or "no checkout")
    return note.read_text(encoding="utf-8").strip()


def shortened(value: Any) -> Any:
    """Return plain data with seven digits a number: more than the experiments repeat on another machine."""
    return json.loads(json.dumps(value, allow_nan=False), parse_float=lambda text: float(f"{float(text):.7g}"))


def laid_out(value: Any, indent: str = "") -> str:
    """Return JSON with one line a table row, so that a difference can be read and the file stays small."""
    if isinstance(value, dict) and value:
        inner = [f"{indent} {json.dumps(key)}: {laid_out(one, indent + ' ')}" for key, one in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"{indent} {json.dumps(one, allow_nan=False)}" for one in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def main() -> None:
    """Make the experiments that the command line names; all by default."""
    preset = find_preset(PRESET)
    commit = begun(FOLDER)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    for name in sys.argv[1:] or EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        cells = experiment.cells(preset)
        with Progress(*columns) as bar:
            task = bar.add_task(name, total=1.0)

            def progress(share: float, message: str, bar: Progress = bar, task: Any = task, name: str = name) -> None:
                bar.update(task, completed=share, description=f"{name}: {message}")

            stage = make([cell.run for cell in cells], FOLDER, preset.setup, progress)
        about = {"experiment": name, "question": experiment.question, "preset": PRESET, "seeds": preset.seeds}
        written = {**about, **provenance(), "commit": commit, "setup": preset.setup.to_json()}
        write_text(
            COMMITTED / f"{name}.json", laid_out(shortened(plain({**written, "data": tables(stage, cells)}))) + "\n"
        )


if __name__ == "__main__":
    main()
