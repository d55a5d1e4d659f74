"""What a copy leaves that failed, or was never begun, and what that means for the request; knows no Rucio.

What has landed decides, not the error: only the answer may be lost. It stands under a hidden name of its own, so it may
go, whoever has the request by now. Used by :mod:`rucio_cs3.transfers.ladder`.
"""

from __future__ import annotations

import logging
import time

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.ends import Landing
from rucio_cs3.transfers.jobs import ClaimLost, Job, Outcome, RequestGone, State, Stopping
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import compares_content, find_fault

_log = logging.getLogger(__name__)

#: How long after a copy was broken off its site may make a file of what had come until then, and the pause between
#: two looks, in seconds. Reva v3.12.1 ends its answer some milliseconds before.
_STUB_S = 2.0
_STUB_POLL_S = 0.05

#: Errors after which nobody has said that the copy is over. Those with a code, too: 502 and 504 are a proxy's, and
#: gRPC's of a gateway that cannot be reached are made here.
_BROKEN_OFF = (*OPEN_OUTCOME, errors.Cancelled)

#: Errors that no look changes: nothing was copied, what came is wrong, or nobody wants it.
_FINAL = (
    errors.Unsupported,
    errors.Unauthenticated,
    errors.NotFound,
    errors.AlreadyExists,
    errors.IntegrityError,
    errors.Cancelled,
)


def may_go_on(error: errors.CS3Error, mode: Mode | None) -> bool:
    """Whether a copy may go on at a site after this, or leave something a moment later."""
    if error.retry_after_s is not None:
        return False  # who asks to come back later has begun nothing
    # Where the source has acted, its failure says nothing of the destination, which notices the end by itself
    # (seen with XRootD 5.5.3 and Reva v3.12.1: an empty file, some milliseconds later).
    return isinstance(error, (*_BROKEN_OFF, errors.ServerFault) if mode is Mode.PUSH else _BROKEN_OFF)


def arrived(error: errors.CS3Error, job: Job, landing: Landing, *, wait: bool) -> FileInfo | None:
    """What a copy has brought in spite of its error, where that is proven right.

    The right size alone is nothing where nobody claims success: it may be a file that has its size before its bytes.

    :param wait: for something to appear.
    :returns: None where it is wrong, or not known to be right.
    :raises NotFound: when nothing has come in all that time.
    """
    if isinstance(error, _FINAL) or error.retry_after_s is not None:
        return None
    try:
        file = proven(job, landing, _seen(landing, within_s=_STUB_S if wait else 0.0))
    except errors.NotFound:
        raise
    except errors.CS3Error as exc:
        _log.info("%s: %s cannot be proven: %s", job.request_id, landing.place, exc)
        return None
    if file is not None:
        _log.info("%s: %s has come whole in spite of: %s", job.request_id, landing.place, error)
    return file


def proven(job: Job, landing: Landing, info: FileInfo) -> FileInfo | None:
    """What was seen to have landed, where its content is proven to be the file's.

    :raises CS3Error: where that cannot be found out.
    """
    if not compares_content(job, landing, info) or find_fault(job, landing, info) is not None:
        return None
    return info


def _seen(landing: Landing, *, within_s: float) -> FileInfo:
    """
    :raises NotFound: when nothing has appeared until then.
    """
    give_up = time.monotonic() + within_s
    while True:
        try:
            return landing.settled()
        except errors.NotFound:
            if time.monotonic() >= give_up:
                raise
        time.sleep(_STUB_POLL_S)


def after_failure(error: errors.CS3Error, job: Job, landing: Landing, mode: Mode | None, *, may_come: bool) -> Outcome:
    """Leave nothing of a failed copy, and say what the failure means.

    :param may_come: something of it may yet come into being.
    """
    clean = clear(job, landing, may_come=may_come)
    if isinstance(error, (RequestGone, ClaimLost)):
        return not_begun(error)
    if isinstance(error, Stopping) and not clean:
        # Back in the queue, nothing tells that somebody has begun it, so nobody would look for leftovers again: the
        # row stays as it is until the claim ends.
        return Outcome(state=State.ABANDONED, reason=str(error), error=error, mode=mode)
    return _unfinished(error, mode)


def clear(job: Job, landing: Landing, *, may_come: bool) -> bool:
    """Remove what has landed. Raises nothing: what may be left is found by the next attempt.

    :returns: whether nothing is left.
    """
    try:
        landing.discard(may_come=may_come)
    except errors.CS3Error as exc:
        _log.warning("%s: there may be something left as %s: %s", job.request_id, landing.place, exc)
        return False
    return True


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
