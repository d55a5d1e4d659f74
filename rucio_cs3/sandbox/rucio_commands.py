"""Rucio's own commands and daemons, and ours, run on one configuration: once, or until they are stopped.

Knows how each is started and how its failures show; what it works on is ``rucio_site.py``'s.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rucio_cs3.sandbox.ports import LOOPBACK
from rucio_cs3.sandbox.processes import ChildProcess, LateSignals

ConveyorStage = Literal["preparer", "submitter", "poller", "finisher"]

# A line of Rucio's client log, which begins with a colour and the time.
_ERROR_LINE = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\tERROR\t", re.MULTILINE)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# What makes one pass of a daemon do all that can be done now. The poller leaves requests alone that it saw less
# than 60 s ago, the reaper replicas that it marked less than 600 s ago and, if not greedy, all while space is left.
_ONCE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "conveyor-poller": ("--older-than", "0"),
    "reaper": ("--greedy", "--delay-seconds", "1"),
}

# Rucio's own function of each stage, without its ten seconds for other workers to notice this one. A loop looks
# every two seconds: with one, Rucio's frame would renew no heartbeat (HeartbeatHandler, renewal_interval 0).
_CONVEYOR = """
import importlib, signal, sys
from rucio.common.logging import setup_logging
stage, once = sys.argv[1], sys.argv[2] == "once"
setup_logging(process_name=f"conveyor-{stage}")
options = {} if once else {"sleep_time": 2}
if stage == "poller":
    options["older_than"] = 0
