"""One transfer between two clouds, from the first look to the proof; knows no Rucio.

The ladder, which :func:`transfer_one` is::

    is the right file there already?     then it is done: an earlier attempt's report was lost
    does a wrong one stand there?        a leftover of a failed attempt; the claim says whether it may go
    folders, then the copy               rucio_cs3.cs3.tpc.pull, at the destination, Overwrite: F
    proof                                size, then checksum, over CS3; a server's "success" is only a claim
    on failure                           what this transfer wrote goes; the source is only ever read

Who may do this, and until when, is the :class:`Claim`; :mod:`rucio_cs3.claims` makes one from a row of Rucio's.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rucio_cs3.cs3 import errors, tpc
from rucio_cs3.cs3.checksums import normalise
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import HTTPClient
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo

_log = logging.getLogger(__name__)


class RequestGone(errors.Cancelled):
    """The request was cancelled: nobody wants this transfer any more."""


class ClaimLost(errors.Cancelled):
    """Another agent works on the request by now; what stands at the destination is its."""


class Storage(Protocol):
    """What a transfer needs of :class:`rucio_cs3.cs3.storage.CS3Storage`."""

    endpoint: Endpoint
    http: HTTPClient

    def stat(self, reference: Reference) -> FileInfo: ...

    def settled(self, reference: Reference) -> FileInfo: ...

    def delete(self, reference: Reference) -> None: ...

    def make_directories(self, reference: Reference) -> None: ...

    def checksum(self, reference: Reference, algorithm: str = "adler32") -> str: ...

    def access_token(self) -> str: ...


class Side(Protocol):
    """One end: what a transfer needs of a connected :class:`rucio_cs3.protocol.Default`."""

    @property
    def storage(self) -> Storage: ...

    def reference(self, pfn: str) -> Reference: ...

    def http_url(self, pfn: str) -> str: ...


class Claim(Protocol):
    """The right to work on a request. All methods may be called from any thread."""

    def check(self) -> None:
        """Cheap enough for each progress marker.

        :raises RequestGone: see there.
        :raises ClaimLost: see there.
        """
        ...

    def confirm(self) -> None:
        """As :meth:`check`, but asks Rucio's database."""
        ...

    def allow_removal(self) -> None:
        """Ask whether the file at the destination may be deleted; asks Rucio's database each time.

        Of a cancelled request what was written may go, so that alone is no objection.

        :raises AlreadyExists: when a replica that Rucio takes for good owns the file.
        :raises RequestGone: when it was cancelled, and a newer request wants the same place.
        :raises ClaimLost: see there.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be copied.

    :param source_url: PFN; so is ``destination_url``.
    :param size_bytes: what Rucio's catalogue says.
    :param adler32: hex digits, None where the catalogue has none; so is ``md5``.
    :param read_back: whether the file may be read as a whole for its checksum where the server has none.
    """

    request_id: str
    source_url: str
    destination_url: str
    size_bytes: int
    adler32: str | None = None
    md5: str | None = None
    read_back: bool = True


class State(enum.Enum):
    """How a transfer ended; ABANDONED means that there is nobody to report it to."""

    DONE = "done"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """:param copied: False where the right file stood at the destination already."""

    state: State
    reason: str | None = None
    copied: bool = False


Progress = Callable[[int], None]
Copy = Callable[[Job, Side, Side, Progress], None]


def pull_at_destination(job: Job, source: Side, destination: Side, progress: Progress) -> None:
    """Have the destination's WebDAV front end fetch the file.

    :param progress: gets the bytes so far with each marker; what it raises ends the copy.
    """
    tpc.pull(
        destination.storage.http,
        source_url=source.http_url(job.source_url),
        destination_url=destination.http_url(job.destination_url),
        source_token=source.storage.access_token(),
        destination_token=destination.storage.access_token(),
        on_marker=lambda marker: progress(marker.transferred_bytes),
    )


