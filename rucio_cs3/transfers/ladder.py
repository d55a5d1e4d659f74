"""One transfer between two sites, from the first look to the proof; knows no Rucio.

The ladder, which :func:`transfer_one` is::

    is the right file there already?     then it is done: an earlier attempt's report was lost
    does a wrong one stand there?        a leftover of a failed attempt; the claim says whether it may go
    folders, then the copy               transfers.copies, in the mode that transfers.modes chose
    proof                                transfers.proof: size, then checksum; a server's "success" is only a claim
    on failure                           transfers.removal: what this transfer wrote goes; the source is only ever read

The sites are :class:`rucio_cs3.transfers.ends.End`. Job, claim and outcome are in :mod:`rucio_cs3.transfers.jobs`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import copies, modes, removal
from rucio_cs3.transfers.ends import End, NothingToLend
from rucio_cs3.transfers.jobs import Claim, ClaimLost, Job, Outcome, RequestGone, State, Stopping, Watch
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import compares_content, find_fault, prove

__all__ = ["Claim", "ClaimLost", "Job", "Outcome", "RequestGone", "State", "Stopping", "Watch", "transfer_one"]

_log = logging.getLogger(__name__)

#: How long after a copy was broken off its site may make a file of what had come until then, and the pause between
#: two looks, in seconds. Reva v3.12.1 ends its answer some milliseconds before.
_STUB_S = 2.0
_STUB_POLL_S = 0.05

#: A source that has proven longer ago that it does third-party copies is asked again before a push, in seconds: one
#: that does them no more would make a copy within itself, where nobody looks for it (Reva v3.12.1).
_PUSH_PROOF_S = 60.0

#: Errors after which nobody has said that the copy is over.
_BROKEN_OFF = (errors.TransferInterrupted, errors.DeadlineExceeded, errors.Unavailable, errors.Cancelled)


class _NotAsked(errors.Unsupported):
    """Nobody was asked for the copy, so nobody has shown anything by it."""


def transfer_one(job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> Outcome:
    """Bring one file over and prove it; all of this client's errors end in the outcome.

    Idempotent: after a crash at any instant it may be called again for the same job.
    """
    try:
        claim.check()
        if source.is_same_place(destination):
            # Two RSEs over one folder: the "leftover" to delete would be the source itself.
            raise errors.InvalidRequest(
                "source and destination are the same file", operation="COPY", target=destination.place
            )
        if _clear_the_way(job, source, destination, claim):
            return Outcome(state=State.DONE)
        # Over CS3 a token that the source no longer accepts is found and replaced; over COPY nobody would notice,
        # and all transfers from there would fail until the token's own end. It also finds what is missing.
        origin = _look_at_source(source)
        order = modes.in_order(
            modes.agree(source.wish, destination.wish),
            source_speaks_tpc=source.speaks_tpc,
            destination_speaks_tpc=destination.speaks_tpc,
            attempt=job.attempt,
        )
        if job.size_bytes == 0:
            order = modes.without_bytes(order)
        if job.attempt or job.resumed:
            _sweep(job, destination, claim)
    except errors.CS3Error as exc:
        if isinstance(exc, Stopping) and job.resumed:
            # Back in the queue, nothing would tell that somebody has begun it, and that there may be leftovers.
            return Outcome(state=State.ABANDONED, reason=str(exc), error=exc)
        return _not_begun(exc)
    tried: list[Mode] = []
    try:
        _copy(order, tried, job, source, destination, claim, watch)
        file = prove(job, destination)
        # A rule may have been deleted while its file was on the way, and Rucio's reaper may have found nothing yet
        # to delete: what nobody knows of must not stay.
        claim.confirm()
    except errors.CS3Error as exc:
        return _after_failure(exc, job, origin, destination, claim, tried[-1])
    return Outcome(state=State.DONE, copied=True, mode=tried[-1], file=file)


def _look_at_source(source: End) -> FileInfo:
    """
    :raises NotFound: saying that it is the source that has no such file.
    """
    try:
        return source.stat()
    except errors.NotFound as exc:
        raise errors.NotFound(
            f"the source {source.name} has no such file: {exc.message}",
            operation=exc.operation,
            target=exc.target,
            code=exc.code,
            trace=exc.trace,
        ) from exc


def _clear_the_way(job: Job, source: End, destination: End, claim: Claim) -> bool:
    """Make room for the copy; True when there is nothing left to copy."""
    try:
        standing = destination.settled()
    except errors.NotFound:
        destination.make_parents()
        return False
    fault = find_fault(job, destination, standing)
    if fault is None and compares_content(job, destination, standing):
        _log.info("%s: %s is there already, and right", job.request_id, destination.place)
        return True
    if fault is not None and standing.is_directory:
        # Delete is recursive in CS3; whoever made a folder here has to undo it.
        raise fault
    # A wrong file is better than none where there is nothing to replace it with.
    origin = _look_at_source(source)
    # The right size alone is no reason to keep it: it may be the very file that somebody declared bad.
    why = fault or "only its size could be compared"
    _log.warning("%s: an earlier attempt's leftover at %s is to go: %s", job.request_id, destination.place, why)
    removal.remove_leftover(origin, standing, destination, claim)
    return False


def _sweep(job: Job, destination: End, claim: Claim) -> None:
    """Remove what an agent that was killed, or a site that was away, kept an earlier attempt from removing.

    :raises Cancelled: when the claim is over: by now it might be a living upload of the agent that has it.
    """
    claim.check()
    try:
        destination.sweep()
    except errors.CS3Error as exc:
        # Nothing of it is under the file's name, so it does not keep the transfer from being done.
        _log.warning("%s: could not look for leftovers beside %s: %s", job.request_id, destination.place, exc)


def _copy(
    order: Sequence[Mode],
    tried: list[Mode],
    job: Job,
    source: End,
    destination: End,
    claim: Claim,
    watch: Watch,
) -> None:
    """Copy in the first mode that the servers take.

    :param tried: gets each mode that is begun, so that it is known after a failure, too.
    """

    def progress(total_bytes: int) -> None:
        claim.check()
        watch.moved(total_bytes)

    for mode in order:
        tried.append(mode)
        watch.began(mode)
        try:
            if mode is Mode.PUSH:
                _look_before_push(source, destination)
            copies.COPIES[mode](job.size_bytes, job.checksums, source, destination, progress)
        except (errors.Unsupported, errors.ProtocolViolation) as exc:
            # The probe is older than this answer; without a token to lend, nobody was asked.
            shown = not isinstance(exc, (NothingToLend, _NotAsked))
            if mode is Mode.PULL and shown:
                destination.refused_tpc()
            elif mode is Mode.PUSH and shown:
                source.refused_tpc()
            # Only Unsupported means that nothing was written.
            if mode is order[-1] or not isinstance(exc, errors.Unsupported):
                raise
            _log.warning("%s: no %s (%s); trying another way", job.request_id, mode.value, exc)
        else:
            return


def _look_before_push(source: End, destination: End) -> None:
    """What no server looks at in a push, just before it.

    :raises Unsupported: when the source does no third-party copies any more.
    :raises AlreadyExists: when something stands at the destination by now: Reva v3.12.1 and XRootD 5.5.3 would
        replace it (see :func:`rucio_cs3.cs3.tpc.push`).
    """
    try:
        speaks = source.speaks_tpc(max_age_s=_PUSH_PROOF_S)
    except errors.CS3Error as exc:
        if exc.retry_after_s is not None:
            raise
        raise _NotAsked(f"the source cannot prove now that it does third-party copies: {exc.message}") from exc
    if not speaks:
        raise _NotAsked("the source does no third-party copies any more, so it cannot push; see cs3_transfer_mode")
    try:
        destination.stat()
    except errors.NotFound:
        return
    raise errors.AlreadyExists("something stands at the destination by now", operation="COPY", target=destination.place)


def _not_begun(error: errors.CS3Error) -> Outcome:
    """What a failure before the copy means."""
    if isinstance(error, (RequestGone, ClaimLost)):
        return Outcome(state=State.ABANDONED, reason=str(error), error=error)
    return _unfinished(error, None)


def _unfinished(error: errors.CS3Error, mode: Mode | None) -> Outcome:
    """The outcome of a failure that left nothing behind."""
    later = isinstance(error, Stopping) or error.retry_after_s is not None
    return Outcome(
        state=State.POSTPONED if later else State.FAILED,
        reason=str(error),
        error=error,
        mode=mode,
        retry_after_s=error.retry_after_s,
    )


def _after_failure(
    error: errors.CS3Error, job: Job, origin: FileInfo, destination: End, claim: Claim, mode: Mode
) -> Outcome:
    """Decide what a failed copy or proof left, and leave nothing half there."""
    if isinstance(error, ClaimLost):
        return _not_begun(error)
    abandoned = isinstance(error, RequestGone)
    # With AlreadyExists the copy never began, so the file is not of its making.
    foreign = isinstance(error, errors.AlreadyExists)
    try:
        info = _left_over(error, destination, mode)
        if not abandoned and _is_right(error, job, destination, info):
            # Only the answer was lost, or somebody else was faster: what is there is what counts.
            claim.confirm()
            return Outcome(state=State.DONE, copied=not foreign, mode=mode, file=None if foreign else info)
        if not info.is_directory and not foreign:
            removal.remove_own(origin, info, destination, claim)
    except errors.NotFound:
        pass  # nothing is left, as it should be
    except (RequestGone, ClaimLost) as exc:
        return _not_begun(exc)
    except errors.CS3Error as exc:
        # The first error is the one to report. What may be left is found and settled by the next attempt.
        _log.warning("%s: could not settle what is left at %s: %s", job.request_id, destination.place, exc)
    if abandoned:
        return _not_begun(error)
    if isinstance(error, Stopping) and mode is Mode.RELAY:
        return _stopped(error, job, destination, claim)
    return _unfinished(error, mode)


def _stopped(error: Stopping, job: Job, destination: End, claim: Claim) -> Outcome:
    """The outcome of a relay that was stopped. Back in the queue, nothing tells that somebody has begun it, so nobody
    would look for leftovers again; where they may be left, the row stays as it is until the claim ends.
    """
    try:
        with contextlib.suppress(Stopping):
            claim.check()
        destination.sweep()
    except (RequestGone, ClaimLost) as exc:
        return _not_begun(exc)
    except errors.CS3Error as exc:
        _log.warning("%s: there may be leftovers beside %s: %s", job.request_id, destination.place, exc)
        return Outcome(state=State.ABANDONED, reason=str(error), error=error, mode=Mode.RELAY)
    return _unfinished(error, Mode.RELAY)


def _left_over(error: errors.CS3Error, destination: End, mode: Mode) -> FileInfo:
    """What a failed copy has left at the destination, or is about to.

    :raises NotFound: when it left nothing.
    """
    # An error with a code is an answer: the site had finished. An end that something is sent to waits for it itself.
    finished = error.code is not None or mode is Mode.RELAY or not isinstance(error, _BROKEN_OFF)
    give_up = time.monotonic() + (0.0 if finished else _STUB_S)
    while True:
        try:
            return destination.settled()
        except errors.NotFound:
            if time.monotonic() >= give_up:
                raise
        time.sleep(_STUB_POLL_S)


def _is_right(error: errors.CS3Error, job: Job, destination: End, info: FileInfo) -> bool:
    """Whether the file is right in spite of the error; what cannot be found out is not.

    The right size alone is nothing where nobody claims success: it may be a file of another content, one that has its
    size before its bytes, or somebody else's.
    """
    if isinstance(error, (errors.IntegrityError, Stopping)) or not compares_content(job, destination, info):
        return False
    try:
        return find_fault(job, destination, info) is None
    except errors.CS3Error as exc:
        _log.info("%s: %s cannot be proven: %s", job.request_id, destination.place, exc)
        return False
