"""What `toedit edit --generations` tells of all generations together: decay and drift, of a sample of the documents."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper.results import digest, plain, provenance, write_bytes, write_text

if TYPE_CHECKING:
    from lm.editing.inputs import Task
    from lm.editing.prior import Prior
    from lm.editing.settings import Settings

NAME = "generations"  # of the files in the output folder: .json and .png


def compare(
    tasks: "Sequence[Task]",
    prior: "Prior",
    settings: "Settings",
    generations: int,
    out: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any] | None:
    """Follow some documents through all edits; write generations.json and generations.png, unless they are there.

    Args:
        tasks: of the source.
        prior: that edited.
        settings: of the first edit.
        generations: number of edits.
        out: folder that holds those of the generations.
        progress: told the share done and what is done.

    Returns:
        What `lm.editing.generations.iterate` returns, the edit's own draws; None where no document can be followed.

    Raises:
        InputError: an input cannot be read, the folder not written.
    """
    from figures.editing_generations import picture
    from lm.editing.config import PRESETS
    from lm.editing.followed import followed
    from lm.editing.generations import iterate
    from lm.editing.run import about
    from lm.errors import InputError

    inputs = [[task.relative, task.size] for task in tasks]
    path = out / f"{NAME}.json"
    made_of = {**about(prior, settings), "generations": generations, "inputs": digest(inputs)}
    kept = _kept(path)
    if kept.get("run") == plain(made_of):
        return kept["result"]
    documents = followed(tasks, settings)
    try:
        result = iterate(prior, documents, {"edit": settings.edit}, generations, progress)
    except InputError:  # no token among them
        return None
    stated = [replace(PRESETS[name], seed=settings.edit.seed) for name in ("paper", "released")]
    with BytesIO() as image:
        picture(result, table_15=settings.edit in stated).savefig(image, format="png")
        write_bytes(out / f"{NAME}.png", image.getvalue())
    content = plain({**provenance(), "run": made_of, "result": result})
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return result


def _kept(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def show(result: dict[str, Any], out: Path) -> None:
    """Print a line for each generation."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=f"{result['documents']:,} documents, {result['tokens']:,} tokens, followed")
    names = (
        "generation",
        "selected",
        "predicted",
        "of before",
        "edited",
        "change of mean log P",
        "distance",
        "new 4-grams",
    )
    for name in names:
        drawn.add_column(name, justify="right")
    rows = result["settings"]["edit"]["generations"]
    for before, row in zip([None, *rows], rows, strict=False):
        edited, drift = before and before["edit"], row.get("drift")
        drawn.add_row(
            str(row["generation"]),
            _share(row["selected_share"], error=True),
            _share(row["predicted_share"]),
            _share(edited["ratio"], error=True) if edited else "",
            _share(edited["effective_edit_rate"]) if edited else "",
            f"{row['mean_log_probability_change']['value']:+.4f}" if drift else "",
            _share(drift["edit_distance"]) if drift else "",
            _share(drift["new_4grams"]) if drift else "",
        )
    Console().print(drawn)
    print(
        "In per cent: tokens selected (± one standard error over documents), what the source's probabilities predict\n"
        "of them if contexts stayed, them over those of the generation before, tokens that the edit changed; against\n"
        "the source: nats a token, edit distance in tokens, sequences of four tokens that it does not have.\n"
        f"All errors: {out / NAME}.json; the picture: {out / NAME}.png"
    )


def _share(found: dict[str, Any], *, error: bool = False) -> str:
    value, spread = found["value"], found["standard_error"]
    if value is None:
        return ""
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if error and spread is not None else "")
