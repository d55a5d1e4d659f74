"""Tokens that an OAuth2 issuer is asked for, by client credentials, refresh token or token exchange.

RFC 6749 (4.4, 6), RFC 8693 (2.1), discovery by OpenID Connect Discovery 1.0. The issuer sees the client's own secrets;
what it gives goes to one cloud. Who logs in with it: :class:`rucio_cs3.cs3.login.providers.BearerProvider`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Site
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.bearer_tokens import checked
from rucio_cs3.cs3.login.providers import TokenGiver
from rucio_cs3.cs3.login.secret import Secret, read_secret_file

#: By what the issuer gives a token.
Grant = Literal["client_credentials", "refresh_token", "token_exchange"]

#: Longest answer of an issuer that is read, in bytes.
_ANSWER_MAX_BYTES = 256 * 1024

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_EXCHANGED_TYPE = "urn:ietf:params:oauth:token-type:access_token"


@dataclass(frozen=True, kw_only=True)
class IssuerSite(Site):
    """An issuer of tokens.

    :param url: ``issuer`` of its tokens; its metadata is at ``<url>/.well-known/openid-configuration``.
    :raises ConfigurationError: when it is no URL, or would get secrets without TLS.
    """

    url: str

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.ConfigurationError(f"{self.name}: issuer {self.url!r} is no http(s) URL")
        if parts.scheme == "http":
            self._refuse_plaintext(f"issuer {self.url}", parts.hostname)

    @property
    def own_hosts(self) -> frozenset[str]:
        return frozenset({urlsplit(self.url).hostname or ""})


@dataclass(frozen=True, kw_only=True)
class IssuedToken:
    """Asks an issuer for a token each time; :class:`~rucio_cs3.cs3.login.tokens.TokenSource` sees to it that this is
    rare.

    :param grant: ``client_credentials`` for a service of its own; ``refresh_token`` for a person who once logged in;
        ``token_exchange`` for a token that stands in for ``subject``'s.
    :param client_secret: None for a public client.
    :param refresh_token: file with the refresh token. Where the issuer gives a new one with each token, it is written
        back: the old one is worth nothing then.
    :param subject: gives the token to exchange.
    :param audience: for whom the token is; empty leaves it to the issuer.
    :param scope: what it is to allow, separated by spaces; empty leaves it to the issuer.
    """

    issuer: IssuerSite
    grant: Grant
    client_id: str
    client_secret: Secret | None = None
    refresh_token: Path | None = None
    subject: TokenGiver | None = None
    audience: str = ""
    scope: str = ""

    def __post_init__(self) -> None:
        needed = {"client_credentials": self.client_secret, "refresh_token": self.refresh_token}
        if needed.get(self.grant, self.subject) is None:
            what = {"client_credentials": "client_secret", "refresh_token": "refresh_token_file"}
            raise errors.ConfigurationError(f"grant {self.grant} needs {what.get(self.grant, 'a token to exchange')}")

    def get(self) -> str:
        """
        :raises Unauthenticated: when the issuer refuses; with its own words.
        :raises ConfigurationError: when a secret cannot be had.
        :raises CS3Error: when the issuer cannot be reached, or answers nonsense.
        """
        with contextlib.closing(HTTPClient(self.issuer)) as http:
            endpoint = self._token_endpoint(http)
            if self.refresh_token is None or self.grant != "refresh_token":
                return _token(self._ask(http, endpoint, self._form()), self.issuer)
            with _kept(self.refresh_token) as path:
                form = {"grant_type": "refresh_token", "refresh_token": read_secret_file(path)}
                answer = self._ask(http, endpoint, form)
                renewed = answer.get("refresh_token")
                if isinstance(renewed, str) and renewed:
                    _replace(path, checked(renewed, f"the refresh token of {self.issuer.url}"))
            return _token(answer, self.issuer)

    def _form(self) -> dict[str, str]:
        if self.grant == "client_credentials" or self.subject is None:
            return {"grant_type": "client_credentials"}
        return {"grant_type": _EXCHANGE, "subject_token": self.subject.get(), "subject_token_type": _EXCHANGED_TYPE}

    def _token_endpoint(self, http: HTTPClient) -> str:
        where = f"{self.issuer.url.rstrip('/')}/.well-known/openid-configuration"
        metadata = _json(http, "GET", where, {}, None)
        endpoint = metadata.get("token_endpoint")
        # OpenID Connect Discovery 1.0, 4.3: another issuer's metadata must not be believed.
        if str(metadata.get("issuer", "")).rstrip("/") != self.issuer.url.rstrip("/") or not isinstance(endpoint, str):
            raise errors.ProtocolViolation(f"{where} is not the metadata of this issuer", target=self.issuer.url)
        return self.issuer.check_data_url(endpoint)

    def _ask(self, http: HTTPClient, endpoint: str, form: dict[str, str]) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        form |= {name: value for name, value in (("audience", self.audience), ("scope", self.scope)) if value}
        if self.client_secret is None:
            form["client_id"] = self.client_id
        else:
            # RFC 6749, 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.get())}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return _json(http, "POST", endpoint, headers, urlencode(form).encode())


def _json(http: HTTPClient, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Mapping[str, Any]:
    """The JSON object that an issuer answers.

    :raises Unauthenticated: for the errors of RFC 6749, 5.2 (400 and 401).
    """
    with http.request(method, url, headers=headers, body=body, target=url) as answer:
        content = _object(answer.read(_ANSWER_MAX_BYTES))
        if answer.status_code == 200 and content is not None:
            return content
        status = answer.status_code
    if status in (400, 401) and content is not None:
        # The description is free text, in which an issuer may repeat what it was sent.
        raise errors.Unauthenticated(
            f"the issuer gives no token ({str(content.get('error', status))[:100]}); "
            "check client, grant, audience and scope",
            operation=method,
            target=url,
            code=f"HTTP {status}",
        )
    if status == 200:
        raise errors.ProtocolViolation("the issuer's answer is no JSON object", operation=method, target=url)
    raise errors.for_http_status(status)(
        f"the issuer answered {status}", operation=method, target=url, code=f"HTTP {status}"
    )


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, Mapping) else None


def _token(answer: Mapping[str, Any], issuer: IssuerSite) -> str:
    token, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
    if not isinstance(token, str) or str(kind).lower() != "bearer":
        raise errors.ProtocolViolation("the issuer's answer has no bearer token", target=issuer.url)
    return checked(token, f"the token of {issuer.url}")


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[Path]:
    """A file with a refresh token, to one process at a time: two that use one token at once lose it where it is renewed
    with each use.
    """
    # Beside it, because the file itself is replaced. A folder that cannot be written to belongs to somebody else, who
    # renews the token.
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield path
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(lock)


def _replace(path: Path, secret: str) -> None:
    """
    :raises ConfigurationError: when the file cannot be replaced; the new token is lost then.
    """
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".refresh.", delete=False) as file:
            # Made with mode 0600.
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as exc:
        raise errors.ConfigurationError(
            f"the issuer gave a new refresh token, but {path} cannot be written: {exc.strerror}"
        ) from exc
