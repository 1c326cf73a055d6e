"""`toedit edit`: token-level editing of the user's own text, or of named sources."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from paper.commands.bar import share_bar
from paper.errors import InputError
from paper.words import counted, warn

if TYPE_CHECKING:
    from lm.editing.config import EditConfig
    from lm.editing.inputs import Task
    from lm.editing.prior import Prior
    from lm.editing.run import Outcome
    from lm.editing.settings import Settings

# Settings that only one method looks at.
PARTS_OF = {
    "upper": ("select", "band"),
    "top_k": ("candidates", "top-k"),
    "top_p": ("candidates", "top-p"),
    "beta": ("candidates", "rejection"),
}
BETWEEN = 60.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Edit:
    """Redraw the tokens that a language model is sure of (Zhu et al. 2025), and leave every other byte as it is.

    Example: `toedit edit my-corpus/*.jsonl.zst --prior smollm2 --out edited/`.

    Each input becomes a file of the same name, format, order and fields in the output folder. Beside it stand
    NAME.edits.parquet (every edit with its document, so each document's: `toedit apply` rebuilds the one file from the
    other), NAME.stats.json (counts by domain, the spread over documents), NAME.aside.jsonl (damaged records, if any)
    and, last, NAME.done; and for all files together stats.json and edits.html, to read.
    Killed at any moment, the same command goes on inside the file and ends in the same bytes.

    Columns of NAME.edits.parquet: file (output), record (line or row of the document's first byte, from 1), document
    (its id), index (of the token), begin and end (bytes in the document's text), old_token, new_token (-1: deleted),
    p_old, p_new (under the prior, given the original text before), at (byte in the record as it lies in the file: the
    line of JSONL, the unit of a text file, the text of Parquet), old and new (bytes there; of JSONL as they are escaped
    in the line, so that they may be longer than end - begin).
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files (.txt, .md, .jsonl, each also .gz or .zst; .parquet), folders, globs, source:NAME or hub:OWNER/NAME."""
    out: Path
    """Folder to write: a new one, or that of the run that is to go on."""
    prior: str = "smollm2"
    """Model whose probabilities decide: smollm2, tiny (to try things out), a folder, a .gguf file, hf:OWNER/NAME."""
    preset: Literal["paper", "released", "released-drop", "filter"] = "paper"
    """paper: tokens with P >= .99 are redrawn from the 8 likeliest. released: P > .99 and temperature 1.5, as in the
    authors' code. released-drop: temperature 1, and tokens with P < .001 are deleted. filter: only deletes those. The
    options below replace single settings of the preset."""
    select: Literal["at-least", "above", "at-most", "band"] | None = None
    """Redraw tokens with P at least, above or at most the threshold, or from the threshold to the upper end."""
    threshold: float | None = None
    """p, in [0, 1]."""
    upper: float | None = None
    """Upper end of the band."""
    candidates: Literal["top-k", "top-p", "all", "rejection"] | None = None
    """What a redrawn token is drawn from: the likeliest ones by number or by share, all, or all by rejection."""
    top_k: int | None = None
    """Number of candidates of top-k."""
    top_p: float | None = None
    """Share of the probability of top-p's candidates."""
    temperature: float | None = None
    """Of the draw; above 1 flattens it."""
    beta: float | None = None
    """Of rejection sampling; smaller accepts likelier candidates only."""
    keep_original: bool | None = None
    """Whether the original token is a candidate too; if not, every selected token changes."""
    delete_below: float | None = None
    """Delete tokens with P below this; 0 deletes none."""
    seed: int = 0
    """Of the draws: each is keyed by seed, document and position, so batches, shards and devices do not matter. Give
    another one to edit what was edited: the same would use each position's number again (--generations takes care)."""
    field: str = "text"
    """Field of JSONL, Parquet and hub data sets that holds the text."""
    unit: Literal["file", "paragraph", "line"] = "file"
    """What one document of a text file is. With line, tokens with line breaks are neither drawn nor changed; with
    paragraph, those with a line break or nothing but white space: no document becomes two."""
    split: str | None = None
    """train, validation or test of a named source, or a split of a hub data set; files are edited whole."""
    context: int | None = None
    """Longest window in tokens; the prior's by default. Longer documents are scored in overlapping windows."""
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the factors of matrix products; sums and probabilities are float32 always."""
    stats: float = 0.01
    """Share of the documents (by the hash of their ids) that are looked at more closely: every probability, the
    entropy, and the edited text scored again. 1 looks at all and costs a second pass of the prior."""
    generations: int = 1
    """Edit the edited text again, so many times in all; generation g is written to OUT/generation-g. With --stats, a
    sample is followed through them all: OUT/generations.json and .png tell how its confident share falls and how far
    its text drifts."""
    shard: str = "0/1"
    """Edit only a part of the files: 2/4 is the third of four hosts' parts, which may share the output folder."""
    strict: bool = False
    """Stop at the first damaged record (exit code 2) instead of setting it aside, also at one set aside earlier."""
    data: int = 1
    """Devices that hold copies of the prior, each for its share of the rows."""
    fsdp: int = 1
    """Devices over which the prior's matrices are cut along its width."""
    tensor: int = 1
    """Devices over which heads, hidden units and vocabulary are cut."""
    dry_run: bool = False
    """Print what would be read, the settings and an estimate of the time from the first tokens; write nothing."""

    def run(self) -> int:
        """Edit, print the counts; return the exit code, 0 also if records were set aside.

        Raises:
            InputError: an input, the prior or the folder cannot be used, or does not fit what is in the folder; a
                damaged record with --strict.
        """
        from lm.startup import before_jax

        before_jax()
        from lm.editing.folder import seed_of
        from lm.editing.inputs import find_tasks, shard_of
        from lm.editing.settings import Settings

        settings = Settings(self._config(), self.field, self.unit, self.split, self.stats)
        if self.generations < 1:
            raise InputError(f"--generations is {self.generations}; give a number from 1")
        shard = self._shard()
        tasks = find_tasks(self.inputs, self.out, warn)
        named = next((task.name for task in tasks if task.name.startswith("source:")), None)
        if named and self.generations > 1 and self.field != "text":
            raise InputError(
                f"the edited text of {named} is in the field 'text', where the next generation reads it, not in "
                f"{self.field!r}; leave --field out, or edit {named} apart"
            )
        shard_of(tasks, *shard)
        check_folder(self.out)
        again = next((task.name for task in tasks if task.path and seed_of(task.path) == self.seed), None)
        if again:
            warn(
                f"{again} was written by an edit with seed {self.seed}, whose draws are used again; give another --seed"
            )
        prior = self._prior()
        if self.dry_run:
            self._show_plan(shard_of(tasks, *shard), prior, settings)
            return 0
        source, first, complete = tasks, settings, True
        for number in range(1, self.generations + 1):
            tasks, complete = self._generation(number, tasks, prior, settings, shard)
            settings = replace(settings, split=None)  # what was written is read whole
        if self.generations > 1 and self.stats and complete:
            self._compare(source, prior, first)
        return 0

    def _compare(self, tasks: "list[Task]", prior: "Prior", settings: "Settings") -> None:
        """Tell of all generations together."""
        from paper.commands import generations

        with share_bar("following some documents", shown=sys.stderr.isatty()) as progress:
            found = generations.compare(tasks, prior, settings, self.generations, self.out, progress)
        if found is not None:
            generations.show(found, self.out)

    def _generation(
        self, number: int, tasks: "list[Task]", prior: "Prior", settings: "Settings", shard: tuple[int, int]
    ) -> "tuple[list[Task], bool]":
        """Edit the text of one generation; return its outputs, the inputs of the next, and whether all are there."""
        from lm.editing.generations import generation_seed
        from lm.editing.inputs import shard_of
        from lm.editing.run import run

        out = self.out
        if self.generations > 1:
            out = self.out / f"generation-{number}"
            edit = replace(settings.edit, seed=generation_seed(self.seed, number))
            settings = replace(settings, edit=edit)
            print(f"Generation {number} of {self.generations}:")
        started = time.perf_counter()
        mine = shard_of(tasks, *shard)
        with progress(sum(task.size for task in mine) if all(task.size for task in mine) else 0) as bar:
            outcome = run(
                tasks,
                out,
                prior,
                settings,
                shard=shard,
                strict=self.strict,
                progress=lambda step: bar(*step),
                warn=warn,
            )
        if outcome.complete:
            draw(outcome, out)
        show(outcome, out, time.perf_counter() - started)
        following = []
        for task in tasks:
            path = out / task.relative
            following.append(replace(task, name=str(path), size=path.stat().st_size if path.exists() else 0))
        return following, outcome.complete

    def _config(self) -> "EditConfig":
        """Return the preset with the options that replace its settings."""
        from lm.editing.config import PRESETS

        names = {field.name for field in fields(PRESETS[self.preset])} - {"seed"}
        changes = {name: value for name in names if (value := getattr(self, name)) is not None}
        config = replace(PRESETS[self.preset], seed=self.seed, **changes)
        for name, (method, value) in PARTS_OF.items():
            if name in changes and getattr(config, method) != value:
                option = name.replace("_", "-")
                raise InputError(f"--{option} has no effect without --{method} {value}; give both, or leave it out")
        return config

    def _shard(self) -> tuple[int, int]:
        index, _, count = self.shard.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise InputError(f"--shard {self.shard} is no part of the files; write 0/4 for the first of four")
        return int(index), int(count)

    def _prior(self) -> "Prior":
        from lm.editing.prior import prepare_prior
        from lm.model.sharding import make_mesh
        from lm.weights.load import load

        sizes = (self.data, self.fsdp, self.tensor)
        mesh = None if sizes == (1, 1, 1) else make_mesh(*sizes)
        pretrained = load(self.prior, compute=self.compute, mesh=mesh, inference=True)
        return prepare_prior(pretrained, compute=self.compute, context=self.context, mesh=mesh)

    def _show_plan(self, tasks: "list[Task]", prior: "Prior", settings: "Settings") -> None:
        """Print what would be done."""
        from rich.console import Console
        from rich.table import Table

        from lm.editing.estimate import estimate
        from lm.editing.folder import leaves
        from lm.editing.run import about

        console = Console(highlight=False)
        drawn = Table()
        for column in ("input", "bytes", "output"):
            drawn.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
        for task in tasks[:20]:
            drawn.add_row(task.name, f"{task.size:,}" if task.size else "?", str(self.out / task.relative))
        console.print(drawn)
        if len(tasks) > 20:
            console.print(f"... and {len(tasks) - 20:,} more")
        console.print(f"{len(tasks):,} inputs, {sum(task.size for task in tasks):,} bytes")
        for name, value in leaves(about(prior, settings)):
            console.print(f"{name}: {value}")
        found = estimate(tasks, prior, settings)
        if found is None:
            console.print("The first input has no text; there is nothing to time.")
            return
        size = "an unknown number of" if found.tokens is None else f"about {found.tokens:,}"
        took = "" if found.seconds is None else f": about {duration(found.seconds)}"
        console.print(f"{size} tokens at {found.speed:,.0f} tokens/s{took}, without compilation. Nothing was written.")


def check_folder(out: Path) -> None:
    """Refuse an output folder that cannot be written, before a model is loaded; raises InputError."""
    from paper.results import check_writable

    if out.exists() and not out.is_dir():
        raise InputError(f"the output {out} is a file; name a folder")
    check_writable(out / "run.json")


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


@contextmanager
def progress(total: int) -> "Iterator[Callable[..., None]]":
    """Show a bar over the bytes of the inputs with the time left, the speed and the effective edit rate.

    Args:
        total: bytes; 0 where they are not known.

    Yields:
        What is told of the name of a file, bytes, tokens, selected and changed tokens (`lm.editing.run.Step`).
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn(), TimeRemainingColumn())
    said = TextColumn("{task.description}")
    console = Console(stderr=True)
    tokens = changed = done = 0
    started = told = time.perf_counter()
    with Progress(
        *columns, said, console=console, transient=True, speed_estimate_period=300, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=total or None)

        def report(name: str, size: float, more: int = 0, _: int = 0, different: int = 0) -> None:
            nonlocal tokens, changed, done, told
            tokens, changed, done = tokens + more, changed + different, done + size
            now = time.perf_counter()
            rate = f"  {tokens / (now - started):,.0f} tokens/s  {changed / tokens:.2%} edited" if tokens else ""
            bar.update(task, advance=size, description=Path(name).name + rate)
            if not console.is_terminal and now - told > BETWEEN:
                share = f"{done / total:.1%}  " if total else ""
                print(f"{share}{Path(name).name}{rate}", file=sys.stderr, flush=True)
                told = now

        yield report


def draw(outcome: "Outcome", out: Path) -> None:
    """Write the picture of a finished run."""
    from io import BytesIO

    from figures.editing import picture
    from lm.editing.folder import clear, write, writing

    with BytesIO() as image, writing(out):
        picture(outcome.summary).savefig(image, format="png")
        write(out, out / "edits.png", image.getvalue())
        clear(out)


def show(outcome: "Outcome", out: Path, seconds: float) -> None:
    """Print the counts by domain and where the outputs are; warn of what was set aside."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table()
    domains, total = outcome.summary["domains"], outcome.summary["total"]
    keys = ("documents", "tokens", "selected", *(["deleted"] if total["deleted"] else []), "changed")
    for column in ("domain", *keys, "effective edit rate"):
        drawn.add_column(column, justify="left" if column == "domain" else "right")
    for name, row in [*domains.items(), *([("all", total)] if len(domains) != 1 else [])]:
        counts = (f"{row[key]:,}" for key in keys)
        rate = row["effective_edit_rate"]["value"]
        drawn.add_row(name, *counts, "" if rate is None else f"{rate:.3%}")
    Console().print(drawn)
    files = counted(outcome.files, "file")
    if outcome.complete:
        print(f"{files} in {out}, {seconds:.0f} s; what was edited: {out / 'edits.html'}")
    else:
        print(f"{files} of this shard in {out}, {seconds:.0f} s; other shards have not finished")
    if outcome.asides:
        warn(f"{counted(outcome.asides, 'damaged record')} set aside, see *.aside.jsonl in {out}")
    if outcome.repeated:
        warn(
            f"{counted(outcome.repeated, 'document')} with the id of an earlier one: at the same position both draw "
            "the same random number"
        )
