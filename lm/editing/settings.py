"""What an edit of files depends on besides the prior; kept in run.json, so that it can be applied and checked."""

import dataclasses
import pathlib
from typing import Any, get_args

from lm.data.readers import Reading, Unit
from lm.editing.config import EditConfig
from lm.errors import InputError
from lm.model.config import Compute

CHUNK = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Settings:
    """How files are edited.

    Attributes:
        edit: which tokens are redrawn, and from what.
        field: that holds the text, in JSONL, Parquet and hub data sets.
        unit: what one document of a text file is, and stays: see `lm.editing.config.EditConfig`.
        split: of named and hub sources.
        sample: share of the documents that statistics look at more closely, chosen by the hash of their keys.
        chunk: bytes of a file that are edited, kept and compressed together.
    """

    edit: EditConfig
    field: str = "text"
    unit: Unit = "file"
    split: str | None = None
    sample: float = 0.01
    chunk: int = CHUNK

    def __post_init__(self):
        """Check the ranges, and tell the edit of the unit; raises InputError."""
        object.__setattr__(self, "edit", dataclasses.replace(self.edit, unit=self.unit))
        if not 0 <= self.sample <= 1:
            raise InputError(f"a share of {self.sample} of the documents is impossible; give one from 0 to 1")
        if self.chunk < 1:
            raise InputError(f"chunks of {self.chunk} bytes are impossible; give at least 1")

    @property
    def reading(self) -> Reading:
        """How records are read."""
        return Reading(field=self.field, unit=self.unit, split=self.split)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {**dataclasses.asdict(self), "edit": self.edit.to_json()}


def settings_of(edited: pathlib.Path) -> tuple[Settings, dict[str, Any]]:
    """Return the settings of an edit and the whole of its run.json; raises InputError for what is no such folder."""
    from lm.editing.folder import NAME, RUN, read_json  # not above: a configuration should not need JAX

    first = edited / "generation-1"
    if not (edited / RUN).exists() and (first / RUN).exists():
        raise InputError(f"{edited} holds an edit for each generation; name one of them, such as {first}")
    found = read_json(edited / RUN)
    try:
        if not (isinstance(found[NAME], str) and isinstance(found["context"], int)):
            raise TypeError(f"{NAME} is no text or the context no number")
        if found["compute"] not in get_args(Compute):
            raise LookupError(found["compute"])
        fields = found["settings"]
        return Settings(**{**fields, "edit": EditConfig.from_json(fields["edit"])}), found
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{edited / RUN} is not of this version's form; edit the files again") from error
