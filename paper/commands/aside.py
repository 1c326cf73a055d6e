"""Records that cannot be used, in the commands that read text: counted, told of, and never silently all of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from paper.errors import InputError
from paper.words import counted, warn

if TYPE_CHECKING:
    from lm.data.readers import Bad, Record


class Aside:
    """Counts bad records and keeps the first.

    Attributes:
        count: so far.
        first: of them.
    """

    def __init__(self, listing: TextIO | None = None, *, strict: bool = False):
        """Start with none.

        Args:
            listing: file that gets a line of JSON for each.
            strict: raise InputError for the first instead.
        """
        self.count = 0
        self.first: Bad | None = None
        self._listing, self._strict = listing, strict

    def __call__(self, bad: "Bad") -> None:
        """Take a bad record."""
        from lm.data.readers import refuse

        if self._strict:
            refuse(bad)
        self.count += 1
        self.first = self.first or bad
        if self._listing is not None:
            self._listing.write(json.dumps(asdict(bad)) + "\n")

    def tell(self, more: str) -> None:
        """Print how many there were, if any; `more` ends the sentence."""
        if self.count:
            warn(f"{counted(self.count, 'damaged record')} set aside{more}")

    def where(self) -> str:
        """Return the place of the first and why it cannot be used."""
        return "" if self.first is None else f"{self.first.file}:{self.first.line}: {self.first.reason}"


def filled(records: Iterable["Record"], aside: Aside, what: str, field_option: str) -> Iterator["Record"]:
    """Yield the records of an input.

    Args:
        records: to yield.
        aside: that was told of those that are not among them.
        what: the input, and perhaps the split that was read of it.
        field_option: names the field of the text.

    Raises:
        InputError: there are none; with the reason, if there were others.
    """
    is_empty = True
    for record in records:
        is_empty = False
        yield record
    if is_empty and aside.first is None:
        raise InputError(f"there is no document with text in {what}; name others")
    if is_empty:
        is_field = aside.first is not None and (
            aside.first.reason.endswith("is missing") or " is no text " in aside.first.reason
        )
        remedy = f"name the field of the text with {field_option}" if is_field else "mend them, or name others"
        count = counted(aside.count, "record")
        raise InputError(
            f"there is no document with text in {what} ({count} set aside, first {aside.where()}); {remedy}"
        )
