"""Scripted faults: what a cloud does wrong, where, and how often. One vocabulary for the embedded clouds and for the
relays that tests put before a real server.

A test adds a script to a point, runs the client, and asserts that :meth:`Faults.pending` is empty, so that a fault
that was never met cannot pass for one that was survived. The services (``rpc.py``, ``http_server.py``, ``storing.py``,
``tpc.py``, ...) take scripts here and know how to act them; this module acts none.

Of any HTTP request:

==============================  ======================================================================================
``return-<status>``             an answer in place of the work, when the body was read;
                                ``return-<status>,retry-after:<seconds>,at:<bytes>``: with that header, and as soon as
                                so many bytes of the body were read, after which nothing more is read
``answer-<status>``             the work is done, and then that is answered; also with ``retry-after``
``lost-answer``                 the work is done, and the connection reset in place of the answer
``stall``                       silence in place of work and answer
``delay:<ms>``                  the answer comes so much later
``expire-token``                all tokens that were issued until now are dead from now on
==============================  ======================================================================================

Of a body, that of the request (PUT, PATCH) or of the answer (GET); ``<bytes>`` are counted for each request:

==============================  ======================================================================================
``cut-after:<bytes>``           the connection ends after so many; the server has got (or sent) no more. All of a
                                request's: it ends before the answer
``stall-after:<bytes>``         silence after so many
``flip-byte``                   the first has another bit; ``flip-byte-at:<n>`` that with the number n, from 0
``throttle:<bytes>``            not more than so many in a second, steadily
``short-body:<bytes>``          GET: so many and no more are announced and sent
``long-body:<bytes>``           GET: so many more than there are
``ignore-range``                GET: 200 and all of the file, whatever was asked for
``drop-bytes:<bytes>``          PUT, PATCH: the last ones are read and not stored, and all is said to be well
``add-bytes:<bytes>``           PUT, PATCH: so many more are stored
``sink``                        PUT to the data gateway: all are counted, and zeros take their place, which need no disk
``lose-after:<bytes>``          PUT, PATCH: all are read, so many reach the server, and the connection ends
==============================  ======================================================================================

Of a gRPC call: ``code:<CS3 code>``, ``grpc:<STATUS>``, ``stall``, ``expire-token``, ``lost-answer``;
``wrong-checksum`` (Stat, ListContainer); ``nowhere`` (tickets: they name a port that nobody listens at).
Of a COPY: ``say:<text>``, 202 with that text as its body.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import grpc
from cs3.rpc.v1beta1 import code_pb2

_CODES = frozenset(code_pb2.Code.keys())

# Scripts without an argument, with one that is a number, and with one that is a name or text.
_PLAIN = frozenset(
    {"stall", "wrong-checksum", "flip-byte", "expire-token", "lost-answer", "ignore-range", "nowhere", "sink"}
)
_NUMBERED = frozenset(
    {
        "cut-after",
        "short-body",
        "long-body",
        "stall-after",
        "flip-byte-at",
        "drop-bytes",
        "add-bytes",
        "lose-after",
        "throttle",
        "delay",
    }
)
_NAMED = frozenset({"code", "grpc", "say"})

_OTHER_HTTP = frozenset({"stall", "return", "answer", "expire-token", "lost-answer", "delay"})
_BODY = _OTHER_HTTP | {"cut-after", "stall-after", "flip-byte", "flip-byte-at", "throttle"}
_RECEIVING = _BODY | {"drop-bytes", "add-bytes", "lose-after"}
_SENDING = _BODY | {"short-body", "long-body", "ignore-range"}
_RPC = frozenset({"code", "grpc", "stall", "expire-token", "lost-answer"})
_TICKETS = frozenset({"gateway.InitiateFileUpload", "gateway.InitiateFileDownload"})

# Throttled bodies move in pieces of this part of a second, so that they are slow and yet steady.
_PIECES_PER_S = 20

# What can be acted at which point; a script that would never do anything is refused when it is added.
POINTS: Mapping[str, frozenset[str]] = {
    "data.put": _RECEIVING | {"sink"},
    "data.patch": _RECEIVING,
    "data.get": _SENDING,
    "data.head": _OTHER_HTTP,
    "webdav.put": _RECEIVING,
    "webdav.get": _SENDING,
    "webdav.copy": _OTHER_HTTP | {"say", "cut-after"},
    **{f"webdav.{method}": _OTHER_HTTP for method in ("head", "delete", "mkcol", "move", "propfind", "options")},
    "tpc.inner-get": frozenset({"return", "cut-after", "stall"}),
    "tpc.inner-put": frozenset({"return", "cut-after", "stall", "flip-byte"}),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One parsed script."""

    kind: str
    number: int = 0
    name: str = ""
    retry_after_s: int | None = None
    at: int | None = None
    script: str

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer that ``return`` or ``answer`` stands for."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}

    @property
    def flipped_byte(self) -> int | None:
        """Which byte of the body gets another value, counted from 0; None where none does."""
        return {"flip-byte": 0, "flip-byte-at": self.number}.get(self.kind)


