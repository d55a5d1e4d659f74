"""How a run went, in numbers; takes the same memory for any number of files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rucio_cs3.registration.plan import Row, Status


@dataclass
class Report:
    """Counts of what has become of files.

    :param rules: of datasets: ``added``, ``there`` and ``refused``.
    """

    files: Counter[Status] = field(default_factory=Counter)
    bytes: Counter[Status] = field(default_factory=Counter)
    attached: int = 0
    rules: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one more."""
        self.files[row.status] += 1
        self.bytes[row.status] += row.size or 0
        self.attached += row.attached

    @property
    def seen(self) -> int:
        """All files."""
        return self.files.total()

    @property
    def changed_nothing(self) -> bool:
        """Whether there was nothing to do: all is in Rucio as it is to be."""
        return not self.attached and not self.files[Status.REGISTERED] and not self.files[Status.PLANNED]

    @property
    def all_well(self) -> bool:
        """Whether nothing was left out that somebody may have wanted, and no rule was refused."""
        return not any(count for status, count in self.files.items() if status.is_trouble) and not self.rules["refused"]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "files": {status.value: self.files[status] for status in Status},
            "bytes": {status.value: self.bytes[status] for status in Status if self.files[status]},
            "attached": self.attached,
            "rules": {what: self.rules[what] for what in ("added", "there", "refused")},
            "all_well": self.all_well,
        }
