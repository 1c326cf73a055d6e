"""`toedit apply`: the edited corpus from the original and the table of edits, or the original from the edited one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from paper.errors import InputError
from paper.words import counted, warn


@dataclass(frozen=True)
class Apply:
    """Rebuild edited files from their originals and the edits, without the prior; or undo the edits.

    Example: `toedit apply my-corpus/*.jsonl.zst --edits edited/ --out rebuilt/`.

    So only the tables of edits need to be kept or passed on. Of the folder of the edit, run.json and, for each file,
    NAME.edits.parquet, NAME.stats.json and NAME.done are read; to undo, also the edited files and NAME.aside.jsonl.
    """

    edits: Path
    """Output folder of `toedit edit`."""
    out: Path
    """Folder to write; files of the same names are replaced."""
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The originals, named as they were for the edit; with --undo the edited files, by default all in the folder."""
    undo: bool = False
    """Write the originals instead: the same content to the byte (compressed anew, where it is compressed; of Parquet
    the same table)."""

    def run(self) -> int:
        """Write the files; return the exit code.

        Raises:
            InputError: a file cannot be read or written, or is not the one that was edited.
        """
        from lm.editing.inputs import find_tasks
        from lm.editing.rebuild import apply_file, undo
        from paper.commands.edit import check_folder, progress

        if not self.inputs and not self.undo:
            raise InputError("there are no originals to apply the edits to; name them, or undo with --undo")
        tasks = find_tasks(self.inputs or (str(self.edits),), self.out, warn)
        check_folder(self.out)
        with progress(sum(task.size for task in tasks)) as bar:
            for task in tasks:
                (undo if self.undo else apply_file)(
                    task, self.edits, self.out, lambda size, name=task.name: bar(name, size)
                )
        print(f"{counted(len(tasks), 'original' if self.undo else 'edited file')} in {self.out}")
        return 0
