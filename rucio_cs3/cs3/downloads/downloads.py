"""Downloads: all bytes of one version of a file, compared with what the server says it has.

What happens when an answer breaks off is in :mod:`rucio_cs3.cs3.downloads.reading`, which bytes are asked for in
:mod:`rucio_cs3.cs3.downloads.ranges`, and where they lie meanwhile in :mod:`rucio_cs3.cs3.downloads.part_files`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import crew, errors
from rucio_cs3.cs3.checksums import HEX_DIGITS
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.downloads import part_files
from rucio_cs3.cs3.downloads.endings import TEMPORARY, NoRanges, Stopped, VersionMoved
from rucio_cs3.cs3.downloads.part_files import ResumableFile
from rucio_cs3.cs3.downloads.ranges import Block, RangeSupport, Row, row_for, worthwhile_streams
from rucio_cs3.cs3.downloads.reading import Reading
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.local_files import PartWriter, SafeFile
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.random_access import RandomAccessFile
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import FileInfo, Ticket
from rucio_cs3.cs3.side_by_side import Aside
from rucio_cs3.cs3.streams import CHUNK_BYTES, Progress

#: A file that is replaced so often while it is read is given up.
VERSIONS_MAX = 3

#: After so long it is looked whether the line is worth more streams, in seconds.
_LOOK_S = 0.25

#: What one stream is enough for, in bytes a second. From a server on the same machine one thread takes 700 to 1100
#: MB/s, and four take no more; where each connection is limited to 40 MB/s, four take 148 MB/s.
_FAST_BYTES_PER_S = 300e6

#: How long the threads of a download that has failed are waited for, in seconds: each ends with its next piece.
_LATE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one download is done; the meaning is that of :meth:`rucio_cs3.cs3.storage.CS3Storage.download`."""

    algorithms: Collection[str] = ("adler32",)
    progress: Progress | None = None
    idle_timeout_s: float | None = None
    streams: int | None = None
    resume: bool = True


