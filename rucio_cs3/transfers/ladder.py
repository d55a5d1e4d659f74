"""One transfer between two sites, from the first look to the proof; knows no Rucio.

The ladder, which :func:`transfer_one` is::

    a first attempt                      transfers.unseen: the copy at once, where the destination replaces nothing
    is the right file there already?     then it is done: an earlier attempt's report was lost
    does a wrong one stand there?        a leftover of a failed attempt; the claim says whether it may go
    folders, then the copy               transfers.copies, in the mode that transfers.modes chose
    proof                                transfers.proof: size, then checksum; a server's "success" is only a claim;
                                         twice where an earlier copy may still go on
    on failure                           transfers.aftermath: what this transfer wrote goes; the source is only read

The sites are :class:`rucio_cs3.transfers.ends.End`. Job, claim and outcome are in :mod:`rucio_cs3.transfers.jobs`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import copies, modes, removal
from rucio_cs3.transfers.aftermath import after_failure, not_begun
from rucio_cs3.transfers.ends import End, NothingToLend
from rucio_cs3.transfers.jobs import Claim, ClaimLost, Job, Outcome, RequestGone, State, Stopping, Watch
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import compares_content, find_fault, prove
from rucio_cs3.transfers.unseen import copy_unseen, may_copy_unseen

__all__ = ["Claim", "ClaimLost", "Job", "Outcome", "RequestGone", "State", "Stopping", "Watch", "transfer_one"]

_log = logging.getLogger(__name__)

#: A source that has proven longer ago that it does third-party copies is asked again before a push, in seconds: one
#: that does them no more would make a copy within itself, where nobody looks for it (Reva v3.12.1).
_PUSH_PROOF_S = 60.0

#: How long a file waits for its second proof where an earlier copy may still go on, in seconds: about as long as TCP
#: takes to notice that a link is back which was away for that long.
OUTLAST_S = 30.0

#: Copies between the sites themselves, with a token of each.
_BY_LENT_TOKENS = (Mode.PULL, Mode.PUSH)

#: What a COPY with a dead token may end with: Reva v3.12.1 says 401 to its own and passes on that of a pull's source;
#: of a push to a destination that says 401 it claims success, so that there is no file (a ServerFault, too).
_MAY_BE_A_TOKEN = (errors.Unauthenticated, errors.ServerFault)


class _NotAsked(errors.Unsupported):
    """Nobody was asked for the copy, so nobody has shown anything by it."""


def transfer_one(job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> Outcome:
    """Bring one file over and prove it; all of this client's errors end in the outcome.

    Where a token that one of the sites was given has died meanwhile, it is done once more with new ones.

    Idempotent: after a crash at any instant it may be called again for the same job.
    """
    outcome = _transfer(job, source, destination, claim, watch)
    if outcome.mode in _BY_LENT_TOKENS and isinstance(outcome.error, _MAY_BE_A_TOKEN):
        # Over CS3 a dead token is found and replaced; of a COPY it is known only afterwards, if at all.
        refused = _refused_login(source) or _refused_login(destination)
        if refused is not None:
            # It says whose login it is, which no COPY does.
            return replace(outcome, reason=str(refused), error=refused)
        if source.token_has_died or destination.token_has_died:
            _log.warning("%s: copying again, because a token has died (%s)", job.request_id, outcome.reason)
            outcome = _transfer(replace(job, resumed=True), source, destination, claim, watch)
    return outcome


def _refused_login(end: End) -> errors.Unauthenticated | None:
    """A look that finds out whether the site still knows who we are, and has a new token where the old one has died."""
    try:
        end.stat()
    except errors.Unauthenticated as exc:
        return exc
    except errors.CS3Error:
        pass  # whatever else is wrong has been said, or will be
    return None


def _transfer(job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> Outcome:
    try:
        claim.check()
        if source.is_same_place(destination):
            # Two RSEs over one folder: the "leftover" to delete would be the source itself.
            raise errors.InvalidRequest(
                "source and destination are the same file", operation="COPY", target=destination.place
            )
        if may_copy_unseen(job, source, destination):
            outcome = copy_unseen(job, source, destination, claim, watch)
            if outcome is not None:
                return outcome
            claim.check()
        if _clear_the_way(job, source, destination, claim):
            _outlast(job, destination, claim)
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
        return not_begun(exc)
    tried: list[Mode] = []
    copied = False
    try:
        _copy(order, tried, job, source, destination, claim, watch)
        copied = True
        watch.copied()
        file = prove(job, destination)
        file = _outlast(job, destination, claim) or file
        # A rule may have been deleted while its file was on the way, and Rucio's reaper may have found nothing yet
        # to delete: what nobody knows of must not stay.
        claim.confirm()
    except errors.CS3Error as exc:

        def remove(standing: FileInfo) -> None:
            removal.remove_own(origin, standing, destination, claim)

        nothing_left = tried[-1] is Mode.RELAY and not copied and not destination.leaves_parts
        return after_failure(exc, job, destination, claim, tried[-1], None if nothing_left else remove, over=copied)
    return Outcome(state=State.DONE, copied=True, mode=tried[-1], file=file)


def _outlast(job: Job, destination: End, claim: Claim) -> FileInfo | None:
    """After a copy whose end nobody has seen: wait a while, and prove the file once more. Its site goes on when it is
    back, and puts what had come into the place (Reva v3.12.1, cut off for half a minute: some seconds after a second
    copy was proven).

    :returns: what was found; None where there was no such copy.
    """
    if not job.chased:
        return None
    until = time.monotonic() + OUTLAST_S
    while (left := until - time.monotonic()) > 0:
        claim.check()
        time.sleep(min(left, 1.0))
    return prove(job, destination)


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
        destination.make_parents(anew=True)
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
        replace it (see :func:`rucio_cs3.cs3.webdav.tpc.push`).
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
