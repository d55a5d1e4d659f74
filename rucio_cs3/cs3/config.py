"""The public settings of a site, as one frozen, validated value: :class:`Endpoint` is a CS3 cloud, and
:class:`WebDAVSite` any other WebDAV server.

Pure; holds no secret (those are in :mod:`rucio_cs3.cs3.login.tokens`) and knows no Rucio
(:mod:`rucio_cs3.rses` reads RSE settings into this).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hosts import is_named, is_off_limits, split_name
from rucio_cs3.cs3.reference import MountRoot, Reference, Root, SpaceRoot, WebDAVBase

#: How an upload comes to stand under its final name; see :attr:`Endpoint.landing`.
Landing = Literal["direct", "temporary"]

#: How the bytes of an upload are sent; see :attr:`Endpoint.upload_protocol`.
UploadProtocol = Literal["auto", "simple", "tus"]

#: Most parallel streams of one download. Every one is a connection and a ticket of its own.
MAX_DOWNLOAD_STREAMS = 8

#: Longest timeout, in seconds: a week. poll(2) takes no more than 24 days.
TIMEOUT_MAX_S = 7 * 86_400.0

#: How content is proven at the storage that received it; see :attr:`Endpoint.proof`.
Proof = Literal["read", "server", "size"]

#: What becomes of what Rucio deletes; see :attr:`Endpoint.deletion`.
Deletion = Literal["keep", "purge"]

#: Whether that is looked at before; see :attr:`Endpoint.deletion_look`.
DeletionLook = Literal["each", "never"]


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
            if not 0 < value <= TIMEOUT_MAX_S:
                raise errors.ConfigurationError(
                    f"timeout {name} must be above 0 seconds and at most {TIMEOUT_MAX_S:.0f} (a week), not {value}"
                )


@dataclass(frozen=True, kw_only=True)
class Site:
    """What HTTP with a site needs to know, whatever the site is.

    :param name: what messages call it: the RSE's name, or the host.
    :param ca_bundle: PEM file to verify its servers with; None is certifi's, never the system's.
    :param client_certificate: PEM file that says who we are to servers that ask for it: the site's own, and those of
        ``data_hosts``.
    :param client_key: PEM file with its key, without a password, and readable by its owner only; None where the
        certificate's file has it, too (and is as private).
    :param insecure: do not verify certificates: of HTTP not at all; of gRPC, which cannot do without, only that it is
        the one which this process saw first. Warned about loudly.
    :param tls_name_for_tests: name that certificates of the site's own hosts must be for, in place of the host's; for
        tests, because whoever has a certificate for this name can stand in for them.
    :param allow_plaintext: tokens may travel unencrypted to hosts other than this machine.
    :param data_hosts: ``host`` (at any port) or ``host:port`` beside the site's own hosts that a ticket or redirect may
        name; a token of the site is sent to no other. Never one that :func:`~.hosts.is_off_limits` names.
    :param proof: how uploads and transfers are proven after the size: ``server`` the server's own checksum
        where it keeps one, and nothing more where it does not; ``read`` the server's, and where it keeps
        none a read of the whole file; ``size`` nothing more.
    """

    name: str
    ca_bundle: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    tls_name_for_tests: str | None = None
    allow_plaintext: bool = False
    data_hosts: frozenset[str] = frozenset()
    proof: Proof = "read"
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        for name in self.data_hosts:
            try:
                host, _ = split_name(name)
            except ValueError as exc:
                raise errors.ConfigurationError(f"{self.name}: data_hosts: {exc}") from None
            if is_off_limits(host):
                raise errors.ConfigurationError(
                    f"{self.name}: data_hosts: {host} is a link-local or unspecified address; no token goes there"
                )
        for what in ("ca_bundle", "client_certificate", "client_key"):
            path: Path | None = getattr(self, what)
            if path is not None and not is_file(path):
                raise errors.ConfigurationError(f"{self.name}: {what} {path} is no file on this machine")
        if self.client_key is not None and self.client_certificate is None:
            raise errors.ConfigurationError(f"{self.name}: client_key needs a client_certificate")

    @property
    def own_hosts(self) -> frozenset[str]:
        """The hosts that a ticket may name, at any port, without being in :attr:`data_hosts`."""
        return frozenset()

    def check_data_url(self, url: str) -> str:
        """Return the URL of a ticket if the access token may be sent there.

        :raises ProtocolViolation: for another scheme than http(s), another host than the allowed ones (a link-local one
            in any case), or plaintext where it is not allowed.
        """
        host, port = self._place(url, "ticket")
        if host not in self.own_hosts and not is_named(host, port, self.data_hosts):
            raise errors.ProtocolViolation(
                f"{self.name}: the ticket sends data to host {host}:{port}, which is none of "
                f"{', '.join(sorted(self.own_hosts | self.data_hosts))}; if that is right, add it to data_hosts "
                "(as a setting: cs3_data_hosts)"
            )
        return url

    def check_redirect(self, url: str, following: str) -> str:
        """Return the URL that a redirect leads to if a token that was sent to ``url`` may be sent there, too.

        Narrower than a ticket's, which the cloud made for us: behind another port of the same host may be anybody.

        :raises ProtocolViolation: for another host *or port* than those of ``url``, unless the host is in
            :attr:`data_hosts`; from https to http; and otherwise as for :meth:`check_data_url`.
        """
        host, port = self._place(following, "redirect")
        if urlsplit(url).scheme == "https" and urlsplit(following).scheme == "http":
            raise errors.ProtocolViolation(f"{self.name}: the redirect to {host} leaves TLS")
        if (host, port) != self._place(url, "request") and not is_named(host, port, self.data_hosts):
            raise errors.ProtocolViolation(
                f"{self.name}: the redirect leads to {host}:{port}; if that is right, add the host to data_hosts "
                "(as a setting: cs3_data_hosts)"
            )
        return following

    def may_know_us(self, host: str, port: int) -> bool:
        """Whether a server may get to see the client certificate: not whomever a redirect leads to."""
        return host.lower() in self.own_hosts or is_named(host.lower(), port, self.data_hosts)

    def tls_name_of(self, host: str) -> str:
        """The name that a server's certificate must be for."""
        if self.tls_name_for_tests is not None and host.lower() in self.own_hosts:
            return self.tls_name_for_tests
        return host

    def _place(self, url: str, what: str) -> tuple[str, int]:
        """Host and port of a URL that data and token may go to as far as its form tells.

        :param what: what messages call the bringer of the URL, which itself may hold a secret.
        :raises ProtocolViolation: for another scheme than http(s), a host that is off limits, or plaintext where it is
            not allowed.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port  # a port that is none is found only when it is asked for
        except ValueError:
            raise errors.ProtocolViolation(f"{self.name}: the {what}'s URL is none") from None
        if "\\" in url or "@" in parts.netloc:
            # Browsers end the host at a backslash and urlsplit does not: no two of those that read it are to differ.
            raise errors.ProtocolViolation(f"{self.name}: the {what}'s URL has a user or a backslash in its host")
        if parts.scheme not in ("http", "https") or not host:
            raise errors.ProtocolViolation(f"{self.name}: the {what} names {parts.scheme}://{host}, no HTTP server")
        if is_off_limits(host):
            raise errors.ProtocolViolation(f"{self.name}: the {what} leads to {host}, where nothing is ever sent")
        if parts.scheme == "http" and not (self.allow_plaintext or is_loopback(host)):
            raise errors.ProtocolViolation(
                f"{self.name}: the {what} sends data and token without TLS to {host}; if the network between is "
                "trusted, set allow_plaintext (as a setting: cs3_allow_plaintext)"
            )
        return host, port if port is not None else (443 if parts.scheme == "https" else 80)

    def refuse_plaintext(self, what: str, host: str) -> None:
        """Settings are asked this, and every request by HTTP.

        :raises ConfigurationError: unless plaintext may go to ``host``.
        """
        if not (self.allow_plaintext or is_loopback(host)):
            raise errors.ConfigurationError(
                f"{self.name}: {what} would get tokens without TLS; use TLS, or set allow_plaintext "
                "(as a setting: cs3_allow_plaintext) if the network between is trusted"
            )


@dataclass(frozen=True, kw_only=True)
class WebDAVSite(Site):
    """A WebDAV server that is no CS3 cloud (dCache, EOS, XRootD, StoRM), reached over HTTP only.

    :param server: scheme, host and port; its path is empty, and all references are below ``/``.
    :param prefix: folder that all files of the site are below.
    """

    server: WebDAVBase
    prefix: Reference

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.server.secure:
            self.refuse_plaintext(f"WebDAV {self.server.host}:{self.server.port}", self.server.host)

    @property
    def own_hosts(self) -> frozenset[str]:
        return frozenset({self.server.host})


@dataclass(frozen=True, kw_only=True)
class Endpoint(Site):
    """One CS3 cloud as one client sees it.

    :param gateway: ``host:port`` of the gRPC gateway.
    :param webdav: the WebDAV front end, which names the files, and the root it stands for.
    :param gateway_tls: whether the gateway speaks TLS; plaintext is refused elsewhere than on
        loopback unless ``allow_plaintext`` is set.
    :param landing: ``temporary``: uploads go to a hidden sibling and are moved to the final name when
        proven (the CERNBox line shows a cut upload under its name); ``direct``: the server makes
        uploads visible only when whole (OpenCloud; refused for paths); None decides by the kind of root.
    :param upload_protocol: ``simple``: one PUT; ``tus``: resumable, in pieces, wherever the server offers it; ``auto``
        decides by size and offer.
    :param keep_checksums: where the server stores none, keep those of an upload as metadata of the file.
    :param download_streams: most streams that fetch ranges of one file at the same time, 1 to
        :data:`MAX_DOWNLOAD_STREAMS`; a server without ranges gets one.
    :param deletion: what becomes of the files that Rucio deletes: ``keep``: they go into the recycle bin; ``purge``:
        and out of it again, for good.
    :param deletion_look: ``each``: each place is looked at before Rucio's deletion, so that a folder there stays;
        ``never``: a folder there goes into the recycle bin with all in it (refused with ``purge``).
    """

    gateway: str
    webdav: WebDAVBase
    gateway_tls: bool = True
    landing: Landing | None = None
    upload_protocol: UploadProtocol = "auto"
    keep_checksums: bool = True
    download_streams: int = 4
    deletion: Deletion = "keep"
    deletion_look: DeletionLook = "each"

    def __post_init__(self) -> None:
        if not 1 <= self.download_streams <= MAX_DOWNLOAD_STREAMS:
            raise errors.ConfigurationError(
                f"{self.name}: download_streams must be 1 to {MAX_DOWNLOAD_STREAMS}, not {self.download_streams}"
            )
        if self.deletion == "purge" and self.deletion_look == "never":
            raise errors.ConfigurationError(
                f"{self.name}: deletion purge (as a setting: cs3_delete) does not go with deletion_look never (as a "
                "setting: cs3_delete_look): what nobody looks at may be a folder, and all in it would be gone for good"
            )
        host, _ = split_address(self.gateway, f"{self.name}: gateway")
        if is_off_limits(host):
            raise errors.ConfigurationError(
                f"{self.name}: gateway {host} is a link-local or unspecified address; no token goes there"
            )
        if self.landing == "direct" and self.stores_paths:
            # Reva v3.12.1 local was seen to; for its other drivers nobody has looked.
            raise errors.ConfigurationError(
                f"{self.name}: landing direct is for spaces only; servers with paths show cut uploads under their name"
            )
        super().__post_init__()
        if not self.gateway_tls:
            self.refuse_plaintext(f"gateway {self.gateway}", host)
        if not self.webdav.secure:
            self.refuse_plaintext(f"WebDAV {self.webdav.host}:{self.webdav.port}", self.webdav.host)

    @property
    def own_hosts(self) -> frozenset[str]:
        return frozenset({self.gateway_host, self.webdav.host})

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


def is_file(path: Path) -> bool:
    """Whether a path of a setting names a file; what is too long, or no path at all, names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone, beyond doubt; no name is looked up.

    For what is allowed to this machine only. What is forbidden to it, however it is written, asks
    :func:`~.hosts.is_this_machine`.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # 127.0.0.1.example.org is no address, and somebody else's machine.
        return host == "localhost"
