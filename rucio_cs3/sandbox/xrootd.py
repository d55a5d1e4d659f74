"""A real XRootD site (one ``xrootd`` process: HTTPS, third-party copy, macaroons) for tests and demo.

XRootD is not part of this package; Debian's ``xrootd-server`` and ``xrootd-server-plugins`` have all of it. It is the
plain WebDAV side of a transfer: what it answers is in docs/rse-setup.md.
Always TLS, because XRootD 5.5.3 loads its HTTP extensions (copy, macaroons) with TLS only
(src/XrdHttp/XrdHttpProtocol.cc). Read next: ``processes.py``.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_cs3.sandbox.authority import common_authority
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_ports
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.probing import http_status
from rucio_cs3.sandbox.processes import ChildProcess

if TYPE_CHECKING:
    import trustme

#: The one path that a site exports; all URLs begin with it.
EXPORT = "/data"

#: What a token of a site may be good for (XRootD 5.5.3 src/XrdMacaroons/XrdMacaroonsAuthz.cc).
ALL_ACTIVITIES = ("DOWNLOAD", "UPLOAD", "DELETE", "MANAGE", "LIST", "READ_METADATA", "UPDATE_METADATA")

_LIBRARIES = ("libXrdHttp", "libXrdHttpTPC", "libXrdMacaroons")

# Ready in half a second; a loaded CI machine gets far more.
_READY_TIMEOUT_S = 60.0

# XRootD refuses to run as root. Everybody has this user, and it owns nothing.
_USER = "nobody"


@functools.cache
def xrootd_is_installed() -> bool:
    """Whether a site can be started here: the program, and its libraries for HTTP, copies and macaroons."""
    program = shutil.which("xrootd")
    if program is None:
        return False
    # Where the libraries are differs by distribution; the names of plug-ins carry a version.
    folders = [Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"), *Path("/usr/lib").glob("*-linux-gnu")]
    return all(any(path for folder in folders for path in folder.glob(f"{name}-*.so")) for name in _LIBRARIES)


class XRootDSite(Startable):
    """One XRootD site on 127.0.0.1 with ports, secret and data of its own, in a temporary directory.

    :param name: short name for logs and messages; also the site name, which its macaroons carry.
    :param anonymous: whether requests without a token may do everything. Otherwise only the bearer of a macaroon
        (:meth:`token`) may do anything.
    :param authority: trustme.CA that issues its certificate; one that all sites of this process share if None.
    :param trusted: more PEM files of authorities whose servers this site may pull from or push to.
    :param secret: what macaroons are signed with (base64); sites with one name and one secret accept each other's.
    """

    def __init__(
        self,
        name: str = "xrootd",
        *,
        anonymous: bool = False,
        authority: trustme.CA | None = None,
        trusted: Sequence[Path] = (),
        secret: str | None = None,
    ) -> None:
        self.name = name
        self.anonymous = anonymous
        self.secret = secret or base64.b64encode(secrets.token_bytes(64)).decode()
        self._authority = authority
        self._trusted = tuple(trusted)
        self._xrootd_port, self._http_port = free_ports(2)
        self.directory = Path(tempfile.mkdtemp(prefix=f"rucio-cs3-{name}-"))
        self._process: ChildProcess | None = None

    @property
    def port(self) -> int:
        return self._http_port

    @property
    def url(self) -> str:
        """Base of all its files' URLs, without a slash at the end."""
        return f"https://{LOOPBACK}:{self._http_port}{EXPORT}"

    @property
    def ca_bundle(self) -> Path:
        """PEM file a client verifies this site with."""
        return self.directory / "ca.pem"

    @property
    def log(self) -> Path:
        return self.directory / "xrootd.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def path_on_disk(self, relative: str) -> Path:
        """Place on this machine's disk of a file, named relative to :attr:`url` and not percent-encoded."""
        return self.directory / "root" / EXPORT.lstrip("/") / relative.lstrip("/")

    def write(self, relative: str, content: bytes) -> Path:
        """Put a file there as the site itself would have."""
        path = self.path_on_disk(relative)
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir()
            _give_away(folder)
        path.write_bytes(content)
        _give_away(path)
        return path

    def token(
        self,
        path: str = "",
        activities: Sequence[str] = ALL_ACTIVITIES,
        lifetime: datetime.timedelta = datetime.timedelta(hours=12),
    ) -> str:
        """A macaroon for everything at and below a path relative to :attr:`url`. XRootD refuses any for over a day."""
        end = datetime.datetime.now(datetime.timezone.utc) + lifetime
        caveats = (
            f"activity:{','.join(activities)}",
            f"path:{EXPORT}/{path}".rstrip("/"),
            f"before:{end:%Y-%m-%dT%H:%M:%SZ}",
        )
        return _macaroon(base64.b64decode(self.secret), self.name, secrets.token_hex(8), caveats)

    def start(self) -> None:
        """Start XRootD and wait until it answers over HTTPS.

        :raises ProcessError: it died or was not ready within a minute; with the end of its log.
        """
        self.directory.mkdir(exist_ok=True)
        self.path_on_disk("").mkdir(parents=True, exist_ok=True)
        (self.directory / "admin").mkdir(exist_ok=True)
        self._write_certificates()
        # In lines: OpenSSL reads no base64 of one long line without an end.
        self._write("secret", base64.encodebytes(base64.b64decode(self.secret)).decode())
        self._write("authdb", f"u * {EXPORT} a\n" if self.anonymous else "")
        self._write("xrootd.cfg", self._render_configuration())
        as_nobody = ["-R", _USER] if os.geteuid() == 0 else []
        for path in (self.directory, *self.directory.rglob("*")):
            _give_away(path)
        self._process = ChildProcess(
            f"XRootD site {self.name!r}",
            ["xrootd", *as_nobody, "-c", self.directory / "xrootd.cfg", "-n", self.name],
            log=self.log,
            directory=self.directory,
        )
        self._process.start()
        self._process.wait_until(self._answers, timeout_s=_READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop XRootD and remove its directory. Idempotent."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        # Without a token this is 403, which is an answer, too.
        return http_status(f"{self.url}/", ca_bundle=self.ca_bundle) is not None

    def _write_certificates(self) -> None:
        authority = self._authority or common_authority()
        certificate = authority.issue_cert(LOOPBACK, "localhost")
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        self._write("server.pem", chain.decode())
        self._write("server.key", certificate.private_key_pem.bytes().decode())
        own = authority.cert_pem.bytes()
        self.ca_bundle.write_bytes(own)
        (self.directory / "trusted.pem").write_bytes(
            own + b"\n" + b"".join(path.read_bytes() + b"\n" for path in self._trusted)
        )

    def _render_configuration(self) -> str:
        directory = self.directory
        return f"""\
all.sitename {self.name}
all.export {EXPORT}
all.adminpath {directory}/admin
all.pidpath {directory}/admin
oss.localroot {directory}/root
xrd.port {self._xrootd_port}
xrd.network nodnr
xrd.tls {directory}/server.pem {directory}/server.key
xrd.tlsca certfile {directory}/trusted.pem
xrd.protocol XrdHttp:{self._http_port} libXrdHttp.so
http.exthandler xrdtpc libXrdHttpTPC.so
http.exthandler xrdmacaroons libXrdMacaroons.so
# So that the bearer of a token is asked, and not the connection alone.
http.header2cgi Authorization authz
http.desthttps yes
http.selfhttps2http no
xrootd.chksum adler32
ofs.authorize 1
ofs.authlib libXrdMacaroons.so
acc.authdb {directory}/authdb
macaroons.secretkey {directory}/secret
"""

    def _write(self, name: str, text: str) -> Path:
        """Most of them hold secrets."""
        return write_private(self.directory / name, text)


def _give_away(path: Path) -> None:
    """Give a file to the user that XRootD runs as, where that is another one."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def _macaroon(secret: bytes, location: str, identifier: str, caveats: Sequence[str]) -> str:
    """A macaroon as libmacaroons serialises it (version 1: packets of "<length in 4 hex digits><key> <value>\\n")."""

    def packet(key: str, value: bytes) -> bytes:
        body = key.encode() + b" " + value + b"\n"
        return f"{len(body) + 4:04x}".encode() + body

    def mac(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, hashlib.sha256).digest()

    signature = mac(mac(b"macaroons-key-generator".ljust(32, b"\0"), secret), identifier.encode())
    packets = packet("location", location.encode()) + packet("identifier", identifier.encode())
    for caveat in caveats:
        packets += packet("cid", caveat.encode())
        signature = mac(signature, caveat.encode())
    packets += packet("signature", signature)
    return base64.urlsafe_b64encode(packets).decode().rstrip("=")
