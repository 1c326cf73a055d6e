"""`toedit tokenize`: the user's own text, or a named source, as token files."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import tyro

from paper.words import counted

if TYPE_CHECKING:
    from lm.data.readers import Bad, Input, Reading, Record
    from lm.data.tokenizer import Tokenizer

SET_ASIDE = "set-aside.jsonl"


@dataclass(frozen=True)
class Tokenize:
    """Turn text into token files: memory-mapped ids with their documents, a checksum and the tokenizer.

    Example: `toedit tokenize "corpus/*.jsonl.zst" --out tokens --tokenizer smollm2`.

    Records that cannot be used (not UTF-8, broken JSON, no or an empty text) are set aside, counted, and listed with
    file and line in set-aside.jsonl in the output folder.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files (.txt, .md, .jsonl, each also .gz or .zst; .parquet), folders, globs, source:NAME or hub:OWNER/NAME."""
    out: Path
    """Folder to write; token files that are there are replaced."""
    tokenizer: str = "smollm2"
    """smollm2, tiny, a tokenizer.json, a folder with one, a .gguf file, or train:4096 to learn one of 4096 ids on this
    text (of the training split only: give --split train)."""
    field: str = "text"
    """Field of JSONL, Parquet and hub data sets that holds the text."""
    unit: Literal["file", "paragraph", "line"] = "file"
    """What one document of a text file is."""
    domain: str | None = None
    """Name of the text's domain; that of the output folder by default. A named source keeps its own."""
    split: str | None = None
    """train, validation or test: of a named source, or of files by the hash of the document; all by default."""
    strict: bool = False
    """Stop at the first record that cannot be used (exit code 2)."""
    processes: int | None = None
    """Processes that encode; one for each core by default."""

    def run(self) -> int:
        """Tokenise, print the counts; return the exit code, 0 also if records were set aside.

        Raises:
            InputError: an input or the tokenizer cannot be read, a bad record with --strict, an unwritable folder.
        """
        from lm.data.corpus import Writer
        from lm.data.readers import Reading, find
        from lm.data.tokenising import append
        from lm.errors import InputError

        processes = os.cpu_count() or 1 if self.processes is None else self.processes
        if processes < 1:
            raise InputError(f"--processes is {processes}; give a number from 1")
        reading = Reading(self.field, self.unit, self.domain or self.out.absolute().name, self.split)
        found = find(self.inputs)
        tokenizer = _tokenizer(self.tokenizer, found, reading)
        about = {"inputs": [one.name for one in found], "reading": asdict(reading)}
        with (
            Writer(self.out, tokenizer.size, about) as writer,
            (writer.folder / SET_ASIDE).open("w", encoding="utf-8") as file,
        ):
            aside = _Aside(file, strict=self.strict)
            append(_records(found, reading, aside, "tokenising"), tokenizer, writer, processes=processes)
            writer.about["set_aside"] = aside.count
        print(
            f"{self.out}: {counted(writer.documents, 'document')}, {counted(writer.tokens, 'token')}, tokenizer of "
            f"{tokenizer.size:,} ids ({tokenizer.sha256[:12]})."
        )
        if aside.count:
            told = f"warning: {counted(aside.count, 'damaged record')} set aside, see {self.out / SET_ASIDE}"
            print(told, file=sys.stderr)
        return 0


class _Aside:
    """Lists bad records in a file and counts them, or refuses the first."""

    def __init__(self, file: TextIO, *, strict: bool):
        self.count, self._file, self._strict = 0, file, strict

    def __call__(self, bad: "Bad") -> None:
        from lm.data.readers import refuse

        if self._strict:
            refuse(bad)
        self.count += 1
        self._file.write(json.dumps(asdict(bad)) + "\n")


def _records(found: list["Input"], reading: "Reading", aside: Callable[["Bad"], None], what: str) -> Iterator["Record"]:
    """Return the records of all inputs; a progress bar follows the bytes that were read."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from lm.data.readers import read

    known = all(one.size for one in found)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=sum(one.size for one in found) if known else None)
        for one in found:
            progress.update(task, description=f"{what} {Path(one.name).name}")
            for record in read(one, reading, aside, lambda size: progress.advance(task, size)):
                yield record
                if not one.size:
                    progress.advance(task, len(record.text))


def _tokenizer(name: str, found: list["Input"], reading: "Reading") -> "Tokenizer":
    """Return the tokenizer that the command line names, learned on the inputs if it says so."""
    from lm.data.tokenizer import Tokenizer
    from lm.errors import InputError

    if name.startswith("train:"):
        size = name.removeprefix("train:")
        if not size.isdecimal():
            raise InputError(f"--tokenizer {name} has no number of ids; write train:4096")
        texts = (record.text for record in _records(found, reading, lambda _: None, "learning from"))
        return Tokenizer.train(texts, int(size))
    return named_tokenizer(name)


def named_tokenizer(name: str) -> "Tokenizer":
    """Return the tokenizer of smollm2, of tiny, of a .gguf file, a tokenizer.json or its folder."""
    from lm.data.tokenizer import Tokenizer

    if name == "smollm2" or name.endswith(".gguf"):
        from lm.weights.gguf import GgufFile
        from lm.weights.load import fetch_smollm2

        return Tokenizer.from_gguf(GgufFile(fetch_smollm2() if name == "smollm2" else Path(name)).metadata)
    from lm.weights.load import TINY

    path = TINY if name == "tiny" else Path(name)
    return Tokenizer.from_folder(path) if path.is_dir() else Tokenizer.from_file(path)
