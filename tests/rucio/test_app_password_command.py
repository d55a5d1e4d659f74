"""``rucio-cs3 app-password`` as people run it, and a robot of Rucio's that lives by what it made."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.rucio_site import RucioCommandError
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

pytestmark = pytest.mark.rucio

PROGRAM = Path(sys.executable).parent / "rucio-cs3"
SCOPE = "robots"


@pytest.fixture(scope="module", params=[Behaviour.V3, Behaviour.SPACES], ids=lambda behaviour: behaviour.value)
def rse(request: pytest.FixtureRequest, sandbox_rucio: RecordedRucio) -> Iterator[Rse]:
    with EmbeddedCloud(name="robots", behaviour=request.param) as cloud:
        rse = Rse(f"ROBOTS-{request.param.value.upper()}", cloud, "http", folder="robots")
        sandbox_rucio.add_rses(rse)
        sandbox_rucio.add_scope(f"{SCOPE}-{request.param.value}")
        yield rse


def run(rucio: RecordedRucio, *arguments: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "app-password", *(str(argument) for argument in arguments)],
        env=rucio.environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_robot_from_its_first_day_to_its_last(sandbox_rucio: RecordedRucio, rse: Rse, tmp_path: Path) -> None:
    rucio, name, secret = sandbox_rucio, rse.name, tmp_path / "robot.password"
    scope = f"{SCOPE}-{name.rpartition('-')[2].lower()}"
    made = run(rucio, "make", name, "--label", "robot", "--days", 30, "--file", secret, "--json")
    assert (made.returncode, made.stderr) == (0, "")
    told = json.loads(made.stdout)
    assert secret.stat().st_mode & 0o777 == 0o600
    password = secret.read_text().strip()
    assert password
    assert password not in made.stdout

    user = next(iter(rse.cloud.users))
    rucio.set_rse_accounts({name: {"type": "appauth", "username": user, "password_file": str(secret)}})
    (tmp_path / "file").write_bytes(b"by a robot")
    rucio.rucio("upload", "--rse", name, "--scope", scope, tmp_path / "file")
    assert on_disk(rse, scope, "file").read_bytes() == b"by a robot"

    listed = run(rucio, "list", name, "--json")
    (found,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (found["label"], found["ends_at"] > found["made_at"]) == ("robot", True)
    assert told == {"label": "robot", "ends_at": found["ends_at"], "file": str(secret)}
    table = run(rucio, "list", name).stdout
    assert "robot" in table
    assert found["ends_at"] in table
    assert password not in listed.stdout + table

    revoked = run(rucio, "revoke", name, "--label", "robot", "--json")
    assert (revoked.returncode, json.loads(revoked.stdout)) == (0, {"label": "robot", "revoked": 1})
    refused = run(rucio, "list", name)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"refuses to log in {user} (appauth)" in refused.stderr
    (tmp_path / "second").write_bytes(b"too late")
    with pytest.raises(RucioCommandError):
        rucio.rucio("upload", "--rse", name, "--scope", scope, tmp_path / "second")

    # The person whom it acted for is still let in.
    typed = f"{rse.cloud.users[user].password}\n"
    after = run(rucio, "list", name, "--login", user, typed=typed)
    assert (after.returncode, after.stdout.strip()) == (0, f"no app passwords at {name}"), after.stderr
    assert typed.strip() not in after.stdout + after.stderr


def test_what_is_wrong_is_said_in_one_sentence(sandbox_rucio: RecordedRucio, rse: Rse, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    user = next(iter(rse.cloud.users))
    right = f"{rse.cloud.users[user].password}\n"
    as_user = ("--login", user)
    for arguments, typed, message in (
        (("make", rse.name, *as_user, "--label", "x", "--file", taken), right, "exists; it stays as it is"),
        (("make", rse.name, *as_user, "--label", "x", "--file", tmp_path / "no" / "x"), right, "cannot be written"),
        (("list", "NO-SUCH-RSE"), "", "Rucio knows no RSE NO-SUCH-RSE"),
        (("list", rse.name, *as_user), "mistyped-word\n", f"refuses to log in {user} (basic)"),
        (("revoke", rse.name, *as_user, "--label", "nothing"), right, "has no app password 'nothing'"),
    ):
        done = run(sandbox_rucio, *arguments, typed=typed)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        last = done.stderr.strip().splitlines()[-1]
        assert message in last, done.stderr
        assert "Traceback" not in done.stderr
        assert "mistyped-word" not in done.stderr
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]
