"""What is to become of one file: decided by what the cloud and the catalogue say of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.registration.catalogue import Known
from rucio_cs3.registration.templates import Did

#: Checksums that Rucio has columns for.
ALGORITHMS = ("adler32", "md5")


class Status(enum.Enum):
    """What has become of a file; the value is how people and JSON are told."""

    REGISTERED = "registered"
    PLANNED = "would be registered"
    ALREADY = "already registered"
    PARTIAL = "unfinished upload"
    EXCLUDED = "excluded"
    NO_CHECKSUM = "no checksum"
    REFUSED = "name refused"
    MISPLACED = "wrong place"
    CONFLICT = "conflict"
    UNREADABLE = "not readable"
    FAILED = "refused by Rucio"

    @property
    def is_trouble(self) -> bool:
        """Whether a file of this kind is left out although somebody may have wanted it registered."""
        return self not in _FINE


_FINE = (Status.REGISTERED, Status.PLANNED, Status.ALREADY, Status.PARTIAL, Status.EXCLUDED)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the cloud with the names that it is to have.

    :param info: what the server said of it when it was listed.
    :param path: below the RSE's folder.
    :param shown: as people name it.
    """

    info: FileInfo
    path: str
    shown: str
    pfn: str
    did: Did
    dataset: Did | None = None
    container: Did | None = None

    @property
    def checksums(self) -> dict[str, str]:
        """Those of the server, or kept beside this very content, that Rucio has columns for."""
        return {name: self.info.checksums[name] for name in ALGORITHMS if name in self.info.checksums}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What has become of one file.

    :param place: as people name it.
    :param size: bytes; None where it is not known.
    :param reason: why it was left out, one sentence.
    :param attached: whether it was put into its dataset, or would be.
    """

    status: Status
    place: str
    did: Did | None = None
    dataset: Did | None = None
    size: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    attached: bool = False

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "status": self.status.value,
            "place": self.place,
            "scope": self.did.scope if self.did else None,
            "name": self.did.name if self.did else None,
            "dataset": str(self.dataset) if self.dataset else None,
            "bytes": self.size,
            "adler32": self.checksums.get("adler32"),
            "md5": self.checksums.get("md5"),
            "attached": self.attached,
            "reason": self.reason or None,
        }


def row_of(file: File, status: Status, reason: str = "", **more: object) -> Row:
    """The row of a file."""
    row = Row(
        status=status,
        place=file.shown,
        did=file.did,
        dataset=file.dataset,
        size=file.info.size,
        checksums=file.checksums,
        reason=reason,
    )
    return Row(**{**row.__dict__, **more}) if more else row


def fault(file: File, known: Known, sums: Mapping[str, str], *, kept_path: bool) -> str | None:
    """Why a file cannot be what Rucio has under its name; None where it can.

    Nothing of a file that Rucio has is ever changed, so whatever differs is for a person to settle.

    :param known: what Rucio has there.
    :param sums: checksums of the file's content, as far as they are known.
    :param kept_path: whether the RSE keeps a path for each replica: it is non-deterministic.
    """
    if known.kind != "FILE":
        return f"{file.did} is a {known.kind.lower()} in Rucio"
    if known.size is not None and known.size != file.info.size:
        return f"{file.did} has {known.size} bytes in Rucio, and the file {file.info.size}"
    for name, value in sums.items():
        if name in known.checksums and known.checksums[name] != value:
            return f"{file.did} has {name} {known.checksums[name]} in Rucio, and the file {value}"
    if known.state is None:
        return None
    if known.state != "AVAILABLE":
        return f"Rucio has a replica of {file.did} at this RSE that is {known.state.lower().replace('_', ' ')}"
    if kept_path and known.path is not None and known.path != file.path:
        return f"{file.did} is another file of this RSE in Rucio: {known.path}"
    return None


def comparable(known: Known, sums: Mapping[str, str]) -> bool:
    """Whether a file that Rucio has at other RSEs can be compared with this one by a checksum."""
    return any(name in known.checksums for name in sums)