class Downloads:
    """Fetches files from one endpoint; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway, data: DataGateway, namespace: Namespace) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._data = data
        self._namespace = namespace
        self._support = RangeSupport()

    def readable(self, reference: Reference) -> FileInfo:
        """Look before a download, and wait for what the server still does with the file."""
        return self._checked(self._namespace.settled(reference))

    def open(self, info: FileInfo, *, idle_timeout_s: float | None = None) -> RemoteFile:
        """A file to read from; it is asked for on entry of the ``with`` block, and for each new beginning.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        """
        return self._reading(info, (), idle_timeout_s, None).whole()

    def open_seekable(self, info: FileInfo) -> RandomAccessFile:
        """A file to read at any position; nothing is asked for before that."""
        return RandomAccessFile(info, lambda: self._reading(info, (), None, None), self._support)

    def serves_ranges(self, info: FileInfo) -> bool:
        """Whether the server has ranges: what is known, or a question for the file's first byte."""
        return self._reading(info, (), None, None).serves_ranges()

    def save(self, reference: Reference, local_path: Path, options: Options) -> tuple[int, dict[str, str]]:
        """Bring a file to the local disk; see :meth:`rucio_cs3.cs3.storage.CS3Storage.download`.

        :returns: bytes and checksums of what came.
        """
        info, tickets = self._prepare(reference)
        counted = _Counted(options.progress)
        with self._part(local_path, info, options) as part:
            for _ in range(VERSIONS_MAX):
                reading = self._reading(info, tickets, options.idle_timeout_s, counted)
                try:
                    digests = self._save_version(reading, part, options)
                except VersionMoved as moved:
                    info, tickets = self._checked(moved.info), ()
                    counted.take_back()
                    _begin(part, _version(self._endpoint, info))
                    continue
                except (*TEMPORARY, KeyboardInterrupt, SystemExit) as exc:
                    self._keep(part, exc)
                    raise
                finally:
                    reading.stop()
                part.commit(info.size)
                return info.size, digests
        raise _replaced(info)

    def digest(
        self,
        info: FileInfo,
        algorithms: Collection[str],
        *,
        idle_timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> dict[str, str]:
        """Checksums of all bytes of a file as the data gateway sends them: a read of the whole file.

        :raises SizeMismatch: when not as many bytes come as the server says the file has.
        """
        counted = _Counted(progress)
        for _ in range(VERSIONS_MAX):
            reading = self._reading(info, (), idle_timeout_s, counted)
            whole = Block(0, info.size, algorithms)
            try:
                reading.fill(whole, lambda position, piece: None)
                reading.confirm()
            except VersionMoved as moved:
                counted.take_back()
                info = self._checked(moved.info)
                continue
            return whole.digests.hexdigests()
        raise _replaced(info)

    def fetch(
        self, info: FileInfo, write: Callable[[memoryview], object], *, idle_timeout_s: float | None = None
    ) -> None:
        """Hand all bytes of a file to ``write`` by one GET, without a look at the file: for small ones.

        :param write: gets pieces that are each valid only until the next.

        :raises TransferInterrupted: when fewer come than were announced.
        """
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with self.open(info, idle_timeout_s=idle_timeout_s) as file:
            while count := file.readinto(buffer):
                write(buffer[:count])

    def _prepare(self, reference: Reference) -> tuple[FileInfo, Collection[Ticket]]:
        """The look and the tickets of a download, in the time of one of them."""
        tickets = Aside(lambda: self._gateway.initiate_download(reference))
        info = self._checked(self._gateway.stat(reference))
        if info.processing:
            # By the time that this is over, they are old.
            return self.readable(reference), ()
        # OpenCloud gives tickets for missing files and folders, too, and Reva v3.12.1 for neither: the look decides.
        with contextlib.suppress(errors.NotFound):
            return info, tickets.result()
        return info, ()

    def _checked(self, info: FileInfo) -> FileInfo:
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="GET", target=str(info.reference))
        return info

    def _reading(
        self,
        info: FileInfo,
        tickets: Collection[Ticket],
        idle_timeout_s: float | None,
        progress: Progress | None,
    ) -> Reading:
        return Reading(
            info,
            gateway=self._gateway,
            data=self._data,
            namespace=self._namespace,
            support=self._support,
            tickets=tickets,
            idle_timeout_s=idle_timeout_s,
            progress=progress,
        )

    def _part(self, local_path: Path, info: FileInfo, options: Options) -> SafeFile:
        if not options.resume or info.size < part_files.KEPT_FROM_BYTES or self._support.known is False:
            return SafeFile(local_path)
        part_files.sweep(local_path.parent)
        return ResumableFile(local_path, _version(self._endpoint, info))

    def _keep(self, part: SafeFile, exc: BaseException) -> None:
        """Leave a part where it is, if somebody can go on with it."""
        if not isinstance(part, ResumableFile) or self._support.known is False:
            return
        if part.keep() and isinstance(exc, errors.CS3Error):
            exc.message += "; what has come is kept, and the same download to the same place goes on from there"

    def _save_version(self, reading: Reading, part: SafeFile, options: Options) -> dict[str, str]:
        """Bring one version into the part, and compare it with what the server says.

        :raises VersionMoved: when it has to be begun anew, with this version or another.
        """
        info = reading.info
        algorithms = _to_compute(info, options.algorithms)
        done = _done(part, algorithms)
        part.reserve(info.size)
        streams = worthwhile_streams(info.size, options.streams or self._endpoint.download_streams, algorithms)
        if streams > 1 and not reading.serves_ranges():
            streams = 1
        row = row_for(info.size, streams, algorithms, done)
        if isinstance(part, ResumableFile):
            kept = part
            reading.note = lambda: kept.note(row.front)
        if done is not None:
            reading.goes_on()
            reading.moved(done.end)
        try:
            _fill(reading, row, part, streams)
            digests = row.hexdigests()
            reading.confirm()
            compare(info, info.size, digests, operation="GET")
        except NoRanges:
            # The answer to the question was another than those that followed: one stream, from the beginning.
            raise VersionMoved(info) from None
        except errors.IntegrityError:
            with contextlib.suppress(errors.CS3Error):
                reading.look()
            if done is not None:
                # What the other process left may be to blame.
                raise VersionMoved(info) from None
            raise
        return digests


