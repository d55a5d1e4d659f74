"""What is hidden in a server's words, and what is not."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import jwt
import pytest

from rucio_cs3.cs3.redaction import hidden, without_secrets

PASSWORD = 'two  spaces/"&%ü+'
TOKEN = jwt.encode({"user": "einstein"}, "x" * 32, algorithm="HS256")
OTHER = jwt.encode({"user": "marie"}, "y" * 32, algorithm="HS256")
BASIC = base64.b64encode(f"einstein:{PASSWORD}".encode()).decode()
MACAROON = base64.urlsafe_b64encode(b"0010location x\n0020cid path:/x\n").decode()

HEADERS = {"Authorization": f"Basic {BASIC}", "X-Access-Token": TOKEN, "Depth": "infinity"}
URL = "https://x/f?authz=Bearer%20of-the-query"


@pytest.mark.parametrize(
    "form",
    [
        PASSWORD,
        " ".join(PASSWORD.split()),
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        PASSWORD.replace("/", "\\/"),
        quote(PASSWORD, safe=""),
        "two%20%20spaces%2f%22%26%25%c3%bc%2b",
        quote_plus(PASSWORD),
        "two  spaces/&quot;&amp;%ü+",
        BASIC,
        BASIC[:12],
        TOKEN,
        TOKEN[:40],
        TOKEN.split(".")[1],
        TOKEN.split(".")[2],
        "of-the-query",
    ],
)
def test_what_the_request_said_is_hidden_in_each_form(form: str) -> None:
    assert without_secrets(f"no: {form}, sorry", HEADERS, URL) == "no: ***, sorry"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (f"token {OTHER} has expired", "token *** has expired"),
        (f"cut {OTHER[:30]}", "cut ***"),
        (f"data/{OTHER}/x", "data/***/x"),
        (f"GET https://x/{MACAROON}", "GET https://x/***"),
        ("see https://me:secret@site/x", "see https://***@site/x"),
        ("Authorization: Bearer 0123456789abcdef0123", "Authorization: Bearer ***"),
        ("authorization=[Basic bWU6c2VjcmV0]", "authorization=[Basic ***]"),
        ("?access_token=abc&x=1", "?access_token=***&x=1"),
        ("authz=abcdef", "authz=***"),
        ('{"password":"abc","user":"me"}', '{"password":"***","user":"me"}'),
        ('{\\"client_secret\\": \\"abc\\"}', '{\\"client_secret\\": \\"***\\"}'),
        ("X-Access-Token: abc", "X-Access-Token: ***"),
        (f"X-Access-Token: {OTHER}", "X-Access-Token: ***"),
        (f"Authorization: Bearer {OTHER}", "Authorization: Bearer ***"),
        ('"Authorization":["Basic bWU6c2VjcmV0"]', '"Authorization":["Basic ***"]'),
        ("map[X-Reva-Transfer:[abc]]", "map[X-Reva-Transfer:[***]]"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_whoevers_it_is(words: str, left: str) -> None:
    assert hidden(words, ()) == left


@pytest.mark.parametrize(
    "words",
    [
        "wrong password",
        "wrong password: user einstein has another",
        "the token has expired",
        "bearer authentication is off",
        "basic authentication is needed",
        "no such file: /home/einstein/eye.jpg (trace 4f2c01aabbcc)",
        "https://site.example.org:8443/a@b",
        "access token: not accepted",
    ],
)
def test_what_is_no_secret_is_told(words: str) -> None:
    assert without_secrets(words, HEADERS, URL) == words


def test_of_two_tokens_in_a_row_nothing_is_left() -> None:
    assert hidden(f"{TOKEN} {OTHER}", {TOKEN}) == "*** ***"
