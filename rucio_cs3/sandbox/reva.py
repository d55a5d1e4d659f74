"""A real Reva site (one ``revad`` process: gateway, storage, data gateway, WebDAV with HTTP-TPC) for tests and demo.

Reva is not part of this package; :func:`find_revad` says where one is looked for. What the site answers, and how
that differs from other CS3 servers, is in docs/cs3apis.md. Read next: ``processes.py``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2

from rucio_cs3.sandbox import reva_configuration
from rucio_cs3.sandbox.aged_tokens import aged
from rucio_cs3.sandbox.authority import common_authority
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_ports
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.probing import http_status
from rucio_cs3.sandbox.processes import ChildProcess, Server
from rucio_cs3.sandbox.reva_configuration import LOGIN_MANAGERS, MOUNT, RevaSettings, User

if TYPE_CHECKING:
    import trustme

__all__ = ["DEFAULT_USERS", "MOUNT", "REVAD_VARIABLE", "RevaSite", "RevaUnavailable", "User", "find_revad"]

REVAD_VARIABLE = "RUCIO_CS3_REVAD"

# Reva is ready in about a second; a loaded CI machine gets far more.
_READY_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 2.0


DEFAULT_USERS = (
    User(username="einstein", password="relativity", display_name="Albert Einstein"),
    User(username="marie", password="radioactivity", display_name="Marie Curie"),
)


class RevaUnavailable(RuntimeError):
    """No ``revad`` was found, or the one that was named cannot be run."""


def find_revad() -> Path | None:
    """Find a ``revad``: the file that RUCIO_CS3_REVAD names, then on PATH, then beside the checkout.

    :raises RevaUnavailable: RUCIO_CS3_REVAD is set to something that is not an executable file; a wish
        that cannot be met is not replaced by a guess.
    """
    named = os.environ.get(REVAD_VARIABLE)
    if named:
        path = Path(named).expanduser().resolve()
        if not _is_executable(path):
            raise RevaUnavailable(f"{REVAD_VARIABLE} names {named}, which is not an executable file")
        return path
    on_path = shutil.which("revad")
    if on_path:
        return Path(on_path).resolve()
    # Beside the checkout: a working copy of this project may have a folder `shared` next to it.
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "reva" / "revad"
    return beside if _is_executable(beside) else None


class RevaSite(Startable):
    """One Reva site on 127.0.0.1 with ports, secrets and a data directory of its own.

    Two sites can run at once and copy files between each other (HTTP-TPC needs no common secret, only a token of
    each side). With ``tls=True`` everything that is HTTP is HTTPS, also the data path and TPC; gRPC stays
    plaintext, because Reva v3 has no TLS for gRPC (its pkg/rgrpc serves a bare listener, pool.go dials insecure).

    :param name: short name for logs and messages; also the mail domain of the users.
    :param directory: where configuration, database, log and data go; kept on stop. A temporary one that is
        removed on stop if None.
    :param users: who can log in; the first one is whose WebDAV URL ``webdav_url`` is meant for.
    :param http_tpc: whether COPY with ``Source`` or a foreign ``Destination`` is HTTP-TPC (Reva's default: no).
    :param tls: serve HTTPS with a certificate of ``authority``.
    :param authority: trustme.CA for ``tls``; one that all sites of this process share if None.
    :param trusted: more PEM files of authorities whose servers this site may pull from or push to.
    :param access_token_lifetime_s: validity of access tokens, in whole seconds.
    :param transfer_token_lifetime_s: the same for transfer tokens.
    :param data_gateway_url: where tickets send clients, when something stands between them and the site; it must
        lead to ``<http_url>/datagateway``, which is what tickets name if None.
    :param revad: the program; what :func:`find_revad` finds if None.
    :param issuer: URL of an OIDC issuer whose tokens let somebody in (login of type ``bearer``), by their ``sub`` as
        user name; none where empty.
    :raises RevaUnavailable: there is no revad.
    """

    #: See :class:`RevaSettings`.
    _listen = ""

    def __init__(
        self,
        name: str = "reva",
        *,
        directory: Path | None = None,
        users: Sequence[User] = DEFAULT_USERS,
        http_tpc: bool = True,
        tls: bool = False,
        authority: trustme.CA | None = None,
        trusted: Sequence[Path] = (),
        access_token_lifetime_s: int = 86_400,
        transfer_token_lifetime_s: int = 86_400,
        data_gateway_url: str | None = None,
        revad: Path | None = None,
        issuer: str = "",
    ) -> None:
        program = revad or find_revad()
        if program is None:
            raise RevaUnavailable(f"no revad found: set {REVAD_VARIABLE} or put one on PATH")
        if not users:
            raise ValueError("a Reva site needs at least one user")
        self.name = name
        self.tls = tls
        self.http_tpc = http_tpc
        self.root = MOUNT
        self.users: dict[str, User] = {user.username: user for user in users}
        self._program = program
        self._authority = authority
        self._trusted = tuple(trusted)
        self._access_token_lifetime_s = access_token_lifetime_s
        self._transfer_token_lifetime_s = transfer_token_lifetime_s
        self._data_gateway_url = data_gateway_url
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"rucio-cs3-{name}-"))
        self._grpc_port, self._http_port, *self._login_ports = free_ports(2 + len(LOGIN_MANAGERS))
        self._issuer = issuer
        # Made once, so that tokens outlive a restart as they do on a real site.
        self._jwt_secret = secrets.token_hex(32)
        self._transfer_secret = secrets.token_hex(32)
        #: With it, a login of type ``machine`` is one as any user.
        self.machine_key = secrets.token_hex(32)
        self._process: Server | None = None

    @property
    def host(self) -> str:
        """Name or address that clients reach the site at."""
        return LOOPBACK

    @property
    def gateway(self) -> str:
        """``host:port`` of the CS3 gateway (plaintext gRPC)."""
        return f"{self.host}:{self._grpc_port}"

    @property
    def gateway_tls(self) -> bool:
        """Never: Reva v3 has no TLS for gRPC."""
        return False

    @property
    def http_url(self) -> str:
        """Base of everything HTTP, without a slash at the end."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self._http_port}"

    @property
    def webdav_url(self) -> str:
        """WebDAV base, the same for all users; stands for the CS3 path ``root``."""
        return f"{self.http_url}/remote.php/webdav"

    @property
    def ca_bundle(self) -> Path | None:
        """PEM file a client verifies this site with; None without TLS."""
        return self.directory / "ca.pem" if self.tls else None

    @property
    def data_directory(self) -> Path:
        """Where the bytes are: the local driver keeps the tree below ``<root>/data``."""
        return self.directory / "storage" / "data"

    @property
    def versions_directory(self) -> Path:
        """What was overwritten: the local driver has a folder for each path below it."""
        return self.directory / "storage" / ".shadow" / "versions"

    def aged_token(self, token: str) -> str:
        """One of this site's access or transfer tokens as it is after its end.

        :raises ValueError: it is none of this site.
        """
        return aged(token, (self._jwt_secret, self._transfer_secret))

    def path_on_disk(self, relative: str) -> Path:
        """Place on this machine's disk of a file, named relative to the WebDAV base and not percent-encoded."""
        return self.data_directory / relative.lstrip("/")

    @property
    def log(self) -> Path | None:
        return self.directory / "revad.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start Reva and wait until a user can log in and HTTP answers.

        :raises ProcessError: it died or was not ready within a minute; with the end of its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "storage").mkdir(exist_ok=True)
        environment = {}
        if self.tls:
            self._write_certificates()
            # revad verifies the data gateway, and the other site in a TPC, with Go's system roots.
            environment["SSL_CERT_FILE"] = str(self.directory / "trusted.pem")
        settings = self._settings()
        self._write_json("users.json", reva_configuration.users(settings))
        self._write_json("groups.json", reva_configuration.groups(settings))
        configuration = self._write("revad.toml", reva_configuration.revad_toml(settings))
        self._process = self._server(configuration, environment)
        self._process.start()
        self._process.wait_until(self._is_ready, timeout_s=_READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop Reva; also removes a temporary directory. Idempotent."""
        if self._process is not None:
            self._process.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End Reva at once, as a machine that loses power does; :meth:`start` goes on with what is on the disk."""
        if self._process is not None:
            self._process.kill()

    def _server(self, configuration: Path, environment: Mapping[str, str]) -> Server:
        """What runs ``revad``.

        :param environment: what it needs beyond that of this process.
        """
        return ChildProcess(
            f"Reva site {self.name!r}",
            [self._program, "-c", configuration, "-p", self.directory / "revad.pid"],
            log=self.directory / "revad.log",
            environment={**os.environ, **environment},
            directory=self.directory,
        )

    def _is_ready(self) -> bool:
        return self._answers(self.http_url) and self._can_log_in(self.gateway)

    def _answers(self, http_url: str) -> bool:
        # Any answer of the HTTP server will do, 401 included.
        return http_status(f"{http_url}/status.php", ca_bundle=self.ca_bundle if self.tls else None) is not None

    def _can_log_in(self, gateway_address: str) -> bool:
        user = next(iter(self.users.values()))
        request = gateway_api_pb2.AuthenticateRequest(
            type="basic", client_id=user.username, client_secret=user.password
        )
        # A proxy from the environment must not see calls to this machine.
        options = [("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(gateway_address, options=options) as channel:
            gateway = gateway_api_pb2_grpc.GatewayAPIStub(channel)
            try:
                answer = gateway.Authenticate(request, timeout=_PROBE_TIMEOUT_S)
            except grpc.RpcError:
                return False
        # In its first moments Reva answers CODE_INTERNAL ("error getting auth provider client").
        return bool(answer.status.code == code_pb2.CODE_OK)

    def _write_certificates(self) -> None:
        authority = self._authority or common_authority()
        certificate = authority.issue_cert(*dict.fromkeys((self.host, LOOPBACK, "localhost")))
        certificate.cert_chain_pems[0].write_to_path(str(self.directory / "server.pem"))
        for pem in certificate.cert_chain_pems[1:]:
            pem.write_to_path(str(self.directory / "server.pem"), append=True)
        key = self._write("server.key", "")
        certificate.private_key_pem.write_to_path(str(key), append=True)
        own = authority.cert_pem.bytes()
        (self.directory / "ca.pem").write_bytes(own)
        others = b"".join(path.read_bytes() + b"\n" for path in self._trusted)
        (self.directory / "trusted.pem").write_bytes(own + b"\n" + others)

    def _settings(self) -> RevaSettings:
        return RevaSettings(
            name=self.name,
            directory=self.directory,
            gateway=self.gateway,
            http_url=self.http_url,
            login_ports=self._login_ports,
            users=tuple(self.users.values()),
            http_tpc=self.http_tpc,
            jwt_secret=self._jwt_secret,
            transfer_secret=self._transfer_secret,
            machine_key=self.machine_key,
            issuer=self._issuer,
            access_token_lifetime_s=self._access_token_lifetime_s,
            transfer_token_lifetime_s=self._transfer_token_lifetime_s,
            data_gateway_url=self._data_gateway_url or f"{self.http_url}/datagateway",
            listen=self._listen,
        )

    def _write_json(self, name: str, content: object) -> None:
        self._write(name, json.dumps(content, indent=2))

    def _write(self, name: str, text: str) -> Path:
        """Most of them hold secrets."""
        return write_private(self.directory / name, text)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