module = importlib.import_module(f"rucio.daemons.conveyor.{stage}")
signal.signal(signal.SIGTERM, module.stop)
getattr(module, stage)(once=once, partition_wait_time=0, **options)
"""

# Our command, without the same ten seconds.
_AGENT = """
import functools, sys
from rucio_cs3.agent import daemon
daemon.run = functools.partial(daemon.run, partition_wait_s=0)
from rucio_cs3.cli.main import agent as command
sys.exit(command())
"""


class RucioCommandError(RuntimeError):
    """A Rucio command or daemon ended with an error; the text has the command and all that it wrote."""


class RucioCommands:
    """Runs commands and daemons.

    :param directory: RUCIO_HOME, with ``etc/rucio.cfg`` and ``etc/client.cfg``.
    :param on_command: called with each command line, as a shell would take it, before it runs.
    """

    def __init__(self, directory: Path, on_command: Callable[[str], object] | None = None) -> None:
        self.directory = directory
        self._on_command = on_command
        self._loops: list[ChildProcess] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a shell needs so that ``rucio`` speaks to this site."""
        return {"RUCIO_HOME": str(self.directory), "RUCIO_CONFIG": str(self.directory / "etc" / "client.cfg")}

    @property
    def daemon_environment(self) -> dict[str, str]:
        """What a shell needs so that ``rucio-conveyor-…``, ``rucio-reaper`` and so on work on this site."""
        return {"RUCIO_HOME": str(self.directory), "RUCIO_CONFIG": str(self.directory / "etc" / "rucio.cfg")}

    # --- once ---------------------------------------------------------------------------------------------------

    def rucio(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the real ``rucio`` command as the site's root account.

        :param check: whether a failure raises: an exit code other than 0, or an ERROR line, because
            ``rucio upload`` and ``rucio download`` end with 0 whatever happened (41.5.1, cli/upload.py drops the
            result of the function it calls).
        :raises RucioCommandError: the command failed, or took longer than ``timeout_s``.
        """
        command = [_program("rucio"), *(str(argument) for argument in arguments)]
        finished = self._run(command, self.environment, check=check, timeout_s=timeout_s)
        if check and _ERROR_LINE.search(finished.stderr + finished.stdout):
            raise RucioCommandError(_report(command, finished))
        return finished

    def daemon(self, name: str, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run one pass of a daemon by its own command, for example ``conveyor-submitter`` or ``reaper``.

        Options that make one pass complete are given where Rucio's defaults would leave work for later;
        ``arguments`` come after them and win.

        The conveyor's daemons and the necromancer wait 10 s before they begin, which no option shortens;
        :meth:`loop` pays that once, :meth:`conveyor` not at all.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        command = [_program(f"rucio-{name}"), "--run-once", *_ONCE_OPTIONS.get(name, ()), *arguments]
        finished = self._run(command, self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def conveyor(self, stage: ConveyorStage, *, timeout_s: float = 600.0) -> str:
        """Run one pass of a stage of the conveyor at once, in a process of its own.

        It is the function that ``rucio-conveyor-<stage>`` runs, called with ``partition_wait_time=0``, which the
        command does not offer: those 10 s are for several workers to share the work out.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        command = [sys.executable, "-c", _CONVEYOR, stage, "once"]
        finished = self._run(command, self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def cs3(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run ``rucio-cs3`` with the configuration of the daemons, for example ``agent --run-once``.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        finished = self._run([_program("rucio-cs3"), *arguments], self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def python(self, program: str, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run a program that uses Rucio's client, as the site's root account: quicker than a command for each step.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        finished = self._run([sys.executable, "-c", program, *arguments], self.environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    # --- until stopped ------------------------------------------------------------------------------------------

    def loop(self, name: str, *arguments: str) -> ChildProcess:
        """Start a daemon that works until the site stops; its log is ``log/<name>.log``, the next one's
        ``log/<name>-2.log``.

        :param name: as for :meth:`daemon`; ``cs3-agent`` is ours.
        """
        command = [_program(f"rucio-{name}"), *arguments]
        self._tell(command)
        return self._start_loop(name, command)

    def conveyor_loop(self, stage: ConveyorStage) -> ChildProcess:
        """Start a stage of the conveyor that looks for work every two seconds until the site stops.

        As :meth:`conveyor` it begins at once.
        """
        return self._start_loop(f"conveyor-{stage}", [sys.executable, "-c", _CONVEYOR, stage, "loop"])

    def agent_loop(self, *options: str) -> ChildProcess:
        """Start ``rucio-cs3-agent`` until the site stops; as :meth:`conveyor_loop` it begins at once."""
        return self._start_loop("cs3-agent", [sys.executable, "-c", _AGENT, *options])

    def check_loops(self) -> None:
        """
        :raises ProcessError: when one of the daemons that were started here has ended; with the end of its log.
        """
        for process in self._loops:
            process.check()

    def stop_loops(self) -> None:
        """Stop all daemons that were started here. Idempotent."""
        for loop in self._loops:
            loop.terminate()
        for loop in self._loops:
            loop.stop()
        self._loops.clear()

    # --- inside -------------------------------------------------------------------------------------------------

    def _start_loop(self, name: str, command: Sequence[str]) -> ChildProcess:
        before = sum(loop.name.partition(" ")[0] == f"rucio-{name}" for loop in self._loops)
        process = ChildProcess(
            f"rucio-{name} {before + 1}" if before else f"rucio-{name}",
            command,
            log=self.directory / "log" / (f"{name}-{before + 1}.log" if before else f"{name}.log"),
            environment=clean_environment(self.daemon_environment),
            directory=self.directory,
        )
        process.start()
        self._loops.append(process)
        return process

    def _run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        timeout_s: float,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        self._tell(command)
        with LateSignals() as late:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=clean_environment(environment),
                cwd=self.directory,
            )
        with process:
            try:
                late.act()
                output, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as exc:
                process.kill()
                raise RucioCommandError(f"{_shown(command)}\nstill ran after {timeout_s:g} s") from exc
            except BaseException:
                process.kill()
                raise
        finished = subprocess.CompletedProcess(command, process.returncode, output, errors)
        if check and finished.returncode != 0:
            raise RucioCommandError(_report(command, finished))
        return finished

    def _tell(self, command: Sequence[object]) -> None:
        """Tell the listener, if any, of a command that people run, too; set-up by ``python -c`` is none."""
        line = _shown([str(word) for word in command])
        if self._on_command is not None and line.startswith("rucio"):
            self._on_command(line)


def clean_environment(own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would lead Rucio to another configuration, and with ``own``."""
    # The last rse-accounts.cfg found wins in Rucio, also one in $VIRTUAL_ENV/etc or $CONDA_PREFIX/etc.
    foreign = ("RUCIO_", "VIRTUAL_ENV", "CONDA_PREFIX")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    proxied = ",".join(filter(None, (kept.get("NO_PROXY"), LOOPBACK, "localhost")))
    return {**kept, "NO_PROXY": proxied, "no_proxy": proxied, **own}


def _shown(command: Sequence[str]) -> str:
    return shlex.join([Path(command[0]).name, *command[1:]])


def _report(command: Sequence[str], finished: subprocess.CompletedProcess[str]) -> str:
    output = _COLOUR.sub("", f"{finished.stdout}{finished.stderr}").strip()
    return f"{_shown(command)}\nended with exit code {finished.returncode} and wrote:\n{output}"


def _program(name: str) -> str:
    """The console script of the distribution that this interpreter imports, wherever PATH points."""
    return str(Path(sys.executable).parent / name)
