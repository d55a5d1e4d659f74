"""A CS3 cloud as a storage of files. **Read this module first.**

An upload is one ladder, and every other operation is a shorter one::

    protocol.put                     rucio_cs3.protocol     Rucio's words
      CS3Storage.upload              here                   what is promised
        Uploads.upload               uploads                how it is kept: land, compare, name, or undo
          Gateway.initiate_upload    gateway                gRPC: where the bytes may go
          DataGateway.put            data_gateway           HTTP: there they go
            UploadBody               streams, checksums     the one byte loop: read, digest, send
          Namespace.settled          namespace              what arrived?
          Namespace.move             namespace              now it may be seen

The promises, with their case numbers, are in docs/contract.md. This package knows no Rucio.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.auth import CredentialProvider
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway, HTTPClient
from rucio_cs3.cs3.downloads import Downloads, compare
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import FileInfo, Quota
from rucio_cs3.cs3.streams import Progress, SafeFile, UploadBody, open_source
from rucio_cs3.cs3.uploads import Options, Uploads


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
        data = DataGateway(endpoint, self.http, self._gateway.tokens.get)
        self._namespace = Namespace(endpoint, self._gateway)
        self._downloads = Downloads(self._gateway, data, self._namespace)
        self._uploads = Uploads(endpoint, self._gateway, data, self._namespace, self._downloads)

    def __enter__(self) -> CS3Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._gateway.close()
        self.http.close()

    def access_token(self, *, min_life_s: float = 0.0) -> str:
        """A living access token of this identity, for WebDAV requests to this endpoint only. A secret.

        :param min_life_s: what it has to live, where the cloud's tokens live twice as long; half their life otherwise.
        :raises Unauthenticated: when the server refuses to log in.
        """
        return self._gateway.tokens.get(min_life_s=min_life_s).token

    # -- metadata -----------------------------------------------------------------------------------------

    def stat(self, reference: Reference) -> FileInfo:
        """Look at a file or folder.

        :raises NotFound: when nothing is there.
        """
        return self._gateway.stat(reference)

    def settled(self, reference: Reference) -> FileInfo:
        """Look at a file once the server has finished with it.

        :raises NotFound: when nothing is there.
        :raises TooEarly: when post-processing takes longer than ``timeouts.processing_s``.
        """
        return self._namespace.settled(reference)

    def exists(self, reference: Reference) -> bool:
        """Whether a file or folder is there; every failure but NotFound is raised."""
        return self._namespace.present(reference) is not None

    def list(self, reference: Reference) -> list[FileInfo]:
        """The entries of a folder, by name.

        :raises NotFound: when the folder does not exist.
        :raises InvalidRequest: when it is a file.
        """
        return self._namespace.list(reference)

    def make_directories(self, reference: Reference) -> None:
        """Make a folder and those above it; what is there stays.

        :raises AlreadyExists: when a file stands where a folder is needed.
        """
        self._namespace.make_directories(reference)

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
        self._namespace.make_directories(destination.parent)
        self._namespace.move(source, destination, size=moving.size)

    def delete(self, reference: Reference) -> None:
        """Delete a file, or a folder with all in it, into the recycle bin.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: for the root, which is never deleted.
        """
        self._namespace.delete(reference)

    def delete_file(self, reference: Reference) -> None:
        """Delete a file, and nothing but a file. One round trip more than :meth:`delete`: CS3's Delete takes
        whole folders, and has no condition that would keep it from that.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder; it stays.
        """
        if self.stat(reference).is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="Delete", target=str(reference))
        self.delete(reference)

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
        idle_timeout_s: float | None = None,
    ) -> Moved:
        """Store a local file; when this returns, the whole file can be read under its name.

        Size and checksums are counted while sending and compared with what the server then says. Missing
        folders are made. On any failure nothing new stands under the name, and what stood there stays.
        Reva v3.12.1 has no condition for its Move, so of two that upload to one new name at the same moment
        the later replaces the earlier there.

        :param overwrite: replace what stands there; otherwise that is an error.
        :param read_back: where the server keeps no checksum, fetch the file again and compare.
        :param algorithms: checksums to compute on the way; adler32 and md5 are Rucio's.
        :param idle_timeout_s: longest wait for the server's answer, where shorter than ``timeouts.idle_s``.
        :raises AlreadyExists: when the name is taken, and always when by a folder.
        :raises LocalError: when the local file cannot be read, or changes meanwhile.
        :raises NoSpaceLeft: when a quota or a disk at the server is full.
        :raises IntegrityError: when the server has something else than what was sent.
        :raises TooEarly: when the server's post-processing takes longer than ``timeouts.processing_s``.
        """
        started = time.monotonic()
        with open_source(local_path) as (file, status):
            body = UploadBody(file, status.st_size, Digests(algorithms), name=str(local_path), progress=progress)
            options = Options(
                mtime_s=status.st_mtime, overwrite=overwrite, read_back=read_back, idle_timeout_s=idle_timeout_s
            )
            self._uploads.upload(body, reference, options)
        return Moved(
            size=body.digests.byte_count, checksums=body.digests.hexdigests(), seconds=time.monotonic() - started
        )

    def store(self, body: UploadBody, reference: Reference) -> None:
        """Send what ``body`` reads, by the same ladder and with the same promises as :meth:`upload`; nothing of it
        passes the local disk, and nothing that stands under the name is replaced.

        An error of what ``body`` reads from comes through as it is, and nothing of the file is kept then.

        :raises AlreadyExists: when the name is taken.
        :raises ChecksumMismatch: when the content is not what ``body`` is to have; the server never had all of it.
        """
        self._uploads.upload(body, reference, Options(traceable=True))

    def sweep(self, reference: Reference) -> None:
        """Remove what killed processes have left of a :meth:`store` of this file: hidden siblings of its name.

        One listing of the folder. A living :meth:`store` of the same file fails then, and leaves nothing: call it
        only where there is to be no other.
        """
        self._uploads.sweep(reference)

    def open(self, reference: Reference) -> RemoteFile:
        """A file to read from its beginning; the server is looked at now, and asked for the bytes on entry of the
        ``with`` block and after each ``seek(0)``, each time by a new ticket.

        Reading raises TransferInterrupted or SizeMismatch where not as many bytes come as the server says there are.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        """
        return self._downloads.open(self._downloads.readable(reference))

    def download(
        self,
        reference: Reference,
        local_path: Path,
        *,
        algorithms: Collection[str] = ("adler32",),
        progress: Progress | None = None,
        idle_timeout_s: float | None = None,
    ) -> Moved:
        """Fetch a file; when this returns, the whole of it is on the local disk under its name.

        :param local_path: its folder must exist; what stands there is replaced at the very end.
        :param idle_timeout_s: longest silence, where shorter than ``timeouts.idle_s``.
        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        :raises IntegrityError: when what came differs from what the server says it has.
        :raises LocalError: when the local disk is full or the folder missing.
        """
        started = time.monotonic()
        info = self._downloads.readable(reference)
        digests = Digests({*algorithms, *(("adler32",) if "adler32" in info.checksums else ())})
        with SafeFile(local_path) as target:

            def write(piece: memoryview) -> None:
                target.write(piece)
                digests.update(piece)
                if progress is not None:
                    progress(len(piece))

            self._downloads.fetch(info, write, idle_timeout_s=idle_timeout_s)
            compare(info, digests.byte_count, digests.hexdigests(), operation="GET")
            target.commit()
        return Moved(size=digests.byte_count, checksums=digests.hexdigests(), seconds=time.monotonic() - started)

    def checksum(self, reference: Reference, algorithm: str = "adler32") -> str:
        """The checksum of a file's content as the data gateway sends it: a read of the whole file.

        :raises SizeMismatch: when not as many bytes came as the server says the file has.
        """
        info = self._downloads.readable(reference)
        digests = Digests([algorithm])
        self._downloads.fetch(info, digests.update)
        compare(info, digests.byte_count, {}, operation="GET")
        return digests.hexdigests()[algorithm]
