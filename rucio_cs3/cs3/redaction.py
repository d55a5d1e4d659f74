"""What a server says, without what it was told in confidence. Pure.

Its words end in logs, in Rucio's database and before the owners of rules, and some servers repeat the request they
refuse. Used by :func:`rucio_cs3.cs3.http.client.http_error` for all error answers, and by
:mod:`rucio_cs3.cs3.webdav.tpc` for the reports of copies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import parse_qsl, quote, urlsplit

_SECRET_HEADERS = frozenset({"authorization", "transferheaderauthorization", "x-access-token", "x-reva-transfer"})

#: Characters of a secret's beginning that are hidden without the rest, too: words are cut somewhere.
_BEGINNING = 8

#: Shorter values of a URL's query are no secrets, and would be found everywhere.
_QUERY_VALUE_MIN = 4

_INSTEAD = "***"


def without_secrets(words: str, headers: Mapping[str, str], url: str) -> str:
    """A server's words, with ``***`` for each secret of the request that they answer.

    :param headers: of the request; the values of those that carry tokens and passwords are hidden.
    :param url: of the request; its query is hidden (dCache and XRootD put tokens there when they redirect).
    """
    return hidden(words, {*_of_headers(headers), *_of_query(url)} - {""})


def hidden(words: str, secrets: Collection[str]) -> str:
    """Words with ``***`` for each of these secrets, none of which is empty."""
    # JSON may escape a slash, and a URL more.
    written = {form for secret in secrets for form in (secret, quote(secret, safe=""), secret.replace("/", "\\/"))}
    for secret in sorted(written, key=len, reverse=True):
        words = _hide(words, secret)
    return words


def _of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            scheme, _, token = value.strip().rpartition(" ")
            yield token
            if scheme.lower() == "basic":
                yield from _of_basic(token)


def _of_basic(token: str) -> Iterator[str]:
    """User and password as one, and the password."""
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield pair
    yield pair.partition(":")[2]


def _of_query(url: str) -> Iterator[str]:
    query = urlsplit(url).query
    yield query
    for _, value in parse_qsl(query):
        token = value.rpartition(" ")[2]  # "Bearer …"
        if len(token) >= _QUERY_VALUE_MIN:
            yield token


def _hide(words: str, secret: str) -> str:
    start = secret[:_BEGINNING]
    done: list[str] = []
    while (at := words.find(start)) >= 0:
        end = at + len(start)
        while end < len(words) and end - at < len(secret) and words[end] == secret[end - at]:
            end += 1
        done += words[:at], _INSTEAD
        words = words[end:]
    return "".join(done) + words
