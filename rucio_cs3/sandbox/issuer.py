"""An OIDC issuer on 127.0.0.1 that gives tokens for storages, signed as a real one would. For tests.

It knows four grants: client credentials (RFC 6749, 4.4), with ``audience`` and ``scope`` in the form that Rucio 41.5.1
sends (core/oidc.py, request_token); refresh token (RFC 6749, 6), a new one with each use; token exchange (RFC 8693);
authorization code (OpenID Connect Core 1.0, 3.1), for a browser in which somebody is logged in already.
The claims are those of the WLCG Common JWT Profile 1.0. A real Reva verifies them by ``/keys``.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK
from rucio_cs3.sandbox.private import write_private

#: Seconds that a token lives. Rucio keeps none that has less than five minutes left.
LIFETIME_S = 1200

_KEY_BITS = 2048
_KEY_ID = "sandbox"

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class Issuer(Startable):
    """One issuer with one client.

    :param subject: whom tokens of the client itself name; the client where None.
    :ivar requests: what was asked for, in order: (audience, scope).
    :ivar refuses: whether all further requests are answered 400.
    :ivar at_browser: who is logged in where a browser comes from.
    """

    def __init__(self, subject: str | None = None) -> None:
        self.client_id = "rucio"
        self._subject = subject or self.client_id
        #: The refresh tokens that are good now, and whom each names.
        self.refresh_tokens: dict[str, str] = {}
        self.client_secret = secrets.token_urlsafe(24)
        self.requests: list[tuple[str, str]] = []
        self.refuses = False
        self.at_browser = self._subject
        #: Codes that are good once: who, and what was asked for.
        self._codes: dict[str, tuple[str, Mapping[str, str]]] = {}
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

    def write_idpsecrets(self, path: Path, *redirect_uris: str) -> dict[str, dict[str, str]]:
        """Write Rucio's file of issuers.

        :param redirect_uris: where browsers may be sent with a code.
        :returns: sections of rucio.cfg that name it.
        """
        client: dict[str, Any] = {"client_id": self.client_id, "client_secret": self.client_secret}
        client = {**client, "redirect_uris": list(redirect_uris)}
        # Rucio 41.5.1 (core/oidc.py:205) verifies nobody's token without a second client, "SCIM".
        write_private(path, json.dumps({"sandbox": {"issuer": self.url, **client, "SCIM": client}}))
        return {"oidc": {"idpsecrets": str(path), "admin_issuer": "sandbox"}}

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token, once signature, issuer, audience and time are proven right; for a storage.

        :raises jwt.InvalidTokenError: otherwise.
        """
        key = self._key.public_key()
        found: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=self.url)
        return found

    def refresh_token(self, subject: str) -> str:
        """A new refresh token of somebody who has logged in."""
        token = secrets.token_urlsafe(24)
        self.refresh_tokens[token] = subject
        return token

    def access_token(self, subject: str, *, audience: str, scope: str = "openid", life_s: float = LIFETIME_S) -> str:
        """A signed token for somebody; a negative life makes one that has ended."""
        now = time.time()
        claims = {
            "wlcg.ver": "1.0",
            "iss": self.url,
            "sub": subject,
            "aud": audience.split() if " " in audience else audience,
            "scope": scope,
            "iat": int(now),
            "nbf": int(min(now, now + life_s)),
            "exp": int(now + life_s),
            "jti": str(uuid.uuid4()),
        }
        return self._signed(claims)

    def _signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": _KEY_ID})

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = Request(environ)
        routes = {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/token": self._token,
            "/keys": self._keys,
        }
        found = routes.get(request.path)
        response = found(request) if found is not None else Response(status=404)
        return response(environ, start_response)

    def _discovery(self, _: Request) -> Response:
        # Go's OIDC library, by which Reva v3.12.1 verifies, wants to know where keys are and how tokens are signed.
        return _json(
            {
                "issuer": self.url,
                "token_endpoint": f"{self.url}token",
                "authorization_endpoint": f"{self.url}authorize",
                "jwks_uri": f"{self.url}keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    def _keys(self, _: Request) -> Response:
        key = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return _json({"keys": [{**key, "kid": _KEY_ID, "use": "sig", "alg": "RS256"}]})

    def _token(self, request: Request) -> Response:
        who = request.authorization
        if who is None or (who.username, who.password) != (self.client_id, self.client_secret):
            return _json({"error": "invalid_client"}, 401)
        form = request.form
        self.requests.append((form.get("audience", ""), form.get("scope", "")))
        grant = {
            "client_credentials": self._of_client,
            "refresh_token": self._of_refresh,
            "authorization_code": self._of_code,
            _EXCHANGE: self._of_exchange,
        }.get(form.get("grant_type", ""))
        if self.refuses or grant is None:
            return _json({"error": "invalid_request"}, 400)
        subject, more = grant(form)
        if subject is None:
            return _json({"error": "invalid_grant"}, 400)
        asked = {**form, **more.pop("asked", {})}
        scope = asked.get("scope", "openid")
        token = self.access_token(subject, audience=asked.get("audience", self.client_id), scope=scope)
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME_S, "scope": scope, **more})

    def _authorize(self, request: Request) -> Response:
        asked = request.args.to_dict()
        if asked.get("client_id") != self.client_id or asked.get("response_type") != "code":
            return _json({"error": "invalid_request"}, 400)
        code = secrets.token_urlsafe(24)
        self._codes[code] = self.at_browser, asked
        return redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    def _of_code(self, form: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
        subject, asked = self._codes.pop(form.get("code", ""), (None, {}))
        if subject is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return None, {}
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "aud": self.client_id, "iat": now, "exp": now + LIFETIME_S}
        claims["nonce"] = asked["nonce"]
        return subject, {"id_token": self._signed(claims), "asked": asked}

    def _of_client(self, _: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
        return self._subject, {}

    def _of_refresh(self, form: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
        # Each is good once: whoever uses a stolen one is noticed (RFC 9700, 4.14.2).
        subject = self.refresh_tokens.pop(form.get("refresh_token", ""), None)
        return subject, {"refresh_token": self.refresh_token(subject)} if subject else {}

    def _of_exchange(self, form: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
        key, token = self._key.public_key(), form.get("subject_token", "")
        try:
            claims = jwt.decode(token, key, algorithms=["RS256"], issuer=self.url, options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return None, {}
        return str(claims["sub"]), {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type="application/json")


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing: the console is the test's."""
