"""Who touches the clouds' credentials: every process of a Rucio is watched, and most do without them altogether.

What each needs is the table in docs/security.md, which is read here. The watch is Python's own audit hook: it sees each
file that is opened, whatever becomes of the attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk
from tests.unit.test_docs import DOCS, rows, section

pytestmark = pytest.mark.rucio

SCOPE = "privileged-cs3"
SOURCE, DESTINATION = "PRIVILEGED-FROM", "PRIVILEGED-TO"
ACCOUNTS = "rse-accounts.cfg"
#: Makes the tables, or does by Rucio's client what would take several commands.
A_SCRIPT = "a script of these tests"

# Imported by every Python process at its start, because it is on PYTHONPATH. gRPC connects without Python's sockets, so
# its import stands for its calls; a cloud's own log shows what came.
_SITECUSTOMIZE = """
import json, os, sys
_log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def _watch(event, arguments):
    if event == "open":
        what = os.path.basename(str(arguments[0]))
        if what not in ("rse-accounts.cfg", "rucio.cfg"):
            return
    elif event == "import" and arguments[0] == "grpc":
        what = "grpc"
    else:
        return
    os.write(_log, (json.dumps([sys.orig_argv, event, what]) + "\\n").encode())
sys.addaudithook(_watch)
"""

_ADD_RULE = """
import json, sys
from rucio.client import Client
client = Client()
scope, name, rse = json.load(sys.stdin)
did = {"scope": scope, "name": name}
print(client.add_replication_rule([did], 1, rse)[0])
print(list(client.list_replicas([did], schemes=["http"])))
"""

_EXPIRE = """
import json, sys
from rucio.client import Client
client = Client()
scope, name = json.load(sys.stdin)
for rule in client.list_did_rules(scope, name):
    client.update_replication_rule(rule["id"], {"lifetime": 0})
