"""Secrets that only come into being during a run, taken from the servers' side as they are made."""

from __future__ import annotations

from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import rpc
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.logins import Logins
from rucio_cs3.sandbox.cloud.tokens import TokenMint
from rucio_cs3.sandbox.issuer import Issuer
from tests.contract import faulty_reva, http_relay
from tests.leaks.known import Known

#: Of an error answer's body this client reads the first 500 bytes; each header gets a part of them.
_REPEATED_CHARACTERS = 120
_FIRST = ("Authorization", "X-Reva-Transfer", "X-Access-Token", "TransferHeaderAuthorization")


def harvest(known: Known, patch: pytest.MonkeyPatch) -> None:
    """Have all servers of this process tell ``known`` what they give: access and transfer tokens, tickets' URLs, app
    passwords, and an issuer's tokens.
    """
    issue_token, generate = TokenMint._issue, Logins.generate
    access, refresh, lead = Issuer.access_token, Issuer.refresh_token, rpc.lead

    def issued(self: TokenMint, *arguments: Any) -> str:
        token = issue_token(self, *arguments)
        known.add("a token of an embedded cloud", token)
        return token

    def generated(self: Logins, *arguments: Any) -> Any:
        response = generate(self, *arguments)
        known.add("an app password", response.app_password.password)
        return response

    def accessed(self: Issuer, *arguments: Any, **options: Any) -> str:
        token = access(self, *arguments, **options)
        known.add("a token of an issuer", token)
        return token

    def refreshed(self: Issuer, subject: str) -> str:
        token = refresh(self, subject)
        known.add("a refresh token", token)
        return token

    def led(response: Any, address: str) -> None:
        # Each answer of a real Reva's gateway passes here.
        if getattr(response, "token", ""):
            known.add("an access token of Reva", response.token)
        if hasattr(response, "app_password"):
            known.add("an app password", response.app_password.password)
        for offer in getattr(response, "protocols", ()):
            if offer.token:
                known.add("a transfer token of Reva", offer.token)
        lead(response, address)

    patch.setattr(TokenMint, "_issue", issued)
    patch.setattr(Logins, "generate", generated)
    patch.setattr(Issuer, "access_token", accessed)
    patch.setattr(Issuer, "refresh_token", refreshed)
    patch.setattr(faulty_reva, "lead", led)


def make_servers_repeat(patch: pytest.MonkeyPatch) -> None:
    """Have embedded clouds, and the relays before a real Reva, repeat the request in the body of each error answer."""
    answer = Exchange.answer

    def answered(self: Exchange, status: int, headers: Any = None, body: bytes = b"") -> None:
        answer(self, status, headers, _repeated(self).encode() if status >= 400 else body)

    def said(self: Any, status: int, headers: dict[str, str], *, last: bool = False) -> None:
        body = _repeated(self).encode()
        self.send_response(status)
        for name, value in {**headers, **({"Connection": "close"} if last else {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.passed.status = status

    patch.setattr(Exchange, "answer", answered)
    patch.setattr(http_relay._Exchange, "_say", said)


def _repeated(exchange: Any) -> str:
    headers = [f"{name}: {exchange.headers[name][:_REPEATED_CHARACTERS]}" for name in _FIRST if exchange.headers[name]]
    return f"refused; {'; '.join(headers)}; {exchange.command} {exchange.path}"
