"""Numbers and commits in sentences, and warnings."""

import sys


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one: "1 file", "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short_commit(commit: str | None) -> str:
    """Return the first 12 digits of a result's commit, with its "-dirty", or "no checkout"."""
    if commit is None:
        return "no checkout"
    digits, _, dirty = commit.partition("-")
    return digits[:12] + (f"-{dirty}" if dirty else "")


def warn(said: str) -> None:
    """Print a warning."""
    print(f"warning: {said}", file=sys.stderr)
