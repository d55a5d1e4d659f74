"""Tokens that an OAuth2 issuer is asked for, by client credentials, refresh token or token exchange.

RFC 6749 (4.4, 6), RFC 8693 (2.1), discovery by OpenID Connect Discovery 1.0. The issuer sees the client's own secrets;
what it gives goes to one cloud. Who logs in with it: :class:`rucio_cs3.cs3.login.providers.BearerProvider`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

from rucio_cs3.cs3 import errors, retry
from rucio_cs3.cs3.config import Site, Timeouts
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.local_files import sync_folder
from rucio_cs3.cs3.login.bearer_tokens import checked
from rucio_cs3.cs3.login.providers import TokenGiver
from rucio_cs3.cs3.login.secret import Secret, read_secret_file

T = TypeVar("T")

#: By what the issuer gives a token.
Grant = Literal["client_credentials", "refresh_token", "token_exchange"]

#: Longest answer of an issuer that is read, in bytes.
_ANSWER_MAX_BYTES = 256 * 1024

#: How long another process may use the same refresh token, in seconds: longer than an issuer takes to answer.
_LOCK_S = 120.0
#: How often it is looked whether it still does, in seconds.
_LOCK_POLL_S = 0.05

#: Longest silence of an issuer, in seconds: it has no disk to write a file to.
_IDLE_S = 20.0

#: What is reserved for a new refresh token, in bytes.
_ROOM_BYTES = 16 * 1024

#: A folder that refuses with one of these belongs to somebody else, who renews the token.
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

#: What an issuer calls a refusal, such as ``invalid_grant`` (RFC 6749, 5.2); other words are not told.
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")

_RETRY = retry.RetryPolicy()

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_EXCHANGED_TYPE = "urn:ietf:params:oauth:token-type:access_token"


@dataclass(frozen=True, kw_only=True)
class IssuerSite(Site):
    """An issuer of tokens.

    :param url: ``issuer`` of its tokens; its metadata is at ``<url>/.well-known/openid-configuration``.
    :raises ConfigurationError: when it is no URL, or would get secrets without TLS.
    """

    url: str
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(idle_s=_IDLE_S))

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.url)
        except ValueError:
            raise errors.ConfigurationError(f"{self.name}: the issuer's URL is none") from None
        if "@" in (parts.netloc or self.url) or parts.query:
            # Messages name it.
            raise errors.ConfigurationError(f"{self.name}: the issuer's URL has a user or a query; leave them out")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.ConfigurationError(f"{self.name}: issuer {self.url!r} is no http(s) URL")
        if parts.scheme == "http":
            self.refuse_plaintext(f"issuer {self.url}", parts.hostname)

    @property
    def own_hosts(self) -> frozenset[str]:
        return frozenset({urlsplit(self.url).hostname or ""})

    def check_endpoint(self, url: str) -> str:
        """Return the URL of an endpoint that the issuer's own metadata name, if secrets may be sent there.

        It may be at any host, as Google's is (OpenID Connect Discovery 1.0, 4.2): what is sent there is the issuer's
        anyway, and its metadata came over TLS. At another host it has to be https.

        :raises ProtocolViolation: for another scheme than https (http at the issuer's own host, where that is allowed),
            or a host where nothing is ever sent.
        """
        host, _ = self._place(url, "issuer's metadata")
        if host not in self.own_hosts and urlsplit(url).scheme != "https":
            raise errors.ProtocolViolation(f"{self.name}: the issuer's metadata send secrets without TLS to {host}")
        return url


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
            endpoint = self._patiently(lambda: self._token_endpoint(http))
            if self.refresh_token is None or self.grant != "refresh_token":
                return _token(self._patiently(lambda: self._ask(http, endpoint, self._form())), self.issuer)
            with _kept(self.refresh_token) as path:
                form = {"grant_type": "refresh_token", "refresh_token": read_secret_file(path)}
                with _replacement(path) as file:
                    # Once: it may be worth nothing any more when no answer comes.
                    answer = self._ask(http, endpoint, form)
                    renewed = answer.get("refresh_token")
                    if isinstance(renewed, str) and renewed:
                        _replace(path, file, checked(renewed, f"the refresh token of {self.issuer.url}"))
            return _token(answer, self.issuer)

    def _patiently(self, ask: Callable[[], T]) -> T:
        return retry.call(lambda _: ask(), _RETRY, deadline_s=self.issuer.timeouts.operation_s)

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
        return self.issuer.check_endpoint(endpoint)

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
    target = url.partition("?")[0]
    with http.request(method, url, headers=headers, body=body, target=target) as answer:
        content = _object(answer.read(_ANSWER_MAX_BYTES))
        if answer.status_code == 200 and content is not None:
            return content
        status = answer.status_code
    if status in (400, 401) and content is not None:
        # The description is free text, in which an issuer may repeat what it was sent.
        why = str(content.get("error", ""))
        raise errors.Unauthenticated(
            f"the issuer gives no token ({why if _ERROR_CODE.fullmatch(why) else status}); "
            "check client, grant, audience and scope",
            operation=method,
            target=target,
            code=f"HTTP {status}",
        )
    if status == 200:
        raise errors.ProtocolViolation("the issuer's answer is no JSON object", operation=method, target=target)
    kind = errors.for_http_status(status)
    # Never NotFound: callers would take it for an answer about a file.
    raise (errors.Unavailable if kind is errors.NotFound else kind)(
        f"the issuer answered {status}", operation=method, target=target, code=f"HTTP {status}"
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
    """A file with a refresh token, to one thread of one process at a time: two that use one token at once lose it where
    it is renewed with each use.

    :raises Unavailable: when another one has had it for two minutes.
    :raises ConfigurationError: when it cannot be locked, unless its folder is not ours.
    """
    # The file itself, where a link leads to it: the link is to stay.
    path = path.resolve()
    try:
        # Beside it, because the file itself is replaced.
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in _NOT_OURS:
            raise _unlocked(path, exc) from exc
        yield path
        return
    try:
        _wait_for(lock, path)
        yield path
    finally:
        # A child that was forked meanwhile has it open, too, and would keep it.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _unlocked(path: Path, exc: OSError) -> errors.ConfigurationError:
    return errors.ConfigurationError(f"the refresh token in {path} cannot be locked, so it is not used: {exc.strerror}")


def _wait_for(lock: int, path: Path) -> None:
    end = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise errors.Unavailable(
                    f"another process has used the refresh token in {path} for over {_LOCK_S:.0f} s"
                ) from None
            time.sleep(_LOCK_POLL_S)
        except OSError as exc:  # no locks on this file system, say
            raise _unlocked(path, exc) from exc
        else:
            return


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[IO[str] | None]:
    """An empty file with room for a new token, beside the old one; it is gone afterwards, unless it has replaced that.

    Made before the issuer is asked: afterwards the old token may be worth nothing. None where the folder is not ours.

    :raises ConfigurationError: when there is no room.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Made with mode 0600.
            file = stack.enter_context(
                tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".refresh.", delete=False)
            )
            # A secret, soon, under a name that nobody looks for.
            stack.callback(Path(file.name).unlink, missing_ok=True)
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
            owner = path.stat()
            if owner.st_uid != os.geteuid():
                # Root's; whoever else gets here cannot, and need not.
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        except OSError as exc:
            if exc.errno not in _NOT_OURS:
                raise errors.ConfigurationError(
                    f"{path} could not be replaced by a new refresh token, so it is not used: {exc.strerror}"
                ) from exc
            file = None
        yield file


def _replace(path: Path, file: IO[str] | None, secret: str) -> None:
    """Replace the secret; at any moment the file has the old one or the new one, also after a crash.

    :param file: of :func:`_replacement`.
    :raises ConfigurationError: when the file cannot be replaced; the new token is lost then.
    """
    try:
        if file is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        file.write(f"{secret}\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as exc:
        raise errors.ConfigurationError(
            f"the issuer gave a new refresh token, but {path} cannot be written: {exc.strerror}"
        ) from exc
    # Otherwise the old token, worth nothing by then, may be back after a power failure.
    sync_folder(path.parent)
