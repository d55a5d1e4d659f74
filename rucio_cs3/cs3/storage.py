"""A CS3 cloud as a storage of files. **Read this module first.**

An upload is one ladder, and every other operation is a shorter one::

    protocol.put                     rucio_cs3.protocol     Rucio's words
      CS3Storage.upload              here                   what is promised
        Uploads.upload               uploads                how it is kept: land, compare, name, or undo
          Gateway.initiate_upload    gateway                gRPC: where the bytes may go
          DataGateway.put            data_gateway           HTTP: there they go
            UploadBody               streams, checksums     the one byte loop: read, digest, send
          Arrivals.prove             arrivals               what arrived?
          Namespace.move             namespace              now it may be seen

The promises, with their case numbers, are in docs/contract.md. This package knows no Rucio.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.downloads import downloads
from rucio_cs3.cs3.downloads.downloads import Downloads
from rucio_cs3.cs3.empty_folders import EmptyFolders
from rucio_cs3.cs3.file_deletions import FileDeletions
from rucio_cs3.cs3.file_versions import OldVersions, old_versions
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.hidden_files import HiddenFiles
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.kept_checksums import KeptChecksums
from rucio_cs3.cs3.local_files import open_source
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.login.tokens import TokenSource
from rucio_cs3.cs3.namespace import Deleted, Namespace
from rucio_cs3.cs3.purging import Remains, purge
from rucio_cs3.cs3.random_access import RandomAccessFile
from rucio_cs3.cs3.recycle import RecycleBin
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import Entries, FileInfo, Quota
from rucio_cs3.cs3.server_clock import clock_offset
from rucio_cs3.cs3.streams import Progress, UploadBody
from rucio_cs3.cs3.uploads.attempt import Options
from rucio_cs3.cs3.uploads.leftovers import Leftovers
from rucio_cs3.cs3.uploads.resumable import ResumableUploads
from rucio_cs3.cs3.uploads.upload_state import LocalSource
from rucio_cs3.cs3.uploads.uploads import Uploads


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What an upload or download moved.

    :param size: bytes.
    :param checksums: algorithm -> hex digits of the bytes that passed through here.
    :param seconds: wall time from the first request to the last answer.
    :param info: of an upload, what the server said of the very content, maybe under a hidden sibling's name; None where
        that is not known.
    """

    size: int
    checksums: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    info: FileInfo | None = None


