"""C1401 to C1411: each way to log in, at embedded clouds and at a real Reva. What is promised: docs/contract.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2

from rucio_cs3 import rse_logins
from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.app_passwords import AppPasswords
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken
from rucio_cs3.cs3.login.providers import (
    AppPasswordProvider,
    BasicProvider,
    BearerProvider,
    CredentialProvider,
    Login,
    MachineProvider,
    ServiceAccountProvider,
)
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.place import content, endpoint_of, provider_of

AUDIENCE = "cloud"
WRONG = "wrong-secret-word"


@dataclass(frozen=True, kw_only=True)
class House:
    """A cloud that takes every login its line knows.

    :param issuer: whose tokens let somebody in; the subject of the client's own is the cloud's first user.
    """

    #: An EmbeddedCloud or a RevaSite.
    cloud: Any
    issuer: Issuer

    @property
    def user(self) -> str:
        return str(next(iter(self.cloud.users)))

    def storage(self, provider: CredentialProvider) -> CS3Storage:
        return CS3Storage(endpoint_of(self.cloud), provider)

    @contextlib.contextmanager
    def app_passwords(self) -> Iterator[AppPasswords]:
        with contextlib.closing(Gateway(endpoint_of(self.cloud), provider_of(self.cloud))) as gateway:
            yield AppPasswords(gateway)

    def app_password(self, *, ends_at: int | None = None) -> str:
        with self.app_passwords() as passwords:
            return passwords.make("a robot", ends_at=ends_at)

    def right(self, kind: str) -> CredentialProvider:
        """A provider that is let in."""
        if kind == "appauth":
            return AppPasswordProvider(self.user, Secret(self.app_password()))
        if kind == "machine":
            return MachineProvider(self.user, Secret(self.cloud.machine_key))
        if kind == "basic":
            return provider_of(self.cloud)
        return BearerProvider(Secret(self.bearer(self.user, 60)))

    def bearer(self, name: str, life_s: float) -> str:
        return self.issuer.access_token(name, audience=AUDIENCE, life_s=life_s)

    def logged_in_as(self, provider: CredentialProvider) -> str:
        with contextlib.closing(Gateway(endpoint_of(self.cloud), provider)) as gateway:
            request = gateway_api_pb2.WhoAmIRequest(token=gateway.tokens.get().token)
            return str(gateway.ask("WhoAmI", request, "").user.username)

    def wrong(self) -> Mapping[str, CredentialProvider]:
        """Providers that nobody lets in, each in its own way."""
        secret = Secret(WRONG)
        return {
            "basic": BasicProvider(self.user, secret),
            "basic of nobody": BasicProvider("nobody", secret),
            "appauth": AppPasswordProvider(self.user, secret),
            "appauth of nobody": AppPasswordProvider("nobody", secret),
            "appauth that has ended": AppPasswordProvider(
                self.user, Secret(self.app_password(ends_at=int(time.time()) - 10))
            ),
            "machine": MachineProvider(self.user, secret),
            "machine as nobody": MachineProvider("nobody", Secret(self.cloud.machine_key)),
            "bearer": BearerProvider(secret),
            "bearer that has ended": BearerProvider(Secret(self.bearer(self.user, -60))),
            "bearer of nobody": BearerProvider(Secret(self.bearer("nobody", 60))),
        }


@pytest.fixture(scope="module", params=["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with Issuer("einstein") as issuer, RevaSite("logins", issuer=issuer.url) as site:
            yield House(cloud=site, issuer=issuer)
    else:
        with (
            Issuer("einstein") as issuer,
            EmbeddedCloud(name="logins", behaviour=Behaviour(request.param), issuer=issuer.url) as cloud,
        ):
            yield House(cloud=cloud, issuer=issuer)


def round_trip(cloud: Any, provider: CredentialProvider, name: str, local: Path) -> None:
    data = content(5000)
    (local / "up").write_bytes(data)
    with CS3Storage(endpoint_of(cloud), provider) as storage:
        file = Reference(storage.endpoint.root, f"way-{name}/file")
        storage.upload(local / "up", file)
        assert cloud.path_on_disk(file.path).read_bytes() == data
        assert storage.stat(file).size == len(data)
        storage.download(file, local / "down")
        assert (local / "down").read_bytes() == data
        storage.delete_file(file)
        assert not storage.exists(file)


@pytest.mark.parametrize("kind", ["basic", "appauth", "machine", "bearer"])
def test_c1401_each_way_to_log_in(house: House, kind: str, tmp_path: Path) -> None:
    round_trip(house.cloud, house.right(kind), kind, tmp_path)


def test_c1405_service_accounts(spaces_cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """Reva v3 has none."""
    account, secret = next(iter(spaces_cloud.service_accounts.items()))
    round_trip(spaces_cloud, ServiceAccountProvider(account, Secret(secret)), "serviceaccounts", tmp_path)
    with (
        CS3Storage(endpoint_of(spaces_cloud), ServiceAccountProvider(account, Secret(WRONG))) as storage,
        pytest.raises(errors.Unauthenticated, match=rf"{account} \(serviceaccounts\)"),
    ):
        storage.exists(Reference(storage.endpoint.root))


def test_c1402_a_login_that_is_refused(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for name, provider in house.wrong().items():
        secret = provider.login().client_secret
        with house.storage(provider) as storage, pytest.raises(errors.Unauthenticated) as caught:
            storage.exists(Reference(storage.endpoint.root, "file"))
        text = f"{caught.value!r} {caught.value} {caplog.text}"
        assert name.partition(" ")[0] in str(caught.value)
        assert house.cloud.gateway in str(caught.value)
        assert secret not in text


def test_c1403_a_type_that_the_cloud_does_not_know(house: House) -> None:
    """Both lines answer as they do while they start, so it is tried for a while."""

    class Unknown:
        def login(self) -> Login:
            return Login("ocmshares", "somebody", WRONG)

        def lasting_secret(self) -> None:
            return None

    with house.storage(Unknown()) as storage, pytest.raises(errors.ServerFault, match="auth provider"):
        storage.exists(Reference(storage.endpoint.root))


def test_c1404_an_app_password_is_made_listed_and_revoked(house: House) -> None:
    ends_at = int(time.time()) + 3600
    with house.app_passwords() as passwords:
        before = len(passwords.list())
        clear = passwords.make("robot of c519", ends_at=ends_at)
        with house.storage(AppPasswordProvider(house.user, Secret(clear))) as storage:
            assert storage.exists(Reference(storage.endpoint.root))
        listed = passwords.list()
        (found,) = [one for one in listed if one.label == "robot of c519"]
        assert len(listed) == before + 1
        assert (found.ends_at, clear in repr(listed)) == (ends_at, False)
        assert 0 < found.made_at <= time.time()
        passwords.revoke(found)
        assert found not in passwords.list()
        with pytest.raises(errors.ServerFault, match="invalidating"):
            passwords.revoke(found)
    with (
        house.storage(AppPasswordProvider(house.user, Secret(clear))) as storage,
        pytest.raises(errors.Unauthenticated, match=rf"{house.user} \(appauth\)"),
    ):
        storage.exists(Reference(storage.endpoint.root))


@pytest.mark.parametrize(
    "way", ["file", "discovery", "command", "client_credentials", "refresh_token", "token_exchange", "session"]
)
def test_c1406_wherever_a_bearer_token_comes_from(
    house: House, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def private(name: str, text: str) -> str:
        path = tmp_path / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    issuer, good = house.issuer, house.bearer(house.user, 600)
    client = {"issuer": issuer.url, "client_id": issuer.client_id, "client_secret": issuer.client_secret}
    entries: Mapping[str, Mapping[str, object]] = {
        "file": {"token_file": private("token", house.bearer(house.user, -60))},
        "discovery": {"token_discovery": True},
        "command": {"token_command": ["cat", private("written", good)]},
        "client_credentials": {**client, "audience": AUDIENCE, "scope": "openid"},
        "refresh_token": {
            **client,
            "grant": "refresh_token",
            "refresh_token_file": private("refresh", issuer.refresh_token(house.user)),
        },
        "token_exchange": {**client, "grant": "token_exchange", "subject_token_file": private("subject", good)},
    }
    monkeypatch.setenv("BEARER_TOKEN_FILE", private("discovered", good))
    monkeypatch.delenv("BEARER_TOKEN", raising=False)
    if way == "session":
        both = issuer.access_token(house.user, audience=f"rucio {AUDIENCE}")
        provider: CredentialProvider = BearerProvider(AudienceToken(both, AUDIENCE, "the token"))
    else:
        provider = rse_logins.provider(entries[way], lambda: "nobody")
    if way == "file":
        # What is in the file counts when it is needed.
        with house.storage(provider) as storage, pytest.raises(errors.Unauthenticated, match="bearer"):
            storage.exists(Reference(storage.endpoint.root))
        private("token", good)
    round_trip(house.cloud, provider, f"bearer-{way}", tmp_path)
    assert house.logged_in_as(provider) == house.user


def test_c1407_a_machine_acts_as_the_user_of_the_account(house: House) -> None:
    first, second = list(house.cloud.users)[:2]
    entry = {"type": "machine", "api_key": house.cloud.machine_key, "users": {"jdoe": first, "root": second}}
    for account, user in (("jdoe", first), ("root", second)):
        acting = rse_logins.provider(entry, partial(str, account))
        assert house.logged_in_as(acting) == user
    with pytest.raises(errors.ConfigurationError, match="Rucio account marie has no user"):
        rse_logins.provider(entry, lambda: "marie")
    named = rse_logins.provider({**entry, "users": {}, "username": "{account}"}, lambda: second)
    assert house.logged_in_as(named) == second
