"""TUS uploads at the data gateway: HEAD tells the offset, PATCH appends, the last PATCH finishes.

Run against Reva v3.12.1 ``local``; OpenCloud's differences (docs/cs3apis.md) are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from rucio_cs3.sandbox.cloud import storing
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.uploads import SessionOver, UploadSession

VERSION = "1.0.0"
_HEADERS = {"Tus-Resumable": VERSION}
_CONTENT_TYPE = "application/offset+octet-stream"


def handle(exchange: Exchange, session_id: str) -> None:
    """Answer a request whose transfer token is that of a TUS upload."""
    method = exchange.command
    if method != "HEAD" and exchange.headers.get("Tus-Resumable") != VERSION:
        # Reva v3.12.1: a HEAD does not need it.
        exchange.answer(HTTPStatus.PRECONDITION_FAILED, _HEADERS)
        return
    try:
        session = exchange.state.uploads.get(session_id)
    except SessionOver:
        length = exchange.state.uploads.lingering(session_id)
        if method == "HEAD" and length is not None:
            # OpenCloud: after the last PATCH, as long as post-processing has the upload.
            _tell(exchange, length, length)
        else:
            # Also right after the last PATCH.
            exchange.answer(HTTPStatus.NOT_FOUND, _HEADERS)
        return
    if method == "HEAD":
        _tell(exchange, session.offset, session.tus_length)
    elif method == "PATCH":
        _patch(exchange, session)
    elif method == "DELETE":
        # OpenCloud: 204. Reva v3.12.1: 501, before the request gets here.
        exchange.state.uploads.drop(session)
        exchange.answer(HTTPStatus.NO_CONTENT, _HEADERS)
    else:
        exchange.answer(HTTPStatus.NOT_IMPLEMENTED, _HEADERS)


def _tell(exchange: Exchange, offset: int, length: int) -> None:
    numbers = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
    exchange.answer(HTTPStatus.OK, {**_HEADERS, **numbers, "Cache-Control": "no-store"})


def _patch(exchange: Exchange, session: UploadSession) -> None:
    stated = exchange.headers.get("Upload-Offset", "")
    if exchange.headers.get("Content-Type") != _CONTENT_TYPE or not stated.isdigit():
        exchange.answer(HTTPStatus.BAD_REQUEST, _HEADERS)
        return
    offset = int(stated)
    if offset != session.offset:
        exchange.answer(HTTPStatus.CONFLICT, _HEADERS)
        return
    if offset == session.tus_length:
        # tusd 1.13: nothing is done any more, also where the end has failed; an upload of length 0, or of none, never
        # ends (Reva v3.12.1).
        exchange.answer(HTTPStatus.NO_CONTENT, {**_HEADERS, "Upload-Offset": str(offset)})
        return
    # No lock: of two requests at the same time each appends what it gets, and believes in its own offset (Reva
    # v3.12.1; OpenCloud's decomposedfs opens the file in the same way and has no locker either, read in its source).
    reached = offset
    try:
        for block in storing.within_disk(exchange.state, session, _within(session, offset, exchange.receive_blocks())):
            session.append([block], flip_byte=exchange.fault_is("flip-byte") and reached == offset)
            reached += len(block)
    except storing.DiskFull:
        # Reva v3.12.1 (code): a write error; what was written stays.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR, _HEADERS)
        return
    if exchange.stopped_receiving() or not exchange.body.complete:
        # What has come counts: the client asks for the offset and goes on.
        if reached == session.tus_length:
            storing.finish(exchange.state, session)
        exchange.end_receiving()
    headers = {**_HEADERS, "Upload-Offset": str(reached)}
    if reached == session.tus_length:
        if storing.finish(exchange.state, session) != HTTPStatus.OK:
            # Reva v3.12.1: a missing parent. OpenCloud: a wrong Upload-Checksum.
            exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR, headers)
            return
        if not exchange.state.v3:
            exchange.state.uploads.linger(session, exchange.state.processing_delay_s)
    exchange.answer(HTTPStatus.NO_CONTENT, headers)


def _within(session: UploadSession, offset: int, blocks: Iterator[memoryview]) -> Iterator[memoryview]:
    """No more than the upload's length; what is too much is read and forgotten."""
    left = session.tus_length - offset
    for block in blocks:
        kept = block[: max(left, 0)]
        left -= len(kept)
        if len(kept):
            yield kept
