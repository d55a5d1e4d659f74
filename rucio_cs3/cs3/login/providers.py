"""How to log in at a cloud: one small object for each type of ``Authenticate`` that CS3 gateways know.

They say what an AuthenticateRequest carries, each time anew, and know no channel: :mod:`rucio_cs3.cs3.gateway` sends
it, and :mod:`rucio_cs3.cs3.login.tokens` keeps what comes of it. Where bearer tokens come from:
:mod:`rucio_cs3.cs3.login.bearer_tokens` and :mod:`rucio_cs3.cs3.login.oauth`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rucio_cs3.cs3.confidential import Confidential
from rucio_cs3.cs3.login.secret import Secret

#: The type of logins by public link.
PUBLIC_LINK = "publicshares"


@dataclass(frozen=True, slots=True)
class Login(Confidential):
    """What an AuthenticateRequest carries (cs3/gateway/v1beta1/gateway_api.proto)."""

    type: str
    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)

    @property
    def who(self) -> str:
        """What messages call whoever logs in; free of secrets."""
        # The client id of a public link is what opens it.
        named = {"bearer": "the token", PUBLIC_LINK: "the public link"}.get(self.type, self.client_id)
        return f"{named} ({self.type})"


class CredentialProvider(Protocol):
    """Says how to log in, each time anew. Providers are hashable: they are keys of the process's pool."""

    def login(self) -> Login:
        """
        :raises ConfigurationError: when the secret cannot be had.
        :raises CS3Error: when somebody who has to be asked for it does not answer, or refuses.
        """
        ...  # pragma: no cover

    def lasting_secret(self) -> str | None:
        """What only this identity knows, the same in other processes and after days; nobody is asked for it but a
        file. None where there is none: what a login issues or rotates is none.

        :raises ConfigurationError: when the secret cannot be had.
        """
        ...  # pragma: no cover


class TokenGiver(Protocol):
    """Gives a token of an identity provider, each time a living one: a :class:`~rucio_cs3.cs3.login.secret.Secret`, and
    the classes of :mod:`rucio_cs3.cs3.login.bearer_tokens` and :mod:`rucio_cs3.cs3.login.oauth`. Hashable.
    """

    def get(self) -> str:
        """
        :raises CS3Error: when there is none to be had.
        """
        ...  # pragma: no cover


@dataclass(frozen=True)
class BasicProvider:
    """User name and password (type ``basic``)."""

    username: str
    password: Secret

    def login(self) -> Login:
        return Login("basic", self.username, self.password.get())

    def lasting_secret(self) -> str | None:
        return _lasting("basic", self.username, self.password)


@dataclass(frozen=True)
class AppPasswordProvider:
    """User name and app password (type ``appauth``): a password of its own for a robot, which its user can revoke.

    :param username: the name, not the id: both lines look for that alone (Reva v3.12.1 pkg/auth/manager/appauth;
        OpenCloud: NOT_FOUND for an id).
    """

    username: str
    password: Secret

    def login(self) -> Login:
        return Login("appauth", self.username, self.password.get())

    def lasting_secret(self) -> str | None:
        return _lasting("appauth", self.username, self.password)


@dataclass(frozen=True)
class MachineProvider:
    """The cloud's machine key, by which the cloud's own services act as any user (type ``machine``).

    :param user: whom to act as: a user name, or ``<claim>:<value>`` with claim username, mail, userid, uid or gid
        (Reva v3.12.1 pkg/auth/manager/machine; OpenCloud takes username, mail and userid, which was seen).
    """

    user: str
    api_key: Secret

    def login(self) -> Login:
        return Login("machine", self.user, self.api_key.get())

    def lasting_secret(self) -> str | None:
        return _lasting("machine", self.user, self.api_key)


@dataclass(frozen=True)
class ServiceAccountProvider:
    """A service account of ownCloud Infinite Scale or OpenCloud (type ``serviceaccounts``); Reva v3 has none."""

    account_id: str
    secret: Secret

    def login(self) -> Login:
        return Login("serviceaccounts", self.account_id, self.secret.get())

    def lasting_secret(self) -> str | None:
        return _lasting("serviceaccounts", self.account_id, self.secret)


@dataclass(frozen=True)
class PublicLinkProvider:
    """A public link, by which somebody shows one folder or file to everybody who knows it (type ``publicshares``).

    :param link: the token at the end of the link's URL. Whoever has it is let in, so it is a secret.
    :param password: of the link; None where it has none.
    """

    link: Secret
    password: Secret | None = None

    def login(self) -> Login:
        # The prefix says which kind of proof follows (Reva v3.12.1 pkg/auth/manager/publicshares).
        proof = "" if self.password is None else f"password|{self.password.get()}"
        return Login(PUBLIC_LINK, self.link.get(), proof)

    def lasting_secret(self) -> str | None:
        return _lasting(PUBLIC_LINK, "", self.link)


@dataclass(frozen=True)
class BearerProvider:
    """An OIDC token that the cloud's identity provider issued (type ``bearer``).

    The cloud reads the user from the token, so the client id stays empty (Reva v3.12.1 pkg/auth/manager/oidc).
    """

    token: TokenGiver

    def login(self) -> Login:
        return Login("bearer", "", self.token.get())

    def lasting_secret(self) -> str | None:
        # A token in a file or a setting lasts as long as its owner leaves it there; one that somebody issues does not.
        return _lasting("bearer", "", self.token) if isinstance(self.token, Secret) else None


def _lasting(kind: str, who: str, secret: Secret) -> str | None:
    value = secret.get()
    return "\0".join((kind, who, value)) if value else None
