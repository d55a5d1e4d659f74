"""A server of bare connections, for tests that say every byte themselves."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TypeVar

_Self = TypeVar("_Self", bound="Listening")

#: Longest silence of a client, in seconds, so that no test hangs.
_HANGS_S = 30.0


class Listening:
    """Gives each connection to :meth:`serve`, in a thread of its own, and closes it afterwards.

    :param tls: speak it.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        #: Connections until now.
        self.count = 0
        #: Set at the end, for what waits.
        self.over = threading.Event()
        #: Released at the end of each connection.
        self.closed = threading.Semaphore(0)
        self._tls = tls
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[tuple[threading.Thread, socket.socket]] = []
        self._thread = threading.Thread(target=self._accept)

    def serve(self, connection: socket.socket, number: int) -> None:
        """What is said on a connection; an error of the network is its end.

        :param number: 0 for the first connection.
        """
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        # close() alone does not wake a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for thread, connection in self._open:
            # A client keeps its connection for as long as anything, such as a traceback, knows it.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, self.count))
            self.count += 1
            self._open.append((thread, connection))
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_HANGS_S)
            if self._tls is None:
                self.serve(connection, number)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as secure:
                    self.serve(secure, number)
        self.closed.release()


#: How a gRPC client begins (RFC 9113, 3.4). Nobody is to come here by gRPC, but a channel of some other test or program
#: tries again and again to reach its server, which is gone, and whose port this may be now.
_GRPC = b"PRI * HTTP/2.0\r\n"


def read_head(connection: socket.socket) -> tuple[str, bytes] | None:
    """The head of the first request on a connection, and what has come behind it; None where it ends before, or where
    somebody has lost his way."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return None
        data += piece
    if data.startswith(_GRPC):
        return None
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest
