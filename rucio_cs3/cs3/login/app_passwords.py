"""App passwords: a password of its own for each robot, made, listed and revoked by the user it acts for.

CS3APIs: cs3/auth/applications/v1beta1. A robot logs in with one by
:class:`rucio_cs3.cs3.login.providers.AppPasswordProvider`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from cs3.auth.applications.v1beta1 import applications_api_pb2
from cs3.auth.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3.gateway import Gateway


@dataclass(frozen=True, kw_only=True)
class AppPassword:
    """One app password; the password itself is not among what a server tells later.

    :param id: names it for :meth:`AppPasswords.revoke`: the server's hash of it. No secret, but nobody's business.
    :param label: what it is for, in its maker's words.
    :param made_at: in seconds since the epoch; 0 where the server does not say.
    :param used_at: when somebody last logged in with it, likewise.
    :param ends_at: when it ends, likewise; None where it does not.
    """

    id: str = field(repr=False)
    label: str
    made_at: int
    used_at: int
    ends_at: int | None


class AppPasswords:
    """The app passwords of one identity at one endpoint."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def make(self, label: str, *, ends_at: int | None = None) -> str:
        """Make one that may do what its user may: neither line of servers keeps to a narrower scope (Reva v3.12.1
        lets one with the role of a viewer write), and without any a token can do nothing.

        :param label: what it is for; listings show it.
        :param ends_at: in seconds since the epoch; None is never.
        :returns: the password, which is shown this once.
        """
        everything = types_pb2.OpaqueEntry(decoder="json", value=json.dumps({"path": "/"}).encode())
        request = applications_api_pb2.GenerateAppPasswordRequest(
            label=label,
            token_scope={"user": resources_pb2.Scope(resource=everything, role=resources_pb2.ROLE_OWNER)},
        )
        if ends_at is not None:
            request.expiration.seconds = ends_at
        response = self._gateway.ask("GenerateAppPassword", request, label)
        return str(response.app_password.password)

    def list(self) -> list[AppPassword]:
        """All of the user's, the oldest first."""
        request = applications_api_pb2.ListAppPasswordsRequest()
        response = self._gateway.ask("ListAppPasswords", request, "app passwords", idempotent=True)
        found = [
            AppPassword(
                id=one.password,
                label=one.label,
                made_at=one.ctime.seconds,
                used_at=one.utime.seconds,
                ends_at=one.expiration.seconds or None,
            )
            for one in response.app_passwords
        ]
        return sorted(found, key=lambda one: (one.made_at, one.label))

    def revoke(self, password: AppPassword) -> None:
        """Let nobody log in with it any more. Access tokens that were got with it live on until their end.

        :raises ServerFault: when it is gone already (Reva v3.12.1, OpenCloud).
        """
        request = applications_api_pb2.InvalidateAppPasswordRequest(password=password.id)
        self._gateway.ask("InvalidateAppPassword", request, password.label)
