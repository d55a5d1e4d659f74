"""The whole way at DEBUG, with all that goes wrong on it; then every byte that was written is searched for secrets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.ports import free_port
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.story import Rse
from tests.contract.place import content
from tests.leaks import stage as stages
from tests.leaks.conftest import Watched
from tests.leaks.search import Place, dump, files_below, search
from tests.leaks.stage import Stage, accounts_of
from tests.rucio.recorded_rucio import on_disk

pytestmark = [pytest.mark.rucio, pytest.mark.timeout(1200)]

PROGRAMS = Path(sys.executable).parent
LIMIT_S = 120.0

#: Rounds of the conveyor until the rule must be satisfied; some transfers were made to fail before.
ROUNDS = 8

#: The agent, with a bug in the middle of a transfer.
_BROKEN_AGENT = """
from rucio_cs3.agent import execution
def broken(job, source, destination, claim, watch):
    source.stat(), source.authorization(write=False), destination.authorization(write=True)
    raise RuntimeError(f"nobody has foreseen this: {job!r} {vars(source)!r} {vars(destination)!r} {claim!r} {watch!r}")
execution.transfer_one = broken
import functools
from rucio_cs3.agent import daemon
daemon.run = functools.partial(daemon.run, partition_wait_s=0)
from rucio_cs3.cli.main import agent
agent()
"""


#: As ``rucio upload`` does it, whose own handler of Ctrl-C fails (Rucio 41.5.1 cli/utils.py, signal_handler): it goes
#: on.
_UPLOADING = """
import sys
from rucio.rse import rsemanager
name, path, scope = sys.argv[1:]
protocol = rsemanager.create_protocol(rsemanager.get_rse_info(rse=name), "write")
protocol.connect()
protocol.put(path, next(iter(protocol.lfns2pfns({"scope": scope, "name": "interrupted"}).values())))
"""


#: The stages that come after agents, one pass each, in one process; as RucioCommands.conveyor.
_STAGES = """
import importlib
from rucio.common.logging import setup_logging
setup_logging(process_name="conveyor")
for stage, options in (("poller", {"older_than": 0}), ("finisher", {}), ("submitter", {})):
    module = importlib.import_module(f"rucio.daemons.conveyor.{stage}")
    getattr(module, stage)(once=True, partition_wait_time=0, **options)
"""

#: What would be a command for each.
_ATTRIBUTES = """
import json, sys
from rucio.client import Client
client = Client()
told = json.load(sys.stdin)
client.add_scope("root", told["scope"])
for name, key, value in told["attributes"]:
    client.add_rse_attribute(name, key, value)
"""
_RULE = """
import json, sys
from rucio.client import Client
scope, copies, expression = json.load(sys.stdin)
Client().add_replication_rule([{"scope": scope, "name": "set"}], copies, expression)
"""
_EXPIRE = """
import json, sys
from rucio.client import Client
client = Client()
for rule in json.load(sys.stdin):
    client.update_replication_rule(rule, {"lifetime": 0})
