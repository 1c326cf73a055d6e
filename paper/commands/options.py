"""What `toedit theory` and `toedit sim` share: the process asked for, and the outputs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from paper.errors import InputError

MOST_GENERATIONS = 10_000
MOST_ENTRIES = 50_000_000  # of X: 400 MB, of which an engine holds a few copies

RuleName = Literal["replace", "accumulate", "accumulate-subsample", "fixed-real-share", "edit"]
Selection = Literal["random", "disjoint", "high-confidence", "low-confidence"]


@dataclass(frozen=True)
class Process:
    """The process, in the paper's notation (section 4.2)."""

    rule: RuleName = "edit"
    """What is done with the labels of the next generation."""
    selection: Selection = "random"
    """For `edit`: which rows; confidence is |residual| against --threshold."""
    T: int = 200
    """Samples."""
    d: int = 10
    """Features; T must be at least d + 2."""
    sigma: float = 1.0
    """Standard deviation of the label noise."""
    generations: int = 10
    """Fits counted; generation 1 is the honest fit."""
    share: float | None = None
    """For `edit`: share of the rows edited first (it sets the threshold of confidence); for `fixed-real-share`: the
    share of real rows."""
    decay: float | None = None
    """For `edit` by count: factor from one generation's share to the next, in (0, 1); constant if not given."""
    counts: tuple[int, ...] = ()
    """For `edit` by count: edited rows in each generation, instead of --share and --decay."""
    threshold: float | None = None
    """For `edit` by confidence: tau in units of sigma, instead of --share."""
    fresh_x: bool = False
    """For `accumulate`: draw new features in every generation instead of stacking the same."""
    seed: int = 0
    """Seed of every random draw."""

    def check(self) -> None:
        """Refuse options that the rule and the selection would ignore, and sizes out of reach.

        Raises:
            InputError: an option does not apply, or a number is outside its range.
        """
        by_confidence = self.selection in ("high-confidence", "low-confidence")
        uses = {"share"} if self.rule in ("edit", "fixed-real-share") else set[str]()
        if self.rule == "edit":
            uses |= {"selection", "threshold"} if by_confidence else {"selection", "counts", "decay"}
        if self.rule.startswith("accumulate"):
            uses.add("fresh_x")
        for name, default in (
            ("selection", "random"),
            ("share", None),
            ("decay", None),
            ("counts", ()),
            ("threshold", None),
            ("fresh_x", False),
        ):
            if name not in uses and getattr(self, name) != default:
                what = f"{self.rule} by {self.selection}" if self.rule == "edit" else self.rule
                raise InputError(f"--{name.replace('_', '-')} does not apply to {what}; leave it out")
        if self.threshold is not None and self.share is not None:
            raise InputError("--threshold and --share exclude each other; give one of them")
        if not 1 <= self.generations <= MOST_GENERATIONS:
            raise InputError(f"--generations is {self.generations}; give a number from 1 to {MOST_GENERATIONS}")
        if self.T * self.d > MOST_ENTRIES:
            raise InputError(
                f"X would have T d = {self.T * self.d} entries; at most {MOST_ENTRIES} fit here, lower T or d"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed is {self.seed}; give a number from 0 to 2^32 - 1")
        if not 1e-100 < self.sigma < 1e100:
            raise InputError(f"--sigma is {self.sigma}; give a standard deviation above 0 of ordinary size")

    def edit_counts(self) -> tuple[int, ...]:
        """Return m_1 .. m_{generations-1} from --counts, or from --share and --decay.

        Raises:
            InputError: neither or both were given, or their number does not fit --generations.
        """
        from theory.schedules import constant_counts, geometric_counts

        if self.counts:
            if self.share is not None or self.decay is not None:
                raise InputError("--counts and --share/--decay exclude each other; give one of them")
            if len(self.counts) != self.generations - 1:
                raise InputError(
                    f"{self.generations} generations have {self.generations - 1} edits but --counts has "
                    f"{len(self.counts)}; give one count for each edit"
                )
            return self.counts
        share = 0.125 if self.share is None else self.share
        if self.decay is None:
            return constant_counts(self.T, share, self.generations)
        return geometric_counts(self.T, share, self.decay, self.generations)


@dataclass(frozen=True)
class Output:
    """Where the numbers go besides the terminal."""

    json: Path | None = None
    """Write numbers, configuration, versions and machine as JSON."""
    csv: Path | None = None
    """Write the table as CSV."""
    plot: Path | None = None
    """Draw the error by generation (.pdf, .png or .svg)."""

    def check(self) -> None:
        """Refuse outputs that cannot be written, before anything is computed.

        Raises:
            InputError: an unknown format, or a file or folder that cannot be written.
        """
        from paper.results import check_writable

        if self.plot is not None and self.plot.suffix not in (".pdf", ".png", ".svg"):
            raise InputError(f"--plot {self.plot} has no known format; end it in .pdf, .png or .svg")
        for path in (self.json, self.csv, self.plot):
            if path is not None:
                check_writable(path)


def emit(name: str, command: Any, rows: Sequence[dict[str, Any]], note: str, started: float) -> None:
    """Print a table of the error by generation and write what `command.output` asks for.

    Args:
        name: of the result.
        command: the dataclass that was run; its fields are the configuration.
        rows: one record a generation, with "generation", "error" and "standard_error".
        note: one sentence on how the numbers came about.
        started: `time.perf_counter()` at the start.
    """
    from rich.console import Console
    from rich.table import Table

    from paper.results import record, write_csv, write_text

    seconds = time.perf_counter() - started
    output: Output = command.output
    table = Table(title=None)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("-" if value is None else f"{value:.5g}" for value in row.values()))
    console = Console()
    console.print(table)
    console.print(note, highlight=False)
    if output.csv is not None:
        write_csv(output.csv, rows)
    if output.json is not None:
        import json

        config = {key: value for key, value in asdict(command).items() if key != "output"}
        config = {**config.pop("process"), **config}
        result = record(name, config, {"note": note, "tables": {"error": list(rows)}}, seconds)
        write_text(output.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if output.plot is not None:
        draw(output.plot, rows, f"{command.process.rule}, T = {command.process.T}, d = {command.process.d}")


def draw(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draw error/v by generation with two standard errors to each side."""
    import io

    from figures.style import BLUE, band, figure
    from paper.results import write_bytes

    drawing = figure("single", 2.6)
    ax = drawing.subplots()
    values = {key: [row[key] for row in rows] for key in ("generation", "error_over_v", "error_over_v_se")}
    band(ax, values["generation"], values["error_over_v"], values["error_over_v_se"], color=BLUE, marker="o")
    ax.axhline(2, color="0.4", linestyle=":", linewidth=1)
    ax.annotate("2v (Theorem 2)", (1, 2), xytext=(0, 2), textcoords="offset points", fontsize=7, color="0.3")
    ax.set(xlabel="generation", ylabel="test error / v", title=title)
    ax.set_ylim(bottom=0)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format=path.suffix[1:])
    write_bytes(path, buffer.getvalue())
