"""Stands in for FTS and for an OIDC issuer: takes what Rucio posts, and remembers it. Moves nothing."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from rucio_cs3.sandbox.authority import common_authority
from rucio_cs3.sandbox.lifecycle import Startable

_POLL_S = 0.05


@dataclass(frozen=True)
class Posted:
    """One job.

    :param authorization: the request's header.
    :param body: what FTS would read: ``files`` and ``params``.
    """

    job_id: str
    authorization: str | None
    body: dict[str, Any]


@dataclass
class RecordingFTS(Startable):
    """``POST /jobs`` of FTS' REST interface over TLS, whose certificate Rucio 41.5.1 does not verify, and over plain
    HTTP the discovery and token endpoints of an issuer. Tokens name what was asked for: audience and scope.
    """

    jobs: list[Posted] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(_Handler):
            recorder = outer

        self._fts = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._issuer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        common_authority().issue_cert("127.0.0.1").configure_cert(context)
        self._fts.socket = context.wrap_socket(self._fts.socket, server_side=True)
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": _POLL_S}, daemon=True)
            for server in (self._fts, self._issuer)
        ]

    @property
    def url(self) -> str:
        """What the RSE attribute ``fts`` says."""
        return f"https://127.0.0.1:{self._fts.server_address[1]}"

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._issuer.server_address[1]}/"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for server, thread in zip((self._fts, self._issuer), self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def write_idp_secrets(self, path: Path) -> None:
        """The file that ``[oidc] idpsecrets`` names; the issuer is called ``sandbox``."""
        path.touch(mode=0o600)
        path.write_text(
            json.dumps({"sandbox": {"client_id": "rucio", "client_secret": "made-up", "issuer": self.issuer}})
        )

    def files(self) -> dict[str, dict[str, Any]]:
        """Name in Rucio -> what the job says of the file, with the job's ``params`` and ``authorization``."""
        return {
            file["metadata"]["name"]: {
                **file,
                "params": job.body["params"],
                "authorization": job.authorization,
                "job_id": job.job_id,
            }
            for job in self.jobs
            for file in job.body["files"]
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: RecordingFTS

    def log_message(self, *_: object) -> None:
        """Nothing is logged: a request holds tokens."""

    def do_GET(self) -> None:
        if self.path == "/.well-known/openid-configuration":
            self._answer(200, {"token_endpoint": f"{self.recorder.issuer}token"})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            asked = parse_qs(body.decode())
            self._answer(200, {"access_token": f"token of {asked['audience'][0]} for {asked['scope'][0]}"})
        elif self.path == "/jobs":
            job = Posted(str(uuid.uuid4()), self.headers["Authorization"], json.loads(body))
            self.recorder.jobs.append(job)
            self._answer(200, {"job_id": job.job_id})
        else:
            self._answer(404, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