"""


class Told:
    """One stage's story; each step says what it does by its name.

    :param scope: all DIDs are in it.
    """

    def __init__(self, watched: Watched, stage: Stage) -> None:
        self.watched, self.stage, self.rucio = watched, stage, watched.rucio
        self.scope = f"leaks-{stage.kind}"
        self.files: list[Path] = []
        self.said: list[Place] = []
        self._source = stage.rse("source", at=stage.source)
        self._wrong = stage.rse("wrong", at=stage.source)
        self._broken = stage.rse("broken", at=stage.source, impl="leaks_broken.Broken")
        self._tus = stage.rse("tus", at=stage.destination)
        self._copies = [stage.rse(role, at=stage.destination) for role in ("pull", "push", "relay")]

    # -- steps -------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        rucio, stage = self.rucio, self.stage
        wrong = stages.password(self.watched.known, "a wrong password")
        stage.accounts["wrong"] = {"username": "einstein", "password": wrong}
        rucio.add_rses(self._source, self._wrong, self._broken, self._tus)
        rucio.add_rses(*self._copies, sources=[self._source.name])
        modes = zip(self._copies, ("pull", "push", "relay"), strict=True)
        attributes = [[rse.name, "cs3_transfer_mode", mode] for rse, mode in modes]
        attributes.append([self._tus.name, "cs3_upload_protocol", "tus"])
        self._client(_ATTRIBUTES, {"scope": self.scope, "attributes": attributes})
        rucio.set_rse_accounts(accounts_of(stage))

    def make_an_app_password(self) -> None:
        pull, file = self._copies[0], self.watched.kept / f"app-password-{self.stage.kind}"
        options = ("--label", "robot", "--login", "einstein", "--file", file)
        self._ours("app-password", "make", pull.name, *options, typed=self._password)
        made = file.read_text().strip()
        self.watched.known.add("an app password", made)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        self.stage.accounts["pull"] = {"type": "appauth", "username": "einstein", "password_file": str(file)}
        self.rucio.set_rse_accounts(accounts_of(self.stage))
        self._ours("app-password", "list", pull.name, "--json")

    def upload(self) -> None:
        self.files = [self._file(f"file-{number}", 200_000) for number in range(3)]
        self._rucio("-v", "upload", "--rse", self._source.name, "--scope", self.scope, f"{self.scope}:set", *self.files)
        for file in self.files:
            assert on_disk(self._source, self.scope, file.name).is_file(), self.rucio.outputs[-1]

    def fail_to_upload(self) -> None:
        """A wrong password; tickets that are refused, with all that was sent, and cuts; a bug."""
        one = self._file("never", 100_000)
        self._upload(self._wrong, one)
        with self._all_of("data.put"):
            self._upload(self._source, one)
        kept, broken = self._file("kept", 1000), self._file("broken-file", 1000)
        self._upload(self._broken, kept, broken, words="nobody has foreseen this")

    def interrupt_an_upload(self) -> None:
        """Ctrl-C in the middle of TUS; what another process needs to go on is left."""
        faults = self.stage.destination.faults
        faults.add("data.patch", "stall-after:1000")
        file = self._file("interrupted", 1_000_000)
        log = self.watched.folder / f"interrupted-{self.stage.kind}.log"
        command: list[str | Path] = [sys.executable, "-c", _UPLOADING, self._tus.name, file, self.scope]
        with self._process(command, self.rucio.environment, log) as process:
            traffic = self.stage.destination.traffic
            self._wait(lambda: any(one.received for one in traffic.of("data.patch")), process, log)
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_S)
        faults.clear()
        assert "KeyboardInterrupt" in log.read_text("utf-8", "replace")
        left = [path for path in self._states.iterdir() if path.suffix == ".json"]
        assert left, log.read_text("utf-8", "replace")
        for path in left:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(self._states.stat().st_mode) == 0o700

    def download(self) -> None:
        folder, name = self.watched.folder / f"downloads-{self.stage.kind}", f"{self.scope}:{self.files[0].name}"
        with self._all_of("data.get"):
            self._rucio("-v", "download", "--rses", self._source.name, "--dir", folder / "failed", name, check=False)
        assert not (folder / "failed" / self.scope / self.files[0].name).exists()
        self._rucio("-v", "download", "--rses", self._source.name, "--dir", folder, name)
        assert (folder / self.scope / self.files[0].name).read_bytes() == self.files[0].read_bytes()

    def add_rules(self) -> None:
        names = "|".join(rse.name for rse in self._copies)
        self._client(_RULE, [self.scope, 3, names])
        self.rucio.conveyor("submitter")

    def crash_the_agent(self) -> None:
        """A bug in the middle of each transfer: nine tracebacks, and nine failures that Rucio is told of."""
        finished = self.rucio._run([sys.executable, "-c", _BROKEN_AGENT, "--run-once"], self._daemon, timeout_s=LIMIT_S)
        assert (finished.stdout + finished.stderr).count("nobody has foreseen this") == 9

    def stop_the_agent(self) -> None:
        """An agent that is asked for its metrics, and stopped in the middle of a transfer; its claims end soon."""
        destination = self.stage.destination
        destination.faults.add("webdav.copy", "return-403", 1)
        self.stage.source.faults.add("webdav.copy", "return-500", 1)
        destination.faults.add("data.put", "stall-after:1000", 3)
        self._conveyor()
        port, log = free_port(), self.rucio.directory / "log" / f"agent-{self.stage.kind}.log"
        config = self.rucio.directory / "etc" / "agent.cfg"
        text = (self.rucio.directory / "etc" / "rucio.cfg").read_text()
        config.write_text(f"{text}\n[monitor]\nenable_metrics = True\nmetrics_port = {port}\n")
        config.chmod(0o600)
        command: list[str | Path] = [PROGRAMS / "rucio-cs3-agent", "--sleep-time", "2", "--grace", "1", "--lease", "6"]
        with self._process(command, {**self._daemon, "RUCIO_CONFIG": str(config)}, log) as process:
            traffic = destination.traffic
            self._wait(lambda: any(one.received for one in traffic.of("data.put")), process, log)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                metrics = answer.read()
            assert b"rucio_cs3_transfers_running" in metrics
            self.said.append(Place("/metrics", metrics))
            self._ours("transfers", "--json")
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_S)
        destination.faults.clear()
        self.stage.source.faults.clear()

    def transfer(self) -> None:
        wanted = {(rse.name, file.name) for rse in self._copies for file in self.files}
        for _ in range(ROUNDS):
            self._conveyor()
            self._ours("agent", "--run-once")
            self._conveyor()
            states = self.rucio.replica_states(self.scope)
            if all(states[key] == "A" for key in wanted):
                break
        assert {key: states[key] for key in wanted if states[key] != "A"} == {}, self.rucio.outputs[-2][-3000:]
        assert all(on_disk(rse, self.scope, file.name).is_file() for rse in self._copies for file in self.files)
        self._ours("transfers")

    def delete(self) -> None:
        """Its cloud refuses one of the deletions, and a bug another."""
        # It locks the files that came to the dataset after its rule.
        self.rucio.daemon("judge-evaluator")
        rules = self.rucio.query("SELECT id FROM rules WHERE scope = ?", self.scope)
        self._client(_EXPIRE, [rule for (rule,) in rules])
        self.rucio.daemon("judge-cleaner")
        self.stage.source.faults.add("gateway.Delete", "code:INTERNAL", 1)
        said = self.rucio.daemon("reaper", "--include-rses", f"{self._source.name}|{self._broken.name}")
        assert "nobody has foreseen this" in said
        assert self.stage.source.faults.pending() == []

    # -- what was written --------------------------------------------------------------------------------------

    def places(self) -> Iterator[Place]:
        watched, rucio = self.watched, self.rucio
        etc = rucio.directory / "etc"
        must_hold = [
            # The credentials of RSEs, which are there for it.
            etc / "rse-accounts.cfg",
            # Rucio's own password, as its clients and its server want it.
            *(etc / name for name in ("rucio.cfg", "client.cfg", "agent.cfg")),
            # Passwords and tokens that are given as files; nothing but what this test or a user wrote is there.
            watched.kept,
            # What was found out about the processes is searched as such.
            watched.witnesses.folder,
        ]
        yield from files_below(watched.folder, without=must_hold)
        yield dump(rucio.database)
        yield from watched.witnesses.places()
        yield from self.said
        yield from (Place(f"output {number}", text.encode()) for number, text in enumerate(rucio.outputs))
        yield from (Place(str(log), log.read_bytes()) for log in self.stage.logs)
        for path in watched.witnesses.written():
            # Wherever else somebody wrote to, but for devices and what Python compiles.
            inside = path.is_relative_to(watched.folder) or path.parts[:2] in (("/", "dev"), ("/", "proc"))
            if not inside and path.suffix != ".pyc" and "__pycache__" not in path.parts and path.is_file():
                yield Place(str(path), path.read_bytes())

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _password(self) -> str:
        return str(next(iter(self.stage.source.users.values())).password)

    @property
    def _states(self) -> Path:
        return self.watched.folder / "states" / "rucio-cs3" / "uploads"

    @property
    def _daemon(self) -> dict[str, str]:
        return self.rucio.daemon_environment

    def _file(self, name: str, size: int) -> Path:
        path = self.watched.folder / f"{self.stage.kind}-{name}"
        path.write_bytes(content(size))
        return path

    @contextlib.contextmanager
    def _all_of(self, point: str) -> Iterator[None]:
        """In turn refused, failed and cut, as often as it is tried; each must have happened."""
        faults = self.stage.source.faults
        scripts = ("return-403", "return-500", "cut-after:1000") * 40
        for script in scripts:
            faults.add(point, script)
        yield
        left = len(faults.pending())
        faults.clear()
        assert left <= len(scripts) - 3, f"{point} was tried {len(scripts) - left} times"

    def _client(self, program: str, told: Any) -> None:
        self.rucio._run(
            [sys.executable, "-c", program], self.rucio.environment, timeout_s=LIMIT_S, given=json.dumps(told)
        )

    def _conveyor(self) -> None:
        self.rucio._run([sys.executable, "-c", _STAGES], self._daemon, timeout_s=LIMIT_S)

    def _upload(self, rse: Rse, *files: Path, words: str = "") -> None:
        self._rucio("-v", "upload", "--rse", rse.name, "--scope", self.scope, *files, check=False)
        said = self.rucio.outputs[-1]
        assert words in said, said[-3000:]
        # Rucio 41.5.1 ends with 0 all the same.
        assert "ERROR" in said or words, said[-3000:]

    def _rucio(self, *arguments: str | Path, check: bool = True) -> None:
        self.rucio.rucio(*arguments, check=check, timeout_s=LIMIT_S)

    def _ours(self, *arguments: str | Path, typed: str = "", check: bool = True) -> None:
        command: list[str | Path] = [PROGRAMS / "rucio-cs3", *map(str, arguments)]
        finished = subprocess.run(
            command,
            input=f"{typed}\n",
            env=clean_environment(self._daemon),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        self.rucio.outputs.append(finished.stdout + finished.stderr)
        assert finished.returncode == 0 or not check, finished.stderr

    @contextlib.contextmanager
    def _process(
        self, command: Sequence[str | Path], environment: dict[str, str], log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                env=clean_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at this test's own terminal is not for it.
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @staticmethod
    def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.05)


@pytest.mark.parametrize("kind", ["embedded", pytest.param("reva", marks=pytest.mark.reva)])
def test_no_secret_is_written_anywhere(watched: Watched, kind: str) -> None:
    opened = {"embedded": stages.embedded, "reva": stages.reva}[kind]
    with opened(watched.known, watched.kept) as stage:
        told = Told(watched, stage)
        told.set_up()
        told.make_an_app_password()
        told.upload()
        told.fail_to_upload()
        told.interrupt_an_upload()
        told.download()
        told.add_rules()
        told.crash_the_agent()
        told.stop_the_agent()
        told.transfer()
        told.delete()
        watched.rucio.stop_loops()
        places = list(told.places())
        assert search(watched.known, places) == []
        assert_all_is_there(told, places)


def assert_all_is_there(told: Told, places: list[Place]) -> None:
    """The search has what it is to look at, and knows what it is to look for."""
    names = told.watched.known.names()
    expected = {
        "embedded": {"a token of an embedded cloud", "a bearer token", "a machine key"},
        "reva": {"an access token of Reva", "a transfer token of Reva", "a token of an issuer", "a refresh token"},
    }[told.stage.kind]
    assert names >= expected | {"an app password", "a wrong password", "Rucio's password"}
    text = b"\n".join(place.content for place in places)
    # Servers did repeat what they were told, tracebacks were made, and messages for hermes.
    said = (b"refused; ", b"Traceback (most recent call last)", b"transfer-failed", b"KeyboardInterrupt", b"***")
    assert [words for words in said if words not in text] == []
    kinds = {place.name.partition(" ")[0] for place in places}
    assert kinds >= {"output", "dump", "command", "a", "/metrics"}
    assert any(place.name.endswith("server.log") for place in places)
    assert any("rucio-cs3/uploads/" in place.name for place in places)
    assert os.environ["XDG_STATE_HOME"] in str(told._states)
    assert json.loads((told.rucio.directory / "etc" / "rse-accounts.cfg").read_text())
