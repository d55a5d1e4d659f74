"""What stands under a file's name at the destination: the right file, or one that has to make room; knows no Rucio."""

from __future__ import annotations

import logging

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import removal
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.jobs import Claim, Job
from rucio_cs3.transfers.proof import compares_content, find_fault

_log = logging.getLogger(__name__)


def is_there(job: Job, source: End, destination: End, claim: Claim) -> bool:
    """Whether the right file is there already; a wrong one makes room, and a missing folder is made.

    :raises CS3Error: when something stands there that must not go, or it cannot be found out.
    """
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
    origin = look_at_source(source)
    # The right size alone is no reason to keep it: it may be the very file that somebody declared bad.
    why = fault or "only its size could be compared"
    _log.warning("%s: an earlier attempt's leftover at %s is to go: %s", job.request_id, destination.place, why)
    removal.remove_leftover(origin, standing, destination, claim)
    return False


def look_at_source(source: End) -> FileInfo:
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
