"""One new connection to an HTTP server: TCP, and TLS on it, of which :mod:`rucio_cs3.cs3.tls` has the rules."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import NamedTuple

from rucio_cs3.cs3 import tls
from rucio_cs3.cs3.hosts import is_off_limits, is_this_machine
from rucio_cs3.cs3.http.answers import Unanswered
from rucio_cs3.cs3.http.wire import tune


class NotReached(Exception):
    """No connection came about.

    :param reason: why, by the system.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotAccepted(Exception):
    """No connection came about in the time that there was for it."""


class NoDescriptors(NotReached):
    """This process, or this machine, may open no more files; the server has nothing to do with it."""


class Untrusted(NotReached):
    """TLS could not be agreed on."""


class Origin(NamedTuple):
    """Where a connection leads to.

    :param never_here: not to this machine, whatever the name leads to: somebody elsewhere has given it.
    """

    secure: bool
    host: str
    port: int
    never_here: bool = False


class Dialling:
    """Opens connections; safe for many threads.

    :param contexts: the TLS of secure ones.
    :param connect_s: for a TCP connection to each of a host's addresses, and for TLS on it, in seconds.
    """

    def __init__(self, contexts: tls.Contexts, connect_s: float) -> None:
        self._contexts = contexts
        self._connect_s = connect_s

    def dial(self, origin: Origin) -> socket.socket:
        """A connection that does not block, and over which nothing has been sent yet.

        :raises NotReached: (or Untrusted, NotAccepted, NoDescriptors) where none comes about.
        :raises ConfigurationError: when a file of TLS cannot be used.
        """
        sock = self._connected(origin)
        try:
            tune(sock)
            if origin.secure:
                sock = self._secured(sock, origin)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def _connected(self, origin: Origin) -> socket.socket:
        """A connection to the first address that answers; where none does, the last one's failure counts."""
        failure: NotReached | NotAccepted | None = None
        for address in _addresses(origin):
            try:
                return socket.create_connection((address, origin.port), timeout=self._connect_s)
            except TimeoutError:
                failure = NotAccepted()
            except OSError as exc:
                failure = _not_reached(exc)
        raise failure or NotReached("its name leads nowhere")

    def _secured(self, sock: socket.socket, origin: Origin) -> ssl.SSLSocket:
        try:
            return self._contexts.secured(sock, origin.host, origin.port)
        except TimeoutError:
            raise NotAccepted from None
        except ssl.SSLEOFError:
            raise Unanswered from None
        except (ssl.SSLError, ValueError) as exc:  # ValueError: a host name that can be in no certificate
            raise Untrusted(tls.explain(exc)) from None


def _addresses(origin: Origin) -> list[str]:
    """The addresses of a host that may be dialled, in the order of the resolver: a name may lead anywhere.

    :raises NotReached: where there is none.
    """
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that IDNA does not know
        raise _not_reached(exc) from None
    allowed = [str(entry[4][0]) for entry in found if not is_off_limits(str(entry[4][0]))]
    if not allowed:
        raise NotReached("its name leads to a link-local address, where nothing is ever sent")
    if origin.never_here:
        allowed = [address for address in allowed if not is_this_machine(address)]
        if not allowed:
            raise NotReached(
                "a redirect from elsewhere names it, and its name leads to this machine; if that is right, add it to "
                "data_hosts (as a setting: cs3_data_hosts)"
            )
    return allowed


def _not_reached(exc: OSError | UnicodeError) -> NotReached:
    number, words = (exc.errno, exc.strerror) if isinstance(exc, OSError) else (None, None)
    kind = NoDescriptors if number in (errno.EMFILE, errno.ENFILE) else NotReached
    return kind(words or str(exc))
