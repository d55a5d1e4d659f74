"""OIDC from Rucio to clouds that know the same issuer: by the token of somebody's session, and by Rucio's own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk, requests_to

pytestmark = pytest.mark.rucio

PROGRAM = Path(sys.executable).parent / "rucio"
ACCOUNT = "jdoe"
AUDIENCE = "https://cloud.test"
CONTENT = os.urandom(300_000)

# What an administrator does by five commands. (Rucio's generic permissions let nobody else add replicas.)
_ADD_ACCOUNT = """
import sys
from rucio.client import Client
client, account, identity = Client(), *sys.argv[1:]
client.add_account(account, "USER", "somebody@rucio.test")
client.add_identity(account, identity, "OIDC", "somebody@rucio.test")
client.add_account_attribute(account, "admin", "True")
client.add_scope(account, f"user.{account}")
"""
_SET_LIMIT = """
import sys
from rucio.client import Client
Client().set_local_account_limit(*sys.argv[1:], -1)
"""
_EXPIRE_RULES = """
import sys
from rucio.client import Client
client, (account, name) = Client(), sys.argv[1:]
for rule in client.list_replication_rules({"scope": f"user.{account}", "name": name}):
    client.update_replication_rule(rule["id"], {"lifetime": 0})
"""


def as_root(rucio: RecordedRucio, script: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, **rucio.environment}, timeout=120, check=True
    )


@dataclass(frozen=True, kw_only=True)
class World:
    rucio: RecordedRucio
    issuer: Issuer
    user: str
    folder: Path

    def session(self, *audience: str, life_s: float = 600) -> str:
        """A token with which this Rucio lets somebody in, and whoever else it names."""
        return self.issuer.access_token(self.user, audience=" ".join(audience), scope="openid profile", life_s=life_s)

    def run(self, token: str, *arguments: object, kept_by_rucio: bool = False) -> str:
        """What the command ``rucio`` of somebody with this token writes; Rucio 41.5.1 ends with 0 in any case.

        :param kept_by_rucio: whether it is where Rucio's client keeps the token of a login, and not where the WLCG's
            rules have it.
        """
        path = self.folder / "token"
        write_private(path, token)
        own = {"RUCIO_AUTH_TYPE": "oidc", "RUCIO_ACCOUNT": ACCOUNT, "XDG_RUNTIME_DIR": str(self.folder)}
        if kept_by_rucio:
            people = (self.rucio.directory / "etc" / "client.cfg").read_text()
            kept_at = str(self.rucio.directory / "client" / "auth_token")
            write_private(self.folder / "client.cfg", people.replace(kept_at, str(path)))
            own["RUCIO_CONFIG"] = str(self.folder / "client.cfg")
        else:
            own["BEARER_TOKEN_FILE"] = str(path)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUCIO_", "BEARER_"))}
        done = subprocess.run(
            [PROGRAM, "-v", *(str(argument) for argument in arguments)],
            env={**kept, **self.rucio.environment, **own},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("session")
    user = "einstein"
    with Issuer(user) as issuer:
        configuration = issuer.write_idpsecrets(folder / "idpsecrets.json")
        site = RecordedRucio(policy_package=SANDBOX_POLICY, extra_config=configuration)
        issuer.write_idpsecrets(folder / "idpsecrets.json", f"{site.url}/auth/oidc_code")
        with site as rucio:
            identity = f"SUB={user}, ISS={issuer.url}"
            as_root(rucio, _ADD_ACCOUNT, ACCOUNT, identity)
            yield World(rucio=rucio, issuer=issuer, user=user, folder=folder)


@pytest.fixture(scope="module", params=["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def cloud(request: pytest.FixtureRequest, world: World) -> Iterator[Any]:
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with RevaSite("session", issuer=world.issuer.url) as site:
            yield site
    else:
        behaviour = Behaviour(request.param)
        with EmbeddedCloud(name=f"session-{request.param}", behaviour=behaviour, issuer=world.issuer.url) as embedded:
            Path(str(embedded.log)).touch()
            yield embedded


@pytest.fixture
def make_rse(cloud: Any, world: World, request: pytest.FixtureRequest) -> Any:
    def make(**attributes: str) -> Rse:
        name = f"R{abs(hash(request.node.nodeid)) % 10**8}"
        rse = Rse(name, cloud, "http", folder=name.lower())
        world.rucio.add_rses(rse, attributes=attributes)
        world.rucio.accounts.pop(name)  # nobody has a password for it
        world.rucio.set_rse_accounts({})
        as_root(world.rucio, _SET_LIMIT, ACCOUNT, name)
        return rse

    return make


def test_there_and_back_with_the_session_alone(world: World, make_rse: Any, cloud: Any, tmp_path: Path) -> None:
    rse = make_rse(cs3_rucio_token_audience=AUDIENCE)
    scope, name, token = f"user.{ACCOUNT}", f"file-{rse.name}", world.session("rucio", AUDIENCE)
    (tmp_path / name).write_bytes(CONTENT)
    before = requests_to(cloud, "gRPC Authenticate CODE_OK") if isinstance(cloud, EmbeddedCloud) else -1
    wrote = world.run(token, "upload", "--rse", rse.name, "--scope", scope, tmp_path / name)
    assert on_disk(rse, scope, name).read_bytes() == CONTENT, wrote
    wrote += world.run(token, "download", "--dir", tmp_path / "down", f"{scope}:{name}")
    assert (tmp_path / "down" / scope / name).read_bytes() == CONTENT, wrote
    assert token not in wrote
    if before >= 0:
        # One login for each command.
        assert requests_to(cloud, "gRPC Authenticate CODE_OK") == before + 2


@pytest.mark.parametrize("cloud", [pytest.param("reva", marks=pytest.mark.reva)], indirect=True)
def test_logged_in_by_rucio(world: World, make_rse: Any, cloud: Any, tmp_path: Path) -> None:
    """Client and browser are played here: Rucio 41.5.1 sends both to https, which this server has not."""
    rse = make_rse(cs3_rucio_token_audience=AUDIENCE)
    world.issuer.at_browser = world.user
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    wish = {"Polling": "True", "Scope": "openid profile", "Audience": f"rucio {AUDIENCE}"}
    headers = {f"X-Rucio-Client-Authorize-{name}": value for name, value in wish.items()}
    ask = urllib.request.Request(f"{world.rucio.url}/auth/oidc", headers={**headers, "X-Rucio-Account": ACCOUNT})
    with opener.open(ask, timeout=60) as answer:
        page = answer.headers["X-Rucio-OIDC-Auth-URL"].replace("https:", "http:", 1)
    with opener.open(page, timeout=60) as answer:
        # By way of the issuer, and back to Rucio.
        assert (answer.status, urlsplit(answer.url).path) == (200, "/auth/oidc_code")
    fetch = urllib.request.Request(page, headers={**headers, "X-Rucio-Client-Fetch-Token": "True"})
    with opener.open(fetch, timeout=60) as answer:
        token = answer.headers["X-Rucio-Auth-Token"]
    assert world.issuer.claims(token, AUDIENCE)["sub"] == world.user
    scope, name = f"user.{ACCOUNT}", f"file-{rse.name}"
    (tmp_path / name).write_bytes(CONTENT)
    wrote = world.run(token, "upload", "--rse", rse.name, "--scope", scope, tmp_path / name, kept_by_rucio=True)
    assert on_disk(rse, scope, name).read_bytes() == CONTENT, wrote
    assert token not in wrote


@pytest.mark.parametrize("cloud", ["v3"], indirect=True)
@pytest.mark.parametrize(
    ("attributes", "audience", "message"),
    [
        ({"cs3_rucio_token_audience": AUDIENCE}, "rucio https://another.test", f"is not for audience {AUDIENCE}"),
        ({}, f"rucio {AUDIENCE}", "there are no credentials"),
    ],
    ids=["for another", "no leave"],
)
def test_a_token_that_is_not_for_this_cloud(
    world: World,
    make_rse: Any,
    cloud: Any,
    tmp_path: Path,
    attributes: dict[str, str],
    audience: str,
    message: str,
) -> None:
    rse, token = make_rse(**attributes), world.session(audience)
    (tmp_path / "file").write_bytes(CONTENT)
    before = requests_to(cloud, "gRPC")
    wrote = world.run(token, "upload", "--rse", rse.name, "--scope", f"user.{ACCOUNT}", tmp_path / "file")
    assert message in " ".join(wrote.split()), wrote
    assert token not in wrote
    assert requests_to(cloud, "gRPC") == before


@pytest.mark.reva
def test_the_reaper_has_a_token_of_rucios_own(world: World, tmp_path: Path, reva_sites: Any) -> None:
    """For scheme ``davs`` only, as Rucio 41.5.1 has it; so this cloud has TLS. No password is anywhere."""
    rucio, scope = world.rucio, f"user.{ACCOUNT}"
    with RevaSite("reaped", tls=True, issuer=world.issuer.url) as site:
        rse = Rse("REAPED-BY-TOKEN", site, "davs", folder="reaped")
        rucio.add_rses(rse, attributes={"cs3_rucio_token_audience": AUDIENCE, "oidc_support": "True"})
        rucio.accounts.pop(rse.name)
        rucio.set_rse_accounts({})
        as_root(rucio, _SET_LIMIT, ACCOUNT, rse.name)
        (tmp_path / "unwanted").write_bytes(CONTENT)
        token = world.session("rucio", AUDIENCE)
        wrote = world.run(token, "upload", "--rse", rse.name, "--scope", scope, tmp_path / "unwanted")
        assert on_disk(rse, scope, "unwanted").read_bytes() == CONTENT, wrote
        as_root(rucio, _EXPIRE_RULES, ACCOUNT, "unwanted")
        rucio.daemon("judge-cleaner")
        asked = len(world.issuer.requests)
        said = rucio.daemon("reaper", "--rses", rse.name)
        assert files_below(rse) == set(), said
        assert (rse.name, "unwanted") not in rucio.replica_states(scope)
        # For this RSE, and for writing there.
        folder = f"{urlsplit(site.webdav_url).path}/reaped/"
        scopes = {scope for _, scope in world.issuer.requests[asked:]}
        assert scopes == {f"storage.modify:{folder} storage.read:{folder}"}
