"""An OIDC issuer on 127.0.0.1 that gives Rucio's own client tokens for storages, signed as a real one would.

It knows the client credentials grant alone (RFC 6749, 4.4), with ``audience`` and ``scope`` in the form that Rucio
41.5.1 sends (core/oidc.py, request_token); the claims are those of the WLCG Common JWT Profile 1.0. For tests.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK
from rucio_cs3.sandbox.private import write_private

#: Seconds that a token lives. Rucio keeps none that has less than five minutes left.
LIFETIME_S = 1200

_KEY_BITS = 2048


class Issuer(Startable):
    """One issuer with one client.

    :ivar requests: what was asked for, in order: (audience, scope).
    :ivar refuses: whether all further requests are answered 400.
    """

    def __init__(self) -> None:
        self.client_id = "rucio"
        self.client_secret = secrets.token_urlsafe(24)
        self.requests: list[tuple[str, str]] = []
        self.refuses = False
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        self._server = make_server(LOOPBACK, 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """With a slash at its end: Rucio appends ``.well-known/openid-configuration``."""
        return f"http://{LOOPBACK}:{self._server.port}/"

    def start(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.shutdown()
            thread.join()
        self._server.server_close()

    def write_idpsecrets(self, path: Path) -> dict[str, dict[str, str]]:
        """Write Rucio's file of issuers.

        :returns: sections of rucio.cfg that name it.
        """
        entry = {"issuer": self.url, "client_id": self.client_id, "client_secret": self.client_secret}
        write_private(path, json.dumps({"sandbox": {**entry, "redirect_uris": []}}))
        return {"oidc": {"idpsecrets": str(path), "admin_issuer": "sandbox"}}

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token, once signature, issuer, audience and time are proven right; for a storage.

        :raises jwt.InvalidTokenError: otherwise.
        """
        key = self._key.public_key()
        found: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=self.url)
        return found

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = Request(environ)
        routes = {"/.well-known/openid-configuration": self._discovery, "/token": self._token}
        found = routes.get(request.path)
        response = found(request) if found is not None else Response(status=404)
        return response(environ, start_response)

    def _discovery(self, _: Request) -> Response:
        return _json({"issuer": self.url, "token_endpoint": f"{self.url}token"})

    def _token(self, request: Request) -> Response:
        who = request.authorization
        if who is None or (who.username, who.password) != (self.client_id, self.client_secret):
            return _json({"error": "invalid_client"}, 401)
        form = request.form
        self.requests.append((form.get("audience", ""), form.get("scope", "")))
        if self.refuses or form.get("grant_type") != "client_credentials":
            return _json({"error": "invalid_request"}, 400)
        now = int(time.time())
        audience = form["audience"].split()
        claims = {
            "wlcg.ver": "1.0",
            "iss": self.url,
            "sub": self.client_id,
            "aud": audience[0] if len(audience) == 1 else audience,
            "scope": form["scope"],
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_S,
            "jti": str(uuid.uuid4()),
        }
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "sandbox"})
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME_S, "scope": form["scope"]})


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type="application/json")


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing: the console is the test's."""
