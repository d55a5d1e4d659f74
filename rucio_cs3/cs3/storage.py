"""A CS3 cloud as a storage of files. **Read this module first.**

An upload is one ladder, and every other operation is a shorter one::

    protocol.put                 rucio_cs3.protocol      Rucio's words
      CS3Storage.upload          here                    what is promised
        Gateway.initiate_upload  gateway                 gRPC: where the bytes may go
        DataGateway.put          data_gateway            HTTP: there they go
          UploadBody             streams, checksums      the one byte loop: read, digest, send
        Gateway.stat             gateway                 what arrived?
        Gateway.move             gateway                 now it may be seen

The promises, with their case numbers, are in docs/contract.md. This package knows no Rucio.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.auth import CredentialProvider
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway, HTTPClient
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo, Quota, Ticket
from rucio_cs3.cs3.streams import Progress, SafeFile, UploadBody, open_source

_log = logging.getLogger(__name__)

#: Errors after which the server may have done what was asked, although it did not say so.
_OPEN_OUTCOME = (errors.TransferInterrupted, errors.DeadlineExceeded, errors.Unavailable)

#: Pause between two looks at a file that is being post-processed or committed, in seconds.
_LOOK_AGAIN_S = 0.25

#: How long a server may take to commit an upload whose answer was lost, in seconds.
_LATE_COMMIT_S = 10.0

#: How long after a broken connection a server may make a file of what had come until then, and the
#: pause between two looks, in seconds. Reva v3.12.1 needs some milliseconds.
_STUB_S = 2.0
_STUB_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What an upload or download moved.

    :param size: bytes.
    :param checksums: algorithm -> hex digits of the bytes that passed through here.
    :param seconds: wall time from the first request to the last answer.
    """

    size: int
    checksums: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class CS3Storage:
    """One endpoint with one identity; safe for many threads. Close it, or use it as a context manager."""

    def __init__(self, endpoint: Endpoint, provider: CredentialProvider) -> None:
        self.endpoint = endpoint
        #: HTTP client of this endpoint, for third-party copies.
        self.http = HTTPClient(endpoint)
        self._gateway = Gateway(endpoint, provider)
        self._data = DataGateway(endpoint, self.http, self._gateway.tokens.get)

    def __enter__(self) -> CS3Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._gateway.close()
        self.http.close()

    def access_token(self) -> str:
        """A living access token of this identity, for WebDAV requests to this endpoint only. A secret.

        :raises Unauthenticated: when the server refuses to log in.
        """
        return self._gateway.tokens.get().token

    # -- metadata -----------------------------------------------------------------------------------------

    def stat(self, reference: Reference) -> FileInfo:
        """Look at a file or folder.

        :raises NotFound: when nothing is there.
        """
        return self._gateway.stat(reference)

    def exists(self, reference: Reference) -> bool:
        """Whether a file or folder is there; every failure but NotFound is raised."""
        try:
            self._gateway.stat(reference)
        except errors.NotFound:
            return False
        return True

    def list(self, reference: Reference) -> list[FileInfo]:
        """The entries of a folder, by name.

        :raises NotFound: when the folder does not exist.
        :raises InvalidRequest: when it is a file.
        """
        if not self.stat(reference).is_directory:
            # Both lines answer INTERNAL to a ListContainer of a file.
            raise errors.InvalidRequest("is a file, not a folder", operation="ListContainer", target=str(reference))
        return sorted(self._gateway.list_folder(reference), key=lambda info: info.reference.path)

    def make_directories(self, reference: Reference) -> None:
        """Make a folder and those above it; what is there stays.

        :raises AlreadyExists: when a file stands where a folder is needed.
        """
        missing: list[Reference] = []
        fault: errors.ServerFault | None = None
        current = reference
        while current.path:
            try:
                info = self._gateway.stat(current)
            except (errors.NotFound, errors.ServerFault) as error:
                if isinstance(error, errors.ServerFault):
                    # Reva v3.12.1 says INTERNAL to a place below a file; the walk up finds out whether it is one.
                    fault = fault or error
                missing.append(current)
                current = current.parent
                continue
            if not info.is_directory:
                raise errors.AlreadyExists(
                    "a file stands where a folder is needed", operation="CreateContainer", target=str(current)
                )
            break
        if fault is not None:
            raise fault
        for folder in reversed(missing):
            try:
                self._gateway.create_folder(folder)
            except errors.CS3Error:
                # Somebody else may make the same folder at the same moment: AlreadyExists where the server
                # notices, INTERNAL from Reva v3.12.1 local. If it is there now, all is as wanted.
                made = self._present(folder)
                if made is None or not made.is_directory:
                    raise

    def move(self, source: Reference, destination: Reference) -> None:
        """Give a file another name; the folder of ``destination`` is made where it is missing.

        :raises AlreadyExists: when ``destination`` is there; it stays as it is.
        :raises NotFound: when ``source`` is not there.
        """
        # Reva v3.12.1 replaces an existing destination and answers a missing source with INTERNAL,
        # so both are looked at first. The look and the move are not one step: a file that somebody
        # else writes between them to the same name is replaced on that line.
        moving = self.stat(source)
        if self.exists(destination):
            raise errors.AlreadyExists("the new name is taken", operation="Move", target=str(destination))
        self.make_directories(destination.parent)
        self._move(source, destination, size=moving.size)

    def delete(self, reference: Reference) -> None:
        """Delete a file, or a folder with all in it, into the recycle bin.

        :raises NotFound: when nothing is there.
        """
        try:
            self._gateway.delete(reference)
        except _OPEN_OUTCOME as error:
            # One look decides what the lost answer was; it is not repeated, because the next Delete
            # could hit a file that somebody wrote meanwhile.
            if self._still_there(reference):
                raise
            _log.info("Delete %s: done although its answer was lost (%s)", reference, error)

    def quota(self, reference: Reference) -> Quota:
        """Space of the quota or disk that holds a folder."""
        return self._gateway.quota(reference)

    # -- data ---------------------------------------------------------------------------------------------

    def upload(
        self,
        local_path: Path,
        reference: Reference,
        *,
        overwrite: bool = False,
        read_back: bool = False,
        algorithms: Collection[str] = ("adler32",),
        progress: Progress | None = None,
    ) -> Moved:
        """Store a local file; when this returns, the whole file can be read under its name.

        Size and checksums are counted while sending and compared with what the server then says. Missing
        folders are made. On any failure nothing new stands under the name, and what stood there stays.

        :param overwrite: replace what stands there; otherwise that is an error.
        :param read_back: where the server keeps no checksum, fetch the file again and compare.
        :param algorithms: checksums to compute on the way; adler32 and md5 are Rucio's.
        :raises AlreadyExists: when the name is taken, and always when by a folder.
        :raises LocalError: when the local file cannot be read, or changes meanwhile.
        :raises NoSpaceLeft: when a quota or a disk at the server is full.
        :raises IntegrityError: when the server has something else than what was sent.
        :raises TooEarly: when the server's post-processing takes longer than ``timeouts.processing_s``.
        """
        started = time.monotonic()
        with open_source(local_path) as (file, status):
            # The folders first: Reva v3.12.1 answers a Stat below a file with INTERNAL.
            self.make_directories(reference.parent)
            present = self._present(reference)
            if present is not None and (present.is_directory or not overwrite):
                kind = "a folder" if present.is_directory else "a file"
                raise errors.AlreadyExists(
                    f"{kind} of this name exists", operation="InitiateFileUpload", target=str(reference)
                )
            body = UploadBody(file, status.st_size, Digests(algorithms), name=str(local_path), progress=progress)
            if self.endpoint.upload_landing == "temporary":
                self._upload_via_temporary(body, reference, overwrite=overwrite, read_back=read_back)
            else:
                headers = {"X-OC-Mtime": str(int(status.st_mtime))}
                if present is not None:
                    # The old content is replaced at the commit, so the server must compare before it.
                    headers["Upload-Checksum"] = f"adler32 {_adler32_of(local_path)}"
                self._upload_direct(body, reference, present, headers, read_back=read_back)
        return Moved(
            size=body.digests.byte_count, checksums=body.digests.hexdigests(), seconds=time.monotonic() - started
        )

    def download(
        self,
        reference: Reference,
        local_path: Path,
        *,
        algorithms: Collection[str] = ("adler32",),
        progress: Progress | None = None,
    ) -> Moved:
        """Fetch a file; when this returns, the whole of it is on the local disk under its name.

        :param local_path: its folder must exist; what stands there is replaced at the very end.
        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        :raises IntegrityError: when what came differs from what the server says it has.
        :raises LocalError: when the local disk is full or the folder missing.
        """
        started = time.monotonic()
        info = self._readable(reference)
        digests = Digests({*algorithms, *(("adler32",) if "adler32" in info.checksums else ())})
        with SafeFile(local_path) as target:

            def write(piece: bytes) -> None:
                target.write(piece)
                digests.update(piece)
                if progress is not None:
                    progress(len(piece))

            self._fetch(info, write)
            _compare(info, digests.byte_count, digests.hexdigests(), operation="GET")
            target.commit()
        return Moved(size=digests.byte_count, checksums=digests.hexdigests(), seconds=time.monotonic() - started)

    def checksum(self, reference: Reference, algorithm: str = "adler32") -> str:
        """The checksum of a file's content as the data gateway sends it: a read of the whole file.

        :raises SizeMismatch: when not as many bytes came as the server says the file has.
        """
        info = self._readable(reference)
        digests = Digests([algorithm])
        self._fetch(info, digests.update)
        _compare(info, digests.byte_count, {}, operation="GET")
        return digests.hexdigests()[algorithm]

    # -- the rungs below ----------------------------------------------------------------------------------

    def _upload_via_temporary(
        self, body: UploadBody, reference: Reference, *, overwrite: bool, read_back: bool
    ) -> None:
        """Land on a hidden sibling, prove it, then move it to the name (the CERNBox line)."""
        landing = reference.sibling(f".rucio-cs3.{secrets.token_hex(8)}.part")
        with self._undone_on_failure(landing, body, leaves_stub=True):
            self._send(self._gateway.initiate_upload(landing, len(body)), body, landing, {}, read_back=read_back)
            if not overwrite and self._present(reference) is not None:
                # Move would replace it; the time since the first look was that of the whole upload.
                raise errors.AlreadyExists(
                    "a file of this name appeared meanwhile", operation="Move", target=str(reference)
                )
            self._move(landing, reference, size=len(body))

    def _upload_direct(
        self,
        body: UploadBody,
        reference: Reference,
        present: FileInfo | None,
        headers: Mapping[str, str],
        *,
        read_back: bool,
    ) -> None:
        """Land under the name itself, where the server shows only whole uploads (OpenCloud)."""
        tickets = self._gateway.initiate_upload(reference, len(body), only_new=present is None, headers=headers)
        # Undo only what this call made: if_not_exist would have refused a name that was somebody else's.
        with self._undone_on_failure(reference, body) if present is None else contextlib.nullcontext():
            self._send(tickets, body, reference, headers, read_back=read_back)

    def _send(
        self,
        tickets: Collection[Ticket],
        body: UploadBody,
        landing: Reference,
        headers: Mapping[str, str],
        *,
        read_back: bool,
    ) -> None:
        """PUT, then compare what is there with what was sent.

        :param headers: those of the tickets, should new ones be needed.
        """
        lost = None
        # OpenCloud has made an empty file at Initiate already, and answers a PUT of nothing with 400.
        if len(body) or self.endpoint.stores_paths:
            lost = self._put(tickets, body, landing, headers)
        sent = body.digests.hexdigests()
        try:
            info = self._settled(landing, len(body), _LATE_COMMIT_S if lost else 0.0)
            _compare(info, len(body), sent, operation="PUT")
        except (errors.NotFound, errors.SizeMismatch) as error:
            if lost is not None:
                raise lost from None  # it did not arrive, and what the connection said is why
            if isinstance(error, errors.NotFound):
                # Never NotFound from an upload: callers take it for an answer about a file that they asked for.
                raise errors.SizeMismatch(
                    f"the server said that it stored {len(body)} bytes, but has no such file",
                    operation="PUT",
                    target=str(landing),
                ) from error
            raise
        if read_back and not sent.keys() & info.checksums.keys():
            stored = Digests(sent)
            self._fetch(info, stored.update)
            _compare(
                replace(info, checksums=stored.hexdigests(), size=stored.byte_count),
                len(body),
                sent,
                operation="GET after PUT",
            )

    def _put(
        self, tickets: Collection[Ticket], body: UploadBody, landing: Reference, headers: Mapping[str, str]
    ) -> errors.CS3Error | None:
        """PUT, once more where the access token died between ticket and PUT.

        :returns: the error that hid the answer after everything had been sent; None where there was an answer.
        """
        used = self._gateway.tokens.get()
        for last in (False, True):
            try:
                self._data.put(_pick(tickets, ("simple",), landing), body, target=str(landing))
            except errors.Unauthenticated:
                if last:
                    raise
                self._gateway.tokens.invalidate(used)
                body.rewind()
                # A session is never used twice: OpenCloud appends to it.
                tickets = self._gateway.initiate_upload(landing, len(body), headers=headers)
            except _OPEN_OUTCOME as error:
                if body.digests.byte_count < len(body):
                    raise
                # All was sent and only the answer is missing: what is there decides, not a second upload.
                _log.info("PUT %s: looking at the file, because the answer was lost (%s)", landing, error)
                return error
            else:
                return None
        return None

    def _settled(self, reference: Reference, size: int, within_s: float) -> FileInfo:
        """The file once the server has finished with it.

        :param within_s: how long it may take to appear with its size, when an answer was lost.
        """
        now = time.monotonic()
        commit_by, processed_by = now + within_s, now + self.endpoint.timeouts.processing_s
        while True:
            try:
                info = self._gateway.stat(reference)
            except errors.NotFound:
                if time.monotonic() >= commit_by:
                    raise
            else:
                if not info.processing and (info.size == size or time.monotonic() >= commit_by):
                    return info
                if info.processing and time.monotonic() >= processed_by:
                    raise errors.TooEarly(
                        "the server is stuck in post-processing; it has the file, but nobody can read it yet",
                        operation="Stat",
                        target=str(reference),
                    )
            time.sleep(_LOOK_AGAIN_S)

    def _readable(self, reference: Reference) -> FileInfo:
        """Stat for a download: OpenCloud gives tickets for missing files and folders, too."""
        info = self.stat(reference)
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="GET", target=str(reference))
        return self._settled(reference, info.size, 0.0) if info.processing else info

    def _fetch(self, info: FileInfo, write: Callable[[bytes], object]) -> None:
        target = str(info.reference)
        received = 0

        def take(piece: bytes) -> None:
            nonlocal received
            received += len(piece)
            if received > info.size:
                # Said at once: a body without an end would fill the disk.
                raise errors.SizeMismatch(
                    f"more than the {info.size} bytes come that the server says it has", operation="GET", target=target
                )
            write(piece)

        used = self._gateway.tokens.get()
        for last in (False, True):
            tickets = self._gateway.initiate_download(info.reference)
            try:
                self._data.get(_pick(tickets, ("simple", "spaces"), info.reference), take, target=target)
            except errors.Unauthenticated:
                # The token died between ticket and GET; a 401 comes before any byte.
                if last:
                    raise
                self._gateway.tokens.invalidate(used)
            else:
                return

    def _move(self, source: Reference, destination: Reference, *, size: int) -> None:
        """Move, and where the answer is lost find out whether it happened."""
        try:
            self._gateway.move(source, destination)
        except _OPEN_OUTCOME as error:
            if self._still_there(source):
                raise
            arrived = self._present(destination)
            if arrived is None or arrived.size != size:
                raise
            _log.info("Move %s to %s: done although its answer was lost (%s)", source, destination, error)

    def _present(self, reference: Reference) -> FileInfo | None:
        try:
            return self._gateway.stat(reference)
        except errors.NotFound:
            return None

    def _still_there(self, reference: Reference) -> bool:
        """After a lost answer: is it there? What cannot be found out counts as "yes, nothing happened"."""
        try:
            return self._present(reference) is not None
        except errors.CS3Error:
            return True

    @contextlib.contextmanager
    def _undone_on_failure(self, landing: Reference, body: UploadBody, *, leaves_stub: bool = False) -> Iterator[None]:
        """Remove what this upload made unless the block ends well; for KeyboardInterrupt, too.

        :param leaves_stub: the server makes a file of what came before a connection broke (Reva v3.12.1 local).
        """
        try:
            yield
        except BaseException as failure:
            # An error with a code is an answer: the server had finished with the request.
            answered = isinstance(failure, errors.CS3Error) and failure.code is not None
            stub_by = time.monotonic() + (_STUB_S if leaves_stub and body.digests.byte_count and not answered else 0.0)
            try:
                while True:
                    try:
                        self._gateway.delete(landing)
                        break
                    except errors.NotFound:
                        # Nothing has come into being, or not yet: the server may notice the end later than we do.
                        if time.monotonic() >= stub_by:
                            break
                    time.sleep(_STUB_POLL_S)
            except errors.CS3Error as error:
                # The first error is the one to report; this line tells the operator what is left over.
                _log.warning("%s: could not remove the unfinished upload %s: %s", self.endpoint.name, landing, error)
            raise


