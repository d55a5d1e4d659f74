"""The public settings of one CS3 endpoint, as one frozen, validated value.

Pure; holds no secret (those are in :mod:`rucio_cs3.cs3.auth`) and knows no Rucio
(:mod:`rucio_cs3.rses` reads RSE settings into this).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import MountRoot, Root, SpaceRoot, WebDAVBase

#: How an upload comes to stand under its final name; see :attr:`Endpoint.landing`.
Landing = Literal["direct", "temporary"]

#: How content is proven at the storage that received it; see :attr:`Endpoint.proof`.
Proof = Literal["read", "server", "size"]


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds. There is no limit on a whole upload or download, only on silence.

    :param call_s: deadline of one gRPC call.
    :param operation_s: deadline of one call with all its retries; a login that it needs has its own.
    :param connect_s: for a TCP and TLS connection.
    :param idle_s: longest silence on a data connection. A server that syncs a large file to disk
        after the last byte is silent meanwhile, so this is minutes rather than seconds.
    :param processing_s: longest wait for a server's post-processing (virus scan and such) of an upload.
    """

    call_s: float = 30.0
    operation_s: float = 90.0
    connect_s: float = 10.0
    idle_s: float = 300.0
    processing_s: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise errors.ConfigurationError(f"timeout {name} must be above 0 seconds, not {value}")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One CS3 cloud as one client sees it.

    :param name: what messages call it: the RSE's name, or the host.
    :param gateway: ``host:port`` of the gRPC gateway.
    :param webdav: the WebDAV front end, which names the files, and the root it stands for.
    :param gateway_tls: whether the gateway speaks TLS; plaintext is refused elsewhere than on
        loopback unless ``allow_plaintext`` is set.
    :param ca_bundle: PEM file to verify gateway and data connections with; None is the system's.
    :param insecure: do not verify certificates of HTTP connections at all; warned about loudly.
    :param allow_plaintext: tokens may travel unencrypted to hosts other than this machine.
    :param data_hosts: hosts beside those of gateway and WebDAV that an upload or download ticket may
        name; the access token is sent to no other.
    :param landing: ``temporary``: uploads go to a hidden sibling and are moved to the final name when
        proven (the CERNBox line shows a cut upload under its name); ``direct``: the server makes
        uploads visible only when whole (OpenCloud; refused for paths); None decides by the kind of root.
    :param proof: how uploads and transfers are proven after the size: ``server`` the server's own checksum
        where it keeps one, and nothing more where it does not; ``read`` the server's, and where it keeps
        none a read of the whole file; ``size`` nothing more.
    """

    name: str
    gateway: str
    webdav: WebDAVBase
    gateway_tls: bool = True
    ca_bundle: Path | None = None
    insecure: bool = False
    allow_plaintext: bool = False
    data_hosts: frozenset[str] = frozenset()
    landing: Landing | None = None
    proof: Proof = "read"
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        host, _ = split_address(self.gateway, f"{self.name}: gateway")
        if self.landing == "direct" and self.stores_paths:
            # Reva v3.12.1 local was seen to; for its other drivers nobody has looked.
            raise errors.ConfigurationError(
                f"{self.name}: landing direct is for spaces only; servers with paths show cut uploads under their name"
            )
        if self.ca_bundle is not None and not self.ca_bundle.is_file():
            raise errors.ConfigurationError(f"{self.name}: ca_bundle {self.ca_bundle} is no file")
        if self.allow_plaintext:
            return
        for what, plain, name in (
            (f"gateway {self.gateway}", not self.gateway_tls, host),
            (f"WebDAV {self.webdav.host}:{self.webdav.port}", not self.webdav.secure, self.webdav.host),
        ):
            if plain and not is_loopback(name):
                raise errors.ConfigurationError(
                    f"{self.name}: {what} would get tokens without TLS; use TLS, or set allow_plaintext "
                    "(at an RSE: cs3_allow_plaintext) if the network between is trusted"
                )

    @property
    def root(self) -> Root:
        """The root that all references of this endpoint are below."""
        return self.webdav.root

    @property
    def gateway_host(self) -> str:
        """Host part of :attr:`gateway`."""
        return split_address(self.gateway, self.name)[0]

    @property
    def upload_landing(self) -> Landing:
        """:attr:`landing`, decided. Reva v3.12.1 ``local``: a cut PUT leaves a visible stub, so a mount
        path lands on a temporary name; OpenCloud decomposedfs: a cut PUT leaves nothing, so a space does not."""
        if self.landing is not None:
            return self.landing
        return "direct" if isinstance(self.root, SpaceRoot) else "temporary"

    @property
    def stores_paths(self) -> bool:
        """Whether references are mount paths (the CERNBox line) rather than spaces."""
        return isinstance(self.root, MountRoot)

    def check_data_url(self, url: str) -> str:
        """Return a ticket's URL if the access token may be sent there.

        :raises ProtocolViolation: for another scheme than http(s), another host than the allowed ones,
            or plaintext where it is not allowed.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port  # a port that is none is found only when it is asked for
        except ValueError as exc:
            raise errors.ProtocolViolation(f"{self.name}: the ticket's URL is none: {exc}") from exc
        if "\\" in url or "@" in parts.netloc:
            # urllib3 ends the host at a backslash and urlsplit does not: the token would go elsewhere.
            raise errors.ProtocolViolation(f"{self.name}: the ticket's URL has a user or a backslash in its host")
        if parts.scheme not in ("http", "https") or not host:
            raise errors.ProtocolViolation(f"{self.name}: the ticket names {parts.scheme}://{host}, no HTTP server")
        allowed = {self.gateway_host, self.webdav.host, *(name.lower() for name in self.data_hosts)}
        if host not in allowed:
            raise errors.ProtocolViolation(
                f"{self.name}: the ticket sends data to host {host}, which is none of {', '.join(sorted(allowed))}; "
                "if that is right, add it to data_hosts (at an RSE: cs3_data_hosts)"
            )
        if parts.scheme == "http" and not (self.allow_plaintext or is_loopback(host)):
            raise errors.ProtocolViolation(f"{self.name}: the ticket sends data and token without TLS to {host}")
        return url


def split_address(address: str, where: str) -> tuple[str, int]:
    """Read ``host:port`` or ``[ipv6]:port``.

    :raises ConfigurationError: naming ``where``, when it is neither.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or f"{parts.path}{parts.query}{parts.fragment}" or "@" in address:
        raise errors.ConfigurationError(f"{where} must be host:port such as cernbox.example.org:9142, not {address!r}")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone; no name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # 127.0.0.1.example.org is no address, and somebody else's machine.
        return host == "localhost"