def transfer_one(
    job: Job, source: Side, destination: Side, claim: Claim, *, copy: Copy = pull_at_destination
) -> Outcome:
    """Bring one file over and prove it; all of this client's errors end in the outcome.

    Idempotent: after a crash at any instant it may be called again for the same job.
    """
    try:
        claim.check()
        landing = destination.reference(job.destination_url)
        _refuse_same_place(source, source.reference(job.source_url), destination, landing)
        if _clear_the_way(job, source, destination, landing, claim):
            return Outcome(state=State.DONE)
        # Over CS3 a token that the source no longer accepts is found and replaced; over COPY nobody would notice,
        # and all transfers from there would fail until the token's own end. It also finds what is missing.
        _look_at_source(job, source)
    except (RequestGone, ClaimLost) as exc:
        return Outcome(state=State.ABANDONED, reason=str(exc))
    except errors.CS3Error as exc:
        return Outcome(state=State.FAILED, reason=str(exc))
    try:
        copy(job, source, destination, lambda _bytes: claim.check())
        _prove(job, destination.storage, landing)
        # A rule may have been deleted while its file was on the way, and Rucio's reaper may have found nothing yet
        # to delete: what nobody knows of must not stay.
        claim.confirm()
    except errors.CS3Error as exc:
        return _after_failure(exc, job, destination.storage, landing, claim)
    return Outcome(state=State.DONE, copied=True)


def find_fault(job: Job, storage: Storage, reference: Reference, info: FileInfo) -> errors.CS3Error | None:
    """What is wrong with a file that ought to be the job's; None when it is proven right.

    Size first, then the checksum as the endpoint's ``proof`` says: the server's own where it has one, and for
    ``read`` otherwise that of the whole file as it reads.

    :raises CS3Error: when it cannot be found out.
    """
    target = str(reference)
    if info.is_directory:
        return errors.AlreadyExists("a folder stands where the file belongs", operation="Stat", target=target)
    if info.size != job.size_bytes:
        return errors.SizeMismatch(
            f"{info.size} bytes are at the destination, {job.size_bytes} are in Rucio's catalogue",
            operation="Stat",
            target=target,
        )
    if not _compares_content(job, storage, info):
        return None
    wanted = _wanted(job)
    found = {name: info.checksums[name] for name in wanted if name in info.checksums}
    if not found:
        name = next(iter(wanted))
        found = {name: storage.checksum(reference, name)}
    for name, value in found.items():
        if value != wanted[name]:
            return errors.ChecksumMismatch(
                f"{name} at the destination is {value}, Rucio's catalogue says {wanted[name]}",
                operation="Proof",
                target=target,
            )
    return None


def _compares_content(job: Job, storage: Storage, info: FileInfo) -> bool:
    """Whether the endpoint's ``proof`` looks at more than the size of a file."""
    wanted = _wanted(job)
    if not wanted or storage.endpoint.proof == "size":
        return False
    return bool(wanted.keys() & info.checksums.keys()) or (storage.endpoint.proof == "read" and job.read_back)


def _wanted(job: Job) -> dict[str, str]:
    """The checksums of Rucio's catalogue, by algorithm."""
    return {
        name: value
        for name, given in (("adler32", job.adler32), ("md5", job.md5))
        if given and (value := normalise(name, given)) is not None
    }


def _refuse_same_place(source: Side, taken: Reference, destination: Side, landing: Reference) -> None:
    """Two RSEs over one folder: the "leftover" to delete would be the source itself."""
    one, other = source.storage.endpoint, destination.storage.endpoint
    same_url = one.webdav.url(taken) == other.webdav.url(landing)
    # By text: /localfs + d/x and /localfs/d + x are one place.
    same_path = one.gateway == other.gateway and str(taken) == str(landing)
    if same_url or same_path:
        raise errors.InvalidRequest("source and destination are the same file", operation="COPY", target=str(landing))


