"""How the bytes of one transfer move: pulled, pushed, or relayed through here; knows no Rucio.

Each function ends well only when somebody claims that the file is there. A claim is no proof:
:func:`rucio_cs3.transfers.ladder.transfer_one` looks for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.transfers.ends import End, Landing
from rucio_cs3.transfers.modes import Mode

#: Gets the bytes so far; what it raises ends the copy.
Progress = Callable[[int], None]

#: Size in bytes and checksums by Rucio's catalogue, source, where it is to land, progress.
Copy = Callable[[int, Mapping[str, str], End, Landing, Progress], None]


def pull(size: int, checksums: Mapping[str, str], source: End, landing: Landing, progress: Progress) -> None:
    """Have the destination's WebDAV front end fetch the file; see :func:`rucio_cs3.cs3.webdav.tpc.pull`."""
    tpc.pull(
        landing.http,
        source_url=source.url,
        destination_url=landing.url,
        source_authorization=source.authorization(write=False, lent=True),
        destination_authorization=landing.authorization(write=True),
        on_marker=lambda marker: progress(marker.transferred_bytes),
    )


def push(size: int, checksums: Mapping[str, str], source: End, landing: Landing, progress: Progress) -> None:
    """Have the source's WebDAV front end send the file; see :func:`rucio_cs3.cs3.webdav.tpc.push`."""
    tpc.push(
        source.http,
        source_url=source.url,
        destination_url=landing.url,
        source_authorization=source.authorization(write=False),
        destination_authorization=landing.authorization(write=True, lent=True),
        on_marker=lambda marker: progress(marker.transferred_bytes),
    )


def relay(size: int, checksums: Mapping[str, str], source: End, landing: Landing, progress: Progress) -> None:
    """Stream the file through this process: one GET, one PUT, one buffer, nothing on its disk.

    :raises ChecksumMismatch: when the source sends something else than the catalogue says; the last piece is then
        held back, so that the destination never has the whole of it.
    :raises SizeMismatch: when the source sends more or less than the catalogue says, likewise.
    """
    moved = 0

    def count(piece_bytes: int) -> None:
        nonlocal moved
        moved += piece_bytes
        progress(moved)

    def wrong_length(came: int, wanted: int) -> errors.CS3Error:
        found = f"{came} bytes" if came < wanted else f"more than {wanted} bytes"
        return errors.SizeMismatch(
            f"the source has {found}, Rucio's catalogue says {wanted}", operation="GET", target=source.place
        )

    with source.open() as reader:
        body = UploadBody(
            reader,
            size,
            Digests(checksums or ("adler32",)),
            name=source.place,
            progress=count,
            expected=checksums,
            wrong_length=wrong_length,
        )
        landing.store(body)


COPIES: Mapping[Mode, Copy] = {Mode.PULL: pull, Mode.PUSH: push, Mode.RELAY: relay}
