"""C1401 to C1405: each way to log in, at embedded clouds and at a real Reva. What is promised: docs/contract.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.app_passwords import AppPasswords
from rucio_cs3.cs3.login.providers import (
    AppPasswordProvider,
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

BEARER_SECRET = "an identity provider's secret of at least 32 bytes"
WRONG = "wrong-secret-word"


@dataclass(frozen=True, kw_only=True)
class House:
    """A cloud that takes every login its line knows.

    :param bearer: makes a token of its identity provider: for whom, and how many seconds it lives.
    """

    #: An EmbeddedCloud or a RevaSite.
    cloud: Any
    bearer: Callable[[str, float], str] = field(repr=False)

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
        return BearerProvider(Secret(self.bearer(self.user, 60)))

    def wrong(self) -> Mapping[str, CredentialProvider]:
        """Providers that nobody lets in, each in its own way."""
        secret = Secret(WRONG)
        return {
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


def _embedded_token(name: str, life_s: float) -> str:
    return jwt.encode({"sub": name, "exp": int(time.time() + life_s)}, BEARER_SECRET, algorithm="HS256")


@pytest.fixture(scope="module", params=["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with Issuer() as issuer, RevaSite("logins", issuer=issuer.url) as site:
            yield House(
                cloud=site, bearer=lambda name, life_s: issuer.access_token(name, audience="cloud", life_s=life_s)
            )
    else:
        with EmbeddedCloud(name="logins", behaviour=Behaviour(request.param), bearer_secret=BEARER_SECRET) as cloud:
            yield House(cloud=cloud, bearer=_embedded_token)


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


@pytest.mark.parametrize("kind", ["appauth", "machine", "bearer"])
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
