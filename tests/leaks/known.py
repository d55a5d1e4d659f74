"""Secrets that a search knows, in all the forms in which a program may write them down."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

#: From so many characters on, a secret's beginning and end are looked for by themselves: messages are cut somewhere.
_LONG = 24
_END = 12
#: Of a JWT's signature, which nothing else can begin or end with.
_SIGNATURE_END = 16

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{32,})")


class Known:
    """What must not be found, with a name for each; thread-safe, because servers add to it while they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}

    def add(self, name: str, secret: str) -> None:
        """
        :param name: what findings call it.
        """
        if len(secret) < 8:
            raise ValueError(f"{name} would be found everywhere: it is too short")
        with self._lock:
            self._names.setdefault(secret, name)

    def __len__(self) -> int:
        return len(self._names)

    def names(self) -> set[str]:
        with self._lock:
            return set(self._names.values())

    def forms(self) -> dict[bytes, str]:
        """What to look for, and what it is."""
        with self._lock:
            secrets = dict(self._names)
        found: dict[bytes, str] = {}
        for secret, name in secrets.items():
            for piece in _pieces(secret):
                for form, how in forms(piece):
                    found.setdefault(form, f"{name}, {how}")
        return found


def _pieces(secret: str) -> tuple[str, ...]:
    jwt = _JWT.fullmatch(secret)
    if jwt:
        # Header and claims alone open nothing; the signature alone completes them.
        return jwt[1][:_SIGNATURE_END], jwt[1][-_SIGNATURE_END:]
    return (secret,) if len(secret) < _LONG else (secret[:_END], secret[-_END:])


def forms(secret: str) -> Iterator[tuple[bytes, str]]:
    """A text as it is, and as other formats have it."""
    raw = secret.encode()
    yield raw, "as it is"
    yield json.dumps(secret)[1:-1].encode(), "in JSON"
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode(), "in JSON"
    yield json.dumps(secret)[1:-1].replace("/", "\\/").encode(), "in JSON"
    yield repr(secret)[1:-1].encode(), "as Python shows it"
    yield repr(raw)[2:-1].encode(), "as Python shows bytes"
    for quoted in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield quoted.encode(), "in percents"
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted).encode(), "in percents"
    yield raw.hex().encode(), "in hexadecimal"
    for skipped in range(3):
        # Where something stands before it, as the user name in basic authentication: what its own bytes alone decide.
        text = base64.b64encode(b"\0" * skipped + raw)
        own = text[-(-8 * skipped // 6) : 4 * ((skipped + len(raw)) // 3)]
        yield own, "in base64"
        yield own.translate(bytes.maketrans(b"+/", b"-_")), "in base64"
