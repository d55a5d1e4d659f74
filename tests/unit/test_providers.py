"""Ways to log in, one by one: what lasts of each, and secrets in files, which are read anew and kept from others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login import providers
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken, CommandToken, DiscoveredToken
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import (
    AppPasswordProvider,
    BasicProvider,
    BearerProvider,
    CredentialProvider,
    MachineProvider,
    PublicLinkProvider,
    ServiceAccountProvider,
    TokenGiver,
)
from rucio_cs3.cs3.login.secret import Secret

#: Each way with a secret of its own, made of that secret.
WAYS: list[Callable[[Secret], CredentialProvider]] = [
    lambda secret: BasicProvider("me", secret),
    lambda secret: AppPasswordProvider("me", secret),
    lambda secret: MachineProvider("me", secret),
    lambda secret: ServiceAccountProvider("me", secret),
    PublicLinkProvider,
    BearerProvider,
]
NAMES = ["basic", "appauth", "machine", "serviceaccounts", "publicshares", "bearer"]


def test_every_way_is_tried_here() -> None:
    made = {type(way(Secret("x"))) for way in WAYS}
    known = {kind for _, kind in inspect.getmembers(providers, inspect.isclass) if kind.__name__.endswith("Provider")}
    assert made == known - {CredentialProvider}
    assert [way(Secret("x")).login().type for way in WAYS] == NAMES


def test_what_lasts_of_one_is_what_no_other_has() -> None:
    told = [way(Secret(word)).lasting_secret() for way in WAYS for word in ("x", "y")]
    told += [BasicProvider("you", Secret("x")).lasting_secret(), MachineProvider("you", Secret("x")).lasting_secret()]
    assert None not in told
    assert len(set(told)) == len(told)
    assert told == [way(Secret(word)).lasting_secret() for way in WAYS for word in ("x", "y")] + told[-2:]


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_nothing_lasts_of_an_empty_secret(way: Callable[[Secret], CredentialProvider]) -> None:
    """Anybody could guess it."""
    assert way(Secret("")).lasting_secret() is None


@pytest.mark.parametrize(
    "giver",
    [
        DiscoveredToken(),
        CommandToken(("false",)),
        AudienceToken("e30.e30.x", "cloud", "the token"),
        IssuedToken(
            issuer=IssuerSite(name="issuer", url="https://issuer.test"),
            grant="client_credentials",
            client_id="c",
            client_secret=Secret("x"),
        ),
    ],
    ids=lambda giver: type(giver).__name__,
)
def test_nothing_lasts_of_what_is_issued_and_nobody_is_asked(giver: TokenGiver) -> None:
    assert BearerProvider(giver).lasting_secret() is None


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_a_secret_in_a_file(way: Callable[[Secret], CredentialProvider], tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text("first-word\n")
    provider = way(Secret(file=path))

    def said() -> str:
        login = provider.login()
        return f"{login.client_id} {login.client_secret}"

    assert "first-word" in said()
    path.write_text("second-word\n")
    assert "second-word" in said()
    # Root's may be open to a group, as Kubernetes mounts secrets.
    path.chmod(0o644)
    for ask in (provider.login, provider.lasting_secret):
        with pytest.raises(errors.ConfigurationError, match="can be read by other users") as caught:
            ask()
        assert "word" not in str(caught.value)
    path.unlink()
    with pytest.raises(errors.ConfigurationError, match="cannot be read"):
        provider.login()


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_a_provider_is_a_key_and_shows_nothing(way: Callable[[Secret], CredentialProvider]) -> None:
    assert way(Secret("secret-word")) == way(Secret("secret-word"))
    assert hash(way(Secret("secret-word"))) == hash(way(Secret("secret-word")))
    assert way(Secret("secret-word")) != way(Secret("another"))
    made = way(Secret("secret-word"))
    assert "secret-word" not in f"{made!r} {made.login()!r} {made.login().who}"