class _Counted:
    """A progress callback that knows what it said, so that all of it can be taken back."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._total = 0

    def __call__(self, count: int) -> None:
        self._total += count
        if self._progress is not None:
            self._progress(count)

    def take_back(self) -> None:
        self(-self._total)


def _fill(reading: Reading, row: Row, part: SafeFile, streams: int) -> None:
    """Fetch all blocks of a row with so many threads at most, the caller's included.

    Fewer where the crew is busy, and where the line brings so much that others would only take the processor from
    each other. The first error of any of them is raised; the others are then waited for a little only. A thread that
    is later than that, because its server is silent, writes what it has at most into a part that is never committed.
    """
    began = time.monotonic()
    before = row.position
    ended = threading.Condition()
    working = 0
    over = False
    failures: list[BaseException] = []

    def work(writer: PartWriter) -> None:
        while (block := row.take()) is not None:
            reading.fill(block, writer.write_at)

    def needed() -> bool:
        """Whether a helper is to begin, after a look at how fast the line is."""
        with ended:
            ended.wait_for(lambda: over, _LOOK_S)
            rate = (row.position - before) / max(time.monotonic() - began, 1e-6)
            return not over and rate < _FAST_BYTES_PER_S

    def help_with(writer: PartWriter) -> None:
        nonlocal working
        try:
            # Closed before it is told: as long as a writer is open, nobody else can go on with the part.
            with contextlib.closing(writer):
                if needed():
                    work(writer)
        except Stopped:
            pass
        except BaseException as exc:
            # Whatever it is, it is the caller's to see.
            failures.append(exc)
            reading.stop()
        finally:
            with ended:
                working -= 1
                ended.notify_all()

    def end(within_s: float | None) -> None:
        """No helper begins any more; wait for those that have."""
        nonlocal over
        with ended:
            over = True
            ended.notify_all()
            ended.wait_for(lambda: not working or failures if within_s is None else not working, within_s)

    for _ in range(streams - 1):
        # Made here: by the time that a thread gets to it, the part may have been given up.
        writer = part.writer()
        with ended:
            working += 1
        if not crew.CREW.help(functools.partial(help_with, writer)):
            with ended:
                working -= 1
            writer.close()
            break
    try:
        with contextlib.suppress(Stopped), contextlib.closing(part.writer()) as own:
            work(own)
            end(None)
        if failures:
            raise failures[0]
    except BaseException:
        reading.stop()
        end(_LATE_S)
        raise


def _to_compute(info: FileInfo, asked: Collection[str]) -> set[str]:
    """What is asked for, and one that what comes can be compared by, where one is known."""
    # adler32 comes first: it is the only one that several streams can have.
    known = [name for name in ("adler32", *HEX_DIGITS) if name in info.checksums]
    if known and (known[0] == "adler32" or not set(known) & set(asked)):
        return {*asked, known[0]}
    return set(asked)


def _done(part: SafeFile, algorithms: Collection[str]) -> Block | None:
    """What an earlier process has left of this version, with its checksums; None where there is nothing."""
    if not isinstance(part, ResumableFile) or not part.front:
        return None
    block = Block(0, part.front, algorithms)
    part.reread(block.digests.update)
    return block


def _begin(part: SafeFile, version: Mapping[str, Any]) -> None:
    """Go on with another part: a thread that is late writes into that of its own version."""
    if isinstance(part, ResumableFile):
        part.begin(version)
    else:
        part.clear()


def _version(endpoint: Endpoint, info: FileInfo) -> dict[str, Any]:
    """What a part's note keeps of the file that it is of."""
    return {
        "gateway": endpoint.gateway,
        "file": str(info.reference),
        "size": info.size,
        "etag": info.etag,
        "mtime_s": info.mtime_s,
    }


def _replaced(info: FileInfo) -> errors.CS3Error:
    return errors.TransferInterrupted(
        f"the file was replaced {VERSIONS_MAX} times while it was read", operation="GET", target=str(info.reference)
    )


def compare(info: FileInfo, size: int, digests: Mapping[str, str], *, operation: str) -> None:
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
