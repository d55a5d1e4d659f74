"""What a transfer is given and what it gives back: the job, the right to do it, who watches, and the outcome.

Words only. What is done with them is in :mod:`rucio_cs3.transfers.ladder`; :mod:`rucio_cs3.agent.hops` makes a
:class:`Job` from a row of Rucio's, :mod:`rucio_cs3.agent.claims` a :class:`Claim`. Knows no Rucio.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import normalise
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.modes import Mode


class RequestGone(errors.Cancelled):
    """The request was cancelled: nobody wants this transfer any more."""


class ClaimLost(errors.Cancelled):
    """Another agent works on the request by now; what stands at the destination is its."""


class Stopping(errors.Cancelled):
    """The agent stops; the request goes back to the queue."""


class Claim(Protocol):
    """The right to work on a request. All methods may be called from any thread."""

    def check(self) -> None:
        """Cheap enough for each progress marker.

        :raises RequestGone: see there.
        :raises ClaimLost: see there.
        :raises Stopping: see there.
        """
        ...

    def confirm(self) -> None:
        """Asked once the file is proven. Whoever reports looks at the request again, under a lock, and removes the file
        of one that is gone by then.

        :raises RequestGone: when that is known already.
        :raises ClaimLost: see there.
        """
        ...

    def allow_removal(self) -> None:
        """Ask whether the file at the destination may be deleted; asks Rucio's database each time.

        Of a cancelled request what was written may go, so that alone is no objection.

        :raises AlreadyExists: when a replica that Rucio takes for good owns the file.
        :raises RequestGone: when it was cancelled, and a newer request wants the same place.
        :raises ClaimLost: see there.
        """
        ...


class Watch(Protocol):
    """Is told how a transfer goes. All methods are called from the transfer's thread."""

    def began(self, mode: Mode) -> None:
        """A copy begins, in this mode; bytes count anew."""
        ...

    def moved(self, total_bytes: int) -> None:
        """So many bytes of the file have moved since the copy began."""
        ...

    def copied(self) -> None:
        """The copy has ended, and well as the site says; its proof follows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be copied.

    :param size_bytes: what Rucio's catalogue says.
    :param adler32: hex digits, None where the catalogue has none; so is ``md5``.
    :param read_back: whether the file may be read as a whole for its checksum where the server has none.
    :param attempt: how often Rucio has tried before.
    :param resumed: an agent has begun this very attempt before, and may have been killed.
    """

    request_id: str
    size_bytes: int
    adler32: str | None = None
    md5: str | None = None
    read_back: bool = True
    attempt: int = 0
    resumed: bool = False

    @property
    def checksums(self) -> dict[str, str]:
        """The checksums of Rucio's catalogue, by algorithm, as :mod:`rucio_cs3.cs3.checksums` writes them."""
        return {
            name: value
            for name, given in (("adler32", self.adler32), ("md5", self.md5))
            if given and (value := normalise(name, given)) is not None
        }


class State(enum.Enum):
    """How a transfer ended."""

    DONE = "done"
    FAILED = "failed"
    POSTPONED = "postponed"
    """A site asked to come back later, or the agent stops: nothing was written, and the queue has it again."""
    ABANDONED = "abandoned"
    """There is nobody to report it to, or the next agent has to know that somebody was here: the claim just ends."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    :param reason: why not, in a sentence that stands alone.
    :param copied: False where the right file stood at the destination already, or somebody else was faster.
    :param file: what the proof found at the destination; None unless ``copied``.
    :param mode: of the copy; None where none was begun.
    :param error: what ``reason`` is the text of.
    :param retry_after_s: POSTPONED: for how long a site asked to be left alone, in seconds.
    """

    state: State
    reason: str | None = None
    copied: bool = False
    mode: Mode | None = None
    error: errors.CS3Error | None = None
    retry_after_s: float | None = None
    file: FileInfo | None = field(default=None, compare=False, repr=False)
