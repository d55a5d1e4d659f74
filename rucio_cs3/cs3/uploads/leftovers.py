"""What an upload may leave behind where it fails, and its removal: hidden siblings, and refuted files under a name.

:mod:`rucio_cs3.cs3.uploads.uploads` decides when something has failed; for a copy between two sites,
:mod:`rucio_cs3.transfers.cs3_end`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.hidden_names import is_hidden_sibling
from rucio_cs3.cs3.namespace import OPEN_OUTCOME, Namespace
from rucio_cs3.cs3.reference import Reference

_log = logging.getLogger(__name__)

#: How long after a broken connection a server may make a file of what had come until then, and the
#: pause between two looks, in seconds. Reva v3.12.1 needs some milliseconds.
_STUB_S = 2.0
_POLL_S = 0.05

#: How long a gateway that cannot be reached is asked to remove an unfinished upload, in seconds: more than a short
#: outage, and less than the patience of somebody who has pressed Ctrl-C.
_UNDO_S = 3.0

#: Errors of a gateway that may do soon what was asked.
_SOON = (*OPEN_OUTCOME, errors.Throttled)


class Leftovers:
    """Hidden siblings and refuted files at one endpoint; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway, namespace: Namespace) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._namespace = namespace

    def siblings(self, reference: Reference) -> list[Reference]:
        """See :meth:`rucio_cs3.cs3.hidden_files.HiddenFiles.left_of`."""
        try:
            listed = self._namespace.list(reference.parent)
        except errors.NotFound:
            return []
        return [
            info.reference
            for info in listed
            if is_hidden_sibling(info.reference.name, reference) and not info.is_directory
        ]

    def remove_sibling(self, landing: Reference, *, stubs: bool, hurried: bool = False) -> bool:
        """Remove a hidden sibling.

        :param stubs: it may yet come into being: Reva v3.12.1 local makes a stub of what came before a connection
            broke, maybe only after a first look.
        :param hurried: somebody has pressed Ctrl-C, and does not wait long for a gateway that is silent.
        :returns: whether something was removed.
        :raises CS3Error: when something may be left.
        """
        stub_by = time.monotonic() + (_STUB_S if stubs else 0.0)
        while True:
            try:
                # Nobody else has this name, so it may be deleted again.
                _repeated(lambda: self._gateway.delete(landing, timeout_s=_UNDO_S if hurried else None))
                return True
            except errors.NotFound:
                # Nothing has come into being, or not yet: the server may notice the end later than we do.
                if time.monotonic() >= stub_by:
                    return False
            time.sleep(_POLL_S)

    def remove_own(self, reference: Reference, etag: str) -> None:
        """Remove what an upload stored under the name itself, and nothing that somebody else stored there. Raises
        nothing: the error of the upload is the one to report.

        ``if_not_exist`` is looked at when the ticket is given, not when the bytes are committed, so another
        upload may have taken the name meanwhile. A cut PUT leaves nothing at this line, so without an etag
        there is nothing of ours.

        :param etag: what the server gave to what it stored; empty where it named none.
        """
        try:
            # Each time with a new look: after a lost answer somebody else's file may stand there.
            _repeated(lambda: self._remove_own(reference, etag))
        except errors.NotFound:
            pass  # gone since
        except errors.CS3Error as error:
            self.is_left(reference, error)

    def _remove_own(self, reference: Reference, etag: str) -> None:
        standing = self._namespace.present(reference)
        if standing is not None and etag and standing.etag == etag:
            self._gateway.delete(reference)
        elif standing is not None:
            _log.warning("%s: %s is not known to be of this upload, so it stays", self._endpoint.name, reference)

    def is_left(self, reference: Reference, error: errors.CS3Error) -> None:
        """Say that something may be left, where another error is the one to report."""
        _log.warning("%s: could not remove the unfinished upload %s: %s", self._endpoint.name, reference, error)


def _repeated(remove: Callable[[], object]) -> None:
    """Call until it works, or fails for good, or for too long."""
    undo_by = time.monotonic() + _UNDO_S
    while True:
        try:
            remove()
            return
        except _SOON:
            if time.monotonic() >= undo_by:
                raise
        time.sleep(_POLL_S)
