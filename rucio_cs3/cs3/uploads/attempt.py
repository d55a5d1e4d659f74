"""What is asked of an upload, and what has become of one attempt at it; shared by those who land, send and prove it.

Data only; :mod:`rucio_cs3.cs3.uploads.uploads` has the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.resumable import Resumption
from rucio_cs3.cs3.uploads.upload_state import LocalSource

#: Up to this many bytes a file is small: it is in the page cache, and a round trip costs more than to send it in vain,
#: to read it for its checksum first, or to fetch it back.
SMALL_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one upload is done; the meaning is that of :meth:`rucio_cs3.cs3.storage.CS3Storage.upload`.

    :param mtime_s: modification time of the local file, in seconds since the epoch; None where there is none.
    :param hidden: the place is a hidden sibling already, so nothing is in its way, and it gets no other name here.
    :param restarts: the body can be read again at no cost, so it may be sent again.
    :param source: the local file whose upload another process may go on with; None where none may.
    """

    mtime_s: float | None = None
    overwrite: bool = False
    read_back: bool = False
    idle_timeout_s: float | None = None
    hidden: bool = False
    restarts: bool = False
    source: LocalSource | None = None


@dataclass
class Attempt:
    """What has become of an attempt so far.

    :param trusted_folder: nobody has looked whether the folder is there, and no answer has shown it yet.
    :param sending: between the request for a ticket and the server's answer to the last byte.
    :param only_new: direct landing: the name was free when it began, and must be still for any further ticket.
    :param etag: what the server gave to what it stored; empty while nothing is stored, or where it gives none.
    :param lost: the error that hid the answer after all had been sent; or that of a name which is taken by then.
    :param proven: what the server said of the very content, maybe under a hidden sibling's name.
    :param resumption: what it has to do with an upload by TUS, also one of another process.
    """

    trusted_folder: bool = False
    sending: bool = True
    only_new: bool = False
    etag: str = ""
    lost: errors.CS3Error | None = None
    proven: FileInfo | None = None
    resumption: Resumption = field(default_factory=Resumption)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The bytes of one attempt on their way.

    :param landing: where they go: the name itself, or a hidden sibling.
    :param headers: those of the tickets, should new ones be needed.
    """

    body: UploadBody
    landing: Reference
    headers: Mapping[str, str] = field(repr=False)
    options: Options
    attempt: Attempt