"""


class WatchedRucio(RecordedRucio):
    """A Rucio whose processes note who opens which configuration, and who imports gRPC."""

    def __init__(self, folder: Path, **options: Any) -> None:
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self._seen = folder / "seen"
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        self._watching = {"PYTHONPATH": path, "WATCHED": str(self._seen)}
        super().__init__(**options)

    def __enter__(self) -> WatchedRucio:
        super().__enter__()
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self._watching}

    @property
    def daemon_environment(self) -> dict[str, str]:
        return {**super().daemon_environment, **self._watching}

    @contextlib.contextmanager
    def without_credentials(self) -> Iterator[None]:
        """Nobody can read them meanwhile; a folder has their name, because root reads a file of any mode."""
        path = self.directory / "etc" / ACCOUNTS
        away = path.rename(path.with_suffix(".away"))
        path.mkdir()
        try:
            yield
        finally:
            path.rmdir()
            away.rename(path)

    def seen(self) -> dict[str, set[str]]:
        """Process -> what it opened or imported."""
        found: dict[str, set[str]] = {}
        for line in self._seen.read_text().splitlines():
            words, _, what = json.loads(line)
            found.setdefault(_process(words), set()).add(what)
        return found


def _process(words: list[str]) -> str:
    """The name that docs/security.md has for it."""
    if "gunicorn" in words:
        return "REST server"
    name = Path(words[1]).name
    if name == "-c":
        return f"rucio-conveyor-{words[3]}" if len(words) > 3 else A_SCRIPT
    return f"{name} {words[2]}" if name == "rucio-cs3" else name


@dataclass
class Story:
    """What was found on the way."""

    rucio: WatchedRucio
    source: Rse
    destination: Rse
    #: Lines of each cloud's log, before and after what needs no credentials.
    asked: list[tuple[int, int]] = field(default_factory=list)
    #: What agent and reaper wrote without credentials, and what Rucio believed then.
    agent: str = ""
    reaper: str = ""
    reasons: list[str] = field(default_factory=list)
    left_at_source: set[str] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)

    def count(self) -> tuple[int, int]:
        logs = [Path(str(rse.cloud.log)) for rse in (self.source, self.destination)]
        # A cloud that was never asked has none.
        a, b = (log.read_text("utf-8").count("\n") if log.exists() else 0 for log in logs)
        return a, b

    def script(self, code: str, *given: str) -> None:
        self.rucio._run([sys.executable, "-c", code], self.rucio.environment, timeout_s=60.0, given=json.dumps(given))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("watched")
    with (
        EmbeddedCloud(name="from") as a,
        EmbeddedCloud(name="to") as b,
        WatchedRucio(folder, policy_package=SANDBOX_POLICY) as rucio,
    ):
        found = Story(rucio, Rse(SOURCE, a, "http"), Rse(DESTINATION, b, "http"))
        rucio.add_rses(found.source)
        rucio.add_rses(found.destination, sources=[SOURCE])
        rucio.add_scope(SCOPE)
        for name in ("moved", "deleted"):
            (folder / name).write_text(name)
        rucio.rucio("upload", "--rse", SOURCE, "--scope", SCOPE, folder / "moved", folder / "deleted")
        rucio.cs3("app-password", "list", SOURCE)
        with rucio.without_credentials():
            found.asked.append(found.count())
            found.script(_ADD_RULE, SCOPE, "moved", DESTINATION)
            found.script(_EXPIRE, SCOPE, "deleted")
            for daemon in ("judge-cleaner", "judge-evaluator"):
                rucio.daemon(daemon)
            for stage in ("preparer", "submitter", "poller", "finisher"):
                rucio.conveyor(stage)
            rucio.cs3("transfers")
            found.asked.append(found.count())
            found.agent = rucio.cs3("agent", "--run-once")
            found.reasons = [str(row[0]) for row in rucio.query("SELECT err_msg FROM requests WHERE scope = ?", SCOPE)]
            rucio.conveyor("finisher")
            found.reaper = rucio.daemon("reaper", "--rses", SOURCE)
            found.left_at_source, found.arrived = files_below(found.source), files_below(found.destination)
        yield found


def needs_credentials() -> dict[str, bool]:
    """Process -> whether docs/security.md says that it needs credentials of the clouds."""
    table = rows(section(DOCS / "security.md", "What each process needs"))
    told = {}
    for names, credentials, *_ in table:
        assert credentials.partition(" ")[0].rstrip(",:") in ("yes", "no"), names
        told.update({name: credentials.startswith("yes") for name in names.split(", ")})
    return told


def test_only_who_needs_credentials_opens_them(story: Story) -> None:
    told, seen = needs_credentials(), story.rucio.seen()
    # Otherwise it says nothing of those that were not watched.
    assert set(seen) - {A_SCRIPT} == set(told)
    assert {name for name in seen if ACCOUNTS in seen[name]} == {name for name in told if told[name]}
    for process, opened in seen.items():
        if process == A_SCRIPT:
            continue
        assert process in told, f"docs/security.md does not say what {process} needs"
        assert (ACCOUNTS in opened) <= told[process], process
        # Nobody else speaks with a gateway.
        assert ("grpc" in opened) <= told[process], process


def test_the_clouds_are_asked_by_nobody_else(story: Story) -> None:
    before, after = story.asked
    assert before[0] > 0
    assert before == after


def test_a_client_does_not_open_the_servers_configuration(story: Story) -> None:
    assert "rucio.cfg" in story.rucio.seen()["rucio-reaper"]
    assert "rucio.cfg" not in story.rucio.seen()["rucio"]


def test_an_agent_without_credentials_fails_cleanly(story: Story) -> None:
    (reason,) = story.reasons
    assert f"RSE {SOURCE}" in reason
    assert ACCOUNTS in reason
    assert "Traceback" not in story.agent
    assert story.arrived == set()


def test_a_reaper_without_credentials_deletes_and_forgets_nothing(story: Story) -> None:
    assert story.left_at_source == {"moved", "deleted"}
    assert (SOURCE, "deleted") in story.rucio.replica_states(SCOPE)
    assert f"RSE {SOURCE}" in story.reaper
    assert ACCOUNTS in story.reaper


def test_both_go_on_when_they_have_them_again(story: Story) -> None:
    rucio = story.rucio
    rucio.conveyor("submitter")
    rucio.cs3("agent", "--run-once")
    rucio.conveyor("finisher")
    assert rucio.replica_states(SCOPE)[DESTINATION, "moved"] == "A"
    assert on_disk(story.destination, SCOPE, "moved").read_text() == "moved"
    deadline = time.monotonic() + 60
    # Rucio leaves what it has just tried alone for a second.
    while (SOURCE, "deleted") in rucio.replica_states(SCOPE) and time.monotonic() < deadline:
        rucio.daemon("reaper", "--rses", SOURCE)
    assert (SOURCE, "deleted") not in rucio.replica_states(SCOPE)
    assert files_below(story.source) == {"moved"}
