"""Rucio's view of a CS3 cloud: the RSE protocol, Rucio's words for :class:`~rucio_cs3.cs3.storage.CS3Storage`.

``impl`` of an RSE's protocol is ``rucio_cs3.protocol.Default`` (upload to ``<name>.rucio.upload``, then rename, as
Rucio does by itself) or ``rucio_cs3.protocol.NoRename`` (upload to the name itself, which this package makes
atomic by its own means). A PFN is the file's WebDAV URL. Settings come from :mod:`rucio_cs3.rses`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rucio.common import exception
from rucio.rse.protocols.protocol import RSEProtocol

from rucio_cs3 import rse_credentials, rses
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.kept_checksums import KEEP_FROM_BYTES
from rucio_cs3.cs3.reference import Reference, WebDAVBase, encode_path
from rucio_cs3.made_names import MADE_NAMES
from rucio_cs3.rucio_exceptions import PUT_EXCEPTIONS, RucioExceptions
from rucio_cs3.settings import prefix_path

if TYPE_CHECKING:
    # What needs gRPC is imported by connect(): a server that only makes PFNs needs none of it.
    from rucio_cs3.cs3 import CS3Storage, Endpoint, FileInfo
    from rucio_cs3.deletion import Deletions

#: Ending of the name that Rucio uploads to before it renames (uploadclient.py, rsemanager.py of Rucio 41.5.1).
UPLOAD_SUFFIX = ".rucio.upload"

#: Bytes free that an unlimited space reports: Rucio's columns are signed 64-bit integers, and no disk is 4 EiB.
UNLIMITED_BYTES = 2**62


class Default(RSEProtocol):  # type: ignore[misc]  # Rucio carries no types
    """The protocol with Rucio's own temporary name and rename."""

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: Any, logger: Callable[..., Any] = logging.log
    ) -> None:
        super().__init__(protocol_attr, rse_settings, logger=logger)
        self._take: Callable[[], CS3Storage] | None = None
        self._storage: CS3Storage  # as it was taken by the process of this id
        self._pid = 0
        # PFN -> (identity of the content, adler32): what put has proven by reading it back, for the stat that
        # Rucio makes right after. Bounded by the uploads of one protocol object.
        self._proven: dict[str, tuple[tuple[str, int, float], str]] = {}
        self._deleting: Deletions | None = None

    # -- names: no network, no settings, so that a server can make PFNs for every client ---------------------

    def lfns2pfns(self, lfns: Any) -> dict[str, str]:
        """``scope:name`` -> PFN, a WebDAV URL percent-encoded exactly once.

        :param lfns: one dict or a list of dicts with ``scope``, ``name`` and maybe ``path``.
        """
        prefix = prefix_path(self.attributes)
        pfns = {}
        for lfn in [lfns] if isinstance(lfns, dict) else lfns:
            scope, name = str(lfn["scope"]), lfn["name"]
            try:
                path = lfn.get("path") or self._get_path(scope=scope, name=name)
            except exception.ReplicaNotFound as error:
                # As Rucio's own class does: one unknown replica does not spoil the others.
                self.logger(logging.WARNING, str(error))
                continue
            pfns[f"{scope}:{name}"] = f"{self._server}{prefix}{encode_path(path.lstrip('/'))}"
        MADE_NAMES.add(pfns.values())
        return pfns

    def parse_pfns(self, pfns: Iterable[str] | str) -> dict[str, dict[str, Any]]:
        """PFN -> its parts: ``path`` (decoded, with a slash at both ends), ``name``, scheme, prefix, port, hostname.

        :raises RSEFileNameNotSupported: for a PFN of another host, port or prefix, or with ``..`` in it.
        """
        parsed: dict[str, dict[str, Any]] = {}
        prefix = unquote(prefix_path(self.attributes))
        with RucioExceptions():
            base = _server_base(self._server)
            for pfn in [pfns] if isinstance(pfns, str) else pfns:
                path = f"/{base.reference(pfn).path}"
                if not path.startswith(prefix):
                    raise self._outside(pfn)
                folder, _, name = path[len(prefix) :].rpartition("/")
                parsed[pfn] = {
                    "path": f"/{folder}/" if folder else "/",
                    "name": name,
                    "scheme": urlsplit(pfn).scheme,
                    "prefix": prefix,
                    "port": self.attributes["port"],
                    "hostname": self.attributes["hostname"],
                }
        return parsed

    def http_url(self, pfn: str) -> str:
        """The ``https`` or ``http`` URL of a PFN of any scheme."""
        with RucioExceptions():
            base = _server_base(self._server)
            # So port 0, upper-case schemes and unencoded characters come out as other servers understand them, too.
            return base.url(base.reference(pfn))

    # -- connection ----------------------------------------------------------------------------------------

    def connect(self, credentials: Mapping[str, Any] | None = None) -> None:
        """Read settings and credentials, and log in. Storages are shared by all objects of the process.

        :param credentials: given by programs other than Rucio 41.5.1, which passes none; see
            :func:`rucio_cs3.rse_credentials.credentials`.
        :raises RSEAccessDenied: when the cloud refuses the login.
        :raises ConfigurationError: naming RSE and key.
        :raises ServiceUnavailable: when the cloud cannot be reached.
        """
        with RucioExceptions():
            # Here, for it takes a tenth of a second, and many commands with this package never come here.
            from rucio_cs3.cs3.pool import POOL

            endpoint = rses.endpoint(self.rse, self.attributes)
            session = rse_credentials.RucioSession(
                self.auth_token, rses.rucio_token_audience(self.rse, self.attributes)
            )
            provider = rse_credentials.credentials(self.rse, credentials, session=session)
            take = functools.partial(POOL.get, endpoint, provider)
            # A wrong password is better said here than as the failure of each file.
            take().access_token()
        self._take, self._pid = take, 0

    def close(self) -> None:
        """Finish deletions. Connections stay: they belong to the process, and the next object uses them."""
        if self._deleting is not None:
            self._deleting.finish()

    @property
    def storage(self) -> CS3Storage:
        """The cloud behind this RSE; raises ServiceUnavailable before ``connect``."""
        if self._take is None:
            raise exception.ServiceUnavailable(f"RSE {self.rse['rse']}: connect() was not called")
        if self._pid != os.getpid():
            # After a fork the parent's cannot be used: a thread that is not here may hold one of its locks.
            self._storage, self._pid = self._take(), os.getpid()
        return self._storage

    @property
    def endpoint(self) -> Endpoint:
        """The public settings in force."""
        return self.storage.endpoint

    def reference(self, pfn: str) -> Reference:
        """The place that a PFN below this RSE's prefix names.

        :raises RSEFileNameNotSupported: for any other PFN.
        """
        with RucioExceptions():
            # Once for the PFN, rather than by parse_pfns() and again: this is a tenth of a stat.
            reference = self.endpoint.webdav.reference(pfn)
            below = self._prefix_reference.path
            if below and not reference.path.startswith(f"{below}/"):
                raise self._outside(pfn)
            return reference

    # -- operations ----------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether the file of a PFN is there. "No" is only what the cloud says to a token known to be good.

        :raises ServiceUnavailable: when the cloud cannot say.
        """
        with RucioExceptions():
            return self.storage.exists(self.reference(path))

    def stat(self, path: str) -> dict[str, Any]:
        """``filesize`` in bytes and ``adler32`` as eight hex digits of the file of a PFN; ``md5`` where known.

        Where neither the server has a checksum nor one is kept beside the file, and this RSE's content is to be proven
        (``verify_checksum`` on and ``cs3_proof`` read), a file too small to keep one (:data:`KEEP_FROM_BYTES`) is read.

        :raises SourceNotFound: when it is not there.
        :raises RSEChecksumUnavailable: where content is to be proven and a larger file has no checksum; otherwise
            ``adler32`` is left out.
        """
        with RucioExceptions():
            info = self.storage.stat(self.reference(path))
            sums = info.checksums
            adler32 = sums.get("adler32") or self._found_out(path, info)
            known = {"filesize": info.size, "adler32": adler32, "md5": sums.get("md5")}
            return {name: value for name, value in known.items() if value is not None}

    def _found_out(self, path: str, info: FileInfo) -> str | None:
        """The adler32 of a file that comes without one; None where it need not be known.

        :raises RSEChecksumUnavailable: when it is needed, and is not to be had cheaply.
        """
        proven = self._proven.get(path)
        if proven is not None and proven[0] == info.content:
            return proven[1]
        if not self._reads_back:
            return None
        if info.size < KEEP_FROM_BYTES and not info.is_directory:
            return self.storage.checksum(info.reference)
        raise exception.RSEChecksumUnavailable(
            f"{info.reference} at RSE {self.rse['rse']}: the server keeps no adler32; set verify_checksum of the "
            "RSE to False, or its attribute cs3_proof to server, if the size shall be enough then"
        )

    def get(self, path: str, dest: str, transfer_timeout: int | None = None) -> None:
        """Download the file of a PFN to the local path ``dest``, which appears only when whole and verified.

        :param transfer_timeout: seconds for the whole download, and longest silence; None is no limit but
            ``cs3_idle_timeout_s`` on silence.
        :raises SourceNotFound: when the file is not there.
        :raises DestinationNotAccessible: when the local disk is full or the folder missing.
        """
        with RucioExceptions():
            self.storage.download(
                self.reference(path),
                Path(dest),
                progress=_deadline(transfer_timeout, path),
                idle_timeout_s=transfer_timeout or None,
            )

    def put(self, source: str, target: str, source_dir: str | None = None, transfer_timeout: int | None = None) -> None:
        """Upload a local file to the PFN ``target``; may be repeated after a failure.

        Only a name of Rucio's own temporary kind is overwritten. Where the server keeps no checksum and this RSE
        verifies them, the file is read back and compared before it gets its name.

        :param transfer_timeout: seconds for the whole upload, and longest wait for the answer to it; None is no
            limit but ``cs3_idle_timeout_s`` on silence.
        :raises SourceNotFound: when the local file does not exist.
        :raises FileReplicaAlreadyExists: when the name is taken.
        :raises RSEOverQuota: when the cloud is full.
        :raises FileConsistencyMismatch: when the cloud has something else than was sent.
        """
        local_path = Path(source_dir, source) if source_dir else Path(source)
        with RucioExceptions(PUT_EXCEPTIONS):
            reference = self.reference(target)
            moved = self.storage.upload(
                local_path,
                reference,
                overwrite=target.endswith(UPLOAD_SUFFIX),
                read_back=self._reads_back,
                progress=_deadline(transfer_timeout, target),
                idle_timeout_s=transfer_timeout or None,
            )
            if self._reads_back and moved.info is not None:
                self._proven[target] = (moved.info.content, moved.checksums["adler32"])

    def delete(self, path: str) -> None:
        """Delete the file of a PFN into the cloud's recycle bin; a folder of that name stays.

        Where ``cs3_delete`` is ``purge``, it is taken out of the bin again by :meth:`close` at the latest.

        :raises SourceNotFound: when it is not there, and only then.
        """
        with RucioExceptions():
            self._deletions.delete(self.reference(path), self._references(MADE_NAMES.after(path)))

    def _references(self, pfns: Iterable[str]) -> Iterator[Reference]:
        """The places of those PFNs that are of this RSE."""
        for pfn in pfns:
            with contextlib.suppress(exception.RSEFileNameNotSupported):
                yield self.reference(pfn)

    @property
    def _deletions(self) -> Deletions:
        from rucio_cs3.deletion import Deletions  # late, as all that needs gRPC

        storage = self.storage
        if self._deleting is None or self._deleting.storage is not storage:
            if self._deleting is not None:
                # What was deleted with the other is purged with the other.
                self._deleting.finish()
            self._deleting = Deletions(
                self.rse["rse"], storage, self._prefix_reference, lambda text: self.logger(logging.WARNING, text)
            )
        return self._deleting

    def rename(self, path: str, new_path: str) -> None:
        """Give the file of PFN ``path`` the PFN ``new_path``; folders are made.

        :raises SourceNotFound: when it is not there.
        :raises FileReplicaAlreadyExists: when the new name is taken.
        """
        with RucioExceptions():
            self.storage.move(self.reference(path), self.reference(new_path))

    def get_space_usage(self) -> tuple[int, int]:
        """Total and unused bytes of the quota or disk behind the RSE's prefix.

        Of a space without a limit the unused are :data:`UNLIMITED_BYTES`, and the total is that and the used.
        """
        with RucioExceptions():
            reference = self._prefix_reference
            if not self.storage.exists(reference):
                # Before the first upload there is no folder yet; its quota is that of the whole base.
                reference = Reference(reference.root)
            quota = self.storage.quota(reference)
        left = quota.remaining_bytes
        unused = UNLIMITED_BYTES if left is None else min(left, UNLIMITED_BYTES)
        # A server may say what it likes; Rucio's columns take no more than the sum of these.
        return min(quota.used_bytes, UNLIMITED_BYTES - 1) + unused, unused

    @property
    def _prefix_reference(self) -> Reference:
        """The folder that all files of this RSE are below."""
        return _prefix_reference(self.endpoint.webdav, self._server, self.attributes.get("prefix") or "")

    def _outside(self, pfn: str) -> errors.InvalidReference:
        prefix = unquote(prefix_path(self.attributes))
        return errors.InvalidReference(f"PFN {pfn} is outside the prefix {prefix} of RSE {self.rse['rse']}")

    @property
    def _reads_back(self) -> bool:
        """Whether what the server keeps no checksum of is to be proven by reading it: ``cs3_proof``, and Rucio's RSE
        setting, which is on unless switched off."""
        return self.rse.get("verify_checksum", True) is not False and self.endpoint.proof == "read"

    @property
    def _server(self) -> str:
        """Scheme, host and port, as all PFNs of this RSE begin."""
        return f"{self.attributes['scheme']}://{self.attributes['hostname']}:{self.attributes['port']}"


class NoRename(Default):
    """The protocol that uploads to the final name at once.

    Half-written files are kept out of sight by the client (a hidden sibling and a move, or the cloud's own
    atomic upload), so Rucio's temporary name, which would show on people's laptops and in trash bins, is not
    needed. Also the way to names longer than 242 bytes, to which ``.rucio.upload`` does not fit.
    """

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: Any, logger: Callable[..., Any] = logging.log
    ) -> None:
        super().__init__(protocol_attr, rse_settings, logger=logger)
        self.renaming = False


# An RSE has few protocols, and each of its many files asks for these.
@functools.lru_cache(maxsize=256)
def _server_base(server: str) -> WebDAVBase:
    return WebDAVBase.parse(f"{server}/")


@functools.lru_cache(maxsize=256)
def _prefix_reference(webdav: WebDAVBase, server: str, prefix: str) -> Reference:
    return webdav.reference(f"{server}{prefix_path({'prefix': prefix})}")


def _deadline(seconds: int | None, target: str) -> Callable[[int], None] | None:
    """A progress callback that ends a transfer which takes too long in all."""
    if not seconds:
        return None
    end = time.monotonic() + seconds

    def check(_: int) -> None:
        if time.monotonic() > end:
            raise errors.DeadlineExceeded(f"the transfer took longer than the {seconds} s allowed", target=target)

    return check
