"""What became of each file of a work on many; plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from rucio_cs3.cs3 import errors


class Deed(Enum):
    """What was done; the value is its word for people and in JSON."""

    COPIED = "copied"
    WOULD_COPY = "would copy"
    SAME = "same"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file, or of a folder that failed as a whole.

    :param name: as the person knows it: a path below the tree, or what was typed. May hold anything that a file's name
        may; it is for whoever prints it to make it printable.
    :param size: bytes of the file.
    :param reason: why, of what failed and what was skipped; otherwise empty.
    :param error: of what failed.
    """

    deed: Deed
    name: str
    size: int = 0
    reason: str = ""
    error: errors.CS3Error | None = None


def failed(name: str, error: errors.CS3Error) -> Outcome:
    """The outcome of a failure."""
    return Outcome(deed=Deed.FAILED, name=name, reason=str(error), error=error)


@dataclass
class Summary:
    """Counts of outcomes; takes the same memory for any number of them."""

    files: Counter[Deed] = field(default_factory=Counter)
    #: Bytes of the files, by deed.
    bytes: Counter[Deed] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.files[outcome.deed] += 1
        self.bytes[outcome.deed] += outcome.size

    @property
    def all_well(self) -> bool:
        """Whether nothing failed."""
        return not self.files[Deed.FAILED]

    def as_dict(self) -> dict[str, int | bool]:
        """For JSON: a count for each deed, and the bytes that were copied (or would be)."""
        counts: dict[str, int | bool] = {deed.value.replace(" ", "_"): self.files[deed] for deed in Deed}
        moved = self.bytes[Deed.COPIED] + self.bytes[Deed.WOULD_COPY]
        return {**counts, "bytes": moved, "all_well": self.all_well}