class StoragePool:
    """The process's storages, one for each endpoint and identity, so that channel, token and connections
    are shared by all protocol objects and threads.

    A forked child gets storages of its own: a gRPC channel must not be used on both sides of a fork.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._storages: dict[tuple[int, Endpoint, CredentialProvider], CS3Storage] = {}

    def get(self, endpoint: Endpoint, provider: CredentialProvider) -> CS3Storage:
        """The storage for an endpoint and an identity; do not close it."""
        key = (os.getpid(), endpoint, provider)
        with self._lock:
            if key not in self._storages:
                self._storages[key] = CS3Storage(endpoint, provider)
            return self._storages[key]


#: The pool of this process.
POOL = StoragePool()


def _pick(tickets: Collection[Ticket], protocols: tuple[str, ...], reference: Reference) -> Ticket:
    for protocol in protocols:
        for ticket in tickets:
            if ticket.protocol == protocol:
                return ticket
    offered = ", ".join(ticket.protocol for ticket in tickets) or "none"
    raise errors.Unsupported(
        f"the server offers {offered} where one of {', '.join(protocols)} is needed", target=str(reference)
    )


def _compare(info: FileInfo, size: int, digests: Mapping[str, str], *, operation: str) -> None:
    """Compare what passed through here with what the server says it has."""
    target = str(info.reference)
    if info.size != size:
        raise errors.SizeMismatch(
            f"{size} bytes passed, but the server has {info.size}", operation=operation, target=target
        )
    for algorithm in digests.keys() & info.checksums.keys():
        if digests[algorithm] != info.checksums[algorithm]:
            raise errors.ChecksumMismatch(
                f"{algorithm} of what passed is {digests[algorithm]}, but the server says {info.checksums[algorithm]}",
                operation=operation,
                target=target,
            )


def _adler32_of(path: Path) -> str:
    digests = Digests(["adler32"])
    with open_source(path) as (file, _):
        while piece := file.read(1 << 20):
            digests.update(piece)
    return digests.hexdigests()["adler32"]
