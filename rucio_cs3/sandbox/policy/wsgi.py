"""Rucio's REST application with three repairs at its edge, without which names beyond ASCII do not survive it.

Used only where the sandbox's policy package is; a reverse proxy in front of a real Rucio can do the same.
All three were seen with Rucio 41.5.1, requests 2.32 and gunicorn 27:

1. Rucio's client writes a space in a URL path as ``+`` (``quote_plus``; a real plus is ``%2B``), the server reads a
   plus: a name with a space is never found.
2. The server repeats the error text in the header ``ExceptionMessage``; a name that is not latin-1 makes that header
   invalid, and the client gets 500 instead of 404. It asks for every name that it is about to upload.
3. Metalink answers carry no charset; the client's HTTP library then guesses one from the bytes, and guesses wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from rucio.web.rest.main import application as rucio_application

_METALINK = "application/metalink4+xml"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI application (PEP 3333); needs the request target as sent, which gunicorn gives as RAW_URI."""
    path = str(environ["RAW_URI"]).partition("?")[0]
    # PEP 3333: bytes of the path, each as the character with its number.
    environ["PATH_INFO"] = unquote_to_bytes(path.replace("+", "%20")).decode("latin-1")

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, [(name, _sendable(value)) for name, value in headers], *rest)

    answer: Iterable[bytes] = rucio_application(environ, start)
    return answer


def _sendable(value: str) -> str:
    if value == _METALINK:
        return f"{value}; charset=utf-8"
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("ascii", "backslashreplace").decode("ascii")
    return value
