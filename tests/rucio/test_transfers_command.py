"""``rucio-cs3 transfers`` as people run it: on the database of a real Rucio, and through its REST interface."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rucio import every_state
from tests.rucio.every_state import EXPECTED, RATE, REASON, SIZE
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = pytest.mark.rucio

COMMAND = [str(Path(sys.executable).parent / "rucio-cs3"), "transfers"]

#: Starts a program as a terminal does: a shell lets what it starts in the background ignore SIGINT, and so on down.
_LISTENING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"

#: Keys of a transfer in JSON, as docs/monitoring.md promises them.
KEYS = {
    *("state", "request_id", "scope", "name", "source", "destination", "bytes", "bytes_moved", "mode", "rate"),
    *("seconds", "left_s", "activity", "rule_id", "account", "priority", "attempt", "created_at", "submitted_at"),
    *("started_at", "over_at", "lease_until", "reason"),
}


@pytest.fixture(scope="module")
def filled(sandbox_rucio: RecordedRucio) -> Iterator[str]:
    """The destination's name; the requests are gone afterwards, so that no other test's agent takes them up."""
    tag = uuid.uuid4().hex[:8]
    run_inside(sandbox_rucio, [every_state.__file__, tag])
    yield f"DST-{tag.upper()}"
    run_inside(sandbox_rucio, ["-c", _REMOVE, tag])


_REMOVE = """
import sys
from rucio.common.types import InternalScope
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from sqlalchemy import delete
with db_session(DatabaseOperationType.WRITE) as session:
    for table in (models.Request, models.RequestHistory):
        session.execute(delete(table).where(table.scope == InternalScope("s" + sys.argv[1])))
"""


def environment(given: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUCIO", "COLUMNS"))}
    return {**kept, **given, "PYTHONPATH": str(Path(__file__).parents[2])}


def run_inside(rucio: RecordedRucio, arguments: list[str]) -> str:
    """A program of Python with the configuration of the daemons."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(rucio.daemon_environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def transfers(given: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(given), capture_output=True, text=True, timeout=120, check=False
    )


