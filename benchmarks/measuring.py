"""Processor time and memory: of this process, and of a command that it runs. Linux; imports nothing but Python's own.

Memory is the highest resident set (``VmHWM`` of /proc, see proc(5)). The kernel's ``ru_maxrss`` is not used for
commands: it begins with what the process that forked them had.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Between two looks at a command's memory. Its peak is that of its last look.
_LOOK_S = 0.01

#: As much of a command's complaint as a table of failures can show.
_COMPLAINT_BYTES = 2000


@dataclass
class Usage:
    """
    :param cpu_s: user and system time, in seconds.
    :param peak_kib: highest memory of the process, in KiB; of several commands together the sum of theirs.
    """

    cpu_s: float = 0.0
    peak_kib: int = 0


class CommandFailed(RuntimeError):
    """A command ended with another code than 0; the text is what it wrote to its standard error."""


@dataclass(frozen=True)
class Command:
    """
    :param words: program and arguments; no secrets, which all users of a machine can read here.
    :param given: its standard input. May hold secrets.
    :param variables: what its environment has beside this process's own. May hold secrets.
    """

    words: Sequence[str]
    given: str = field(default="", repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


def memory_kib(name: str, pid: int | str = "self") -> int:
    """``VmRSS`` or ``VmHWM`` of a process; 0 where it is gone or the system has no such file."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def this_process(usage: Usage) -> Iterator[None]:
    """Put into ``usage`` what this process, with all its threads, uses in the block."""
    with contextlib.suppress(OSError):
        # 5 sets VmHWM to what is resident now (proc(5), clear_refs).
        Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    yield
    usage.cpu_s = time.process_time() - started
    usage.peak_kib = memory_kib("VmHWM")


def run(command: Command, *, watch_memory: bool) -> Usage:
    """Run a command to its end.

    :param watch_memory: look at its memory all the time, which is worth it for one that runs for a while.
    :raises CommandFailed: it says that it failed.
    :raises FileNotFoundError: there is no such program.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        given.write(command.given.encode())
        given.seek(0)
        process = subprocess.Popen(
            command.words,
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=complaint,
            env={**os.environ, **command.variables},
        )
        peak: list[int] = []
        watcher = threading.Thread(target=_watch, args=(process.pid, peak))
        if watch_memory:
            watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if watch_memory:
            watcher.join()
        if process.returncode:
            complaint.seek(0)
            told = complaint.read(_COMPLAINT_BYTES).decode(errors="replace")
            raise CommandFailed(f"{command.words[0]} ended with {process.returncode}: {told.strip()}")
    return Usage(cpu_s=used.ru_utime + used.ru_stime, peak_kib=peak[-1] if peak else 0)


def _watch(pid: int, peak: list[int]) -> None:
    while kib := memory_kib("VmHWM", pid):
        peak[:] = [kib]
        time.sleep(_LOOK_S)