class CS3Storage:
    """One endpoint with one identity; safe for many threads, not across a fork: :mod:`rucio_cs3.cs3.pool` has another
    for the child. Close it, or use it as a context manager.
    """

    def __init__(self, endpoint: Endpoint, provider: CredentialProvider) -> None:
        self.endpoint = endpoint
        #: HTTP client of this endpoint, for third-party copies.
        self.http = HTTPClient(endpoint)
        self._gateway = Gateway(endpoint, provider)
        data = DataGateway(endpoint, self.http, self._gateway.tokens.get)
        self._namespace = Namespace(endpoint, self._gateway)
        self.recycle_bin = RecycleBin(endpoint, self._gateway, self._namespace)
        self._downloads = Downloads(endpoint, self._gateway, data, self._namespace)
        self._kept = KeptChecksums(self._gateway, name=endpoint.name, enabled=endpoint.keep_checksums)
        resumable = ResumableUploads(endpoint, self.http, self._gateway, self._namespace, provider)
        leftovers = Leftovers(endpoint, self._gateway, self._namespace)
        self._uploads = Uploads(
            endpoint, self._gateway, data, self._namespace, leftovers, self._downloads, self._kept, resumable
        )
        self.hidden_files = HiddenFiles(self._namespace, self._uploads, leftovers)

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

    @property
    def tokens(self) -> TokenSource:
        """The access tokens of this identity, for this endpoint only. Secrets."""
        return self._gateway.tokens

    @property
    def gateway(self) -> Gateway:
        """For calls that have no method here; of this storage, and closed with it."""
        return self._gateway

    # -- metadata -----------------------------------------------------------------------------------------

    def stat(self, reference: Reference) -> FileInfo:
        """Look at a file or folder.

        :raises NotFound: when nothing is there.
        """
        return self._gateway.stat(reference)

    def settled(self, reference: Reference) -> FileInfo:
        """Look at a file once the server has finished with it.

        :raises NotFound: when nothing is there.
        :raises StillProcessing: when post-processing takes longer than ``timeouts.processing_s``.
        """
        return self._namespace.settled(reference)

    def exists(self, reference: Reference) -> bool:
        """Whether a file or folder is there; every failure but NotFound is raised."""
        return self._namespace.present(reference) is not None

    def list(self, reference: Reference, *, is_folder: bool = False) -> Entries:
        """The entries of a folder, by name; ``left_out`` says how many of them can be told no more of.

        :param is_folder: a listing has shown that it is one, so nobody looks first, which saves a round trip.
        :raises NotFound: when the folder does not exist.
        :raises InvalidRequest: when it is a file.
        """
        return self._namespace.list(reference, is_folder=is_folder)

    def old_versions(self, file: Reference) -> OldVersions:
        """Count the old versions of a file; see :func:`~rucio_cs3.cs3.file_versions.old_versions`, also for errors."""
        return old_versions(self._gateway, file)

    def make_directories(self, reference: Reference, *, remembered: bool = False) -> bool:
        """Make a folder and those above it; what is there stays.

        :param remembered: a folder that this storage has seen before is not looked at again. Only for whoever finds
            out in another way when somebody has removed it since, and then calls this again without.
        :returns: whether a folder was missing.
        :raises AlreadyExists: when a file stands where a folder is needed.
        """
        return self._namespace.make_directories(reference, remembered=remembered)

    def move(self, source: Reference, destination: Reference) -> None:
        """Give a file another name; the folder of ``destination`` is made where it is missing.

        :raises AlreadyExists: when ``destination`` is there; it stays as it is.
        :raises NotFound: when ``source`` is not there.
        """
        self._namespace.rename(source, destination)

    def delete(self, reference: Reference) -> Deleted:
        """Delete a file, or a folder with all in it, into the recycle bin (:attr:`recycle_bin`).

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: for the root, which is never deleted.
        """
        return self._namespace.delete(reference)

    def delete_file(self, reference: Reference) -> Deleted:
        """Delete a file, and nothing but a file. One round trip more than :meth:`delete`: CS3's Delete takes
        whole folders, and has no condition that would keep it from that.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder; it stays.
        """
        return self.file_deletions().delete(reference)

    def file_deletions(self, *, looks: bool = True) -> FileDeletions:
        """For a thread that deletes many files: :meth:`delete_file`, with the looks at the next ones made meanwhile.

        :param looks: False deletes unseen: **a folder goes into the recycle bin with all in it**.
        """
        return FileDeletions(self._gateway, self._namespace, looks=looks)

    def empty_folders(self, below: Reference) -> EmptyFolders:
        """For whoever removes empty folders below one that exists and stays."""
        return EmptyFolders(
            self._gateway, self._namespace, self.recycle_bin, below, lambda: clock_offset(self.http, self.endpoint)
        )

    def purge(self, folder: Reference, deleted: Collection[Deleted]) -> Collection[Remains]:
        """Free what has just been deleted below a folder that exists: out of the recycle bin, and nothing else.

        :returns: what stays there, with the reason; nothing is raised for it.
        """
        return purge(self.recycle_bin, folder, deleted, lambda: clock_offset(self.http, self.endpoint))

    def quota(self, reference: Reference) -> Quota:
        """Space of the quota or disk that holds a folder; at OpenCloud of its whole space.

        What each number means at which server is in docs/usage.md.
        """
        if reference.path and not self.endpoint.stores_paths:
            # Of a folder OpenCloud counts as used what is below it, and as remaining what that alone would leave of the
            # space's limit (its Reva of 2026-08-20, decomposedfs.go GetQuota), however full the rest of the space is.
            try:
                return self._gateway.quota(Reference(reference.root))
            except (errors.AccessDenied, errors.NotFound):
                pass  # somebody shares this folder with us, and not the space
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
        checksums: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        idle_timeout_s: float | None = None,
        resume: bool = True,
    ) -> Moved:
        """Store a local file; when this returns, the whole file can be read under its name.

        Size and checksums are counted while sending and compared with what the server then says. Missing
        folders are made. A broken connection, or a server that is busy, is met by a new beginning, some few times.
        On any failure nothing new stands under the name, and what stood there stays.
        Reva v3.12.1 has no condition for its Move, so of two that upload to one new name at the same moment
        the later replaces the earlier there.

        :param overwrite: replace what stands there; otherwise that is an error.
        :param read_back: where the server keeps no checksum, fetch the file again and compare.
        :param algorithms: checksums to compute on the way; adler32 and md5 are Rucio's.
        :param checksums: what the file is known to have, algorithm -> full-width lower-case hex digits. Another content
            is never sent as a whole, and a server that compares checksums (OpenCloud) does so without a second read.
        :param progress: called with the bytes that just moved; with a negative number where they are sent again.
        :param idle_timeout_s: longest wait for the server's answer, where shorter than ``timeouts.idle_s``.
        :param resume: should a large file's upload by TUS be killed or given up, leave a small file below
            ``$XDG_STATE_HOME`` for the next upload of the same file to the same place, which goes on with it. What
            was sent before is then read once more locally, for the checksums.
        :raises AlreadyExists: when the name is taken, and always when by a folder.
        :raises LocalError: when the local file cannot be read, or changes meanwhile.
        :raises NoSpaceLeft: when a quota or a disk at the server is full.
        :raises IntegrityError: when the server has something else than what was sent, or the file than ``checksums``.
        :raises StillProcessing: when the server's post-processing takes longer than ``timeouts.processing_s``.
        """
        started = time.monotonic()
        with open_source(local_path) as (file, status):
            body = UploadBody(
                file,
                status.st_size,
                Digests({*algorithms, *(checksums or ())}),
                name=str(local_path),
                progress=progress,
                expected=checksums,
            )
            options = Options(
                mtime_s=status.st_mtime,
                overwrite=overwrite,
                read_back=read_back,
                idle_timeout_s=idle_timeout_s,
                restarts=True,
                source=LocalSource.of(local_path, status) if resume else None,
            )
            info = self._uploads.upload(body, reference, options)
        return Moved(
            size=body.digests.byte_count,
            checksums=body.digests.hexdigests(),
            seconds=time.monotonic() - started,
            info=info,
        )

    def store(
        self,
        body: UploadBody,
        reference: Reference,
        *,
        overwrite: bool = False,
        restarts: bool = False,
    ) -> None:
        """Send what ``body`` reads, by the same ladder and with the same promises as :meth:`upload`; nothing of it
        passes the local disk.

        An error of what ``body`` reads from comes through as it is, and nothing of the file is kept then.

        :param overwrite: replace what stands there; otherwise that is an error.
        :param restarts: ``body`` can be read again at no cost, so it may be sent again.
        :raises AlreadyExists: when the name is taken.
        :raises ChecksumMismatch: when the content is not what ``body`` is to have; the server never had all of it.
        """
        self._uploads.upload(body, reference, Options(overwrite=overwrite, restarts=restarts))

    def keep_checksums(self, info: FileInfo, sums: Mapping[str, str]) -> bool:
        """Keep checksums as metadata of a file whose content has just been proven to have them, for later looks at it.

        Only for a content that was read, or compared with the server's own checksum, since ``info`` was got. They are
        kept where settings, server and size make it worth it (:mod:`rucio_cs3.cs3.kept_checksums`). One round trip;
        that the server refuses is no error.

        :param info: the last look at the file before the proof. Should the content be another by now, nothing of what
            is kept will be believed of it.
        :returns: whether they are kept now.
        """
        return self._kept.keep(info, sums)

    def open(self, reference: Reference) -> RemoteFile:
        """A file to read from its beginning; the server is looked at now, and asked for the bytes on entry of the
        ``with`` block and after each ``seek(0)``, each time by a new ticket.

        Reading raises TransferInterrupted or SizeMismatch where not as many bytes come as the server says there are.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        """
        return self._downloads.open(self._downloads.readable(reference))

    def open_seekable(self, reference: Reference | FileInfo) -> RandomAccessFile:
        """A file to read at any position, by ranges where the server has them; see
        :mod:`rucio_cs3.cs3.random_access`. Close it.

        Reading raises PreconditionFailed when the file was replaced meanwhile; other errors are those of
        :meth:`download`.

        :param reference: or a look at it that is known to be new; otherwise the server is looked at now.
        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        """
        info = reference if isinstance(reference, FileInfo) else self._downloads.readable(reference)
        return self._downloads.open_seekable(info)

    def serves_ranges(self, info: FileInfo) -> bool:
        """Whether the server has ranges; asked once an hour, for the first byte of a file that is not empty."""
        return self._downloads.serves_ranges(info)

    def download(
        self,
        reference: Reference,
        local_path: Path,
        *,
        algorithms: Collection[str] = ("adler32",),
        progress: Progress | None = None,
        idle_timeout_s: float | None = None,
        streams: int | None = None,
        resume: bool = True,
    ) -> Moved:
        """Fetch a file; when this returns, the whole of it is on the local disk under its name.

        A connection that breaks, and a server that is silent or busy for a while, are survived: by a range from the
        byte reached on, where the server has ranges, and from the beginning otherwise. A file that is replaced
        meanwhile is fetched anew, whole; versions are never mixed.

        :param local_path: its folder must exist; what stands there is replaced at the very end.
        :param progress: called by one thread at a time, which need not be the caller's where there are streams.
        :param idle_timeout_s: longest silence of one attempt, where shorter than ``timeouts.idle_s``.
        :param streams: most ranges to fetch at the same time, where the server has them and the file is large;
            ``Endpoint.download_streams`` by default. One, where another checksum than adler32 is asked for.
        :param resume: keep what has come of a large file (64 MiB or more) when this process is killed or interrupted
            or the network stays away, in a hidden file beside ``local_path``, and begin with what was kept so.
        :raises NotFound: when nothing is there, also when it is deleted meanwhile.
        :raises InvalidRequest: when it is a folder.
        :raises TransferInterrupted: (DeadlineExceeded, Unavailable) when the connection breaks again and again, or
            the file is replaced again and again.
        :raises StillProcessing: when the server's post-processing takes longer than ``timeouts.processing_s``.
        :raises IntegrityError: when what came differs from what the server says it has.
        :raises LocalError: when the local disk is full or the folder missing.
        """
        started = time.monotonic()
        options = downloads.Options(
            algorithms=algorithms, progress=progress, idle_timeout_s=idle_timeout_s, streams=streams, resume=resume
        )
        size, checksums = self._downloads.save(reference, local_path, options)
        return Moved(size=size, checksums=checksums, seconds=time.monotonic() - started)

    def checksum(self, reference: Reference, algorithm: str = "adler32", *, size: int | None = None) -> str:
        """The checksum of a file's content as the data gateway sends it: a read of the whole file.

        :param size: bytes that a small file is to have, where the server is known to have finished with it: nobody
            looks at it then.
        :raises SizeMismatch: when not as many bytes came as the server says the file has (or ``size``).
        """
        if size is None:
            return self._downloads.digest(self._downloads.readable(reference), [algorithm])[algorithm]
        digests = Digests([algorithm])
        self._downloads.fetch(FileInfo(reference=reference, size=size, is_directory=False), digests.update)
        if digests.byte_count != size:
            raise errors.SizeMismatch(
                f"{digests.byte_count} bytes came instead of {size}", operation="GET", target=str(reference)
            )
        return digests.hexdigests()[algorithm]

    def digests(
        self, reference: Reference, algorithms: Collection[str], *, progress: Progress | None = None
    ) -> dict[str, str]:
        """Checksums of a file's content as the data gateway sends it: a read of the whole file, of one version.

        :param progress: called with the bytes that just came; with a negative number where they are read again.
        :raises NotFound: when nothing is there.
        :raises TransferInterrupted: (DeadlineExceeded, Unavailable) when the connection breaks again and again.
        """
        return self._downloads.digest(self._downloads.readable(reference), algorithms, progress=progress)
