"""`toedit tokenize`: the user's own text, or a named source, as token files."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from paper.commands.aside import Aside, filled
from paper.words import counted, warn

if TYPE_CHECKING:
    from lm.data.readers import Input, Reading, Record
    from lm.data.repeated import RepeatedIds
    from lm.data.tokenizer import Tokenizer


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
    """Folder to write; token files that are there are replaced, a folder with anything else is refused."""
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
    """train, validation or test: of a named source, or of files: 80, 5 and 15 % by the hash of a record's id or, where
    it has none, of its text; all by default."""
    strict: bool = False
    """Stop at the first record that cannot be used (exit code 2)."""
    processes: int | None = None
    """Processes that encode; one for each core by default."""

    def run(self) -> int:
        """Tokenise, print the counts; return the exit code, 0 also if records were set aside.

        Raises:
            InputError: an input or the tokenizer cannot be read, a bad record with --strict, no document, an output
                folder that cannot be written, is not of token files, or holds an input.
        """
        from lm.data.corpus import Writer
        from lm.data.readers import Reading, find
        from lm.data.repeated import RepeatedIds
        from lm.data.replacing import SET_ASIDE
        from lm.data.tokenising import append
        from lm.errors import InputError

        processes = os.cpu_count() or 1 if self.processes is None else self.processes
        if processes < 1:
            raise InputError(f"--processes is {processes}; give a number from 1")
        reading = Reading(self.field, self.unit, self.domain or self.out.absolute().name, self.split)
        found = find(self.inputs)
        self._check_outside(found)
        tokenizer = _tokenizer(self.tokenizer, found, reading)
        about = {"inputs": [one.name for one in found], "reading": asdict(reading)}
        with (
            Writer(self.out, tokenizer.size, about) as writer,
            (writer.folder / SET_ASIDE).open("w", encoding="utf-8") as file,
        ):
            aside, repeated = Aside(file, strict=self.strict), RepeatedIds()
            records = _noted(_records(found, reading, aside, "tokenising"), repeated)
            append(records, tokenizer, writer, processes=processes)
            writer.about["set_aside"] = aside.count
        print(
            f"{self.out}: {counted(writer.documents, 'document')}, {counted(writer.tokens, 'token')}, tokenizer of "
            f"{tokenizer.size:,} ids ({tokenizer.sha256[:12]})."
        )
        aside.tell(f", see {self.out / SET_ASIDE}")
        if repeated.count:
            count = f"{'' if repeated.is_all else 'at least '}{counted(repeated.count, 'document')}"
            warn(f"{count} with the id of an earlier one; draws by id (splits, parts, edits) are the same")
        return 0

    def _check_outside(self, found: list["Input"]) -> None:
        """Refuse inputs in the output folder, which is replaced."""
        from lm.errors import InputError

        for one in found:
            is_file = not one.name.startswith(("source:", "hub:"))
            if is_file and Path(one.name).resolve().is_relative_to(self.out.resolve()):
                raise InputError(f"the input {one.name} lies in the output folder {self.out}; choose another folder")


def _noted(records: Iterator["Record"], repeated: "RepeatedIds") -> Iterator["Record"]:
    """Yield the same records, their own ids noted."""
    for record in records:
        if record.own_id is not None:
            repeated.add(record.own_id)
        yield record


def _records(found: list["Input"], reading: "Reading", aside: Aside, what: str) -> Iterator["Record"]:
    """Return the records of all inputs; a progress bar follows the bytes that were read.

    Raises:
        InputError: there are none.
    """
    split = "" if reading.split is None else f" (split {reading.split})"
    return filled(_shown(found, reading, aside, what), aside, f"the inputs{split}", "--field")


def _shown(found: list["Input"], reading: "Reading", aside: Aside, what: str) -> Iterator["Record"]:
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
        texts = (record.text for record in _records(found, reading, Aside(), "learning from"))
        return Tokenizer.train(texts, int(size))
    return named_tokenizer(name)


def named_tokenizer(name: str) -> "Tokenizer":
    """Return the tokenizer of smollm2, of tiny, of a .gguf file, a tokenizer.json or its folder."""
    from lm.data.tokenizer import Tokenizer
    from lm.errors import InputError

    if name == "smollm2" or name.endswith(".gguf"):
        from lm.weights.gguf import GgufFile
        from lm.weights.load import fetch_smollm2

        return Tokenizer.from_gguf(GgufFile(fetch_smollm2() if name == "smollm2" else Path(name)).metadata)
    from lm.weights.load import TINY

    path = TINY if name == "tiny" else Path(name)
    if not path.exists():
        raise InputError(
            f"there is no tokenizer {name}; name smollm2, tiny, train:4096, a tokenizer.json, its folder or a .gguf"
        )
    return Tokenizer.from_folder(path) if path.is_dir() else Tokenizer.from_file(path)
