"""Deletes files one after the other, and nothing but files, at the pace of the deletions alone.

CS3's Delete takes whole folders and has no condition that would keep it from that, so each place is looked at first.
A look takes a round trip; but whoever deletes many files knows which come next, and those are looked at by other
threads (:mod:`rucio_cs3.cs3.crew`) while the files before them are deleted. What a look ahead says is believed for
:data:`LOOK_S`, and only where it says "a file": for all else the place is looked at again at its turn.

Where ``Endpoint.deletion_look`` is ``never`` nobody looks, and the server's answer to the Delete is all there is. Then
only a "nothing is there" is looked after: Rucio forgets a file for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import Deleted, Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.side_by_side import Aside

#: How many files are looked at ahead. One is enough where a look takes no longer than a deletion; the second is for
#: looks that take longer now and then. More would only make looks older.
AHEAD = 2

#: For how long a look ahead is believed, in seconds from before it was asked for: somebody would have to replace the
#: file by a folder within that time. Without looks ahead it is the time of a round trip.
LOOK_S = 1.0


class FileDeletions:
    """The deletions of one thread. For several it is of no use, and of no harm.

    :param look_s: see :data:`LOOK_S`.
    :param looks: False deletes whatever is there, a folder with all in it, too.
    """

    def __init__(self, gateway: Gateway, namespace: Namespace, *, look_s: float = LOOK_S, looks: bool = True) -> None:
        self._gateway = gateway
        self._namespace = namespace
        self._look_s = look_s
        self._looks = looks
        self._ahead: dict[Reference, tuple[float, Aside[FileInfo]]] = {}

    def delete(self, reference: Reference, upcoming: Iterable[Reference] = ()) -> Deleted:
        """Delete a file.

        :param upcoming: what is probably deleted next; the first :data:`AHEAD` are looked at meanwhile.
        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder; it stays. Not where nobody looks.
        """
        if not self._looks:
            return self._delete_unseen(reference)
        seen = self._seen_ahead(reference)
        self._look_ahead(upcoming)
        info = seen or self._gateway.stat(reference)
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="Delete", target=str(reference))
        return replace(self._namespace.delete(reference), size=info.size)

    def _delete_unseen(self, reference: Reference) -> Deleted:
        """The Delete alone: real Reva v3.12.1 and OpenCloud say NOT_FOUND where nothing is."""
        try:
            return self._namespace.delete(reference)
        except errors.NotFound as error:
            # Said of a Delete, it may be about something else on the server's way than this file: its bin, a backend.
            if self._namespace.present(reference) is None:
                raise
            raise errors.ServerFault(
                "the server says that nothing is there, and shows it all the same",
                operation="Delete",
                target=str(reference),
                code=error.code,
                trace=error.trace,
            ) from error

    def _seen_ahead(self, reference: Reference) -> FileInfo | None:
        asked_at, look = self._ahead.pop(reference, (0.0, None))
        if look is None or time.monotonic() - asked_at > self._look_s:
            return None
        try:
            info = look.result()
        except errors.CS3Error:
            return None
        # The answer may have taken its time.
        return None if info.is_directory or time.monotonic() - asked_at > self._look_s else info

    def _look_ahead(self, upcoming: Iterable[Reference]) -> None:
        wanted = [reference for reference, _ in zip(upcoming, range(AHEAD), strict=False)]
        # Those of before that come no more are left to themselves.
        before, self._ahead = self._ahead, {}
        for reference in wanted:
            asked = before.get(reference)
            self._ahead[reference] = asked or (time.monotonic(), Aside(partial(self._gateway.stat, reference)))