def _look_at_source(job: Job, source: Side) -> FileInfo:
    """
    :raises NotFound: saying that it is the source that has no such file.
    """
    try:
        return source.storage.stat(source.reference(job.source_url))
    except errors.NotFound as exc:
        raise errors.NotFound(
            f"the source {source.storage.endpoint.name} has no such file: {exc.message}",
            operation=exc.operation,
            target=exc.target,
            code=exc.code,
            trace=exc.trace,
        ) from exc


def _clear_the_way(job: Job, source: Side, destination: Side, landing: Reference, claim: Claim) -> bool:
    """Make room for the copy; True when there is nothing left to copy."""
    storage = destination.storage
    try:
        standing = storage.settled(landing)
    except errors.NotFound:
        storage.make_directories(landing.parent)
        return False
    fault = find_fault(job, storage, landing, standing)
    if fault is None and _compares_content(job, storage, standing):
        _log.info("%s: %s is there already, and right", job.request_id, landing)
        return True
    if fault is not None and standing.is_directory:
        # Delete is recursive in CS3; whoever made a folder here has to undo it.
        raise fault
    # A wrong file is better than none where there is nothing to replace it with.
    origin = _look_at_source(job, source)
    if origin.etag and (origin.etag, origin.size) == (standing.etag, standing.size):
        # Under two names of one server, say: what is to be removed would be the source itself.
        raise errors.InvalidRequest(
            "source and destination look like the same file", operation="COPY", target=str(landing)
        )
    claim.allow_removal()
    claim.check()
    # The right size alone is no reason to keep it: it may be the very file that somebody declared bad.
    why = fault or "only its size could be compared"
    _log.warning("%s: removing what an earlier attempt left at %s: %s", job.request_id, landing, why)
    storage.delete(landing)
    return False


def _prove(job: Job, storage: Storage, landing: Reference) -> None:
    try:
        info = storage.settled(landing)
    except errors.NotFound as exc:
        # Reva v3.12.1 claims success after a failed inner PUT. NotFound would blame the source.
        raise errors.ServerFault(
            "the destination claimed success, but there is no file", operation="Proof", target=str(landing)
        ) from exc
    fault = find_fault(job, storage, landing, info)
    if fault is not None:
        raise fault


def _after_failure(error: errors.CS3Error, job: Job, storage: Storage, landing: Reference, claim: Claim) -> Outcome:
    """Decide what a failed copy or proof left, and leave nothing half there."""
    if isinstance(error, ClaimLost):
        return Outcome(state=State.ABANDONED, reason=str(error))
    abandoned = isinstance(error, RequestGone)
    try:
        info = storage.settled(landing)
        if not abandoned and _is_right(error, job, storage, landing, info):
            # Only the answer was lost, or somebody else was faster: what is there is what counts.
            claim.confirm()
            return Outcome(state=State.DONE, copied=True)
        # With AlreadyExists the copy never began, so the file is not of its making.
        if not info.is_directory and not isinstance(error, errors.AlreadyExists):
            claim.allow_removal()
            storage.delete(landing)
    except errors.NotFound:
        pass  # nothing is left, as it should be
    except (RequestGone, ClaimLost) as exc:
        return Outcome(state=State.ABANDONED, reason=str(exc))
    except errors.CS3Error as exc:
        # The first error is the one to report. What may be left is found and settled by the next attempt.
        _log.warning("%s: could not settle what is left at %s: %s", job.request_id, landing, exc)
    return Outcome(state=State.ABANDONED if abandoned else State.FAILED, reason=str(error))


def _is_right(error: errors.CS3Error, job: Job, storage: Storage, landing: Reference, info: FileInfo) -> bool:
    """Whether the file is right in spite of the error; what cannot be found out is not."""
    if isinstance(error, errors.IntegrityError):
        return False
    try:
        return find_fault(job, storage, landing, info) is None
    except errors.CS3Error as exc:
        _log.info("%s: %s cannot be proven: %s", job.request_id, landing, exc)
        return False
