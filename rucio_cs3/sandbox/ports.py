"""Free TCP ports on the loopback interface, for servers that bind them a little later.

Port 0 is better wherever the server itself can report what it got; this module is for servers that read
their port from a file before they start, such as ``revad`` and ``gunicorn``.
"""

from __future__ import annotations

import secrets
import socket
import threading

LOOPBACK = "127.0.0.1"

# Linux hands out 32768-60999 to outgoing connections (ip_local_port_range); a port below cannot be taken by one
# between our test and the server's bind.
_LOWEST = 10_240
_ABOVE_HIGHEST = 32_768

# Ten thousands of candidates: that so many in a row are taken means that nothing can be bound at all.
_ATTEMPTS = 1_000

_given_lock = threading.Lock()
_given: set[int] = set()


def free_port() -> int:
    """One free port; see :func:`free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Choose ``count`` different TCP ports that nothing listens on at 127.0.0.1.

    A port is given out at most once in the life of this process, so that two servers which are being
    started at the same time do not get the same one. Nothing is reserved in the operating system.

    :returns: ports from 10240 up to 32767, outside the range of outgoing connections.
    :raises OSError: no free port was found.
    """
    chosen: list[int] = []
    with _given_lock:
        for _ in range(_ATTEMPTS):
            if len(chosen) == count:
                break
            port = _LOWEST + secrets.randbelow(_ABOVE_HIGHEST - _LOWEST)
            if port not in _given and _can_bind(port):
                _given.add(port)
                chosen.append(port)
    if len(chosen) < count:
        raise OSError(f"found only {len(chosen)} of {count} free TCP ports on {LOOPBACK}")
    return tuple(chosen)


def _can_bind(port: int) -> bool:
    # Without SO_REUSEADDR on purpose: a port with connections in TIME_WAIT is passed over as well.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
