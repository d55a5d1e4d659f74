"""An embedded CS3 cloud: start it, use it over the network like a real one, break it on purpose, stop it.

Read this module first. What happens to an upload::

    gateway_v3.GatewayV3.initiate_file_upload   (gRPC, through rpc.py; or gateway_spaces.py)
      -> uploads.UploadSessions.open            a session, named by the transfer token (tokens.py)
    http_server.Exchange                        (HTTP, a PUT with that token)
      -> data_gateway.handle -> storing.store   bytes into the session, as faults.py lets them
      -> storing.finish -> tree.Tree            the session's file becomes the file in the tree

``webdav.py`` is the front end with the same ``store``, and ``tpc.py`` its HTTP-TPC. Which of the two server lines
a cloud answers like is its :class:`Behaviour`; a rule that holds for one of them names that server.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from rucio_cs3.sandbox.cloud import data_gateway, webdav
from rucio_cs3.sandbox.cloud import tls as tls_module
from rucio_cs3.sandbox.cloud.faults import Faults
from rucio_cs3.sandbox.cloud.gateway import Gateway
from rucio_cs3.sandbox.cloud.gateway_spaces import GatewaySpaces
from rucio_cs3.sandbox.cloud.gateway_v3 import GatewayV3
from rucio_cs3.sandbox.cloud.http_server import Exchange, HttpServer
from rucio_cs3.sandbox.cloud.old_versions import VersionsByNode, VersionsByPath
from rucio_cs3.sandbox.cloud.rpc import generic_handler
from rucio_cs3.sandbox.cloud.state import V3_MOUNT, V3_STORAGE_ID, Behaviour, CloudState, user_id
from rucio_cs3.sandbox.cloud.tokens import TokenMint
from rucio_cs3.sandbox.cloud.traffic import Traffic
from rucio_cs3.sandbox.cloud.tree import Tree
from rucio_cs3.sandbox.cloud.uploads import UploadSessions
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK
from rucio_cs3.sandbox.reva import DEFAULT_USERS, User

if TYPE_CHECKING:
    import trustme

# Reva v3.12.1 example site and OpenCloud: 24 hours for access and transfer tokens.
_DAY_S = 86_400.0

# Calls are short, but a stalled one holds its thread; tests stall a few at most.
_GRPC_THREADS = 16
_GRPC_STOP_S = 2.0


class EmbeddedCloud(Startable):
    """One CS3 cloud in this process, on 127.0.0.1 with ports that the system picks at :meth:`start`.

    A cloud is started once. Its trees survive in ``directory``; uploads, metadata and the recycle bin's index are
    as long-lived as the object.

    :param name: short name for messages and the temporary directory.
    :param behaviour: which server line it answers like.
    :param directory: where everything is kept; a temporary one that is removed on stop if None.
    :param users: who can log in; the first one is whose ``root`` and ``webdav_url`` are given.
    :param http_tpc: V3 only: whether ocdav does HTTP-TPC (Reva's default is no; OpenCloud has none).
    :param ranges: V3 only: whether downloads serve ranges, as Reva v3.12.1 does with the EOS driver over gRPC (read in
        ``eosgrpc.go`` and ``eoshttp.go``, not run); the ``local`` driver does not.
    :param access_token_lifetime_s: validity of access tokens, in seconds; exp has whole seconds.
    :param transfer_token_lifetime_s: the same for transfer tokens.
    :param quota_bytes: SPACES: quota of each space; V3: size of the disk. No limit of ours if None.
    :param processing_delay_s: SPACES: how long post-processing holds a new file, in seconds.
    :param marker_interval_s: seconds between performance markers; Reva's are 5 s apart.
    :param bearer_secret: HS256 secret whose JWTs ``Authenticate`` takes as type ``bearer``; the user is their
        ``preferred_username`` or ``sub``. No such type if None, unless there is an issuer.
    :param issuer: URL of an OIDC issuer whose tokens let somebody in as type ``bearer``, as at a real site; none where
        empty.
    :param tls: TLS for gRPC and HTTP.
    :param authority: trustme.CA for ``tls``; one that all clouds of this process share if None.
    :param trusted: PEM files of more authorities whose sites this one may pull from or push to.
    :param faults: scripts to begin with.
    """

    def __init__(
        self,
        *,
        name: str = "cloud",
        behaviour: Behaviour = Behaviour.V3,
        directory: Path | None = None,
        users: Sequence[User] = DEFAULT_USERS,
        http_tpc: bool = True,
        ranges: bool = False,
        access_token_lifetime_s: float = _DAY_S,
        transfer_token_lifetime_s: float = _DAY_S,
        quota_bytes: int | None = None,
        processing_delay_s: float = 0,
        marker_interval_s: float = 5.0,
        bearer_secret: str | None = None,
        issuer: str = "",
        tls: bool = False,
        authority: trustme.CA | None = None,
        trusted: Sequence[Path] = (),
        faults: Faults | None = None,
    ) -> None:
        if not users:
            raise ValueError("an embedded cloud needs at least one user")
        if behaviour is Behaviour.V3 and processing_delay_s:
            raise ValueError("Reva v3 has no post-processing: processing_delay_s is for SPACES only")
        self.name = name
        self.behaviour = behaviour
        self.tls = tls
        self.http_tpc = http_tpc and behaviour is Behaviour.V3
        self.users: dict[str, User] = {user.username: user for user in users}
        self.faults = faults or Faults()
        if behaviour is Behaviour.V3:
            self.faults.refused = {"wrong-checksum": "Reva v3 with the local driver states no checksums"}
        self._settings: dict[str, Any] = {
            "access_lifetime_s": access_token_lifetime_s,
            "transfer_lifetime_s": transfer_token_lifetime_s,
            "bearer_secret": bearer_secret,
            "bearer_issuer": issuer,
        }
        self._ranges = ranges
        self._quota_bytes = quota_bytes
        self._processing_delay_s = processing_delay_s
        self._marker_interval_s = marker_interval_s
        self._authority = authority
        self._trusted = tuple(trusted)
        # OpenCloud: storage_id is the mount's uuid.
        self.storage_id = V3_STORAGE_ID if behaviour is Behaviour.V3 else str(uuid.uuid4())
        #: With it, a login of type ``machine`` is one as any user.
        self.machine_key = secrets.token_hex(32)
        #: SPACES: id -> secret of logins of type ``serviceaccounts``.
        self.service_accounts = {str(uuid.uuid4()): secrets.token_hex(16)}
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"rucio-cs3-{name}-"))
        self._state: CloudState | None = None
        self._http: HttpServer | None = None
        self._grpc: Any = None
        self._grpc_port = 0
        self._tls: tls_module.Tls | None = None

    @property
    def first_user(self) -> User:
        return next(iter(self.users.values()))

    def space_id(self, username: str) -> str:
        """Id of a user; in a SPACES cloud also of the personal space."""
        return user_id(self.users[username], self.behaviour)

    @property
    def gateway_tls(self) -> bool:
        """Whether gRPC is over TLS; here it is where HTTP is."""
        return self.tls

    @property
    def gateway(self) -> str:
        """``host:port`` of the CS3 gateway.

        :raises RuntimeError: the cloud was not started; so for every address.
        """
        self._running()
        return f"{LOOPBACK}:{self._grpc_port}"

    @property
    def http_url(self) -> str:
        """Base of everything HTTP, without a slash at the end."""
        return self._running().http_url

    @property
    def data_url(self) -> str:
        """Endpoint of the data gateway."""
        return self._running().data_url

    @property
    def webdav_url(self) -> str:
        """WebDAV base that stands for the CS3 place ``root``."""
        if self.behaviour is Behaviour.V3:
            return f"{self.http_url}/remote.php/webdav"
        return f"{self.http_url}/dav/spaces/{self.root}"

    @property
    def root(self) -> str:
        """``/localfs``, or ``<storage_id>$<space_id>`` of the first user's personal space."""
        if self.behaviour is Behaviour.V3:
            return V3_MOUNT
        return f"{self.storage_id}${self.space_id(self.first_user.username)}"

    @property
    def data_directory(self) -> Path:
        """Where the files below ``root`` are on disk, under their own names."""
        if self.behaviour is Behaviour.V3:
            return self.directory / "data"
        return self.directory / "spaces" / self.space_id(self.first_user.username)

    def path_on_disk(self, relative: str) -> Path:
        """Place on disk of a file, named relative to the WebDAV base and not percent-encoded."""
        return self.data_directory / relative.lstrip("/")

    @property
    def versions_directory(self) -> Path:
        """What was overwritten."""
        return self.directory / "versions"

    @property
    def uploads_directory(self) -> Path:
        """Where the bytes of unfinished uploads are."""
        return self.directory / "uploads"

    @property
    def ca_bundle(self) -> Path | None:
        """PEM file a client verifies this cloud with; None without TLS."""
        return self._tls.ca_bundle if self._tls is not None else None

    @property
    def log(self) -> Path | None:
        """One line for each request; never a token."""
        return self.directory / "cloud.log"

    @property
    def running(self) -> bool:
        return self._state is not None and not self._state.stopping.is_set()

    @property
    def traffic(self) -> Traffic:
        """What has passed through the HTTP side.

        :raises RuntimeError: the cloud was not started.
        """
        return self._running().traffic

    def access_token(self, username: str | None = None) -> str:
        """A fresh access token, as Authenticate would give it; of the first user if None is named."""
        state = self._running()
        user = self.first_user if username is None else self.users[username]
        return state.mint.issue_access(state.user_claim(user))

    def aged_token(self, token: str) -> str:
        """One of this cloud's access or transfer tokens as it is after its end.

        :raises ValueError: it is none of this cloud.
        """
        return self._running().mint.aged(token)

    def start(self) -> None:
        """Start both servers; returns when they answer.

        :raises RuntimeError: it was started before.
        """
        if self._state is not None:
            raise RuntimeError(f"the embedded cloud {self.name!r} can be started once only")
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.tls:
            self._tls = tls_module.prepare(self.directory, self._authority, self._trusted)
        self._state = state = self._new_state()
        server_tls = self._tls.server if self._tls is not None else None
        self._http = HttpServer(state, _route, (LOOPBACK, 0), server_tls)
        state.http_url = f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self._http.server_port}"
        gateway: Gateway = GatewayV3(state) if state.v3 else GatewaySpaces(state)
        handler = generic_handler(state, gateway.methods(), gateway.check_login, gateway.check_scope)
        # so_reuseport 0: two servers must never share a port by accident.
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(_GRPC_THREADS, thread_name_prefix="embedded-cloud-grpc"),
            options=[("grpc.so_reuseport", 0)],
        )
        self._grpc.add_generic_rpc_handlers((handler,))
        if self._tls is not None:
            self._grpc_port = self._grpc.add_secure_port(f"{LOOPBACK}:0", self._tls.grpc_credentials)
        else:
            self._grpc_port = self._grpc.add_insecure_port(f"{LOOPBACK}:0")
        self._grpc.start()
        self._http.start()

    def stop(self) -> None:
        """Break what is going on, stop both servers, remove a temporary directory. Idempotent."""
        if self._state is not None:
            self._state.stopping.set()
        if self._grpc is not None:
            self._grpc.stop(0).wait(_GRPC_STOP_S)
            self._grpc = None
        if self._http is not None:
            self._http.stop()
            self._http = None
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _running(self) -> CloudState:
        if self._state is None:
            raise RuntimeError(f"the embedded cloud {self.name!r} has no address before it is started")
        return self._state

    def _new_state(self) -> CloudState:
        recycle = self.directory / "recycle"
        self.versions_directory.mkdir(exist_ok=True)
        if self.behaviour is Behaviour.V3:
            by_path = VersionsByPath(self.versions_directory)
            trees = {"": Tree(self.directory / "data", recycle, by_path=True, versions=by_path)}
        else:
            ids = [self.space_id(username) for username in self.users]
            by_node = VersionsByNode(self.versions_directory)
            trees = {one: Tree(self.directory / "spaces" / one, recycle / one, versions=by_node) for one in ids}
        return CloudState(
            behaviour=self.behaviour,
            users=self.users,
            mint=TokenMint(issuer=f"http://{self.name}.test", **self._settings),
            trees=trees,
            uploads=UploadSessions(self.uploads_directory),
            faults=self.faults,
            storage_id=self.storage_id,
            http_tpc=self.http_tpc,
            ranges=self._ranges,
            quota_bytes=self._quota_bytes,
            processing_delay_s=self._processing_delay_s,
            marker_interval_s=self._marker_interval_s,
            machine_key=self.machine_key,
            service_accounts=self.service_accounts,
            peers=self._tls.peers if self._tls is not None else tls_module.peer_context(self._trusted),
            log_path=self.log,
        )


def _route(exchange: Exchange) -> None:
    """Give a request to the data gateway or to WebDAV."""
    endpoint = exchange.state.data_url.removeprefix(exchange.state.http_url)
    path = exchange.url_path
    if path == endpoint or path.startswith(f"{endpoint}/"):
        data_gateway.handle(exchange, path[len(endpoint) + 1 :])
    else:
        webdav.handle(exchange)
