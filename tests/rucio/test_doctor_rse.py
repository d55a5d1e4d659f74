"""``rucio-cs3 doctor`` at RSEs of a real Rucio: as a client, with the daemons' configuration, and by its commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.doctor.scratch import PREFIX
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.story import Cloud, Rse
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = pytest.mark.rucio

PROGRAM = Path(sys.executable).parent / "rucio-cs3"

_READ_AND_WRITE = {"read": 1, "write": 1, "delete": 0}
_NO_COPIES = {"third_party_copy_read": 0, "third_party_copy_write": 0}

#: Gives an RSE other domains, or a limit in place of the account's, in one process.
_DOMAINS = "name, parameters = given; client.update_protocols(name, **parameters)"
_LIMITS = "client.set_rse_limits(given, 'MinFreeSpace', 1000); client.delete_local_account_limit('root', given)"

#: On the server: no agent has a heartbeat, or one has.
_NO_AGENT = "from rucio.core.heartbeat import cardiac_arrest; cardiac_arrest()"
_AGENT_LIVES = "import threading; from rucio.core.heartbeat import live"
_AGENT_LIVES += "; live('rucio-cs3-agent', given, 1, threading.current_thread())"


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="examined") as cloud:
        yield cloud


@pytest.fixture
def new_rse(sandbox_rucio: RecordedRucio, cloud: EmbeddedCloud, request: pytest.FixtureRequest) -> Callable[..., Rse]:
    """Adds an RSE whose folder exists."""
    numbers = iter(range(100))

    def add(*, attributes: Mapping[str, str] | None = None, at: Cloud = cloud, scheme: str = "http") -> Rse:
        name = f"DOCTOR-{request.node.name.upper().replace('_', '-')[:30].rstrip('-[')}-{next(numbers)}"
        rse = Rse(name, at, scheme, folder=name.lower())
        at.path_on_disk(rse.folder).mkdir(parents=True)
        sandbox_rucio.add_rses(rse, attributes=attributes)
        return rse

    return add


def run(rucio: RecordedRucio, *arguments: object, server: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "doctor", *(str(argument) for argument in arguments)],
        env=clean_environment(rucio.daemon_environment if server else rucio.environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def doctor(rucio: RecordedRucio, name: str, *arguments: object, server: bool = False) -> dict[str, Any]:
    """Rows by name, and the whole document as ``document``."""
    done = run(rucio, name, "--json", *arguments, server=server)
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    return {"document": document, **{row["name"]: row for row in document["checks"]}}


def change(rucio: RecordedRucio, statement: str, given: object, *, server: bool = False) -> None:
    """
    :param server: in its database, without a client.
    """
    code = "" if server else "from rucio.client import Client; client = Client(); "
    code = f"import json, sys; {code}given = json.loads(sys.argv[1])\n{statement}"
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(given)],
        env=clean_environment(rucio.daemon_environment if server else rucio.environment),
        capture_output=True,
        timeout=120,
        check=True,
    )


def having(seen: Mapping[str, Any], *statuses: str) -> set[str]:
    return {row["name"] for row in seen["document"]["checks"] if row["status"] in statuses}


def test_its_own_commands_make_an_rse_that_is_right(
    sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse], tmp_path: Path
) -> None:
    """A client finds all well, and prints what a shell makes a second RSE of."""
    rucio, rse = sandbox_rucio, new_rse()
    seen = doctor(rucio, rse.name, "--rse-name", f"{rse.name}-AGAIN")
    assert having(seen, "weak", "broken") == set(), seen
    assert {"Rucio conveyor", "Rucio agent"} <= having(seen, "not tried")
    assert seen["Rucio policy"]["status"] == "ok"
    assert "client" in seen["Rucio policy"]["seen"]
    assert list(rse.cloud.path_on_disk(rse.folder).iterdir()) == []

    again = f"{rse.name}-AGAIN"
    rucio.set_rse_accounts({again: rse.account()})
    script = tmp_path / "set-up.sh"
    script.write_text("set -e\n" + "\n".join(seen["document"]["commands"]) + "\n")
    made = subprocess.run(
        ["sh", script],
        env={
            **clean_environment(rucio.environment),
            "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    second = doctor(rucio, again)
    assert (second["document"]["exit_code"], second["document"]["verdict"]) == (0, "ok"), second
    assert second["settings"]["facts"] == seen["settings"]["facts"]
    assert second["Rucio empty files"]["seen"].startswith("skip_upload_stat")
    password = rse.account()["password"]
    assert password not in json.dumps(seen["document"]) + json.dumps(second["document"])


def test_with_the_daemons_configuration(sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse]) -> None:
    """What only the server's side can tell; an agent is missing, and a distance."""
    rucio, rse, other = sandbox_rucio, new_rse(), new_rse()
    rucio.set_distance(rse.name, other.name)
    # Agents of this Rucio's other tests may have been killed.
    change(rucio, _NO_AGENT, None, server=True)
    seen = doctor(rucio, rse.name, server=True)
    assert "server" in seen["Rucio policy"]["seen"]
    assert seen["Rucio policy"]["status"] == "ok"
    assert (seen["Rucio conveyor"]["status"], seen["Rucio conveyor"]["facts"]["transfertool"]) == ("ok", ["cs3"])
    assert seen["Rucio distances"]["facts"] == {"from": [other.name], "to": [other.name], "asked": None}
    assert seen["Rucio agent"]["status"] == "weak"
    assert "rucio-cs3 agent" in seen["Rucio agent"]["advice"]
    assert seen["document"]["exit_code"] == 3
    change(rucio, _AGENT_LIVES, "agents.test", server=True)
    seen = doctor(rucio, rse.name, "--read-only", server=True)
    assert seen["Rucio agent"]["status"] == "ok", seen["Rucio agent"]
    assert seen["Rucio agent"]["facts"]["agents"] == ["agents.test"]
    assert seen["document"]["exit_code"] == 0
    change(rucio, _NO_AGENT, None, server=True)


