"""What registering asks and tells Rucio's catalogue, whichever way that is reached; no Rucio is imported here.

Two ways: :mod:`rucio_cs3.registration.rest` for everybody, :mod:`rucio_cs3.registration.database` where Rucio's
configuration names its database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rucio_cs3.registration.templates import Did

#: Most DIDs of one call of Rucio's own functions. Rucio 41.5.1 takes 1000 (``common/schema/generic.py``: ``DIDS``) and
#: makes as many conditions of them in one query (``core/replica.py``: ``__bulk_add_file_dids``), which is quickest with
#: 100 to 250: 0.4 ms of processor for each file, and 0.55 ms with 500.
MOST = 250


class CatalogueError(Exception):
    """Rucio cannot be asked, or does not let this account do it; the text is for people."""


class Refused(Exception):
    """Rucio does not take these files; another call with fewer of them may tell which."""


class Overtaken(Refused):
    """Somebody has registered one of these files meanwhile, with another size or checksum; look, and compare again."""


def essence(error: Exception) -> str:
    """What happened, in one line: Rucio says first what kind of thing went wrong, and then what. Of the database's
    errors without the statement and its parameters."""
    text = str(getattr(error, "orig", None) or error)
    return " ".join((text.partition("Details:")[2] or text).partition("[SQL")[0].split())[:500] or type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Known:
    """A DID that Rucio has.

    :param kind: ``FILE``, ``DATASET`` or ``CONTAINER``.
    :param size: bytes of a file.
    :param checksums: of a file, algorithm -> lower-case hex digits.
    :param is_open: whether a collection takes more.
    :param state: of the replica at the RSE, such as ``AVAILABLE``; None where there is none.
    :param path: of that replica, below the RSE's folder; None where Rucio keeps no path of it.
    :param parents: collections that it is in, as far as they were asked for.
    """

    kind: str
    size: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False
    state: str | None = None
    path: str | None = None
    parents: frozenset[Did] = frozenset()


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file to be registered.

    :param pfn: its PFN, which Rucio compares with that of its own at a deterministic RSE.
    :param is_unknown: Rucio had no DID of this name when it was looked up.
    """

    did: Did
    size: int
    checksums: Mapping[str, str]
    pfn: str
    is_unknown: bool = False

    def as_rucio_has_it(self) -> dict[str, Any]:
        """For ``add_replicas``. A checksum that is not known must not be there at all: null is against the schema."""
        sums = {name: self.checksums[name] for name in ("adler32", "md5") if name in self.checksums}
        return {"scope": self.did.scope, "name": self.did.name, "bytes": self.size, "pfn": self.pfn, **sums}


class Catalogue(Protocol):
    """Rucio's catalogue, for one RSE; safe for several threads.

    All methods raise :class:`CatalogueError`.
    """

    @property
    def described(self) -> str:
        """How it is reached, in a few words."""

    @property
    def remark(self) -> str:
        """What people should hear of how it went, one sentence; empty for nothing."""

    @property
    def vo(self) -> str:
        """The virtual organisation whose schema is in force."""

    @property
    def most(self) -> int:
        """Most DIDs of one call."""

    def scopes(self) -> Collection[str]:
        """All scopes."""

    def look(self, dids: Collection[Did], *, parents: Collection[Did] = ()) -> Mapping[Did, Known]:
        """Those of the DIDs that there are; at most :attr:`most`.

        :param parents: collections that :attr:`Known.parents` may name.
        :raises Refused: when one of them is nothing that Rucio would ever have.
        """

    def others(self, paths: Collection[str]) -> Mapping[str, Did]:
        """Paths below the RSE's folder -> the DID of whose replica this is the path; empty where it cannot be asked.

        Only of a non-deterministic RSE, where Rucio keeps paths.
        """

    def make(self, collections: Collection[Did], kind: str) -> None:
        """Make datasets or containers; those that somebody else has made meanwhile stay as they are."""

    def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        """Make the files replicas, and put DIDs into datasets; what is in there already stays.

        :raises Refused: when Rucio does not take one of them; by REST the files may be replicas all the same then.
        :raises Overtaken: when one that is called unknown is another by now; not by REST, where that is not noticed.
        """

    def attach(self, attachments: Mapping[Did, Collection[Did]]) -> None:
        """Put datasets into containers; what is in there already stays."""

    def add_rule(self, dataset: Did, *, locked: bool) -> bool:
        """A rule without an end that keeps one copy of the dataset at the RSE.

        :returns: False where this account has such a rule already.
        :raises Refused: when Rucio takes no such rule.
        """
