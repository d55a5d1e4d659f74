"""Connections to HTTP servers, kept for the next request; knows no CS3 and no tokens.

Nothing below retries but :meth:`Connections.exchange`, and that only a look on a connection that was closed meanwhile.
Below are :mod:`rucio_cs3.cs3.http.dialling` (a new connection) and :mod:`rucio_cs3.cs3.http.connection` (an exchange on
one).
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from rucio_cs3.cs3.http.answers import Body, Head, Unanswered
from rucio_cs3.cs3.http.connection import Connection, Request
from rucio_cs3.cs3.http.dialling import Origin

#: Kept per host, port and scheme; more at once are opened and then closed.
_KEPT_MAX = 16

#: How long an unused connection is kept, in seconds. Servers and the firewalls between close theirs after one minute
#: and more (nginx: 75 s), and one that is closed on the way to it costs a request.
_KEPT_S = 30.0

#: Repeating them asks for nothing new (RFC 9110, 9.2.1; RFC 4918, 9.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})


class Connections:
    """The connections of one client, kept for its next requests; safe for many threads and across forks.

    There is no lock, which a fork could leave closed behind: ends of a deque are taken and given in one step.

    :param dial: opens one, as :class:`~rucio_cs3.cs3.http.dialling.Dialling` does.
    """

    def __init__(self, dial: Callable[[Origin], socket.socket]) -> None:
        self._dial = dial
        self._kept: dict[Origin, collections.deque[Connection]] = {}
        #: Those with an exchange under way.
        self._busy: set[Connection] = set()
        self._pid = os.getpid()
        self._look_at = 0.0
        self._closed = False

    def close(self) -> None:
        """Close all that are kept, now and from now on."""
        self._closed = True
        for kept in list(self._kept.values()):
            while kept:
                _close_oldest(kept)

    def break_off(self) -> None:
        """Break all that have an exchange under way, from another thread: whoever waits for one waits no longer."""
        for connection in list(self._busy):
            if connection.is_ours():
                connection.break_off()

    def exchange(self, origin: Origin, request: Request) -> Exchange:
        """Send a request and read the head of its answer.

        On a kept connection that dies before an answer, a request that only reads is repeated, once and on a new one:
        the server has closed it for its age, and both were on their way at the same moment. One that writes is not,
        because nobody can tell that from a server that died of it.

        :raises NotReached: (or Untrusted, NotAccepted) where no connection comes about.
        :raises FellSilent: when no answer comes. So StoppedReading, for the body.
        :raises Broken: when the connection breaks, or the answer is none.
        :raises PiecesFailed: for an OSError of the body.
        """
        connection = self._take(origin)
        if connection is not None:
            try:
                return self._on(connection, origin, request)
            except (Unanswered, OSError):
                if request.method not in _SAFE or not isinstance(request.body, bytes):
                    raise
        return self._on(Connection(self._dial(origin)), origin, request)

    def _on(self, connection: Connection, origin: Origin, request: Request) -> Exchange:
        self._busy.add(connection)
        try:
            head, whole = connection.ask(request)
            body = Body(connection.reader, head, request.method)
        except BaseException:
            self._busy.discard(connection)
            connection.close()
            raise
        return Exchange(
            head,
            body,
            connection.hurry,
            connection.wait_for,
            connection.held,
            connection.peer,
            lambda: self._done(connection, origin, body, whole=whole),
        )

    def _done(self, connection: Connection, origin: Origin, body: Body, *, whole: bool) -> None:
        self._busy.discard(connection)
        if not (whole and body.complete and body.keeps_connection and not self._closed and connection.is_ours()):
            connection.close()
            return
        connection.kept_since = time.monotonic()
        kept = self._kept.setdefault(origin, collections.deque())
        kept.append(connection)
        if len(kept) > _KEPT_MAX:
            _close_oldest(kept)
        if connection.kept_since >= self._look_at:
            self._close_aged(connection.kept_since - _KEPT_S)

    def _close_aged(self, since: float) -> None:
        """Close what was not used since a time; the youngest are taken first, so the others would stay for ever."""
        self._look_at = since + 2 * _KEPT_S
        for origin, kept in list(self._kept.items()):
            with contextlib.suppress(IndexError):  # another thread took the last
                while kept[0].kept_since < since:
                    kept.popleft().close()
            if not kept:
                # What another thread puts into it at this moment is closed when nobody knows it any more.
                self._kept.pop(origin, None)

    def _take(self, origin: Origin) -> Connection | None:
        """The youngest kept connection that can be used; those that cannot are closed."""
        if self._pid != os.getpid():
            # The parent of a fork uses them; closing our copies says nothing to the server.
            self._kept, self._pid = {}, os.getpid()
        kept = self._kept.get(origin)
        while kept:
            try:
                connection = kept.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.kept_since <= _KEPT_S and not connection.has_spoken():
                return connection
            connection.close()
        return None


def _close_oldest(kept: collections.deque[Connection]) -> None:
    with contextlib.suppress(IndexError):  # another thread took the last
        kept.popleft().close()


class Exchange(NamedTuple):
    """One answer on its connection.

    :param hurry: gets the longest silence from now on, in seconds, where shorter than the request's.
    :param wait_for: sets the longest silence, in seconds, and gives what it was.
    :param held: bytes that have come and were not read yet, or some of them.
    :param peer: the address of the other end; empty where that is not known.
    :param done: gives the connection back, or ends it where not all was read; to be called once.
    """

    head: Head
    body: Body
    hurry: Callable[[float], None]
    wait_for: Callable[[float], float]
    held: Callable[[], bytes]
    peer: str
    done: Callable[[], None]
