"""``rucio-cs3 cat``: the content of files, to be piped."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from rucio_cs3.cli.files.given import Each, rse_option
from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place


@click.command(name="cat")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
def command(places: tuple[str, ...], rse: str | None) -> None:
    """Write the content of files to the standard output, as it comes.

    What came is compared with the checksums that the server states; a difference is an error at the end. A PLACE is
    NAME:path (below an RSE or a section of the clouds file), NAME:/cs3/path, or a PFN.

    \b
    Example:
      rucio-cs3 cat CERNBOX:data/run1.csv | head
      rucio-cs3 cat CERNBOX:backup.tar.gz | tar tz
    """
    each = Each(places, rse)
    for place in each:
        with each.said():
            _write(place, sys.stdout.buffer)
    each.end()


def _write(place: Place, out: BinaryIO) -> None:
    from rucio_cs3.cs3.checksums import Digests
    from rucio_cs3.cs3.downloads.downloads import compare
    from rucio_cs3.cs3.streams import CHUNK_BYTES

    info = place.storage.settled(place.reference)
    digests = Digests(info.checksums.keys() & {"adler32", "md5"} or {"adler32"})
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with place.storage.open(place.reference) as file:
        while count := file.readinto(buffer):
            digests.update(buffer[:count])
            out.write(buffer[:count])
    out.flush()
    try:
        compare(info, digests.byte_count, digests.hexdigests(), operation="GET")
    except errors.IntegrityError:
        now = place.storage.stat(place.reference)
        if now.content == info.content:
            raise
        # It was replaced meanwhile: then what came is this one.
        compare(now, digests.byte_count, digests.hexdigests(), operation="GET")
