"""Bytes of a request into an upload session, and the session into the tree, in the manner of each server line.

Every way in ends here: PUT and PATCH at the data gateway, PUT at the WebDAV front end, HTTP-TPC.
Read next: ``uploads.py``, ``http_server.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import TypeVar

from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.uploads import UploadSession

# Both lines: ownCloud's own status for a checksum that does not match.
CHECKSUM_MISMATCH = 419

Block = TypeVar("Block", bytes, memoryview)


class DiskFull(Exception):
    """The disk of a V3 cloud has an end."""


def store(exchange: Exchange, session: UploadSession) -> int:
    """Fill a session from the request's body, and finish it in the manner of the server.

    :returns: HTTP status of the data gateway.
    :raises Cut: the body did not come whole.
    """
    state = exchange.state
    with session.lock:
        try:
            blocks = within_disk(state, session, exchange.receive_blocks())
            if exchange.fault_is("sink"):
                session.grow(sum(len(block) for block in blocks))
            else:
                session.append(blocks, flip_byte=exchange.fault_is("flip-byte"))
        except DiskFull:
            # Reva v3.12.1 (code): a write error ends the upload before it is finished: 500, nothing visible.
            return HTTPStatus.INTERNAL_SERVER_ERROR
        if exchange.stopped_receiving() or not exchange.body.complete:
            if state.v3:
                # Reva v3.12.1 local: a PUT that is cut off leaves a visible stub, and ends the session.
                finish(state, session)
            # OpenCloud: the file is absent, and the session keeps the bytes: the next PUT appends to them.
            exchange.end_receiving()
        return finish(state, session)


def within_disk(state: CloudState, session: UploadSession, blocks: Iterator[Block]) -> Iterator[Block]:
    """Hand blocks on while they fit on a V3 cloud's disk.

    :raises DiskFull: when they do not any more.
    """
    if not state.v3 or state.quota_bytes is None:
        # OpenCloud looks at the quota when the upload is initiated, not here.
        yield from blocks
        return
    left = state.quota_bytes - session.tree.used_bytes()
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise DiskFull
        yield block


def finish(state: CloudState, session: UploadSession) -> int:
    """Make a session's bytes visible.

    :returns: HTTP status of the data gateway.
    """
    if not session.checksum_matches():
        # OpenCloud: 419, and nothing is created. Reva v3.12.1 never has a checksum to compare.
        state.uploads.drop(session)
        return CHECKSUM_MISMATCH
    try:
        if state.v3 and session.tree.on_disk(session.relative).is_dir():
            # Reva v3.12.1 local: a PUT on a folder is 200; the folder goes to the versions, a file takes its place.
            session.tree.set_aside(session.relative)
        state.uploads.finish(session)
    except OSError:
        # Reva v3.12.1: a missing parent, below a file, a name of 256 bytes.
        return HTTPStatus.INTERNAL_SERVER_ERROR
    if not state.v3 and state.processing_delay_s:
        # OpenCloud: Stat shows the file at once, with opaque status=processing until post-processing is done.
        busy_until = time.monotonic() + state.processing_delay_s
        session.tree.attributes(session.relative).busy_until = busy_until
    return HTTPStatus.OK
