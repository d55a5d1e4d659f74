"""A remote file that is read at any position, as Python's file objects are: by ranges, or by what stands in for them.

Where the server has ranges, what is missing is fetched in pages, more of them ahead the longer the reading goes on in
order. Where it has none (Reva v3.12.1 local answers 416), one GET of the whole file is read on as far as anybody wants,
and as soon as somebody jumps, what passes is kept in a temporary copy: pandas, h5py and uproot read a file's end first,
and then from anywhere.

All bytes are of the version that was there when the file was opened, or there is an error: never a mixture. A broken
connection and a token that dies are survived, by :class:`~.downloads.reading.Reading`, which this reads through.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.downloads.endings import NoRanges, VersionMoved
from rucio_cs3.cs3.downloads.ranges import Block, RangeSupport
from rucio_cs3.cs3.downloads.reading import Reading
from rucio_cs3.cs3.page_runs import PageRun, Proof, read_range
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.spool import Spool

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: A file is fetched and kept in pages of so many bytes.
PAGE_BYTES = 256 * 1024

#: Most bytes that are kept in memory of one file.
CACHE_BYTES = 32 * 1024 * 1024

#: A file up to this size is fetched as a whole: a ticket and a GET take longer than its bytes.
WHOLE_BYTES = 4 * PAGE_BYTES

#: A gap up to this many bytes is read over, rather than asking anew.
SKIP_BYTES = 1024 * 1024

#: What one request asks for beyond what is wanted, when the file is read in order: at first, and at most.
AHEAD_BYTES = 4 * PAGE_BYTES
AHEAD_MAX_BYTES = 64 * 1024 * 1024


class RandomAccessFile(io.RawIOBase):
    """One version of a remote file; read-only. Threads may share it, and take turns; processes may not.

    Put a :class:`io.BufferedReader` around it where lines or many small pieces are read.

    :param info: a look at the file, from a moment ago.
    :param read: makes a :class:`Reading` of that version.
    :param support: what is known about the server's ranges.
    :raises PreconditionFailed: by all methods that read, from the moment on at which the file was seen to be another.
    :raises ChecksumMismatch: by all methods that read, from the moment on at which its bytes were seen to be wrong.
    """

    def __init__(self, info: FileInfo, read: Callable[[], Reading], support: RangeSupport) -> None:
        super().__init__()
        self.info = info
        #: Bytes of the file.
        self.size = info.size
        self.name = str(info.reference)
        self._read_anew = read
        self._reading = read()
        self._proof = Proof(self._reading)
        self._support = support
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._position = 0
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._run: PageRun | None = None
        self._ahead = 0
        #: Where the last run ended: who goes on there reads in order.
        self._ended = 0
        self._spool: Spool | None = None
        self._moved = False
        #: How the bytes that passed were wrong; empty where nobody knows of that.
        self._wrong = ""

    # -- what file objects have ----------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        """Nothing is asked of the server; positions behind the end are allowed.

        :raises ValueError: for a position before the first byte.
        """
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + position < 0:
            raise ValueError(f"there is no byte {base + position}")
        self._position = base + position
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, or what the rest of the file takes of it; 0 is the end.

        :raises CS3Error: what :meth:`~.storage.CS3Storage.download` raises.
        """
        view = memoryview(buffer).cast("B")
        with self._turn():
            count = self._fill(self._position, view)
            self._position += count
        return count

    def readall(self) -> bytes:
        """All from the current position on."""
        rest = bytearray(max(self.size - self._position, 0))
        self.readinto(rest)
        return bytes(rest)

    def close(self) -> None:
        """Give up what is under way, and the temporary copy. Idempotent."""
        if not self.closed and self._pid == os.getpid():
            with self._lock:
                self._drop_run()
                self._drop_kept()
        super().close()

    # -- beyond --------------------------------------------------------------------------------------------

    def read_at(self, first: int, end: int) -> bytes:
        """The bytes from ``first`` up to, not including, ``end``; the position does not matter and stays. Threads need
        not take turns where the server has ranges.

        Errors are those of :meth:`readinto`.
        """
        first, end = max(first, 0), min(end, self.size)
        if end <= first:
            self._check()
            return b""
        if self._is_ranged() and not self._is_here(first, end):
            self._check()
            try:
                return read_range(self._read_anew(), first, end)
            except NoRanges:
                pass  # found out just now
            except VersionMoved:
                self._moved = True
                self._fail()
        data = bytearray(end - first)
        self.readinto_at(first, memoryview(data))
        return bytes(data)

    def readinto_at(self, position: int, view: memoryview) -> int:
        """As :meth:`readinto`, from a position of the caller's; for readers that share the file."""
        with self._turn():
            return self._fill(position, view)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check(self) -> None:
        self._check_open()
        if self._pid != os.getpid():
            raise errors.Unsupported("was opened by another process; open it again in this one", target=self.name)
        if self._wrong:
            raise errors.ChecksumMismatch(self._wrong, operation="GET", target=self.name)
        if self._moved:
            self._fail()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """A thread's turn to read."""
        self._check()
        with self._lock:
            self._check()  # another thread may have closed it
            try:
                yield
            except BaseException as exc:
                # What is under way is in no state to be gone on with.
                self._drop_run()
                if not isinstance(exc, VersionMoved):
                    raise
                self._moved = True
                self._fail()

    def _fail(self) -> NoReturn:
        raise errors.PreconditionFailed(
            "the file was replaced since it was opened; open it again to read what is there now",
            operation="GET",
            target=self.name,
        )

    # -- pages ---------------------------------------------------------------------------------------------

    def _is_ranged(self) -> bool:
        """Whether ranges are asked for: unless the server is known to have none, or the file is small."""
        return self.size > WHOLE_BYTES and self._support.known is not False

    def _is_here(self, first: int, end: int) -> bool:
        numbers = range(first // PAGE_BYTES, -(-end // PAGE_BYTES))
        return len(numbers) <= CACHE_BYTES // PAGE_BYTES and all(number in self._pages for number in numbers)

    def _fill(self, position: int, view: memoryview) -> int:
        count = max(min(len(view), self.size - position), 0)
        done = 0
        while done < count:
            number, skip = divmod(position + done, PAGE_BYTES)
            piece = self._page(number, position + count)[skip : skip + count - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        return count

    def _page(self, number: int, until: int) -> bytes:
        """
        :param until: the position up to which more will be wanted at once.
        """
        page = self._pages.get(number)
        if page is not None:
            self._pages.move_to_end(number)
            return page
        first = number * PAGE_BYTES
        if self._spool is not None and first < self._spool.size:
            return self._keep(number, self._spool.read_at(first, PAGE_BYTES))
        try:
            return self._fetch(number, until)
        except NoRanges:
            # Found out just now; from here on it is known.
            self._drop_run()
            return self._fetch(number, until)

    def _fetch(self, number: int, until: int) -> bytes:
        first = number * PAGE_BYTES
        run = self._run
        is_far = run is not None and (first > run.position + SKIP_BYTES or first >= run.end)
        if run is not None and is_far and not self._is_ranged():
            # There is no other way than to read on; but who jumps will jump again.
            self._begin_spool(run)
            is_far = False
        if run is None or is_far or first < run.position:
            run = self._begin_run(first, until)
        while True:
            passing, page = run.position // PAGE_BYTES, run.next_page()
            self._proof.check(at_end=run.is_over)
            if run.is_over:
                self._end_run(run)
            if self._spool is not None and self._spool.size == passing * PAGE_BYTES:
                self._spool.append(page)
            self._keep(passing, page)
            if passing == number:
                return page

    def _keep(self, number: int, page: bytes) -> bytes:
        self._pages[number] = page
        self._pages.move_to_end(number)
        while len(self._pages) > CACHE_BYTES // PAGE_BYTES:
            self._pages.popitem(last=False)
        return page

    # -- runs ----------------------------------------------------------------------------------------------

    def _begin_run(self, first: int, until: int) -> PageRun:
        self._drop_run()
        if self._is_ranged():
            in_order = first == self._ended
            self._ahead = min(max(2 * self._ahead, AHEAD_BYTES), AHEAD_MAX_BYTES) if in_order else PAGE_BYTES
            end = min(-(-max(until, first + self._ahead) // PAGE_BYTES) * PAGE_BYTES, self.size)
        else:
            # What fits into the cache needs no copy.
            if first > 0 and self.size > CACHE_BYTES and self._spool is None:
                self._spool = Spool()
            first, end = 0, self.size
        is_whole = (first, end) == (0, self.size)
        algorithms = [name for name in ("adler32",) if is_whole and name in self.info.checksums]
        self._run = PageRun(self._reading, Block(first, end, algorithms), PAGE_BYTES)
        return self._run

    def _begin_spool(self, run: PageRun) -> None:
        """Keep from now on what passes, if all that has passed is still here."""
        if self._spool is not None or self.size <= CACHE_BYTES or run.position % PAGE_BYTES:
            return
        numbers = range(run.position // PAGE_BYTES)
        if len(numbers) <= len(self._pages) and all(number in self._pages for number in numbers):
            self._spool = Spool()
            for number in numbers:
                self._spool.append(self._pages[number])

    def _end_run(self, run: PageRun) -> None:
        self._run, self._ended = None, run.position
        found = run.finish()
        for algorithm in found:
            if found[algorithm] != self.info.checksums[algorithm]:
                # Nobody knows which of the bytes are wrong: none of them is handed out again.
                self._drop_kept()
                self._wrong = (
                    f"{algorithm} of what passed is {found[algorithm]}, but the server says "
                    f"{self.info.checksums[algorithm]}"
                )
                self._check()

    def _drop_kept(self) -> None:
        self._pages.clear()
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _drop_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()
