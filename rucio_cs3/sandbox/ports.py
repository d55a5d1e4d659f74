"""Free TCP ports on the loopback interface, for servers that bind them a little later.

Port 0 is better wherever the server itself can report what it got; this module is for servers that read
their port from a file before they start, such as ``revad`` and ``gunicorn``.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading

LOOPBACK = "127.0.0.1"

# Linux hands out 32768-60999 to outgoing connections (ip_local_port_range); a port below cannot be taken by one
# between our test and the server's bind.
_LOWEST = 10_240
_ABOVE_HIGHEST = 32_768

# Ports are taken by the block. The first port of a block is bound until the process ends, and so says to all other
# processes that the rest of it is given out here: tests run in several processes at once.
_BLOCK = 64
_BLOCKS = range(_LOWEST, _ABOVE_HIGHEST, _BLOCK)

_unused_lock = threading.Lock()
_unused: list[int] = []


def free_port() -> int:
    """One free port; see :func:`free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Choose ``count`` different TCP ports that nothing listens on at 127.0.0.1.

    A port is given out at most once in the life of this process, and while it lives to no other process by this
    function. So servers that are being started at the same time do not get the same one.

    :returns: ports from 10240 up to 32767, outside the range of outgoing connections.
    :raises OSError: no free port was found.
    """
    chosen: list[int] = []
    with _unused_lock:
        while len(chosen) < count:
            if not _unused:
                _unused.extend(_take_block())
            port = _unused.pop()
            bound = _bound(port)
            if bound is not None:
                bound.close()
                chosen.append(port)
    return tuple(chosen)


def _take_block() -> range:
    """Ports that are this process's from now on; some may be in use by others that know nothing of blocks."""
    start = secrets.randbelow(len(_BLOCKS))
    for first in (*_BLOCKS[start:], *_BLOCKS[:start]):
        bound = _bound(first)
        if bound is not None:
            # Without the object nothing closes it, and nothing complains at the end that nobody did.
            bound.detach()
            return range(first + 1, first + _BLOCK)
    raise OSError(f"found no free TCP ports on {LOOPBACK} from {_LOWEST} to {_ABOVE_HIGHEST - 1}")


def _bound(port: int) -> socket.socket | None:
    """A socket that holds the port; None where somebody else does."""
    # Without SO_REUSEADDR on purpose: a port with connections in TIME_WAIT is passed over as well.
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind((LOOPBACK, port))
    except OSError:
        holder.close()
        return None
    return holder


def _renew() -> None:
    global _unused_lock
    # One that another thread held at the fork would never be released here.
    _unused_lock = threading.Lock()
    # What is left of a block stays with the parent.
    _unused.clear()


os.register_at_fork(after_in_child=_renew)
