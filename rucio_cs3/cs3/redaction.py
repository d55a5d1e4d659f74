"""What a server says, without what it was told in confidence. Pure.

Its words end in logs, in Rucio's database and before the owners of rules, and some servers repeat the request they
refuse. Used by :func:`rucio_cs3.cs3.http.client.http_error` for all error answers, by
:mod:`rucio_cs3.cs3.webdav.tpc` for the reports of copies, and by :mod:`rucio_cs3.cs3.gateway`.

Two things are hidden: the secrets of the request that was answered, and what looks like a token or password, for a
server may repeat what somebody else has told it, or what it has made itself.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

_SECRET_HEADERS = frozenset({"authorization", "transferheaderauthorization", "x-access-token", "x-reva-transfer"})

#: Of a server's words no more are kept, in characters: what looks for secrets in them takes its time.
WORDS_MAX_CHARACTERS = 4000

#: Characters of a secret's beginning that are hidden without the rest, too: words are cut somewhere.
_BEGINNING = 8

#: Shorter values of a URL's query are no secrets, and would be found everywhere.
_QUERY_VALUE_MIN = 4

#: Shorter parts of a token are none that somebody could use.
_PART_MIN = 16

_INSTEAD = "***"

#: What is a secret whoever's it is, each with what may stay of it: JWTs (RFC 7519: all begin with ``{"`` in base64),
#: and macaroons in the text form of libmacaroons; user and password of a URL; what is named as a secret, in a URL's
#: query, a header or JSON.
_TELLING = (
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"), _INSTEAD),
    (re.compile(r"MDA[A-Za-z0-9+/_-]{20,}=*"), _INSTEAD),
    (re.compile(r"(://)[^\s/?#@]+@"), rf"\1{_INSTEAD}@"),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1{_INSTEAD}"),
    (re.compile(r"\b(authorization[\s:=\"'\[\\]{1,6}basic\s+)[A-Za-z0-9+/_-]+=*", re.IGNORECASE), rf"\1{_INSTEAD}"),
    (
        re.compile(
            r"\b((?:(?:access|refresh|id|subject|transfer)_?token|(?:client_?)?secret|passw(?:or)?d|authz|api_?key)"
            r"(?:=|\\?[\"']\s*[:=]\s*\\?[\"']))[^\s\"'&;,\\]+",
            re.IGNORECASE,
        ),
        rf"\1{_INSTEAD}",
    ),
    (
        re.compile(r"\b(x-(?:access-token|reva-transfer)[\s:=\"'\[\\]{1,6})[^\s\"',;\]]+", re.IGNORECASE),
        rf"\1{_INSTEAD}",
    ),
)


def without_secrets(words: str, headers: Mapping[str, str], url: str) -> str:
    """A server's words, with ``***`` for each secret of the request that they answer, and whatever looks like one.

    :param headers: of the request; the values of those that carry tokens and passwords are hidden.
    :param url: of the request; its query is hidden (dCache and XRootD put tokens there when they redirect).
    """
    return hidden(words, {*_of_headers(headers), *_of_query(url)} - {""})


def hidden(words: str, secrets: Collection[str]) -> str:
    """Words with ``***`` for each of these secrets, none of which is empty, and whatever looks like one."""
    words = words[:WORDS_MAX_CHARACTERS]
    written = sorted(
        {form for secret in secrets for part in _parts(secret) for form in _forms(part)}, key=len, reverse=True
    )
    for secret in written:
        words = words.replace(secret, _INSTEAD)
    # Before the beginnings: that of one JWT is that of all, and would leave the rest of another.
    for telling, instead in _TELLING:
        words = telling.sub(instead, words)
    for secret in written:
        words = _hide_beginning(words, secret)
    return words


def _parts(secret: str) -> Iterator[str]:
    """A secret, and the parts of a token: to somebody who has the others, the signature alone is all."""
    yield secret
    parts = secret.split(".")
    if len(parts) == 3:
        yield from (part for part in parts[1:] if len(part) >= _PART_MIN)


def _forms(secret: str) -> Iterator[str]:
    """A secret as servers write it: white space may have been put together, and JSON, URLs and HTML have ways of their
    own to write what is no letter.
    """
    for text in {secret, " ".join(secret.split()) or secret}:
        yield text
        yield text.replace("/", "\\/")
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield html.escape(text)
        for quoted in (quote(text, safe=""), quote(text), quote_plus(text)):
            yield quoted
            yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)


def _of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            scheme, _, token = value.strip().rpartition(" ")
            yield token
            if scheme.lower() == "basic":
                yield from _of_basic(token)


def _of_basic(token: str) -> Iterator[str]:
    """The password; of the pair the beginning is the user's name, which may be told."""
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield pair.partition(":")[2]


def _of_query(url: str) -> Iterator[str]:
    query = urlsplit(url).query
    yield query
    for _, value in parse_qsl(query):
        token = value.rpartition(" ")[2]  # "Bearer …"
        if len(token) >= _QUERY_VALUE_MIN:
            yield token


def _hide_beginning(words: str, secret: str) -> str:
    start = secret[:_BEGINNING]
    done: list[str] = []
    while (at := words.find(start)) >= 0:
        end = at + len(start)
        while end < len(words) and end - at < len(secret) and words[end] == secret[end - at]:
            end += 1
        done += words[:at], _INSTEAD
        words = words[end:]
    return "".join(done) + words
