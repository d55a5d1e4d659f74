"""Entries with credentials: which way to log in each means, and what is wrong with those that mean none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3 import rse_logins
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.bearer_tokens import CommandToken, DiscoveredToken
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import (
    AppPasswordProvider,
    BasicProvider,
    BearerProvider,
    CredentialProvider,
    Login,
    MachineProvider,
    PublicLinkProvider,
    ServiceAccountProvider,
)
from rucio_cs3.cs3.login.secret import Secret

WORD = "secret-word"
ISSUER = "https://issuer.test/"


def nobody() -> str:
    raise AssertionError("these entries do not depend on the Rucio account")


@pytest.mark.parametrize(
    ("entry", "provider", "login"),
    [
        ({"username": "a", "password": WORD}, BasicProvider("a", Secret(WORD)), Login("basic", "a", WORD)),
        (
            {"type": "appauth", "username": "a", "password": WORD},
            AppPasswordProvider("a", Secret(WORD)),
            Login("appauth", "a", WORD),
        ),
        (
            {"type": "machine", "username": "userid:7", "api_key": WORD},
            MachineProvider("userid:7", Secret(WORD)),
            Login("machine", "userid:7", WORD),
        ),
        (
            {"type": "serviceaccounts", "account_id": "b", "secret": WORD},
            ServiceAccountProvider("b", Secret(WORD)),
            Login("serviceaccounts", "b", WORD),
        ),
        (
            {"type": "publicshares", "link": WORD},
            PublicLinkProvider(Secret(WORD)),
            Login("publicshares", WORD, ""),
        ),
        (
            {"type": "publicshares", "link": WORD, "link_password": "another"},
            PublicLinkProvider(Secret(WORD), Secret("another")),
            Login("publicshares", WORD, "password|another"),
        ),
        ({"token": WORD}, BearerProvider(Secret(WORD)), Login("bearer", "", WORD)),
    ],
)
def test_each_type(entry: Mapping[str, Any], provider: CredentialProvider, login: Login) -> None:
    made = rse_logins.provider(entry, nobody)
    assert (made, made.login()) == (provider, login)
    hash(made)
    assert WORD not in f"{made!r} {made.login()!r} {login.who}"


def test_where_bearer_tokens_come_from() -> None:
    for entry, giver in (
        ({"token_discovery": True}, DiscoveredToken()),
        ({"token_command": "oidc-token 'my account'"}, CommandToken(("oidc-token", "my account"))),
        ({"token_command": ["oidc-token", "x y"]}, CommandToken(("oidc-token", "x y"))),
        (
            {"issuer": ISSUER, "client_id": "c", "client_secret": WORD, "audience": "cloud", "scope": "storage.read:/"},
            IssuedToken(
                issuer=IssuerSite(name="issuer", url=ISSUER),
                grant="client_credentials",
                client_id="c",
                client_secret=Secret(WORD),
                audience="cloud",
                scope="storage.read:/",
            ),
        ),
        (
            {"issuer": ISSUER, "client_id": "c", "grant": "refresh_token", "refresh_token_file": "/x/y"},
            IssuedToken(
                issuer=IssuerSite(name="issuer", url=ISSUER),
                grant="refresh_token",
                client_id="c",
                refresh_token=Path("/x/y"),
            ),
        ),
        (
            {"issuer": ISSUER, "client_id": "c", "grant": "token_exchange", "subject_token_file": "/x/y"},
            IssuedToken(
                issuer=IssuerSite(name="issuer", url=ISSUER),
                grant="token_exchange",
                client_id="c",
                subject=Secret(file=Path("/x/y")),
            ),
        ),
    ):
        made = rse_logins.provider(entry, nobody)
        assert made == BearerProvider(giver)
        hash(made)
        assert WORD not in repr(made)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "username is missing"),
        ({"type": "oauth"}, "type must be one of appauth, basic, bearer, machine, publicshares, serviceaccounts"),
        ({"username": "a"}, "give either password or password_file"),
        ({"username": "a", "password": WORD, "password_file": "/x"}, "give either password or password_file"),
        ({"type": "machine", "username": "a"}, "give either api_key or api_key_file"),
        ({"type": "machine", "api_key": WORD}, "username is missing; give it, or users"),
        ({"type": "machine", "users": {}, "api_key": WORD}, "username is missing; give it, or users"),
        ({"type": "machine", "users": ["a"], "api_key": WORD}, "users must be a JSON object"),
        ({"type": "machine", "users": "a=b", "api_key": WORD}, "users must be a JSON object"),
        ({"type": "machine", "users": {"a": 7}, "api_key": WORD}, "users must be a JSON object"),
        ({"type": "appauth", "password": WORD}, "username is missing"),
        ({"type": "serviceaccounts", "secret": WORD}, "account_id is missing"),
        ({"type": "publicshares"}, "give either link or link_file"),
        ({"type": "bearer"}, "exactly one of token, token_file, token_command, token_discovery, issuer"),
        ({"token": WORD, "issuer": ISSUER}, "exactly one of"),
        ({"token_command": "a 'b"}, "token_command is no command"),
        ({"token_command": [1]}, "token_command is no command"),
        ({"issuer": ISSUER}, "client_id is missing"),
        ({"issuer": ISSUER, "client_id": "c"}, "grant client_credentials needs client_secret"),
        ({"issuer": ISSUER, "client_id": "c", "grant": "refresh_token"}, "needs refresh_token_file"),
        ({"issuer": ISSUER, "client_id": "c", "grant": "token_exchange"}, "needs a token to exchange"),
        ({"issuer": ISSUER, "client_id": "c", "grant": "password"}, "grant must be one of client_credentials"),
        ({"issuer": "http://issuer.test", "client_id": "c", "client_secret": WORD}, "without TLS"),
        ({"issuer": "issuer.test", "client_id": "c", "client_secret": WORD}, "is no http"),
    ],
)
def test_what_means_nothing(entry: Mapping[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        rse_logins.provider(entry, nobody)
    assert WORD not in str(caught.value)


def test_keys_of_other_protocols_are_not_looked_at() -> None:
    entry = {"username": "a", "password": WORD, "access_key": "s3", "signature_version": 4}
    assert rse_logins.provider(entry, nobody) == BasicProvider("a", Secret(WORD))


@pytest.mark.parametrize(
    ("account", "entry", "user"),
    [
        ("jdoe", {"users": {"jdoe": "john", "root": "rucio"}}, "john"),
        ("root", {"users": {"jdoe": "john", "root": "rucio"}}, "rucio"),
        ("marie", {"users": {"jdoe": "john"}, "username": "guest"}, "guest"),
        ("jdoe", {"users": {"jdoe": "john"}, "username": "guest"}, "john"),
        # As the environment gives it.
        ("jdoe", {"users": '{"jdoe": "mail:john@cloud.test"}'}, "mail:john@cloud.test"),
        ("jdoe", {"username": "{account}"}, "jdoe"),
        ("j.doe-2", {"username": "mail:{account}@cloud.test"}, "mail:j.doe-2@cloud.test"),
        ("jdoe", {"users": {"root": "rucio"}, "username": "{account}"}, "jdoe"),
        ("root", {"users": {"root": "rucio"}, "username": "{account}"}, "rucio"),
    ],
)
def test_as_whom_a_machine_acts(account: str, entry: Mapping[str, Any], user: str) -> None:
    made = rse_logins.provider({"type": "machine", "api_key": WORD, **entry}, lambda: account)
    assert made == MachineProvider(user, Secret(WORD))


@pytest.mark.parametrize(
    ("account", "entry", "message"),
    [
        ("marie", {"users": {"jdoe": "john"}}, "Rucio account marie has no user of the cloud; add it to users"),
        # Its value would be a claim, and so might mean anybody.
        ("uid:0", {"username": "{account}"}, "'uid:0' is no name of a user"),
        ("a b", {"username": "{account}"}, "'a b' is no name of a user"),
        ("", {"username": "{account}"}, "'' is no name of a user"),
    ],
)
def test_an_account_that_nobody_at_the_cloud_stands_for(account: str, entry: Mapping[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        rse_logins.provider({"type": "machine", "api_key": WORD, **entry}, lambda: account)
    assert WORD not in str(caught.value)
