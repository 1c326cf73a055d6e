"""The committed results of the experiments: `make reproduce-full` trains all models of the preset laptop.

An hour and a half on two cores; killed, it goes on where it was. Files: paper/results/experiments/laptop/NAME.json.
`python -m paper.full_experiments gpu/8M-tokens-17m mixture edited` does the same with a size of another preset.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lm.errors import InputError as LmError
from lm.experiments.designs import EXPERIMENTS
from lm.experiments.presets import find_preset
from lm.experiments.tables import tables
from lm.experiments.workers import make
from paper.commands.plan import processes, with_sizes
from paper.errors import InputError as PaperError
from paper.results import ROOT, plain, provenance, write_text

RESULTS = Path("results") / "experiments"


def begun(folder: Path) -> dict[str, Any]:
    """Return the commit, versions and machine that made a folder's first models; noted when the folder is new."""
    note = folder / "made.json"
    if not note.exists():
        write_text(note, json.dumps(provenance(), indent=1) + "\n")
    return json.loads(note.read_text(encoding="utf-8"))


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
    """Make the experiments that the command line names; all of the preset laptop by default.

    Raises:
        InputError: an unknown experiment, preset or size.
    """
    named = [name for name in sys.argv[1:] if name in EXPERIMENTS]
    places = [name for name in sys.argv[1:] if name not in EXPERIMENTS] or ["laptop"]
    if len(places) > 1:
        raise PaperError(f"{' and '.join(places)} are no experiments, and one preset is made at a time; name one")
    (place,) = places
    preset_name, _, size = place.partition("/")
    whole = find_preset(preset_name)
    presets = {
        name: with_sizes(whole, name, (size,) if size or name in whole.variants else None).sizes(name)[size]
        for name in named or EXPERIMENTS
    }
    folder = ROOT / RESULTS / place
    made = begun(folder)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # an accelerator's memory is for the workers
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    for name, preset in presets.items():
        experiment = EXPERIMENTS[name]
        cells = experiment.cells(preset)
        with Progress(*columns) as bar:
            task = bar.add_task(name, total=1.0)

            def progress(share: float, message: str, bar: Progress = bar, task: Any = task, name: str = name) -> None:
                bar.update(task, completed=share, description=f"{name}: {message}")

            stage = make([cell.run for cell in cells], folder, preset.setup, progress, processes())
        about = {"experiment": name, "question": experiment.question, "preset": place, "seeds": preset.seeds}
        written = {**about, **made, "setup": preset.setup.to_json(), "data": tables(stage, cells)}
        write_text(ROOT / "paper" / RESULTS / place / f"{name}.json", laid_out(shortened(plain(written))) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (LmError, PaperError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
