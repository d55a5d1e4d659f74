"""What has arrived of an upload: looked at, compared with what was sent, and read back where nobody else can say.

Knows neither tickets nor names that are final; :mod:`rucio_cs3.cs3.uploads.uploads` says where to look, and what
follows.
"""

from __future__ import annotations

from collections.abc import Mapping

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.downloads.downloads import Downloads, compare
from rucio_cs3.cs3.kept_checksums import KeptChecksums
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.side_by_side import Aside
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.attempt import SMALL_BYTES

#: How long a server may take to commit an upload whose answer was lost, in seconds.
_LATE_COMMIT_S = 10.0


class Arrivals:
    """Proves uploads to one endpoint; safe for many threads."""

    def __init__(self, endpoint: Endpoint, namespace: Namespace, downloads: Downloads, kept: KeptChecksums) -> None:
        self._endpoint = endpoint
        self._namespace = namespace
        self._downloads = downloads
        self._kept = kept
        # What the last upload showed: there is no use in waiting for a checksum before the file is read back.
        self._keeps_no_checksum = False

    def prove(
        self,
        body: UploadBody,
        landing: Reference,
        *,
        read_back: bool,
        idle_timeout_s: float | None,
        lost: errors.CS3Error | None,
    ) -> FileInfo:
        """Compare what is there with what was sent, once the server has finished with it.

        :param body: sent as a whole.
        :param read_back: where the server keeps no checksum, fetch the file again and compare.
        :param lost: the error that hid the answer to the last byte; raised where the look shows that nothing came.
        :returns: what the server says of the very content.
        :raises SizeMismatch: also when nothing is there.
        :raises ChecksumMismatch: when the content is another.
        :raises StillProcessing: when it cannot be read within ``timeouts.processing_s``.
        """
        sent = body.digests.hexdigests()
        if read_back and self._keeps_no_checksum and 0 < len(body) <= SMALL_BYTES and lost is None:
            # While the server is still asked what it has.
            look = Aside(lambda: self._arrived(body, landing, None))
            try:
                self._read_early(landing, body, sent, idle_timeout_s)
            except errors.CS3Error:
                look.result()  # what the server says of the file is the better reason
                raise
            info = look.result()
        else:
            info = self._arrived(body, landing, lost)
            if read_back and not sent.keys() & info.checksums.keys():
                _compare_read(landing, body, self._downloads.digest(info, sent, idle_timeout_s=idle_timeout_s))
        if read_back:
            # Before the Move, which takes metadata and etag along (Reva v3.12.1 local): a file is seen with them.
            self._kept.keep(info, sent)
        if info.size:
            # A file in post-processing cannot be read before it was looked at; servers with paths do none.
            self._keeps_no_checksum = self._endpoint.stores_paths and not info.checksums
        return info

    def _arrived(self, body: UploadBody, landing: Reference, lost: errors.CS3Error | None) -> FileInfo:
        """What the server says that it has, compared with what was sent."""
        try:
            info = self._namespace.settled(landing, size=len(body), within_s=_LATE_COMMIT_S if lost else 0.0)
            compare(info, len(body), body.digests.hexdigests(), operation="PUT")
        except (errors.NotFound, errors.IntegrityError) as error:
            if lost is not None:
                # It did not arrive (an old file of the same size may stand there), and what the connection said is why.
                raise lost from None
            if isinstance(error, errors.NotFound):
                # Never NotFound from an upload: callers take it for an answer about a file that they asked for.
                raise errors.SizeMismatch(
                    f"the server said that it stored {len(body)} bytes, but has no such file",
                    operation="PUT",
                    target=str(landing),
                ) from error
            raise
        return info

    def _read_early(
        self, landing: Reference, body: UploadBody, sent: Mapping[str, str], idle_timeout_s: float | None
    ) -> None:
        """Read a small file back before the server has said anything of it."""
        stored = Digests(sent)
        guess = FileInfo(reference=landing, size=len(body), is_directory=False)
        self._downloads.fetch(guess, stored.update, idle_timeout_s=idle_timeout_s)
        _compare_read(landing, body, stored.hexdigests(), size=stored.byte_count)


def _compare_read(landing: Reference, body: UploadBody, stored: Mapping[str, str], *, size: int | None = None) -> None:
    """Compare what was read back with what was sent.

    :param size: bytes that came; None where that was compared already.
    """
    came = len(body) if size is None else size
    read = FileInfo(reference=landing, size=came, is_directory=False, checksums=stored)
    compare(read, len(body), body.digests.hexdigests(), operation="GET after PUT")
