"""A first attempt's pull, asked for before anything is looked at; knows no Rucio.

For a small file the looks before a copy cost more than the copy. Most of them can be left out where nobody has tried
before and the destination guards its names: with ``Overwrite: F`` it looks itself, and says 412 where something stands.
What an answer leaves open sends the transfer back to :mod:`rucio_cs3.transfers.ladder`, which looks at both ends:

==============================================  =================================================================
The destination's answer                        What follows
==============================================  =================================================================
something stands there; no such source;         nothing was written: look, then decide and copy again
a token is not accepted; no third-party copies
success, and the file is right                  done
success, no file, and its folder is missing     nothing was written: as above
any other failure after it had begun            what stands there is ours, for nothing did before; it goes
any other failure before that                   what stands there may be an earlier leftover, and is taken for one
==============================================  =================================================================
"""

from __future__ import annotations

import logging

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import copies, modes, removal
from rucio_cs3.transfers.aftermath import after_failure
from rucio_cs3.transfers.ends import End, NothingToLend
from rucio_cs3.transfers.jobs import Claim, Job, Outcome, State, Watch
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import NothingThere, prove

_log = logging.getLogger(__name__)

#: Answers that a look at the ends may change or explain. The destination has written nothing then.
_LOOK = (errors.AlreadyExists, errors.NotFound, errors.Unauthenticated, errors.Unsupported)


def may_copy_unseen(job: Job, source: End, destination: End) -> bool:
    """Whether the copy may be asked for at once."""
    if job.attempt or job.resumed:
        # There may be leftovers, of a relay beside the file, too.
        return False
    try:
        wish = modes.agree(source.wish, destination.wish)
    except errors.ConfigurationError:
        return False
    return wish in ("auto", "pull") and destination.guards_names()


def copy_unseen(job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> Outcome | None:
    """Make the folders, pull, prove.

    :returns: None where both ends have to be looked at; nothing was written then.
    :raises CS3Error: when the folders cannot be made.
    """
    destination.make_parents()
    begun = over = False

    def progress(total_bytes: int) -> None:
        nonlocal begun
        begun = True
        claim.check()
        watch.moved(total_bytes)

    watch.began(Mode.PULL)
    try:
        copies.COPIES[Mode.PULL](job.size_bytes, job.checksums, source, destination, progress)
        over = True
        watch.copied()
        file = prove(job, destination)
        # See transfer_one.
        claim.confirm()
    except errors.CS3Error as exc:
        if isinstance(exc, (errors.Unsupported, errors.ProtocolViolation)) and not isinstance(exc, NothingToLend):
            # The probe is older than this answer.
            destination.refused_tpc()
        if isinstance(exc, _LOOK) and not begun:
            _log.info("%s: looking before another copy: %s", job.request_id, exc)
            return None
        if isinstance(exc, NothingThere) and _folder_was_missing(job, destination):
            return None

        def remove(standing: FileInfo) -> None:
            _remove(standing, source, destination, claim, begun=begun)

        return after_failure(exc, job, destination, claim, Mode.PULL, remove, over=over, ours=begun)
    return Outcome(state=State.DONE, copied=True, mode=Mode.PULL, file=file)


def _folder_was_missing(job: Job, destination: End) -> bool:
    """Whether the folder that was known to be there is not: a server that stores nothing then claims success, too (Reva
    v3.12.1).
    """
    try:
        missing = destination.make_parents(anew=True)
    except errors.CS3Error as exc:
        _log.info("%s: could not look for the folder of %s: %s", job.request_id, destination.place, exc)
        return False
    if missing:
        _log.warning("%s: the folder of %s was gone; copying again", job.request_id, destination.place)
    return missing


def _remove(standing: FileInfo, source: End, destination: End, claim: Claim, *, begun: bool) -> None:
    """Remove what a failed copy has left, or what was there before.

    :param begun: whether the destination had begun to write: then nothing stood there before.
    :raises CS3Error: as :mod:`~rucio_cs3.transfers.removal`.
    """
    try:
        origin = source.stat()
    except errors.CS3Error as exc:
        if not begun:
            raise errors.PreconditionFailed(
                f"what stands there cannot be told from the source, which cannot be looked at: {exc.message}",
                operation="Delete",
                target=destination.place,
            ) from exc
        origin = None
    if begun:
        removal.remove_own(origin, standing, destination, claim)
    elif origin is not None:
        removal.remove_leftover(origin, standing, destination, claim)
