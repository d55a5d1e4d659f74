"""Which token of a plain site is used for what: our own requests, and what the other side of a copy gets to see.

The other side gets the narrowest that the site gives: a macaroon for one file, for what is to be done with it, and for
some hours (dCache, StoRM; XRootD for some logins). Where a site gives none, it gets the token that our own requests
carry, for without one a site cannot fetch or store anything; a password it never gets. Knows no Rucio.
"""

from __future__ import annotations

import base64
import enum
import json
import re
import time

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import WebDAVSite, is_loopback
from rucio_cs3.cs3.http.client import http_error
from rucio_cs3.cs3.login.authentication import LastRefusal
from rucio_cs3.cs3.login.bearer_tokens import CommandToken
from rucio_cs3.cs3.login.oauth import IssuedToken
from rucio_cs3.cs3.login.providers import BearerProvider, CredentialProvider, Login, TokenGiver
from rucio_cs3.cs3.login.tokens import LENT_LIFE_S, Credential, TokenSource, credential_of_unknown_age
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from rucio_cs3.transfers.ends import NothingToLend

#: How long a macaroon lives: as long as a copy may wait in a site's queue before it begins, for the token is looked at
#: only then. Sites give less where they allow less (ISO 8601; XRootD 5.5.3 knows hours, minutes and seconds).
VALIDITY = "PT3H"

#: What the bearer may do with the one file. Folders are made by us before, so MANAGE is not among them, and a file is
#: deleted by us alone.
_READ, _WRITE = ("DOWNLOAD", "LIST"), ("UPLOAD", "LIST")

#: How long a site is believed that it gives none, in seconds.
_REFUSAL_S = 3600.0

#: Answers of a server that knows no macaroons: XRootD 5.5.3 without its plug-in says 501.
_KNOWS_NONE = frozenset({400, 405, 415, 501})

#: Answers about this one request, which another may not get: the own login is not accepted (or not now), too many.
_ABOUT_NOW = frozenset({401, 408, 425, 429})

#: Longest answer to a request for a macaroon; real ones have half a KiB. And the longest silence before it, in seconds.
_ANSWER_MAX_BYTES = 16 * 1024
_PATIENCE_S = 30.0

#: Base64 in either alphabet; what else a header might be made to say is none.
_MACAROON = re.compile(r"[A-Za-z0-9+/_-]+=*")

#: Logins that a plain site can be shown as user name and password. What else a gateway is told is none of its business:
#: a cloud's machine key makes its holder anybody there.
_PASSWORDS = frozenset({"basic", "appauth"})

_ACTIVITY = re.compile(rb"activity:([A-Z_,]+)")


