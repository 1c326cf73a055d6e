"""`toedit claims`: check every claim of the paper and every result of this work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

STYLE = {"holds": "green", "holds under a condition": "yellow", "fails": "red", "untestable here": "dim"}


@dataclass(frozen=True)
class Claims:
    """Check the ledger: every numbered statement of sections 4 and A of the paper and every result of this work.

    Verdicts are computed from exact arithmetic, exact engines and literal simulations; those about language models
    from the committed results of the experiments. The exit code is 1 if something that this work asserts, a correction
    included, does not hold. Example:
    `toedit claims --only theorem-1 theorem-2 --json ledger.json`.
    """

    only: tuple[str, ...] = ()
    """Ids of the claims to check; all of them by default."""
    owner: Literal["paper", "this work"] | None = None
    """Check only the paper's statements or only this work's."""
    json: Path | None = None
    """Write entries and every comparison with its numbers to this file."""
    csv: Path | None = None
    """Write the ledger as a table."""

    def run(self) -> int:
        """Check, print, and return the exit code."""
        return run(self)


def run(args: Claims) -> int:
    """Evaluate the chosen claims and print them as a table.

    Returns:
        1 if a claim or a correction of this work does not hold, else 0.

    Raises:
        InputError: an unknown id, an output file that cannot be written, a committed result that is missing or damaged.
    """
    from rich.console import Console
    from rich.progress import Progress

    from paper.claims import experiments, ledger
    from paper.claims.table import as_data, evaluate_all
    from paper.results import check_writable, record, write_csv, write_record
    from paper.steps.lm_experiments import LARGER, LARGER_NAMES, LARGER_SIZE, committed

    for path in (args.json, args.csv):
        if path is not None:
            check_writable(path)
    measured = (
        *experiments.claims(committed()),
        *experiments.claims(committed(LARGER_NAMES, LARGER), LARGER_SIZE),
    )
    claims = ledger.select((*ledger.CLAIMS, *measured), args.only, args.owner)
    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("claims", total=len(claims))
        entries = evaluate_all(claims, lambda index, claim: bar.update(task, completed=index, description=claim.id))
    data = as_data(entries)
    if args.json is not None:
        config: dict[str, Any] = {"only": args.only, "owner": args.owner}
        write_record(args.json, record("claims", config, data, sum(entry.seconds for entry in entries)), tables=())
    if args.csv is not None:
        write_csv(args.csv, data["tables"]["ledger"])
    console.print(table(data["tables"]["ledger"]))
    console.print(data["summary"], highlight=False)
    return 1 if data["broken"] else 0


def table(rows: list[dict[str, Any]]) -> Any:
    """Return a rich table of ledger rows."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(show_lines=False, pad_edge=False)
    for heading, width in (("id", 18), ("statement", 44), ("verdict", 12), ("numbers", 50)):
        shown.add_column(heading, overflow="fold", min_width=min(width, 12), ratio=width)
    for row in rows:
        more = [row["numbers"]]
        if row["condition"]:
            more.append(f"condition: {row['condition']}")
        if row["correction"]:
            more.append(f"instead: {row['correction']}")
        if row["counterexample"] and row["counterexample"] not in row["numbers"]:
            more.append(f"counterexample: {row['counterexample']}")
        if row["rejected_at_z"] is not None:
            more.append(f"rejected: {row['rejected_alternative']} (|z| >= {row['rejected_at_z']:g})")
        where = "" if row["owner"] == "this work" else f"\n{row['where']}"
        shown.add_row(
            Text(row["id"] + where),
            Text(row["statement"]),
            Text(row["verdict"], style=STYLE[row["verdict"]]),
            Text("\n".join(part for part in more if part)),
        )
    return shown
