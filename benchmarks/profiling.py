"""Where the time of a transfer goes, by Python's own profiler with two clocks: the wall's and the processor's.

Where a place has more of the first than of the second, the process slept there: the server, the kernel or a disk
worked. The profiler counts calls of Python and C functions, some thousands in a transfer of gigabytes, so that what
it costs itself is below one part in a hundred.
"""

from __future__ import annotations

import cProfile
import re
import time
from collections.abc import Callable
from typing import Any

#: Place -> what the profiler calls the functions that belong there; the first that fits counts.
_PLACES = {
    "read the local file": r"'(read|readinto)' of '_io|posix\.(read|readv|pread|preadv)\b",
    "digest": r"adler32|crc32|'update' of '_hashlib|md5",
    "send": r"'(send|sendall|sendmsg|sendto)' of '_(socket|ssl)|posix\.sendfile|'write' of '_ssl",
    "receive": r"'(recv|recv_into|recvmsg)' of '_(socket|ssl)|'read' of '_ssl",
    "write the local file": r"'(write|truncate)' of '_io|posix\.(write|pwrite|writev|\w*truncate|\w*fallocate)\b",
    "sync and rename": r"posix\.(fsync|fdatasync|rename|replace|sync_file_range)\b",
    "wait until a socket is ready": r"select|poll",
    "wait for other threads": r"'(acquire|__enter__|wait)' of '_thread",
    "gRPC": r"grpc|cygrpc",
}

#: Functions of Python: what of their path and name -> place. Their own time, without that of what they call.
_PYTHON = {
    r"local_files\.py:_fallocate$": "write the local file",
    r"[/\\]grpc[/\\]": "gRPC",
    r"[/\\]rucio_cs3[/\\]": "this package's own Python",
}

REST = "all else"


def places(acts: tuple[Callable[[], object], Callable[[], object]]) -> list[tuple[str, float, float]]:
    """Run two acts that are alike, the first by the wall's clock, the second by the processor's.

    :returns: place, wall seconds and processor seconds of this thread, most first.
    """
    wall, processor = _by_place(acts[0], time.perf_counter), _by_place(acts[1], time.thread_time)
    return sorted(
        ((place, wall.get(place, 0.0), processor.get(place, 0.0)) for place in {*wall, *processor}),
        key=lambda row: -row[1],
    )


def _by_place(act: Callable[[], object], clock: Callable[[], float]) -> dict[str, float]:
    profile = cProfile.Profile(clock)
    profile.runcall(act)
    found: dict[str, float] = {}
    for entry in profile.getstats():
        place = _place(entry.code)
        found[place] = found.get(place, 0.0) + entry.inlinetime
    return found


def _place(code: Any) -> str:
    """
    :param code: a text for a C function, a code object for one of Python.
    """
    name = code if isinstance(code, str) else f"{code.co_filename}:{code.co_name}"
    if isinstance(code, str):
        found = (place for place, pattern in _PLACES.items() if re.search(pattern, name))
    else:
        found = (place for pattern, place in _PYTHON.items() if re.search(pattern, name))
    return next(found, REST)
