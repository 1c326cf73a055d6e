"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one: "1 file", "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
