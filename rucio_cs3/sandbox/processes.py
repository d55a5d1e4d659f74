"""One child process: start it, wait until it is ready, stop it, and say clearly what went wrong.

Knows nothing of what the process is; ``reva.py`` and ``rucio_site.py`` say what "ready" means for theirs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rucio_cs3.sandbox.lifecycle import Startable

# Enough of a log to show a Python traceback or Reva's last JSON lines.
_TAIL_BYTES = 4_000

_POLL_S = 0.05

# Runs in the child before it becomes the server. PR_SET_PDEATHSIG (1, linux/prctl.h) survives exec, but not a
# change of the user, which therefore comes first; should the parent be gone already the signal would never come,
# hence the second look at the parent's id. A launcher instead of ``preexec_fn`` because Python code between fork
# and exec is unsafe in a process with threads (gRPC has some).
_DIE_WITH_PARENT = """
import ctypes, os, sys
parent, number, user, group = map(int, sys.argv[1:5])
if user >= 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
ctypes.CDLL(None, use_errno=True).prctl(1, number, 0, 0, 0)
if os.getppid() == parent:
    os.execvp(sys.argv[5], sys.argv[5:])
"""


class ProcessError(RuntimeError):
    """A child process could not be started, ended by itself, or was not ready in time; the text shows its log."""


class LateSignals:
    """Holds SIGINT and SIGTERM back while a process is being started.

    Between the fork and the end of ``Popen`` nobody has a handle on the process yet; an exception of a signal's handler
    at that moment would leave it running.
    """

    def __init__(self) -> None:
        self._come: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> LateSignals:
        # Python runs handlers in the main thread only. What is ignored stays so, in the new process, too.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    self._handlers[number] = signal.signal(number, lambda number, _: self._come.append(number))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def act(self) -> None:
        """Let those that came take effect, which may raise."""
        while self._come:
            signal.raise_signal(self._come.pop())


class Server(Protocol):
    """What starts, stops and kills a server, wherever it runs; :class:`ChildProcess` runs it here."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class ChildProcess(Startable):
    """A child process in a process group of its own, with its output in a log file.

    A signal from the terminal (Ctrl-C) does not reach it: its owner stops it, in the order that is right.
    On Linux it gets its stop signal when this process dies, however that happens; only if it is started from the
    main thread, because the kernel watches the starting *thread* (prctl(2)) and would end the child with it.

    :param name: what messages call it.
    :param command: program and arguments; no shell.
    :param log: file that stdout and stderr are appended to; its directory exists.
    :param environment: the whole environment of the child; this process's own if None.
    :param user: ids of the user and group to run as, which only root may ask for; None for our own.
    :param stop_signal: what asks it to end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = tuple(str(part) for part in command)
        self.log = log
        self._environment = None if environment is None else dict(environment)
        self._directory = directory
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; returns at once, see :meth:`wait_until`.

        :raises ProcessError: it runs already, or the program cannot be executed.
        """
        if self.running:
            raise ProcessError(f"{self.name} runs already")
        command: tuple[str, ...] = self.command
        user, group = self._user or (None, None)
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            # The launcher begins as ourselves: this interpreter may be where the other user cannot look.
            ids = (str(-1 if value is None else value) for value in (user, group))
            number = str(int(self._stop_signal))
            command = (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), number, *ids, *command)
            user = group = None
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    cwd=self._directory,
                    start_new_session=True,
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
                )
            except OSError as exc:
                raise ProcessError(f"{self.name} could not be started: {exc}") from exc

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until ``ready()`` is true.

        :param ready: asked again and again; says False, and does not raise, while the server is not there yet.
        :raises ProcessError: the process ended, or ``timeout_s`` passed; the process is stopped then.
        """
        deadline = time.monotonic() + timeout_s
        while self.running:
            if ready():
                return
            if time.monotonic() > deadline:
                self.stop()
                raise ProcessError(f"{self.name} was not ready after {timeout_s:g} s; {self._told()}")
            time.sleep(_POLL_S)
        code = None if self._process is None else self._process.returncode
        raise ProcessError(f"{self.name} ended with exit code {code} before it was ready; {self._told()}")

    def check(self) -> None:
        """
        :raises ProcessError: the process has ended by itself; with the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            raise ProcessError(f"{self.name} ended with exit code {self._process.returncode}; {self._told()}")

    def wait(self, *, timeout_s: float) -> int:
        """Wait for the end of the process.

        :returns: its exit code, negative for a signal.
        :raises ProcessError: it still runs after ``timeout_s``, or was never started.
        """
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} still runs after {timeout_s:g} s; {self._told()}") from None

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End the process: its stop signal to its group, SIGKILL after ``grace_s``. Idempotent."""
        self.terminate()
        process = self._process
        if process is None or process.poll() is not None:
            return
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def terminate(self) -> None:
        """Ask the process to end (its stop signal to its group) without waiting; :meth:`stop` waits."""
        self._signal(self._stop_signal)

    def kill(self) -> None:
        """End the process at once, wherever it is (SIGKILL to its group). Idempotent; :meth:`start` starts another."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        # The leader is not waited for yet, so its process group id cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def output(self) -> str:
        """What the process has written since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _told(self) -> str:
        text = self.output().strip()
        if not text:
            return f"it wrote nothing to {self.log}"
        return f"the end of {self.log}:\n{text[-_TAIL_BYTES:]}"
