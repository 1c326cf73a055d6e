"""`toedit paper`: the LaTeX note, with every number from the result files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """Write the LaTeX note (theorems with proofs, ledger, figures) and, where a LaTeX is installed, its PDF.

    The numbers come from the result files, so run `toedit reproduce` before. Example: `toedit paper`.
    """

    results: Path = Path("results")
    """Folder with the result files."""
    output: Path = Path("results/paper")
    """Folder for the filled sources and note.pdf."""

    def run(self) -> int:
        """Build the note; return the exit code."""
        from paper.note_build import build

        print(build(self.results, self.output))
        return 0
