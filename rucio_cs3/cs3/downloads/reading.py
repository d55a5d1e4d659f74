"""One version of a remote file, read over as many GETs as it takes: what happens when an answer breaks off.

A look at the file (Stat) comes before each continuation: what goes on must be the version that was begun, by size, etag
and mtime. Reva of both lines looks neither at ``If-Range`` nor at ``If-Match`` (``download.go`` of v3.12.1 and of the
``edge`` branch that OpenCloud's comes from says so), so the etag of each answer is compared here, where there is one,
and where there is none (Reva v3.12.1) a last look at the end makes sure.

Knows tickets and answers; where the bytes go is the caller's: :mod:`rucio_cs3.cs3.downloads.downloads`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterator

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.downloads.endings import FINAL, TEMPORARY, NoRanges, Stopped, VersionMoved, same_version
from rucio_cs3.cs3.downloads.ranges import Block, ContentRange, Patience, RangeSupport, is_strong
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.http.client import Answer, http_error
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import FileInfo, Ticket, pick_ticket
from rucio_cs3.cs3.streams import CHUNK_BYTES, Progress

_log = logging.getLogger(__name__)


def _outcome(attempt: Generator[object, None, errors.CS3Error | None]) -> errors.CS3Error | None:
    """Run an attempt to its end; nobody wants the bytes."""
    while True:
        try:
            next(attempt)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Reading:
    """The bytes of one version of one file; :meth:`fill` may be called by several threads.

    :param tickets: for the first GET; each further one gets new ones, because they age.
    :param idle_timeout_s: longest silence, where shorter than the endpoint's.
    :param progress: called by one thread at a time.
    """

    def __init__(
        self,
        info: FileInfo,
        *,
        gateway: Gateway,
        data: DataGateway,
        namespace: Namespace,
        support: RangeSupport,
        tickets: Collection[Ticket] = (),
        idle_timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.info = info
        self._gateway = gateway
        self._data = data
        self._namespace = namespace
        self._support = support
        self._tickets = tickets
        self._idle_timeout_s = idle_timeout_s
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._etag = ""
        self._answers = 0
        self._unpinned = False
        self._heads = 0
        #: Called whenever bytes have been written, before they are counted; by one thread at a time.
        self.note: Callable[[], None] | None = None

    # -- the caller's side ---------------------------------------------------------------------------------

    def fill(self, block: Block, write: Callable[[int, memoryview], None]) -> None:
        """Fetch what is missing of a block, over as many answers as it takes.

        :param write: gets the position in the file and a piece that is valid only until the next; its errors come
            through as they are.
        :raises VersionMoved: when the file is another one now.
        :raises NoRanges: when the server has no ranges, and the block is not the whole file.
        :raises NotFound: when the file is gone.
        :raises Stopped: when :meth:`stop` was called.
        """
        # Closed at once where ``write`` fails, and with it the answer.
        with contextlib.closing(self.pieces(block)) as pieces:
            for position, piece in pieces:
                write(position, piece)

    def pieces(self, block: Block) -> Generator[tuple[int, memoryview], None, None]:
        """What is missing of a block, piece by piece: its position in the file, and bytes that are valid only until the
        next. Nothing is asked for before the first is wanted; whoever wants no more closes the generator.

        Where the server has no ranges, and the block is the whole file, it may begin again with position 0. Errors are
        those of :meth:`fill`.
        """
        patience = Patience(block.position)
        buffer = memoryview(bytearray(min(CHUNK_BYTES, block.end - block.position) or 1))
        while True:
            try:
                error = yield from self._attempt(block, buffer)
            except NoRanges:
                self._support.seen(False)
                if not self._is_whole(block):
                    raise
                self._begin_again(block, patience, None)
                continue
            if error is None:
                return
            self._consider(error, block, patience)

    @property
    def latest(self) -> tuple[int, str]:
        """How many answers have come for this version so far, and the etag of the last; empty where it had none."""
        with self._lock:
            return self._heads, self._etag

    def whole(self) -> RemoteFile:
        """All bytes of the file to read from, by one GET for each beginning; what breaks off is the reader's to see."""
        size = self.info.size
        return RemoteFile(lambda: self._get(0, size, whole=True), size=size, target=str(self.info.reference))

    def confirm(self) -> None:
        """The end of a download: where more than one answer made the file and not all were pinned, look once more.

        :raises VersionMoved: when they may be of different versions.
        """
        if self._answers > 1 and self._unpinned:
            self.look()

    def look(self) -> bool:
        """Look at the file.

        :returns: whether the server was still working on it; it has finished when this returns.
        :raises VersionMoved: when it is another one now.
        :raises NotFound: when it is gone.
        :raises TooEarly: when post-processing takes too long.
        """
        info = self._gateway.stat(self.info.reference)
        waited = info.processing
        if waited:
            info = self._namespace.settled(self.info.reference)
        if not same_version(info, self.info):
            raise VersionMoved(info)
        return waited

    def serves_ranges(self) -> bool:
        """Whether the server answers a range with it: what is known, or a question for one byte.

        Any answer but 206 and 416 leaves it open, and is "no" for this time.
        """
        if self._support.known is None:
            probe = Block(0, 1)
            try:
                error = _outcome(self._attempt(probe, memoryview(bytearray(1)), count=False))
            except NoRanges:
                self._support.seen(False)
            else:
                if error is not None:
                    _log.info("%s: whether there are ranges stays open: %s", self.info.reference, error)
        return bool(self._support.known)

    def stop(self) -> None:
        """Have all threads in :meth:`fill` end with the next piece; from now on nothing is written or counted."""
        with self._lock:
            self._stopped.set()

    def moved(self, count: int) -> None:
        """Tell how many bytes have come, or are taken back (negative)."""
        with self._lock:
            if self._stopped.is_set():
                return
            if self.note is not None:
                self.note()
            if self._progress is not None:
                self._progress(count)

    def goes_on(self) -> None:
        """What comes is joined to bytes that an earlier process got; :meth:`confirm` then looks in any case."""
        self._answers, self._unpinned = self._answers + 1, True

    # -- one answer ----------------------------------------------------------------------------------------

    def _attempt(
        self, block: Block, buffer: memoryview, *, count: bool = True
    ) -> Generator[tuple[int, memoryview], None, errors.CS3Error | None]:
        """One GET for the rest of a block.

        :returns: what the site or the network did wrong; None when all has come.
        """
        first, end = block.position, block.end
        whole = first == 0 and end == self.info.size
        file = RemoteFile(
            lambda: self._get(first, end, whole=whole),
            size=end - first,
            target=str(self.info.reference),
            status=200 if whole else 206,
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file)
            except errors.CS3Error as error:
                return error
            while True:
                try:
                    length = file.readinto(buffer)
                except errors.CS3Error as error:
                    return error
                if self._stopped.is_set():
                    raise Stopped
                if not length:
                    return None
                piece = buffer[:length]
                yield block.position, piece
                block.digests.update(piece)
                if count:
                    self.moved(length)

    @contextlib.contextmanager
    def _get(self, first: int, end: int, *, whole: bool) -> Iterator[Answer]:
        """Ask for bytes by a ticket; once more by another, and with a new login where the token died between ticket and
        GET.
        """
        for last in (False, True):
            with self._lock:
                tickets, self._tickets = self._tickets, ()
                etag = self._etag
            if not tickets:
                try:
                    tickets = self._gateway.initiate_download(self.info.reference)
                except errors.NotFound as error:
                    raise self._not_there(error) from error
            ticket = pick_ticket(tickets, ("simple", "spaces"), self.info.reference)
            conditions = {} if whole else {"Range": f"bytes={first}-{end - 1}"}
            if not whole and is_strong(etag):
                # No Reva looks at it; what stands in front of one may.
                conditions["If-Range"] = etag
            used = self._gateway.tokens.get()
            with self._data.open(
                ticket,
                target=str(self.info.reference),
                idle_timeout_s=self._idle_timeout_s,
                conditions=conditions,
            ) as answer:
                if answer.status_code in (404, 410):
                    raise self._not_there(http_error(answer, "GET", str(self.info.reference)))
                # 403 is what both lines say to a ticket that has died, whatever the access token is.
                if last or answer.status_code not in (401, 403):
                    self._check(answer, first, whole=whole)
                    yield answer
                    return
            if answer.status_code == 401:
                self._gateway.tokens.invalidate(used)

    def _not_there(self, error: errors.CS3Error) -> errors.CS3Error:
        """What it means that something else than a look says that the file is not there.

        :raises NotFound: when a look says so, too: only that is believed, for callers take it for the file's loss.
        """
        self._gateway.stat(self.info.reference)
        return errors.ServerFault(
            f"the file is said not to be there, and a look says that it is: {error.message}",
            operation=error.operation,
            target=error.target,
            code=error.code,
            trace=error.trace,
        )

    def _check(self, answer: Answer, first: int, *, whole: bool) -> None:
        """Whether an answer belongs to what has come so far; other statuses than these three are errors anyway."""
        status = answer.status_code
        if status not in (200, 206, 416) or (whole and status != 200):
            return
        said = answer.headers.get("Content-Range", "")
        if status == 416:
            # Reva v3.12.1 local and cephmount: 416 to a valid range. Beyond the end it gives the size, too.
            if said not in ("", f"bytes */{self.info.size}"):
                self._another_version()
            raise NoRanges
        etag = answer.headers.get("ETag", "")
        with self._lock:
            begun = self._etag if not whole else ""
            self._etag = etag
            self._heads += 1
            # A whole answer follows nothing.
            self._answers = 1 if whole else self._answers + 1
            self._unpinned = not etag or (self._unpinned and not whole)
        if begun and etag and etag != begun:
            self._another_version()
        if whole:
            return
        if status == 200:
            raise NoRanges
        held = ContentRange.parse(said)
        if held is None or held.first != first:
            raise errors.ProtocolViolation(
                f"the server was asked for the bytes from {first} on and says that it sends {said or 'some'}",
                operation="GET",
                target=str(self.info.reference),
            )
        if held.size not in (None, self.info.size):
            self._another_version()
        self._support.seen(True)

    def _another_version(self) -> None:
        """An answer is of another version than what has come.

        :raises VersionMoved: always; with what is there now.
        """
        self.look()
        # The metadata are those of the beginning, so the server contradicts itself; the whole is fetched again.
        raise VersionMoved(self.info)

    # -- after an error ------------------------------------------------------------------------------------

    def _consider(self, error: errors.CS3Error, block: Block, patience: Patience) -> None:
        """Find out whether to go on; return when the time for that has come.

        :raises CS3Error: when it is not worth it.
        """
        if isinstance(error, FINAL):
            raise error
        temporary = isinstance(error, TEMPORARY)
        if temporary:
            self._pause(error, block, patience)
        while True:
            try:
                waited = self.look()
                break
            except TEMPORARY as unseen:
                if isinstance(unseen, errors.TooEarly):
                    raise  # it was waited for
                self._pause(unseen, block, patience)
        if not temporary and not waited:
            raise error
        _log.info("GET %s: going on at byte %d after: %s", self.info.reference, block.position, error)
        if self._support.known is False and block.position > block.first:
            if not self._is_whole(block):
                raise NoRanges
            self._begin_again(block, patience, error)

    def _is_whole(self, block: Block) -> bool:
        return block.first == 0 and block.end == self.info.size

    def _pause(self, error: errors.CS3Error, block: Block, patience: Patience) -> None:
        """
        :raises CS3Error: ``error``, when there is to be no further attempt.
        """
        pause_s = patience.pause_s(error, block.position)
        if pause_s is None:
            error.message += f"; given up at byte {block.position} of {self.info.size}"
            raise error
        # Whoever limits the whole download's time does so here.
        self.moved(0)
        if self._stopped.wait(pause_s):
            raise Stopped

    def _begin_again(self, block: Block, patience: Patience, error: errors.CS3Error | None) -> None:
        """Forget what has come of a block, because the server sends the whole file or nothing.

        :raises CS3Error: ``error``, when that was done often enough.
        """
        if not patience.may_begin_again() and error is not None:
            raise error
        self.moved(-block.digests.byte_count)
        block.digests.reset()