class _Refusals:
    """Which identities get no macaroons at which servers, for reading or writing; of the whole process.

    Each thread does one whole assignment or look, so there is no lock that a fork could leave behind.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[str, int, CredentialProvider, bool], float] = {}

    def note(self, site: WebDAVSite, provider: CredentialProvider, *, write: bool) -> None:
        self._until[site.server.host, site.server.port, provider, write] = time.monotonic() + _REFUSAL_S

    def known(self, site: WebDAVSite, provider: CredentialProvider, *, write: bool) -> bool:
        return self._until.get((site.server.host, site.server.port, provider, write), 0.0) > time.monotonic()


_REFUSALS = _Refusals()


class _Asked:
    """The token of an issuer, or of a command: kept until it nears its end, so that not each request asks for one."""

    def __init__(self, giver: TokenGiver) -> None:
        self._giver = giver
        self._refusal = LastRefusal()
        self.source = TokenSource(self._ask)

    def _ask(self) -> Credential:
        # One thread at a time, says the source.
        self._refusal.check(None)
        try:
            return credential_of_unknown_age(self._giver.get())
        except errors.Unauthenticated as error:
            self._refusal.note(None, error)
            raise


#: Of the whole process; a forked child goes on with what there was.
_ASKED: dict[TokenGiver, _Asked] = {}


class SiteTokens:
    """The tokens of one identity at one plain site; safe for many threads.

    :param reader: says how to log in for reading, ``writer`` for writing; they may be the same.
    """

    def __init__(self, site: WebDAVSite, reader: CredentialProvider, writer: CredentialProvider) -> None:
        self._site = site
        self._reader = reader
        self._writer = writer

    def own(self, *, write: bool, min_life_s: float = 0.0) -> str:
        """Value of ``Authorization`` for a request from here to the site, and to nobody else. A secret.

        :param min_life_s: what a token has to live that is asked for; see :class:`~.cs3.login.tokens.Credential`.
        :raises ConfigurationError: where a password would travel without TLS to another machine, and for a login that
            only a cloud's gateway understands.
        """
        login = self._login(write=write, min_life_s=min_life_s)
        if login.type == "bearer":
            return f"Bearer {login.client_secret}"
        if login.type not in _PASSWORDS:
            raise errors.ConfigurationError(
                f"{self._site.name}: a login of type {login.type} is for a cloud's gateway, and this site has none; it "
                "is not sent, so use type bearer or basic"
            )
        server = self._site.server
        # cs3_allow_plaintext is about tokens, which end by themselves; a password does not.
        if not server.secure and not is_loopback(server.host):
            raise errors.ConfigurationError(f"{self._site.name}: a password is sent over TLS only; use a token")
        pair = f"{login.client_id}:{login.client_secret}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def refused(self, authorization: str) -> None:
        """The site has just answered 401 to it: if it is a token that is kept, it is asked for anew."""
        for provider in (self._reader, self._writer):
            asked = _asked(provider)
            kept = asked.source.current if asked is not None else None
            if asked is not None and kept is not None and authorization == f"Bearer {kept.token}":
                asked.source.invalidate(kept)

    def current(self, *, write: bool) -> Credential | None:
        """The token that is kept; None where none is."""
        asked = _asked(self._writer if write else self._reader)
        return asked.source.current if asked is not None else None

    def has_died(self, credential: Credential, *, write: bool) -> bool:
        """Whether a token that was kept is known to be dead by now."""
        asked = _asked(self._writer if write else self._reader)
        return asked is not None and asked.source.has_died(credential)

    def _login(self, *, write: bool, min_life_s: float = 0.0) -> Login:
        provider = self._writer if write else self._reader
        asked = _asked(provider)
        if asked is None:
            return provider.login()
        return Login("bearer", "", asked.source.get(min_life_s=min_life_s).token)

    def lend(self, client: WebDAVClient, reference: Reference, *, write: bool) -> str:
        """Value of ``TransferHeaderAuthorization`` by which the other side may read (or write) one file. A secret.

        :param client: of the same site and identity; asks for the macaroon.
        :raises NothingToLend: where there is a password only.
        """
        provider = self._writer if write else self._reader
        if not _REFUSALS.known(self._site, provider, write=write):
            given = _ask(client, reference, write=write)
            if not isinstance(given, _None):
                return f"Bearer {given}"
            if given is _None.OF_THIS_SITE:
                _REFUSALS.note(self._site, provider, write=write)
        own = self.own(write=write, min_life_s=LENT_LIFE_S)
        if not own.startswith("Bearer "):
            raise NothingToLend(
                f"{self._site.name} gives no macaroons, and a password is not shown to another site; set a token, or "
                "cs3_transfer_mode to relay",
                operation="COPY",
                target=str(reference),
            )
        return own


def _asked(provider: CredentialProvider) -> _Asked | None:
    """Where a token is asked for; None where it is read from a file or setting, where a new one is found at once."""
    if not (isinstance(provider, BearerProvider) and isinstance(provider.token, IssuedToken | CommandToken)):
        return None
    # Of two threads that are the first here, one makes it for nothing.
    return _ASKED.get(provider.token) or _ASKED.setdefault(provider.token, _Asked(provider.token))


class _None(enum.Enum):
    """There is no macaroon."""

    OF_THIS_SITE = "site"
    FOR_THIS_FILE = "file"


def _ask(client: WebDAVClient, reference: Reference, *, write: bool) -> str | _None:
    """A macaroon for one file; the request is dCache's, and StoRM and XRootD have it, too.

    :raises CS3Error: when the site cannot be asked now: what it would give is not known then, and the token that goes
        to the other side instead would be good for more than this file.
    """
    activities = _WRITE if write else _READ
    question = {"caveats": [f"activity:{','.join(activities)}"], "validity": VALIDITY}
    with client.request(
        "POST",
        reference,
        write=write,
        headers={"Content-Type": "application/macaroon-request", "Accept": "application/json"},
        body=json.dumps(question).encode(),
        idle_timeout_s=_PATIENCE_S,
    ) as response:
        status = response.status_code
        if status in _KNOWS_NONE:
            return _None.OF_THIS_SITE
        if status >= 500 or status in _ABOUT_NOW:
            raise http_error(response, "POST", str(reference))
        if status != 200:
            # 403 may be about this path or about this identity, 404 comes of those that give none for a file to come.
            return _None.FOR_THIS_FILE
        body = response.read(_ANSWER_MAX_BYTES)
    try:
        macaroon = json.loads(body)["macaroon"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _None.FOR_THIS_FILE  # a page that somebody put before the site, say
    if not isinstance(macaroon, str) or not _MACAROON.fullmatch(macaroon):
        return _None.FOR_THIS_FILE
    return macaroon if _is_good_for(macaroon, activities) else _None.OF_THIS_SITE


def _is_good_for(macaroon: str, activities: tuple[str, ...]) -> bool:
    """Whether a macaroon allows the activities, and was narrowed to some at all.

    XRootD 5.5.3 gives one to whomever asks, and writes into it what the *connection* may do: to the bearer of a token,
    nothing (src/XrdMacaroons/XrdMacaroonsHandler.cc, a TODO there; 6.1.0 has it still). All caveats must hold.
    """
    try:
        # Both of the serialisations of libmacaroons hold the caveats as they are.
        packets = base64.urlsafe_b64decode(macaroon + "=" * (-len(macaroon) % 4))
    except ValueError:
        return False
    granted = [set(match.decode().split(",")) for match in _ACTIVITY.findall(packets)]
    return bool(granted) and all(set(activities) <= names for names in granted)
