"""Whether a server that was just started answers yet."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

_TIMEOUT_S = 2.0


def http_status(url: str, *, ca_bundle: Path | None = None) -> int | None:
    """The status of a GET; None while nobody answers. No proxy is used.

    :param ca_bundle: PEM file of the authority that an ``https`` server is verified with.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_bundle is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_bundle)))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code
    except OSError:
        return None
