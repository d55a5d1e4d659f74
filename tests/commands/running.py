"""Running ``rucio-cs3`` as people do: in this process (cheap), as a process of its own, and at a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from rucio_cs3.cli.main import cli

PROGRAM = Path(sys.executable).parent / "rucio-cs3"

#: Starts a program that Ctrl-C can end: a shell in the background makes its children ignore it. Not by ``preexec_fn``,
#: which makes subprocess fork: gRPC may abort the child of a process with a gRPC server before it is another program.
_OBEY = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
_EXECUTE = "os.execv(sys.argv[1], sys.argv[1:])"
_LISTENING = (sys.executable, "-c", _OBEY + _EXECUTE)
#: The same with a terminal of its own, whose Ctrl-C it gets.
_AT_TERMINAL = (
    sys.executable,
    "-c",
    f"{_OBEY}import fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_EXECUTE}",
)

#: As a terminal sends it.
CTRL_C = "\x03"

#: Longest that a command of a test takes on a busy machine, in seconds.
LONGEST_S = 60.0

#: Of the machine that runs the tests, and no business of theirs.
_FOREIGN = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@dataclass(frozen=True)
class Done:
    """What became of a command.

    :param code: exit code; of a process that a signal ended, the negative number of that.
    """

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: this one's without Rucio and terminal, and these settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN and (not name.startswith("RUCIO") or name == "RUCIO_CS3_STATE_DIR")
    }
    return {**inherited, **settings}


def run_here(arguments: tuple[object, ...], settings: Mapping[str, str], typed: str | None = None) -> Done:
    """In this process: quick, and without a terminal."""
    cleared: dict[str, str | None] = dict.fromkeys(os.environ)
    # Rucio keeps the configuration that another test of this process has shown it.
    if (config := sys.modules.get("rucio.common.config")) is not None:
        config.clean_cached_config()
    result = CliRunner().invoke(
        cli,
        [str(argument) for argument in arguments],
        prog_name="rucio-cs3",
        input=typed,
        env={**cleared, **environment_of(settings)},
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout_bytes, result.stderr_bytes)


class Started:
    """A command that runs; made by :func:`started`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, *, typed: bytes | None = None) -> Done:
        """Wait for it."""
        out, err = self.process.communicate(typed, timeout=LONGEST_S)
        return Done(self.process.returncode, out, err)


@contextlib.contextmanager
def started(arguments: tuple[object, ...], settings: Mapping[str, str]) -> Iterator[Started]:
    """A process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [*_LISTENING, str(PROGRAM), *(str(argument) for argument in arguments)],
        env=environment_of(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield Started(process)
        finally:
            if process.poll() is None:
                process.kill()


def at_terminal(
    arguments: tuple[object, ...],
    settings: Mapping[str, str],
    *,
    columns: int = 80,
    typed: str = "",
    asked: str = "]: ",
) -> Done:
    """A process whose three streams are one terminal of so many columns; all that it shows is in ``stdout``.

    :param typed: once it shows what ends in ``asked``.
    """
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*_AT_TERMINAL, str(PROGRAM), *(str(argument) for argument in arguments)],
            env={"TERM": "xterm-256color", **environment_of(settings)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    shown = b""
    until = time.monotonic() + LONGEST_S
    answered = not typed
    with process:
        try:
            while (piece := _read(ours)) != b"":
                assert time.monotonic() < until, f"neither shows anything nor ends: {shown!r}"
                shown += piece or b""
                # Python misses a Ctrl-C that comes just before it begins to read.
                due = not answered if piece else typed == CTRL_C
                if due and asked.encode() in shown[-len(asked) - 4 :]:
                    os.write(ours, typed.encode())
                    answered = True
            process.wait(LONGEST_S)
        finally:
            os.close(ours)
            if process.poll() is None:
                process.kill()
    return Done(process.returncode, shown, b"")


def _read(terminal: int) -> bytes | None:
    """What is shown next; None where nothing is for a while, and no bytes at the end."""
    ready, _, _ = select.select([terminal], [], [], 1.0)
    if not ready:
        return None
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # EIO is how Linux says that nobody has the other end open any more


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Look again and again.

    :raises AssertionError: when it does not come true.
    """
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LONGEST_S:.0f} s in vain for {what}"
        time.sleep(0.02)
