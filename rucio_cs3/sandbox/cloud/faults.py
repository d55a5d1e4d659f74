"""Scripted faults: what an embedded cloud does wrong, where, and how often.

A test adds a script to a point, runs the client, and asserts that :meth:`Faults.pending` is empty, so that a fault
that was never met cannot pass for one that was survived. The services (``rpc.py``, ``data_gateway.py``,
``webdav.py``, ``tpc.py``, ...) take scripts here and know how to act them; this module acts none.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from cs3.rpc.v1beta1 import code_pb2

_CODES = frozenset(code_pb2.Code.keys())

# Scripts without an argument, with one that is a number, and with one that is a name or text.
_PLAIN = frozenset({"stall", "wrong-checksum", "flip-byte", "expire-token", "lost-answer"})
_NUMBERED = frozenset({"cut-after", "short-body", "long-body", "stall-after"})
_NAMED = frozenset({"code", "grpc", "say"})

_RECEIVING = frozenset({"cut-after", "stall", "stall-after", "flip-byte", "return", "expire-token", "lost-answer"})
_SENDING = _RECEIVING | {"short-body", "long-body"}
_OTHER_HTTP = frozenset({"stall", "return", "expire-token", "lost-answer"})
_RPC = frozenset({"code", "grpc", "stall", "expire-token", "lost-answer"})

# What can be acted at which point; a script that would never do anything is refused when it is added.
POINTS: Mapping[str, frozenset[str]] = {
    "data.put": _RECEIVING,
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
    script: str

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer that ``return`` stands for."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


@dataclass
class _Planned:
    fault: Fault
    left: int


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

        Scripts: ``return-<status>`` and ``return-<status>,retry-after:<seconds>`` (HTTP), ``code:<CS3 code>``,
        ``grpc:<STATUS>``, ``cut-after:<bytes>``, ``short-body:<bytes>``, ``long-body:<bytes more>``, ``stall``,
        ``stall-after:<bytes>``, ``wrong-checksum``, ``flip-byte``, ``expire-token``, ``lost-answer``,
        ``say:<text>`` (COPY: 202 with that text as its body).

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
            planned.left -= 1
            if planned.left == 0:
                del plans[0]
            return planned.fault

    def pending(self) -> list[str]:
        """What is planned and has not happened, as ``"<point> <script> x<times>"``."""
        with self._lock:
            return [
                f"{point} {planned.fault.script} x{planned.left}"
                for point, plans in self._plans.items()
                for planned in plans
            ]

    def clear(self) -> None:
        """Forget all scripts."""
        with self._lock:
            self._plans.clear()


def parse(script: str) -> Fault:
    """Parse a script.

    :raises ValueError: it is none.
    """
    status = re.fullmatch(r"return-([1-5][0-9]{2})(?:,retry-after:([0-9]+))?", script)
    if status:
        retry_after_s = int(status[2]) if status[2] else None
        return Fault(kind="return", number=int(status[1]), retry_after_s=retry_after_s, script=script)
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