def test_json(sandbox_rucio: RecordedRucio, filled: str) -> None:
    finished = transfers(sandbox_rucio.daemon_environment, "--destination", filled, "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    (line,) = finished.stdout.splitlines()
    told = json.loads(line)
    assert told.keys() == {"at", "summary", "notes", "transfers"}
    assert {transfer["name"]: transfer["state"] for transfer in told["transfers"]} == EXPECTED
    assert {frozenset(transfer) for transfer in told["transfers"]} == {frozenset(KEYS)}
    numbers = Counter(EXPECTED.values())
    summary = told["summary"]
    assert {state: summary[state] for state in numbers} == numbers
    assert (summary["at_least"], summary["rate"], summary["since_s"]) == ([], RATE, 3600)
    (running,) = [transfer for transfer in told["transfers"] if transfer["name"] == "running-pull"]
    assert (running["mode"], running["bytes"], running["bytes_moved"]) == ("pull", SIZE, SIZE // 4)
    assert running["rate"] == RATE
    (failed,) = [transfer for transfer in told["transfers"] if transfer["name"] == "failed"]
    assert failed["reason"] == REASON


def test_table(sandbox_rucio: RecordedRucio, filled: str) -> None:
    finished = transfers(
        sandbox_rucio.daemon_environment, *("--destination", filled, "--limit", "2", "--minutes", "30")
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert lines[0].endswith(
        "UTC: 3 running at 120.0 MB/s, 6 waiting (the oldest for 12 min), 2 throttled, 2 queued, "
        "3 failed and 2 done in the last 30 min"
    )
    (running,) = [line for line in lines if "running-pull" in line]
    link = f"{filled.replace('DST', 'SRC')} → {filled}"
    for part in ("running", link, "pull, 4.0 GB, for ", "lease 8 min", "━", "25 %", "120.0 MB/s", "25 s"):
        assert part in running
    (failed,) = [line for line in lines if ":failed " in line]
    assert f"ago: {REASON}" in failed
    (throttled,) = [line for line in lines if ":throttled" in line]
    assert f"? → {filled}" in throttled
    assert "  … and 4 more waiting" in lines
    # No colours in a file.
    assert "\x1b" not in finished.stdout


def test_nothing_to_show(sandbox_rucio: RecordedRucio, filled: str) -> None:
    finished = transfers(sandbox_rucio.daemon_environment, "--source", filled)
    assert finished.returncode == 0
    (line,) = finished.stdout.splitlines()
    assert line.endswith("UTC: 0 running, 0 waiting, 0 failed and 0 done in the last 60 min")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--rse", "NOWHERE"), 1, "Error: Rucio has no RSE NOWHERE\n"),
        (("--rule", "7"), 2, "7 is no id of a rule"),
        (("--state", "lost"), 2, "'lost' is not one of 'running', 'waiting'"),
        (("--limit", "0"), 2, "--limit"),
        (("--minutes", "0"), 2, "--minutes"),
        (("--watch", "soon"), 2, "--watch"),
    ],
)
def test_what_cannot_be_shown(sandbox_rucio: RecordedRucio, arguments: tuple[str, ...], code: int, said: str) -> None:
    finished = transfers(sandbox_rucio.daemon_environment, *arguments)
    assert (finished.returncode, finished.stdout) == (code, "")
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_database_that_is_not_there(sandbox_rucio: RecordedRucio, tmp_path: Path) -> None:
    config = tmp_path / "rucio.cfg"
    text = Path(sandbox_rucio.daemon_environment["RUCIO_CONFIG"]).read_text()
    config.write_text(text.replace(str(sandbox_rucio.database), str(tmp_path / "empty" / "no.db")))
    finished = transfers({**sandbox_rucio.daemon_environment, "RUCIO_CONFIG": str(config)})
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("Error: Rucio cannot be asked: ")
    assert "unable to open database file" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_an_agent_on_the_same_machine_keeps_its_port(sandbox_rucio: RecordedRucio, tmp_path: Path) -> None:
    # Rucio's processes with [monitor] enable_metrics listen on metrics_port; this one must not.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "rucio.cfg"
        text = Path(sandbox_rucio.daemon_environment["RUCIO_CONFIG"]).read_text()
        config.write_text(f"{text}\n[monitor]\nenable_metrics = True\nmetrics_port = {taken.getsockname()[1]}\n")
        finished = transfers({**sandbox_rucio.daemon_environment, "RUCIO_CONFIG": str(config)})
    assert finished.returncode == 0, finished.stderr


# -- again and again -------------------------------------------------------------------------------------------------


def until(condition: Any, process: subprocess.Popen[Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"ended while waiting for {what}"
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_watch_shows_what_changes_and_ends_by_ctrl_c(sandbox_rucio: RecordedRucio, filled: str, tmp_path: Path) -> None:
    out, errors = tmp_path / "out", tmp_path / "errors"
    arguments = ["--destination", filled, "--json", "--watch", "0.2", "--state", "running"]
    with out.open("wb") as output, errors.open("wb") as error_output:
        process = subprocess.Popen(
            [sys.executable, "-c", _LISTENING, *COMMAND, *arguments],
            env=environment(sandbox_rucio.daemon_environment),
            stdout=output,
            stderr=error_output,
        )
    try:

        def priorities() -> list[int]:
            lines = out.read_text().splitlines(keepends=True)
            looks = [json.loads(line) for line in lines if line.endswith("\n")]
            return [t["priority"] for told in looks for t in told["transfers"] if t["name"] == "running-pull"]

        until(lambda: len(priorities()) >= 2, process, "a second look")
        assert set(priorities()) == {3}
        run_inside(sandbox_rucio, ["-c", _URGENT, filled])
        until(lambda: priorities()[-1] == 4, process, "the change")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert errors.read_text() == ""


_URGENT = """
import sys
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from sqlalchemy import update
with db_session(DatabaseOperationType.WRITE) as session:
    session.execute(update(models.Request).where(models.Request.name == "running-pull").values(priority=4))
"""


def test_watch_without_a_terminal_is_plain_text(sandbox_rucio: RecordedRucio, filled: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--destination", filled, "--watch", "0.2", "--state", "failed"],
        env=environment(sandbox_rucio.daemon_environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        sums = []
        for line in process.stdout:
            assert "\x1b" not in line
            if line.startswith("20"):
                sums.append(line)
            if len(sums) == 3:
                break
        assert all("3 failed in the last 60 min" in line for line in sums)
    finally:
        process.terminate()
        code = process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()
    assert code == 143


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_watch_gives_the_terminal_back(
    sandbox_rucio: RecordedRucio, filled: str, sent: signal.Signals, code: int
) -> None:
    controller, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _LISTENING, *COMMAND, "--destination", filled, "--watch", "0.2"],
            env={**environment(sandbox_rucio.daemon_environment), "TERM": "xterm", "COLUMNS": "120"},
            stdout=terminal,
            stderr=terminal,
        )
    finally:
        os.close(terminal)
    shown = b""
    try:
        # The cursor goes, and comes back at the end.
        while b"\x1b[?25l" not in shown or shown.count(b"running-pull") < 2:
            shown += os.read(controller, 65536)
        assert b"\x1b[?25h" not in shown
        process.send_signal(sent)
        with contextlib.suppress(OSError):  # EIO is the end of a terminal
            while more := os.read(controller, 65536):
                shown += more
        assert process.wait(timeout=30) == code, shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert b"\x1b[?25h" in shown
    assert b"Traceback" not in shown


# -- people without the database -------------------------------------------------------------------------------------

_PERSON = """
import json, sys, uuid, datetime
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, account_limit, distance, identity, replica, rse, rule, scope
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, DatabaseOperationType, IdentityType, LockState, RequestState, RuleState
from rucio.db.sqla.session import db_session
from sqlalchemy import update
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.progress import Progress, written

tag, password = sys.argv[1:]
person, his = InternalAccount(f"p{tag}"), InternalScope(f"user.p{tag}")
now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
with db_session(DatabaseOperationType.WRITE) as session:
    account.add_account(person, AccountType.USER, "p@example.org", session=session)
    identity.add_identity(f"p{tag}", IdentityType.USERPASS, "p@example.org", password=password, session=session)
    identity.add_account_identity(f"p{tag}", IdentityType.USERPASS, person, "p@example.org", session=session)
    scope.add_scope(his, person, session=session)
    ids = {}
    for name in (f"FROM-{tag.upper()}", f"TO-{tag.upper()}"):
        ids[name] = rse.add_rse(name, session=session)
        account_limit.set_local_account_limit(person, ids[name], -1, session=session)
    first, second = ids.values()
    distance.add_distance(first, second, distance=1, session=session)
    rules = {}
    for name in ("running", "waiting", "queued", "stuck", "other"):
        replica.add_replica(rse_id=first, scope=his, name=name, bytes_=1000, account=person, session=session)
        (rules[name],) = rule.add_rule(
            dids=[{"scope": his, "name": name}], account=person, copies=1, rse_expression=f"TO-{tag.upper()}",
            grouping="NONE", weight=None, lifetime=None, locked=False, subscription_id=None, session=session,
        )
    request = models.Request
    def change(name, **values):
        session.execute(update(request).where(request.scope == his, request.name == name).values(**values))
    submitted = {"state": RequestState.SUBMITTED, "transfertool": "cs3", "submitted_at": now, "source_rse_id": first}
    was = Progress(mode=Mode.RELAY, bytes_moved=250, rate=25, at=now, started=now)
    change("running", **submitted, started_at=now, attributes=written({"activity": "x"}, was),
           estimated_transferred_at=now + datetime.timedelta(hours=1))
    change("waiting", **submitted)
    change("other", **{**submitted, "transfertool": "fts3"})
    session.execute(request.__table__.delete().where(request.scope == his, request.name == "stuck"))
    session.execute(update(models.ReplicaLock).where(models.ReplicaLock.rule_id == rules["stuck"])
                    .values(state=LockState.STUCK))
    session.execute(update(models.ReplicationRule).where(models.ReplicationRule.id == rules["stuck"]).values(
        state=RuleState.STUCK, error="RequestErrMsg.TRANSFER_FAILED:the quota is used up", locks_stuck_cnt=1))
print(json.dumps(rules))
"""


class Person:
    """An account like all others, with a configuration like all others."""

    def __init__(self, rucio: RecordedRucio, folder: Path) -> None:
        tag, password = uuid.uuid4().hex[:8], uuid.uuid4().hex
        self.name = f"p{tag}"
        self.destination = f"TO-{tag.upper()}"
        self.rules: dict[str, str] = json.loads(run_inside(rucio, ["-c", _PERSON, tag, password]).splitlines()[-1])
        config = folder / "rucio.cfg"
        config.write_text(
            f"[client]\nrucio_host = {rucio.url}\nauth_host = {rucio.url}\nauth_type = userpass\n"
            f"username = {self.name}\npassword = {password}\naccount = {self.name}\n"
            f"auth_token_file_path = {folder}/token\n[policy]\npermission = generic\nschema = generic\n"
        )
        self.environment = {"RUCIO_HOME": str(folder), "RUCIO_CONFIG": str(config)}


@pytest.fixture(scope="module")
def person(sandbox_rucio: RecordedRucio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    somebody = Person(sandbox_rucio, tmp_path_factory.mktemp("person"))
    yield somebody
    run_inside(sandbox_rucio, ["-c", _REMOVE.replace('"s" +', '"user." +'), somebody.name])


def test_people_see_the_transfers_of_their_own_rules(person: Person) -> None:
    finished = transfers(person.environment, "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    told = json.loads(finished.stdout)
    assert {transfer["name"]: transfer["state"] for transfer in told["transfers"]} == {
        "running": "running",
        "waiting": "waiting",
        "queued": "queued",
        "stuck": "failed",
    }
    running, stuck = (
        next(transfer for transfer in told["transfers"] if transfer["name"] == name) for name in ("running", "stuck")
    )
    assert running.keys() == KEYS
    assert (running["mode"], running["bytes"], running["bytes_moved"]) == ("relay", 1000, 250)
    assert (running["rate"], running["left_s"]) == (25, 30.0)
    assert (running["destination"], running["account"]) == (person.destination, person.name)
    assert stuck["reason"] == "the quota is used up"
    assert told["summary"]["rate"] == 25
    assert told["notes"] == [f"These are the transfers of {person.name}'s own rules, asked for by REST."]


def test_people_see_one_rule_and_filter(person: Person) -> None:
    finished = transfers(person.environment, "--rule", str(uuid.UUID(person.rules["waiting"])))
    assert finished.returncode == 0, finished.stderr
    assert f"user.{person.name}:waiting" in finished.stdout
    assert "running-pull" not in finished.stdout
    assert "0 running, 1 waiting" in finished.stdout
    told = json.loads(transfers(person.environment, "--json", "--state", "queued", "--rse", person.destination).stdout)
    assert [transfer["name"] for transfer in told["transfers"]] == ["queued"]
    told = json.loads(transfers(person.environment, "--json", "--destination", "NOWHERE").stdout)
    assert told["transfers"] == []


def test_people_are_told_what_is_not_there(person: Person, tmp_path: Path) -> None:
    finished = transfers(person.environment, "--rule", "0" * 32)
    assert (finished.returncode, finished.stderr) == (1, f"Error: Rucio has no rule {'0' * 32}\n")
    config = tmp_path / "rucio.cfg"
    config.write_text(
        "[client]\nrucio_host = http://127.0.0.1:1\nauth_host = http://127.0.0.1:1\nauth_type = userpass\n"
        f"username = x\npassword = y\naccount = x\nrequest_retries = 1\nauth_token_file_path = {tmp_path}/token\n"
    )
    finished = transfers({"RUCIO_HOME": str(tmp_path), "RUCIO_CONFIG": str(config)})
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("Error: Rucio cannot be asked: ")
    assert "Traceback" not in finished.stderr
