"""An entry with credentials as the way to log in that it means; which keys go with which type is a table here.

Where entries are looked for: :mod:`rucio_cs3.rse_credentials`. The ways: :mod:`rucio_cs3.cs3.login.providers`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.bearer_tokens import CommandToken, DiscoveredToken
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
from rucio_cs3.cs3.login.secret import Secret, expanded, refuse_open_file

#: Secrets; each may be given as a file instead, by the same key with ``_file`` behind it.
SECRETS = ("password", "token", "api_key", "secret", "link", "link_password", "client_secret", "subject_token")

#: What an entry may hold.
KEYS = (
    "type",
    "username",
    "users",
    "account_id",
    "token_command",
    "token_discovery",
    "issuer",
    "grant",
    "client_id",
    "refresh_token_file",
    "audience",
    "scope",
    "ca_bundle",
    *(key for secret in SECRETS for key in (secret, f"{secret}_file")),
)

#: What stands for the name of the Rucio account in the user name of a ``machine`` login.
ACCOUNT = "{account}"

#: Names that may be put there. A colon would make a claim of it, by which somebody else could be meant.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: Any of these makes an entry without a type one of type ``bearer``.
_BEARER_KEYS = ("token", "token_file", "token_command", "token_discovery", "issuer")


class Entry:
    """The values of one entry; other protocols' keys may stand beside ours, and are not looked at.

    :param account: gives the Rucio account that is worked for; asked only where the entry depends on it.
    """

    def __init__(self, values: Mapping[str, Any], account: Callable[[], str]) -> None:
        self._values = {key: _text(values[key]) for key in KEYS if values.get(key)}
        self.account = account

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: str = "") -> str:
        return self._values.get(key, default)

    def needed(self, key: str) -> str:
        """
        :raises ConfigurationError: when it is not there.
        """
        if key not in self._values:
            raise errors.ConfigurationError(f"{key} is missing")
        return self._values[key]

    def secret(self, key: str) -> Secret:
        """
        :raises ConfigurationError: when neither it nor its file is there, or both are.
        """
        secret = self.optional_secret(key)
        if secret is None:
            raise errors.ConfigurationError(f"give either {key} or {key}_file")
        return secret

    def optional_secret(self, key: str) -> Secret | None:
        value, file = self._values.get(key), self.path(f"{key}_file")
        if value is not None and file is not None:
            raise errors.ConfigurationError(f"give either {key} or {key}_file")
        return None if value is None and file is None else Secret(value=value, file=file)

    def has(self, secret: str) -> bool:
        return secret in self or f"{secret}_file" in self

    def path(self, key: str) -> Path | None:
        return expanded(self._values[key]) if key in self._values else None


def is_ours(values: Mapping[str, Any]) -> bool:
    """Whether an entry says anything; one that has only keys of other protocols does not."""
    return any(values.get(key) for key in KEYS)


def holds_secret(values: Mapping[str, Any]) -> bool:
    """Whether an entry has a secret as a value, and not only the name of a file that has it."""
    return any(values.get(key) for key in SECRETS)


def refuse_open(path: Path, status: os.stat_result, entry: Mapping[str, Any]) -> None:
    """Keep a file with credentials to its owner.

    :param status: of the file.
    :raises ConfigurationError: when others than its owner can change the entry, or read a secret in it.
    """
    # Other people's entries, and such as only name files, are theirs to read.
    if holds_secret(entry):
        refuse_open_file(path, status)
    if status.st_mode & 0o022:
        # An entry says where a secret is, and to which issuer it goes.
        raise errors.ConfigurationError(f"{path} can be changed by other users; run: chmod go-w {path}")


def provider(values: Mapping[str, Any], account: Callable[[], str]) -> CredentialProvider:
    """The way to log in that an entry means.

    :param account: gives the Rucio account that is worked for; asked only where the entry depends on it.
    :raises ConfigurationError: when it is incomplete or contradicts itself; never with a secret in its text.
    """
    entry = Entry(values, account)
    if "type" not in entry and entry.has("password") and any(key in entry for key in _BEARER_KEYS):
        raise errors.ConfigurationError("there are a password and a token; give one of both, or a type")
    kind = entry.get("type") or ("bearer" if any(key in entry for key in _BEARER_KEYS) else "basic")
    if kind not in _WAYS:
        raise errors.ConfigurationError(f"type must be one of {', '.join(sorted(_WAYS))}, not {kind!r}")
    return _WAYS[kind](entry)


def _machine(entry: Entry) -> MachineProvider:
    return MachineProvider(_acts_as(entry), entry.secret("api_key"))


def _acts_as(entry: Entry) -> str:
    """The cloud's user: of the account's own line in ``users``, else of ``username`` for all others.

    :raises ConfigurationError: when the account has none.
    """
    username = entry.get("username")
    if "users" in entry:
        try:
            users = json.loads(entry.get("users"))
        except (ValueError, RecursionError):
            users = None
        if not isinstance(users, Mapping) or not all(isinstance(user, str) and user for user in users.values()):
            raise errors.ConfigurationError("users must be a JSON object: Rucio account -> user of the cloud")
        account = entry.account()
        username = users.get(account, username)
        if not username:
            raise errors.ConfigurationError(
                f"Rucio account {account} has no user of the cloud; add it to users, or give a username for all others"
            )
    elif not username:
        raise errors.ConfigurationError("username is missing; give it, or users")
    if ACCOUNT not in username:
        return username
    account = entry.account()
    if not _PLAIN_NAME.fullmatch(account):
        raise errors.ConfigurationError(f"Rucio account {account!r} is no name of a user; add it to users")
    return username.replace(ACCOUNT, account)


def _bearer(entry: Entry) -> BearerProvider:
    ways: Mapping[str, Callable[[], TokenGiver]] = {
        "token": lambda: entry.secret("token"),
        "token_file": lambda: entry.secret("token"),
        "token_command": lambda: _command(entry.get("token_command")),
        "token_discovery": DiscoveredToken,
        "issuer": lambda: _issued(entry),
    }
    given = [key for key in _BEARER_KEYS if key in entry]
    if len(given) != 1:
        raise errors.ConfigurationError(f"give exactly one of {', '.join(_BEARER_KEYS)}")
    return BearerProvider(ways[given[0]]())


def _command(text: str) -> CommandToken:
    try:
        words = json.loads(text) if text.startswith("[") else shlex.split(text)
    except (ValueError, RecursionError):
        words = []
    if not words or not all(isinstance(word, str) for word in words):
        raise errors.ConfigurationError("token_command is no command")
    return CommandToken(tuple(words))


def _issued(entry: Entry) -> TokenGiver:
    # Here, because its HTTP and TLS would be half of what this plugin adds to the start of every `rucio` command.
    from rucio_cs3.cs3.login.oauth import Grant, IssuedToken, IssuerSite

    grant = entry.get("grant", "client_credentials")
    if grant not in get_args(Grant):
        raise errors.ConfigurationError(f"grant must be one of {', '.join(get_args(Grant))}, not {grant!r}")
    return IssuedToken(
        issuer=IssuerSite(name="issuer", url=entry.needed("issuer"), ca_bundle=entry.path("ca_bundle")),
        grant=cast(Grant, grant),
        client_id=entry.needed("client_id"),
        client_secret=entry.optional_secret("client_secret"),
        refresh_token=entry.path("refresh_token_file"),
        subject=entry.optional_secret("subject_token"),
        audience=entry.get("audience"),
        scope=entry.get("scope"),
    )


def _text(value: Any) -> str:
    # JSON has lists (a command), objects (users), numbers and booleans, too.
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


_WAYS: Mapping[str, Callable[[Entry], CredentialProvider]] = {
    "basic": lambda entry: BasicProvider(entry.needed("username"), entry.secret("password")),
    "appauth": lambda entry: AppPasswordProvider(entry.needed("username"), entry.secret("password")),
    "machine": _machine,
    "serviceaccounts": lambda entry: ServiceAccountProvider(entry.needed("account_id"), entry.secret("secret")),
    "publicshares": lambda entry: PublicLinkProvider(entry.secret("link"), entry.optional_secret("link_password")),
    "bearer": _bearer,
}