def test_each_missing_piece_is_found(sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse]) -> None:
    rucio = sandbox_rucio
    greedy = new_rse(attributes={"greedyDeletion": "True", "verify_checksum": "False"})
    seen = doctor(rucio, greedy.name, "--read-only")
    assert seen["Rucio deletion"]["status"] == "ok"
    assert "verify_checksum" in seen["Rucio attributes"]["seen"]
    assert seen["Rucio distances"]["status"] == "note"

    minimal = new_rse(attributes={"Greedy-Deletion": "True"})
    seen = doctor(rucio, minimal.name, "--read-only")
    assert (seen["Rucio attributes"]["status"], seen["document"]["exit_code"]) == ("weak", 3)
    assert "Name it greedyDeletion" in seen["Rucio attributes"]["advice"]
    assert "greedyDeletion" in seen["Rucio deletion"]["advice"]

    limited = new_rse()
    change(rucio, _LIMITS, limited.name)
    seen = doctor(rucio, limited.name, "--read-only")
    assert seen["Rucio deletion"]["status"] == "weak"
    assert "no usage from storage" in seen["Rucio deletion"]["seen"]
    assert seen["Rucio account"]["status"] == "weak"
    assert f"limit set root --rse {limited.name}" in seen["Rucio account"]["advice"]

    # Rucio's own cache of attributes would hide what is set later from this process, and not from a new one.
    rucio.rucio("rse", "attribute", "set", limited.name, "--key", "cs3_proof", "--value", "maybe")
    seen = doctor(rucio, limited.name)
    assert (seen["settings"]["status"], seen["document"]["exit_code"]) == ("broken", 4)
    assert "cs3_proof" in seen["settings"]["seen"]
    assert seen["upload"]["status"] == "not tried"
    # What Rucio says of it is told all the same.
    assert seen["Rucio protocol"]["status"] == "ok"

    domains = {"wan": {**_READ_AND_WRITE, **_NO_COPIES}, "lan": _READ_AND_WRITE}
    for_reading = new_rse()
    place = {key: for_reading.protocol()[key] for key in ("scheme", "hostname", "port")}
    change(rucio, _DOMAINS, [for_reading.name, {**place, "data": {"domains": domains}}])
    seen = doctor(rucio, for_reading.name, "--read-only")
    assert seen["Rucio protocol"]["facts"]["never"] == ["delete"]
    assert seen["Rucio protocol"]["status"] == "weak"
    assert seen["Rucio conveyor"]["status"] == "not tried"


def test_without_credentials_or_right_ones(sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse]) -> None:
    rucio, rse = sandbox_rucio, new_rse()
    rucio.set_rse_accounts({rse.name: {"username": "einstein", "password": "mistyped-word"}})
    seen = doctor(rucio, rse.name)
    assert having(seen, "broken") == {"login"}
    assert "mistyped-word" not in json.dumps(seen["document"])
    rucio.set_rse_accounts({rse.name: {}})
    seen = doctor(rucio, rse.name)
    assert having(seen, "broken") == {"login"}
    assert "there are no credentials" in seen["login"]["seen"]


def test_a_scheme_that_nothing_registers(sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse]) -> None:
    """``cs3`` needs the policy package, in this process, too."""
    rucio, rse = sandbox_rucio, new_rse(scheme="cs3")
    assert doctor(rucio, rse.name, "--read-only")["Rucio policy"]["status"] == "ok"
    configuration = rucio.directory / "etc" / "client.cfg"
    without = rucio.directory / "etc" / "without-policy.cfg"
    kept = [line for line in configuration.read_text().splitlines() if not line.startswith("package")]
    without.touch(mode=0o600)
    without.write_text("\n".join(kept) + "\n")
    done = subprocess.run(
        [PROGRAM, "doctor", rse.name, "--read-only", "--json"],
        env={**clean_environment(rucio.environment), "RUCIO_CONFIG": str(without)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    (policy,) = [row for row in json.loads(done.stdout)["checks"] if row["name"] == "Rucio policy"]
    assert policy["status"] == "broken"
    assert "nothing registers cs3" in policy["seen"]
    assert "[policy] package" in policy["advice"]


def test_bad_names_are_one_sentence(sandbox_rucio: RecordedRucio) -> None:
    sandbox_rucio.rucio("rse", "add", "DOCTOR-EMPTY")
    for name, words in (("DOCTOR-NOBODY", "knows no RSE"), ("DOCTOR-EMPTY", "is no CS3 cloud")):
        done = run(sandbox_rucio, name)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.reva
def test_an_rse_at_a_real_reva_by_name_and_by_url(
    sandbox_rucio: RecordedRucio, new_rse: Callable[..., Rse], reva_sites: tuple[RevaSite, RevaSite]
) -> None:
    rucio, rse = sandbox_rucio, new_rse(at=reva_sites[0])
    seen = doctor(rucio, rse.name)
    assert having(seen, "weak", "broken") == set(), seen
    assert (seen["TPC pull"]["status"], seen["TPC push"]["status"]) == ("ok", "ok")
    url = f"{rse.cloud.webdav_url}/{rse.folder}"
    by_url = doctor(rucio, url)
    assert having(by_url, "weak", "broken") == set(), by_url
    assert by_url["folder"]["facts"] == seen["folder"]["facts"]
    storage = reva_sites[0].data_directory.parent
    assert list(storage.rglob(f"*{PREFIX}*")) == []
