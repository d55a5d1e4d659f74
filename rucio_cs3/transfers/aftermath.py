"""What a copy leaves that failed, or was never begun, and what that means for the request; knows no Rucio.

The file at the destination decides, not the error: only the answer may be lost. What is half there goes, by the rules
of :mod:`rucio_cs3.transfers.removal`. Used by :mod:`rucio_cs3.transfers.ladder`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.reasons import MAY_GO_ON
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.jobs import Claim, ClaimLost, Job, Outcome, RequestGone, State, Stopping
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import compares_content, find_fault

_log = logging.getLogger(__name__)

#: Removes a file at the destination that is not right; raises CS3Error where that may not be.
Removal = Callable[[FileInfo], None]

#: How long after a copy was broken off its site may make a file of what had come until then, and the pause between
#: two looks, in seconds. Reva v3.12.1 ends its answer some milliseconds before.
_STUB_S = 2.0
_STUB_POLL_S = 0.05

#: Errors after which nobody has said that the copy is over. Those with a code, too: 502 and 504 are a proxy's, and
#: gRPC's of a gateway that cannot be reached are made here.
_BROKEN_OFF = (*OPEN_OUTCOME, errors.Cancelled)


def after_failure(
    error: errors.CS3Error,
    job: Job,
    destination: End,
    claim: Claim,
    mode: Mode,
    remove: Removal | None,
    *,
    over: bool,
    ours: bool = True,
) -> Outcome:
    """Decide what a failed copy or proof left, and leave nothing half there.

    :param remove: removes what is not right, if it may; None where a failed copy leaves nothing, so that what stands
        there is somebody else's.
    :param over: whether the copy had ended, as its site said, and only its proof failed.
    :param ours: whether nothing stood there when the copy began.
    """
    if isinstance(error, ClaimLost):
        return not_begun(error)
    abandoned = isinstance(error, RequestGone)
    # With AlreadyExists the copy never began, so the file is not of its making.
    foreign = isinstance(error, errors.AlreadyExists)
    try:
        info = _left_over(error, destination, mode)
        if not abandoned and _is_right(error, job, destination, info):
            # Only the answer was lost, or somebody else was faster: what is there is what counts.
            claim.confirm()
            return Outcome(state=State.DONE, copied=not foreign, mode=mode, file=info if ours and not foreign else None)
        if remove is not None and not info.is_directory and not foreign:
            remove(info)
    except errors.NotFound:
        pass  # nothing is left, as it should be
    except (RequestGone, ClaimLost) as exc:
        return not_begun(exc)
    except errors.CS3Error as exc:
        # The first error is the one to report. What may be left is found and settled by the next attempt.
        _log.warning("%s: could not settle what is left at %s: %s", job.request_id, destination.place, exc)
    if abandoned:
        return not_begun(error)
    if isinstance(error, Stopping) and mode is Mode.RELAY:
        return _stopped(error, job, destination, claim)
    outcome = _unfinished(error, mode)
    if outcome.state is State.FAILED and not over and _is_open(error, mode):
        return replace(outcome, reason=f"{outcome.reason}; {MAY_GO_ON}")
    return outcome


def not_begun(error: errors.CS3Error) -> Outcome:
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


def _stopped(error: Stopping, job: Job, destination: End, claim: Claim) -> Outcome:
    """The outcome of a relay that was stopped. Back in the queue, nothing tells that somebody has begun it, so nobody
    would look for leftovers again; where they may be left, the row stays as it is until the claim ends.
    """
    try:
        with contextlib.suppress(Stopping):
            claim.check()
        destination.sweep()
    except (RequestGone, ClaimLost) as exc:
        return not_begun(exc)
    except errors.CS3Error as exc:
        _log.warning("%s: there may be leftovers beside %s: %s", job.request_id, destination.place, exc)
        return Outcome(state=State.ABANDONED, reason=str(error), error=error, mode=Mode.RELAY)
    return _unfinished(error, Mode.RELAY)


def _is_open(error: errors.CS3Error, mode: Mode) -> bool:
    """Whether a copy that a site does by itself may go on after this."""
    if mode is Mode.RELAY or error.retry_after_s is not None:
        return False
    # Where the source has acted, its failure says nothing of the destination, which notices the end by itself
    # (seen with XRootD 5.5.3 and Reva v3.12.1: an empty file, some milliseconds later).
    return isinstance(error, (*_BROKEN_OFF, errors.ServerFault) if mode is Mode.PUSH else _BROKEN_OFF)


def _left_over(error: errors.CS3Error, destination: End, mode: Mode) -> FileInfo:
    """What a failed copy has left at the destination, or is about to.

    :raises NotFound: when it left nothing.
    """
    # An end that something is sent to waits for it itself, and who asks to come back later has begun nothing.
    give_up = time.monotonic() + (_STUB_S if _is_open(error, mode) else 0.0)
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
