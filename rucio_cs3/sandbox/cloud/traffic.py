"""What has passed through a cloud's HTTP side: for each request, how many bytes of it came, and what was answered.

Counted as it happens, so that a test can look at a request that is still going on. Holds no header that could be a
secret. Filled by ``http_server.py``, and by the relays that tests put before a real server.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

# A cloud that runs for days forgets the oldest.
_KEPT = 10_000


@dataclass(kw_only=True)
class Passed:
    """One request and its answer.

    :param point: as fault scripts name it, such as ``data.put``.
    :param asked_range: the ``Range`` of the request, empty where there is none.
    :param upload_offset: the ``Upload-Offset`` of the request in bytes, None where there is none.
    :param length: announced bytes of the request's body, None for a chunked one.
    :param received: bytes of the request's body that have come.
    :param sent: bytes of the answer's body that were sent.
    :param status: HTTP status of the answer; 0 while there is none, and for ever where none was sent.
    """

    point: str
    asked_range: str = ""
    upload_offset: int | None = None
    length: int | None = 0
    received: int = 0
    sent: int = 0
    status: int = 0


class Traffic:
    """The requests of one cloud, oldest first; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[Passed] = deque(maxlen=_KEPT)

    def begin(self, point: str, *, length: int | None, asked_range: str = "", upload_offset: str = "") -> Passed:
        """Note a request whose body is still to come.

        :param asked_range: its header ``Range``, and so for ``upload_offset``.
        """
        passed = Passed(
            point=point,
            asked_range=asked_range,
            upload_offset=int(upload_offset) if upload_offset.isdecimal() else None,
            length=length,
        )
        with self._lock:
            self._requests.append(passed)
        return passed

    def of(self, *points: str) -> list[Passed]:
        """The requests at these points, or all."""
        with self._lock:
            return [passed for passed in self._requests if not points or passed.point in points]

    def clear(self) -> None:
        """Forget what has passed."""
        with self._lock:
            self._requests.clear()
