"""Runs the steps of one page, one after the other, and says which one is not as the page says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tests.docs.examples import TIMEOUT_S, Step, differs
from tests.docs.world import World

# Rucio's upload and download end with 0 whatever happened (41.5.1), and say so in a line of their log.
_ERROR_LINE = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\tERROR\t.*", re.MULTILINE)

#: How long something that has nothing to say is left to work before it gets Ctrl-C, in seconds.
_SILENCE_S = 20.0

#: What configures Rucio and the clouds' examples: each step has its own, whatever earlier ones have exported.
_OF_THE_STEP = ("RUCIO_HOME", "RUCIO_CONFIG")

# As a terminal starts a program: a shell lets what it starts in the background ignore SIGINT, and so on down.
_LISTENING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)

# What a shell leaves for the next one: its folder, and what it has exported.
_SHELL = """
trap 'code=$?; export -p >{session}/exported; pwd >{session}/folder; exit $code' EXIT
cd "$(cat {session}/folder)"
set -euo pipefail
{code}
"""

# One interpreter for all Python of a page. It is told of a block by a line, and answers with one; what blocks write
# goes to files meanwhile.
_PYTHON = """
import contextlib, json, sys, traceback
sys.path.insert(0, "")
names = {"__name__": "__main__"}
answers = sys.stdout
for line in sys.stdin:
    told = json.loads(line)
    with open(told["stdout"], "w") as out, open(told["stderr"], "w") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exec(compile(told["code"], told["where"], "exec"), names)
                code = 0
            except BaseException:
                traceback.print_exc()
                code = 1
    print(code, file=answers, flush=True)
"""


class ExampleError(AssertionError):
    """An example is not as the page says; the text has its place, what it wrote, and why that is wrong."""


class Runner:
    """The shell and the interpreter of one page. Close it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session = world.folder / ".session"
        self._session.mkdir()
        (self._session / "folder").write_text(str(world.folder))
        (self._session / "exported").write_text("")
        self._python: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self._python is not None:
            self._python.kill()
            self._python.communicate()

    def run(self, step: Step) -> None:
        """
        :raises ExampleError: when it ends with another exit code or output than it should.
        """
        code, out, err = (self._run_python if step.language == "python" else self._run_shell)(step)
        out, err = self._world.public(out), self._world.public(err)
        problem = _problem(step, code, out, err)
        if problem:
            kind = "hidden commands" if step.hidden else "example"
            raise ExampleError(
                f"{step.where}: {kind} {problem}\n--- commands\n{self._world.real(step.code)}\n"
                f"--- stdout\n{out}\n--- stderr\n{err}"
            )

    def _run_shell(self, step: Step) -> tuple[int, str, str]:
        environment = self._world.environment(step)
        own = {name: environment[name] for name in _OF_THE_STEP if name in environment}
        script = self._session / "script"
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in own.items())
        unset = f"unset {' '.join(_OF_THE_STEP)}\n"
        script.write_text(
            f"source {self._session}/exported\n{unset}{exports}"
            + _SHELL.format(session=shlex.quote(str(self._session)), code=self._world.real(step.code))
        )
        out, err = self._session / "stdout", self._session / "stderr"
        given = self._world.folder / step.stdin if step.stdin else Path(os.devnull)
        with given.open("rb") as stdin, out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", _LISTENING, "bash", "--noprofile", "--norc", str(script)],
                stdin=stdin,
                stdout=subprocess.PIPE if step.interrupted else stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
            try:
                if step.interrupted:
                    _interrupt_after_first_words(process, stdout)
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise ExampleError(f"{step.where}: still runs after {TIMEOUT_S:.0f} s: {step.code}") from None
            finally:
                _end(process)
        # As a shell says it: a signal's number and 128.
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return code, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace")

    def _run_python(self, step: Step) -> tuple[int, str, str]:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", _PYTHON],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._world.environment(step),
                cwd=self._world.folder,
                start_new_session=True,
            )
        out, err = self._session / "stdout", self._session / "stderr"
        told = {"code": self._world.real(step.code), "where": step.where, "stdout": str(out), "stderr": str(err)}
        assert self._python.stdin
        assert self._python.stdout
        # A block that hangs is ended with its interpreter.
        watch = threading.Timer(TIMEOUT_S, self._python.kill)
        watch.start()
        try:
            self._python.stdin.write(json.dumps(told) + "\n")
            self._python.stdin.flush()
            answer = self._python.stdout.readline()
        finally:
            watch.cancel()
        return int(answer or -1), out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace")


def _problem(step: Step, code: int, out: str, err: str) -> str | None:
    allowed = {0, 130} if step.interrupted else step.exit_codes
    if code not in allowed:
        return f"ended with exit code {code}, not {' or '.join(map(str, sorted(allowed)))}"
    if code == 0 and (error := _ERROR_LINE.search(out + err)):
        return f"failed: {error[0]}"
    for stream, shown, written in (("stdout", step.stdout, out), ("stderr", step.stderr, err)):
        if shown is not None and (line := differs(shown, written)) is not None:
            return f"should write this to {stream} in this place: {line}"
    return None


def _interrupt_after_first_words(process: subprocess.Popen[bytes], stdout: IO[bytes]) -> None:
    """Ctrl-C, once it has written something, or has run for a while in silence; what it writes goes into ``stdout``."""
    assert process.stdout is not None
    watch = threading.Timer(TIMEOUT_S, process.kill)
    watch.start()
    try:
        if select.select([process.stdout], [], [], _SILENCE_S)[0]:
            stdout.write(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        # What it has begun in that very moment has not heard it, and would keep the pipe open.
        _end(process)
        stdout.write(process.stdout.read())
    finally:
        watch.cancel()
        process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever the block has left running goes with it."""
    with contextlib.suppress(ProcessLookupError):  # all of it is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
