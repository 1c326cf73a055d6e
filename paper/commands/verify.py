"""`toedit verify`: an edit that was written, checked against the originals and the prior."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from paper.errors import InputError
from paper.words import counted, warn


@dataclass(frozen=True)
class Verify:
    """Check an edit: undo every file and compare its bytes with the input's; decide some documents again.

    Example: `toedit verify my-corpus/*.jsonl.zst --edits edited/`.

    Exit code 0 if all is as it should be, 1 if not.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The originals, named as they were for the edit."""
    edits: Path
    """Output folder of `toedit edit`."""
    prior: str | None = None
    """The prior of the edit, if it is not to be found where it was: smollm2, tiny, a folder, a .gguf file."""
    documents: int = 100
    """Documents that are decided again, chosen at random among all."""
    seed: int = 0
    """Of the choice."""

    def run(self) -> int:
        """Check, print what was found; return the exit code.

        Raises:
            InputError: a file or the prior cannot be read, the folder is no finished edit of these files, or the prior
                is another one.
        """
        from lm.startup import before_jax

        before_jax()
        from rich.console import Console

        from lm.editing.check import verify
        from lm.editing.folder import NAME
        from lm.editing.inputs import find_tasks
        from lm.editing.prior import prepare_prior
        from lm.editing.settings import settings_of
        from lm.weights.load import load

        if self.documents < 1:
            raise InputError(f"--documents is {self.documents}; give at least 1")
        _, about = settings_of(self.edits)
        tasks = find_tasks(self.inputs, self.edits, warn)
        pretrained = load(self.prior or about[NAME], compute=about["compute"], inference=True)
        prior = prepare_prior(pretrained, compute=about["compute"], context=about["context"])
        del pretrained  # the matrices before they were made ready
        with Console(stderr=True).status("reading") as status:
            found = verify(tasks, self.edits, prior, documents=self.documents, seed=self.seed, progress=status.update)
        for sentence in found.told:
            print(sentence)
        if found.differences:
            print(f"{counted(found.differences, 'difference')}: {self.edits} is not this prior's edit of these files")
            return 1
        print(
            f"{counted(found.files, 'file')}: without the edits, the input to the byte. "
            f"{counted(found.documents, 'document')} with {counted(found.tokens, 'token')} decided again: the same "
            f"{counted(found.edits, 'edit')}."
        )
        return 0
