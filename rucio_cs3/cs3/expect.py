"""``Expect: 100-continue``: ask before a body is sent (RFC 9110, 10.1.1), which neither http.client nor urllib3 does.

A server that redirects a PUT to a data node, or refuses it, then says so before gigabytes are on their way: dCache
and XRootD's redirectors do that. Mixed into the connections of :mod:`rucio_cs3.cs3.data_gateway`.
"""

from __future__ import annotations

import io
import select
import ssl
from typing import Any

#: How long to wait for "100 Continue" before the body is sent anyway, in seconds: curl's value. RFC 9110 wants no
#: client to wait for ever, because old servers say nothing.
_PATIENCE_S = 1.0

#: Longest head of an answer that is read here.
_HEAD_MAX_BYTES = 64 * 1024


class AskingFirst:
    """Mixed into an http.client connection: a request that has the header ``Expect: 100-continue`` sends its body only
    after the server has agreed, or has said nothing for a second. A final answer takes the body's place.
    """

    sock: Any
    _asks = False

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._asks = False
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def putheader(self, header: str | bytes, *values: Any) -> None:
        name = header.decode("ascii") if isinstance(header, bytes) else header
        self._asks = self._asks or name.lower() == "expect"
        super().putheader(header, *values)  # type: ignore[misc]

    def endheaders(self, message_body: Any = None, **kwargs: Any) -> None:
        if not self._asks or message_body is None or kwargs.get("encode_chunked"):
            super().endheaders(message_body, **kwargs)  # type: ignore[misc]
            return
        super().endheaders()  # type: ignore[misc]
        answer = _early_answer(self.sock)
        if answer is not None:
            # Whoever reads the answer now gets it from the beginning.
            self.sock = _ReadFrom(self.sock, answer)
            return
        for piece in (message_body,) if isinstance(message_body, bytes) else message_body:
            self.send(piece)  # type: ignore[attr-defined]


def _early_answer(sock: Any) -> bytes | None:
    """The head of the final answer that a server gives before it gets a body; None where the body is to be sent."""
    while _readable(sock):
        head = bytearray()
        # Byte by byte, because what follows the head belongs to somebody else. An answer without a body to send is
        # the exception, and "100 Continue" is 25 bytes.
        while not head.endswith(b"\r\n\r\n"):
            byte = sock.recv(1)
            if not byte or len(head) >= _HEAD_MAX_BYTES:
                # The connection ended, or this is no HTTP: for http.client to complain about.
                return bytes(head)
            head += byte
        status = head.split(b" ", 2)[1:2]
        if status == [b"100"]:
            return None
        if not (status and status[0].startswith(b"1")):
            # The connection is unusable afterwards: a server may still wait for the announced bytes.
            return bytes(head[:-2]) + b"Connection: close\r\n\r\n"
    return None


def _readable(sock: Any) -> bool:
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(_PATIENCE_S * 1000))


class _ReadFrom:
    """A socket whose first bytes were read already."""

    def __init__(self, sock: Any, head: bytes) -> None:
        self._sock = sock
        self._head = head

    def makefile(self, mode: str, *args: Any, **kwargs: Any) -> io.BufferedReader:
        return io.BufferedReader(_Chained(self._head, self._sock.makefile("rb", 0)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Chained(io.RawIOBase):
    """Some bytes, and then the rest of a file."""

    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._head:
            return self._rest.readinto(buffer)
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count

    def close(self) -> None:
        self._rest.close()
        super().close()