class Throttle:
    """Slows a body down to a rate, piece by piece.

    :param bytes_per_s: the rate; None is no limit.
    :param wait: sleeps so many seconds; ends early where the server stops.
    """

    def __init__(self, bytes_per_s: int | None, wait: Callable[[float], object]) -> None:
        self._rate = bytes_per_s
        self._wait = wait
        self._started = time.monotonic()
        self._passed = 0

    def piece(self, wanted: int) -> int:
        """How many of ``wanted`` bytes to move at once."""
        return wanted if self._rate is None else min(wanted, max(self._rate // _PIECES_PER_S, 1))

    def moved(self, count: int) -> None:
        """Wait until ``count`` more bytes may have passed."""
        if self._rate is not None:
            self._passed += count
            self._wait(max(self._started + self._passed / self._rate - time.monotonic(), 0.0))


#: For :meth:`Faults.add`: from now on, until the scripts are cleared.
FOREVER = sys.maxsize


@dataclass
class _Planned:
    fault: Fault
    left: int
    met: bool = False


@dataclass
class Faults:
    """The scripts of one cloud; thread-safe.

    :param refused: kinds that the cloud's behaviour cannot show, with the reason.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    _plans: dict[str, list[_Planned]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, point: str, script: str, times: int = 1) -> None:
        """Plan ``script`` for the next ``times`` requests that pass ``point``; later scripts wait for earlier ones.

        :param times: a number, or :data:`FOREVER`.

        The list of scripts is in the docstring of this module.

        :raises ValueError: no such point, no such script, or the script can do nothing at this point.
        """
        fault = parse(script)
        if times < 1:
            raise ValueError(f"a fault happens at least once, not {times} times")
        allowed = POINTS.get(point)
        if allowed is None:
            if not re.fullmatch(r"gateway\.[A-Z][A-Za-z]+", point):
                raise ValueError(f"no fault point {point!r}; there are gateway.<Method>, {', '.join(POINTS)}")
            allowed = _RPC
            if point in {"gateway.Stat", "gateway.ListContainer"}:
                allowed |= {"wrong-checksum"}
            elif point in _TICKETS:
                allowed |= {"nowhere"}
        if fault.kind not in allowed:
            raise ValueError(f"the fault {script!r} can do nothing at {point}; possible: {', '.join(sorted(allowed))}")
        if fault.kind in self.refused:
            raise ValueError(f"{script!r}: {self.refused[fault.kind]}")
        with self._lock:
            self._plans.setdefault(point, []).append(_Planned(fault, times))

    def take(self, point: str) -> Fault | None:
        """The script for a request that is passing ``point`` now; counts as consumed."""
        with self._lock:
            plans = self._plans.get(point)
            if not plans:
                return None
            planned = plans[0]
            planned.met = True
            if planned.left != FOREVER:
                planned.left -= 1
            if planned.left == 0:
                del plans[0]
            return planned.fault

    def pending(self) -> list[str]:
        """What is planned and has not happened, as ``"<point> <script> x<times>"``; of ``FOREVER`` once will do."""
        with self._lock:
            return [
                f"{point} {planned.fault.script} x{'?' if planned.left == FOREVER else planned.left}"
                for point, plans in self._plans.items()
                for planned in plans
                if not (planned.met and planned.left == FOREVER)
            ]

    def clear(self) -> None:
        """Forget all scripts."""
        with self._lock:
            self._plans.clear()


def received(blocks: Iterator[memoryview], length: int | None, fault: Fault | None) -> Iterator[memoryview]:
    """The blocks of a request's body as a server is to get them: with a byte flipped, some more, or some fewer.

    All of ``blocks`` are read, also those that are not handed on.

    :param length: announced bytes of the body; None for a chunked one, of which none can be dropped.
    """
    kept, flipped, more = length, None, 0
    if fault is not None:
        # ``flip-byte`` is acted where the bytes are appended (``uploads.py``): HTTP-TPC passes there, too.
        flipped = fault.number if fault.kind == "flip-byte-at" else None
        more = fault.number if fault.kind == "add-bytes" else 0
        if fault.kind == "lose-after":
            kept = fault.number
        elif fault.kind == "drop-bytes" and length is not None:
            kept = max(length - fault.number, 0)
    offset = 0
    for block in blocks:
        wanted = len(block) if kept is None else min(len(block), kept - offset)
        if wanted > 0:
            yield flip(block[:wanted], offset, flipped)
        offset += len(block)
    if more:
        yield memoryview(b"+" * more)


def flip(block: bytes | memoryview, offset: int, flipped: int | None) -> memoryview:
    """A block with one bit changed, if the byte to change is in it: a copy, as it belongs to whoever reads the stream.

    :param offset: of its first byte in the body.
    :param flipped: number of the byte in the body; None for none.
    """
    if flipped is None or not offset <= flipped < offset + len(block):
        return memoryview(block)
    changed = bytearray(block)
    changed[flipped - offset] ^= 1
    return memoryview(changed)


def parse(script: str) -> Fault:
    """Parse a script.

    :raises ValueError: it is none.
    """
    status = re.fullmatch(r"(return|answer)-([1-5][0-9]{2})(?:,retry-after:([0-9]+))?(?:,at:([0-9]+))?", script)
    if status and not (status[1] == "answer" and status[4]):
        retry_after_s, at = (int(text) if text else None for text in status.group(3, 4))
        return Fault(kind=status[1], number=int(status[2]), retry_after_s=retry_after_s, at=at, script=script)
    if script in _PLAIN:
        return Fault(kind=script, script=script)
    kind, _, argument = script.partition(":")
    if kind in _NUMBERED and re.fullmatch(r"[0-9]+", argument):
        return Fault(kind=kind, number=int(argument), script=script)
    if kind == "code" and f"CODE_{argument.removeprefix('CODE_')}" not in _CODES:
        raise ValueError(f"no CS3 code {argument!r}")
    if kind == "grpc" and argument not in grpc.StatusCode.__members__:
        raise ValueError(f"no gRPC status {argument!r}")
    if kind in _NAMED and argument:
        return Fault(kind=kind, name=argument, script=script)
    raise ValueError(f"no fault script {script!r}")
