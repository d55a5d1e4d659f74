"""What a benchmark may run: one class for each peer. Read next: ``commands.py`` and ``libraries.py``.

A peer lives in a process of its own (``worker.py``), so that memory and processor time are its alone. This module and
those of the peers import nothing but Python's own until a peer is opened: cs3client's environment has nothing of ours.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import measuring
from measuring import Command, Usage

#: ``upload`` is all that ``rucio upload`` does with a storage for one file: see ``libraries.py``.
Operation = Literal["put", "get", "stat", "upload"]

#: Those that leave a file at the cloud.
SENDS: tuple[Operation, ...] = ("put", "upload")

#: From here on a command runs long enough for its memory to be watched.
_LONG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Site:
    """A cloud, and somebody who can log in; goes to the worker by its standard input.

    :param gateway: ``host:port`` of the gateway, without TLS.
    :param webdav_url: what stands for ``root``, without a slash at the end.
    :param root: what CS3 references begin with.
    :param token: an access token of the cloud. A secret.
    """

    gateway: str
    webdav_url: str
    root: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)

    def url(self, name: str, scheme: str = "http") -> str:
        parts = urlsplit(self.webdav_url)
        return f"{scheme}://{parts.netloc}{parts.path}/{name}"


@dataclass(frozen=True)
class Task:
    """One file to move or look at.

    :param name: below the WebDAV base; letters, digits, dots, dashes and slashes only.
    :param local_path: what is sent, or where to put what comes.
    :param size: in bytes.
    :param ticket_url: where a ticket, made beforehand, says that the bytes go; for those who want one.
    :param ticket_token: the ticket's transfer token. A secret.
    """

    name: str
    local_path: str
    size: int
    ticket_url: str = field(default="", repr=False)
    ticket_token: str = field(default="", repr=False)


@dataclass
class Outcome:
    """
    :param seconds: wall time of all tasks together.
    :param each_s: wall time of each, where they went one after the other.
    """

    seconds: float
    each_s: list[float] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)


class Peer:
    """Something that puts, gets and looks at files. Its methods may be called by several threads at once.

    :cvar label: what tables call it.
    :cvar operations: those it can do.
    :cvar speaks: which of the cloud's two doors it goes through.
    :cvar tickets: whether it is given tickets, and so needs no call before it moves bytes.
    :cvar programs: commands that must be on the PATH.
    :cvar starts: whether each file is a new process, whose start is part of all its figures.
    :cvar whole_folders: whether one call moves all files of a folder.
    :cvar largest: the largest file that it moves, in bytes.
    :cvar environment: ``ours``, or ``cs3client`` for the one that this has been made for.
    """

    label: ClassVar[str]
    operations: ClassVar[tuple[Operation, ...]] = ("put", "get", "stat")
    speaks: ClassVar[Literal["CS3", "WebDAV"]] = "CS3"
    tickets: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    starts: ClassVar[bool] = False
    whole_folders: ClassVar[bool] = False
    largest: ClassVar[float] = math.inf
    environment: ClassVar[Literal["ours", "cs3client"]] = "ours"

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be run here, beside a missing program."""
        return None

    def open(self) -> None:
        """Import what is needed, and log in."""

    def close(self) -> None:
        """Close all connections."""

    def put(self, task: Task) -> None:
        raise NotImplementedError

    def get(self, task: Task) -> None:
        raise NotImplementedError

    def stat(self, task: Task) -> None:
        raise NotImplementedError

    def upload(self, task: Task) -> None:
        raise NotImplementedError

    def run(self, operation: Operation, tasks: Sequence[Task], pool: ThreadPoolExecutor | None) -> Outcome:
        """Do all tasks, at once as many as ``pool`` has threads, or one after the other."""
        usage = Usage()
        each: list[float] = []
        act: Callable[[Task], None] = getattr(self, operation)
        with measuring.this_process(usage):
            started = time.perf_counter()
            if pool is None:
                for task in tasks:
                    before = time.perf_counter()
                    act(task)
                    each.append(time.perf_counter() - before)
            else:
                for _ in pool.map(act, tasks):
                    pass
            seconds = time.perf_counter() - started
        return Outcome(seconds, each, usage)


class CommandPeer(Peer):
    """A command line; a process for each file."""

    starts = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._lock = threading.Lock()
        self._used = Usage()

    def command(self, operation: Operation, task: Task) -> Command:
        """What a user would type for one file."""
        raise NotImplementedError

    def put(self, task: Task) -> None:
        self._run(self.command("put", task), task.size)

    def get(self, task: Task) -> None:
        self._run(self.command("get", task), task.size)

    def stat(self, task: Task) -> None:
        self._run(self.command("stat", task), 0)

    def run(self, operation: Operation, tasks: Sequence[Task], pool: ThreadPoolExecutor | None) -> Outcome:
        self._used = Usage()
        outcome = super().run(operation, tasks, pool)
        outcome.usage = self._used
        return outcome

    def _run(self, command: Command, size: int) -> None:
        used = measuring.run(command, watch_memory=size >= _LONG_BYTES)
        with self._lock:
            self._used.cpu_s += used.cpu_s
            self._used.peak_kib += used.peak_kib


class FolderPeer(CommandPeer):
    """A command that moves all files of a folder in one process."""

    operations = ("put", "get")
    whole_folders = True

    def folder_command(self, operation: Operation, tasks: Sequence[Task], at_once: int) -> Command:
        """What a user would type for all files of a folder."""
        raise NotImplementedError

    def run(self, operation: Operation, tasks: Sequence[Task], pool: ThreadPoolExecutor | None) -> Outcome:
        at_once = 1 if pool is None else pool._max_workers
        self._used = Usage()
        started = time.perf_counter()
        self._run(self.folder_command(operation, tasks, at_once), sum(task.size for task in tasks))
        return Outcome(time.perf_counter() - started, usage=self._used)
