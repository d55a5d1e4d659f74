"""Resumable uploads by TUS 1.0.0, as the data gateways of CS3 clouds speak it: which step comes next.

Pure: knows no HTTP library, no file and no clock. :class:`Upload` is told what was answered, and says what to do;
:mod:`rucio_cs3.cs3.uploads.tus_uploads` does it. There is no creation by POST on either server line: InitiateFileUpload
has made the upload, and its ticket names it.

What servers were seen to do (docs/cs3apis.md has the list): Reva v3.12.1 ``local`` keeps what came of a PATCH that
broke off, and goes on writing it for some milliseconds after the connection has ended, so that HEAD may tell an offset
that still grows. Nothing locks an upload there: a PATCH that begins meanwhile is mixed with the bytes of the old one.
Hence two equal answers, with a pause between them, before a broken upload goes on. After the last byte HEAD says 404.
OpenCloud's decomposedfs appends in the same way (its source), and locks as little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rucio_cs3.cs3.uploads.piece_sizes import MIB, PieceSizes

#: Protocol version that both lines speak (tusd 1.13 in Reva v3.12.1, tusd 2.6 in the OpenCloud line).
VERSION = "1.0.0"

#: Content type of a PATCH (TUS 1.0.0, "PATCH").
CONTENT_TYPE = "application/offset+octet-stream"

#: Failures without progress, one after another, before it is given up.
ATTEMPTS = 6

#: New uploads that may take the place of one that was lost, before it is given up.
RESTARTS = 2

#: Failures of an upload that another process began and that never told an offset, before another one takes its place:
#: the address in an old ticket may be nobody's any more.
_STRANGER_ATTEMPTS = 2

#: Pause between two looks at the offset of an upload whose last request broke, in seconds. Reva v3.12.1 local wrote on
#: for at most 15 ms on a loaded machine; proxies on the way hold some bytes, too.
SETTLE_S = 0.3

#: Looks at an offset that keeps growing by itself, before that counts as a failure.
_SETTLING_LOOKS = 20

#: A server that wants to be left alone for longer is not waited for here, in seconds: whoever called may come again.
PATIENCE_S = 60.0

#: Answers that may be another one later, the same request given. 409 is a wrong offset, for which HEAD has the right
#: one; 423 a lock of another request (tusd with a locker); 500 what Reva says when the connection behind it broke.
_LATER = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504})

#: Answers to a body that was too much at once: a proxy's limit of size (413) or of time.
_TOO_LONG = frozenset({408, 502, 504})

#: The checksum is another one: 460 by TUS 1.0.0, 419 by ownCloud.
_WRONG_CHECKSUM = frozenset({419, 460})

_GONE = frozenset({404, 410})
_DONE = frozenset({200, 204})


@dataclass(frozen=True)
class Ask:
    """HEAD: how much has the server?"""


@dataclass(frozen=True)
class Send:
    """PATCH with ``count`` bytes, from ``offset`` of the file on."""

    offset: int
    count: int


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Renew:
    """The access token has died: get another one. The upload itself lives on."""


@dataclass(frozen=True)
class Look:
    """Is the whole file where the upload was to put it? A stat decides."""


@dataclass(frozen=True)
class Restart:
    """The upload is lost: initiate another one."""


@dataclass(frozen=True)
class Done:
    """The server has everything."""


@dataclass(frozen=True)
class GiveUp:
    """No further step can help.

    :param reason: what is wrong where the last answer was no error; empty where it was one.
    """

    reason: str = ""


Step = Ask | Send | Pause | Renew | Look | Restart | Done | GiveUp


class Upload:
    """One file on its way; :attr:`step` is what to do now, and the other methods say how it went.

    Every sequence of answers ends in :class:`Done` or :class:`GiveUp`.

    :param size: bytes of the whole file, at least 1: an upload of none never ends (Reva v3.12.1 local).
    :param pause_s: seconds to wait after the failure number 1, 2, … in a row.
    :param begun_elsewhere: another process began the upload, so that nothing is known of it.
    """

    def __init__(
        self,
        size: int,
        *,
        pause_s: Callable[[int], float],
        pieces: PieceSizes | None = None,
        begun_elsewhere: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError("an upload of nothing never ends")
        self._size = size
        self._pause_s = pause_s
        self._pieces = pieces or PieceSizes()
        #: Whether a request of this file ended without its answer: what the server then put together is to be proven.
        self.interrupted = begun_elsewhere
        #: Bytes that the server has confirmed.
        self.offset = 0
        # Bytes that can have reached the server: no request held more.
        self._reach = size if begun_elsewhere else 0
        # Whether a request may still be at work at the server, and the offset that it told meanwhile.
        self._unsettled = begun_elsewhere
        self._seen: int | None = None
        self._looks = 0
        self._failures = 0
        self._failures_since = 0
        self._refused_token = False
        self._missed = 0
        self._restarts = 0
        # Whether anything of the upload at hand was answered or broke, and whether all that is left goes at once.
        self._begun = False
        self._in_one = False
        # Whether the server has ever said that the upload is there.
        self._known = not begun_elsewhere
        self._step: Step = Ask() if begun_elsewhere else self._send()

    @property
    def step(self) -> Step:
        """What to do now."""
        return self._step

    def answered(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        sent: int = 0,
        seconds: float = 0.0,
        retry_after_s: float | None = None,
    ) -> None:
        """There was an answer to :class:`Ask` or :class:`Send`.

        :param headers: of the answer; names as TUS writes them, or a mapping that ignores case.
        :param sent: bytes of the body that were sent until then.
        :param seconds: how long it took.
        :param retry_after_s: what the server asked for.
        """
        if isinstance(self._step, Send):
            self._patched(self._step, status, headers, sent, seconds, retry_after_s)
        elif isinstance(self._step, Ask):
            self._told(status, headers, retry_after_s)
        else:
            raise ValueError(f"nothing was asked: the step is {self._step}")
        self._begun = not isinstance(self._step, Restart)

    def broken(self) -> None:
        """There was no answer to :class:`Ask` or :class:`Send`."""
        if isinstance(self._step, Send):
            self._reach = max(self._reach, self._step.offset + self._step.count)
            self._pieces.halve()
            self._unsettle()
        elif not isinstance(self._step, Ask):
            raise ValueError(f"nothing was asked: the step is {self._step}")
        self._begun = True
        self._fail()

    def waited(self) -> None:
        """:class:`Pause` is over, or :class:`Renew` done."""
        if not isinstance(self._step, Pause | Renew):
            raise ValueError(f"there was nothing to wait for: the step is {self._step}")
        self._step = Ask()

    def looked(self, *, found: bool) -> None:
        """The answer to :class:`Look`: whether the whole file is in its place."""
        if not isinstance(self._step, Look):
            raise ValueError(f"nobody wanted a look: the step is {self._step}")
        if found:
            self._step = Done()
            return
        self._missed += 1
        if self._missed == 1:
            # It may still be on its way from the upload to its place, also where the upload is not there any more.
            self._step = Pause(SETTLE_S)
        else:
            # Reva v3.12.1: after a failed end HEAD tells the whole length, and no PATCH makes a file of it any more.
            self._restart()

    def began_again(self) -> None:
        """:class:`Restart` is done: there is a new, empty upload."""
        if not isinstance(self._step, Restart):
            raise ValueError(f"nothing was to begin: the step is {self._step}")
        self.offset = self._reach = self._failures = self._failures_since = 0
        self._unsettled = False
        self._seen = None
        self._missed = 0
        self._known = True
        self._begun = False
        self._step = self._send()

    def _send(self) -> Step:
        left = self._size - self.offset
        return Send(self.offset, left if self._in_one else min(self._pieces.current, left))

    def _told(self, status: int, headers: Mapping[str, str], retry_after_s: float | None) -> None:
        if status not in _DONE:
            self._refused(status, retry_after_s)
            return
        offset, length = _number(headers, "Upload-Offset"), _number(headers, "Upload-Length")
        if offset is None:
            self._fail(reason="the server does not say how much it has")
        elif (length is not None and length != self._size) or not self.offset <= offset <= min(self._reach, self._size):
            # Another file's, fewer bytes than were confirmed, or more than were sent: whatever is there, it is not the
            # beginning of this file.
            self._restart()
        elif self._unsettled and offset != self._seen:
            self._known = True
            self._looks += 1
            if (self._seen or 0) > offset:
                self._restart()
            elif self._looks > _SETTLING_LOOKS:
                self._looks = 0
                self._fail(reason="the server's offset grows by itself")
            else:
                self._seen = offset
                self._step = Pause(SETTLE_S)
        else:
            self._unsettled = False
            self._confirm(offset)
            self._step = Look() if offset == self._size else self._send()

    def _patched(
        self,
        step: Send,
        status: int,
        headers: Mapping[str, str],
        sent: int,
        seconds: float,
        retry_after_s: float | None,
    ) -> None:
        end = step.offset + sent
        # How much of it has left this machine, nobody knows exactly.
        self._reach = max(self._reach, step.offset + step.count)
        if status in _DONE:
            offset = _number(headers, "Upload-Offset")
            if offset is None or sent < step.count or not step.offset < offset <= end:
                # Well-meant, but not what was asked for: HEAD has to say what it is.
                self._unsettle()
                self._fail(reason="the server's offset is none that the request can have led to")
                return
            self._pieces.took(step.count, seconds)
            self._confirm(offset)
            if offset < end and self._failures_since != offset:
                # Less than a MiB of what was sent: a byte for each request would be an upload without an end.
                self._fail(reason="the server takes next to nothing of what it is sent")
                return
            self._step = Done() if offset == self._size else self._send()
            return
        if status not in (409, 423):
            # The request may go on behind whoever has answered it.
            self._unsettle(interrupted=sent > 0)
        if status == 413:
            self._in_one = False
            self._step = Ask() if self._pieces.refuse(step.count) else GiveUp()
            return
        if status in _TOO_LONG:
            self._pieces.halve()
        self._refused(status, retry_after_s)

    def _refused(self, status: int, retry_after_s: float | None) -> None:
        """What an error means, whichever request it answers."""
        if status in _GONE:
            if self._reach == self._size:
                self.offset = 0  # unknown: the upload is not there any more
                self._step = Look()
            else:
                self._restart()
        elif status == 401:
            if self._refused_token:
                # It is not the access token that is meant.
                self._ticket_refused()
            else:
                self._refused_token = True
                self._step = Renew()
        elif status == 403:
            # Reva v3.12.1: a transfer token that has expired, or that it does not know after a restart.
            self._ticket_refused()
        elif status in _WRONG_CHECKSUM and self.interrupted:
            # It may have been put together wrongly; a file that was sent in one go was not.
            self._restart()
        elif status in _LATER:
            self._fail(retry_after_s)
        elif not self._known:
            self._restart()
        else:
            self._step = GiveUp()

    def _ticket_refused(self) -> None:
        """The transfer token has died, and there is none but for a new upload; or the upload is not allowed at all."""
        if self._restarts and not self._begun:
            # A new one was refused at once, so it is not its age.
            self._step = GiveUp()
            return
        # Where it lives shorter than the upload lasts, pieces would never come to an end. It is looked at when a
        # request begins (Reva v3.12.1 datagateway.go:verify, which OpenCloud has, too): one request may outlive it.
        self._in_one = self._in_one or self._known
        self._restart()

    def _confirm(self, offset: int) -> None:
        self.offset = offset
        if offset - self._failures_since >= MIB or offset == self._size:
            # A HEAD alone is no progress: Reva v3.12.1 answers it whatever the access token is.
            self._failures = 0
            self._failures_since = offset
            self._refused_token = False

    def _unsettle(self, *, interrupted: bool = True) -> None:
        self._unsettled = True
        self._seen = None
        self._looks = 0
        self.interrupted = self.interrupted or interrupted

    def _fail(self, retry_after_s: float | None = None, *, reason: str = "") -> None:
        self._failures += 1
        if not self._known and self._failures >= _STRANGER_ATTEMPTS:
            self._restart()
        elif self._failures >= ATTEMPTS or (retry_after_s or 0.0) > PATIENCE_S:
            self._step = GiveUp(reason)
        else:
            self._step = Pause(max(self._pause_s(self._failures), retry_after_s or 0.0))

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS:
            self._step = GiveUp("the upload is lost at the server again and again")
        else:
            self._step = Restart()


def _number(headers: Mapping[str, str], name: str) -> int | None:
    """A header that is a non-negative number (TUS 1.0.0, "Upload-Offset"); None for anything else."""
    text = headers.get(name, "").strip()
    # ASCII only: isdecimal() takes the digits of all scripts. 18 digits are an exabyte; int() refuses thousands.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
