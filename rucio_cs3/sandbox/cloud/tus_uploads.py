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
        # Also right after the last PATCH.
        exchange.answer(HTTPStatus.NOT_FOUND, _HEADERS)
        return
    if method == "HEAD":
        numbers = {"Upload-Offset": str(session.offset), "Upload-Length": str(session.tus_length)}
        exchange.answer(HTTPStatus.OK, {**_HEADERS, **numbers, "Cache-Control": "no-store"})
    elif method == "PATCH":
        _patch(exchange, session)
    elif method == "DELETE":
        # OpenCloud: 204. Reva v3.12.1: 501, before the request gets here.
        exchange.state.uploads.drop(session)
        exchange.answer(HTTPStatus.NO_CONTENT, _HEADERS)
    else:
        exchange.answer(HTTPStatus.NOT_IMPLEMENTED, _HEADERS)


def _patch(exchange: Exchange, session: UploadSession) -> None:
    offset = exchange.headers.get("Upload-Offset", "")
    if exchange.headers.get("Content-Type") != _CONTENT_TYPE or not offset.isdigit():
        exchange.answer(HTTPStatus.BAD_REQUEST, _HEADERS)
        return
    with session.lock:
        if int(offset) != session.offset:
            exchange.answer(HTTPStatus.CONFLICT, _HEADERS)
            return
        session.append(_within(session, exchange.receive_blocks()), flip_byte=exchange.fault_is("flip-byte"))
        reached = session.offset
        if exchange.stopped_receiving() or not exchange.body.complete:
            # What has come counts: the client asks for the offset and goes on.
            exchange.end_receiving()
        headers = {**_HEADERS, "Upload-Offset": str(reached)}
        # Reva v3.12.1: an upload of length 0, or of none, never finishes.
        finished = reached == session.tus_length > 0
        if finished and storing.finish(exchange.state, session) != HTTPStatus.OK:
            # Reva v3.12.1: a missing parent. OpenCloud: a wrong Upload-Checksum.
            exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR, headers)
            return
    exchange.answer(HTTPStatus.NO_CONTENT, headers)


def _within(session: UploadSession, blocks: Iterator[memoryview]) -> Iterator[memoryview]:
    """No more than the upload's length; what is too much is read and forgotten."""
    left = session.tus_length - session.offset
    for block in blocks:
        kept = block[: max(left, 0)]
        left -= len(kept)
        if len(kept):
            yield kept
