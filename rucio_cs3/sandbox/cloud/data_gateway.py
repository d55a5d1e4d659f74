"""The data gateway: PUT and GET of bytes with a transfer token, in the manner of each server line.

:func:`send` is also what the WebDAV front end sends files with. Read next: ``storing.py``, ``tus_uploads.py``.
"""

from __future__ import annotations

from http import HTTPStatus

from rucio_cs3.sandbox.cloud import storing, tus_uploads
from rucio_cs3.sandbox.cloud.byte_ranges import Unsatisfiable, parse_ranges
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tokens import InvalidToken
from rucio_cs3.sandbox.cloud.tree import Entry, Tree
from rucio_cs3.sandbox.cloud.uploads import SessionOver

_MULTIPART_BOUNDARY = "embedded-cs3-cloud-range"


def handle(exchange: Exchange, last_segment: str) -> None:
    """Answer a request to the data gateway.

    :param last_segment: what follows the endpoint in the path: nothing, or the transfer token.
    """
    state = exchange.state
    method = exchange.command
    if method in {"PUT", "PATCH", "GET", "HEAD"}:
        exchange.begin(f"data.{method.lower()}")
    try:
        target = state.mint.target(last_segment or exchange.headers.get("X-Reva-Transfer", ""))
    except InvalidToken:
        # Reva v3.12.1: 403 before the access token is looked at; also for none at all.
        exchange.answer(HTTPStatus.FORBIDDEN)
        return
    kind, _, rest = target.partition("/")
    if method not in _methods(state, kind):
        # Reva v3.12.1: POST, and DELETE of a TUS upload. OpenCloud: POST is 500, and PUT on a TUS upload 501.
        wrong_post = method == "POST" and kind == "tus" and not state.v3
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR if wrong_post else HTTPStatus.NOT_IMPLEMENTED)
        return
    # Both lines: any valid user's access token is accepted. Reva v3.12.1: also that of a public link, which WebDAV
    # refuses (401); and a TUS upload needs none, nor a valid one.
    if exchange.user(links=True) is None and not (state.v3 and kind == "tus"):
        exchange.answer(HTTPStatus.UNAUTHORIZED, unauthorized_headers(state))
        return
    if kind == "tus":
        tus_uploads.handle(exchange, rest)
    elif method == "PUT":
        _put(exchange, rest)
    else:
        _get(exchange, kind, rest)


def unauthorized_headers(state: CloudState) -> dict[str, str]:
    realm = state.http_url.partition("://")[2]
    return {"WWW-Authenticate": f'Basic realm="{realm}", Bearer realm="{realm}"'}


def _methods(state: CloudState, kind: str) -> frozenset[str]:
    if kind != "tus":
        return frozenset({"PUT", "GET", "HEAD"})
    return frozenset({"HEAD", "PATCH", "PUT"}) if state.v3 else frozenset({"HEAD", "PATCH", "DELETE"})


def _put(exchange: Exchange, session_id: str) -> None:
    state = exchange.state
    try:
        session = state.uploads.get(session_id)
    except SessionOver:
        # Both lines: a transfer token used again after success; v3: also a download's token.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    if not state.v3:
        if session.made_empty_file:
            # OpenCloud: without Upload-Length the file is there already, and empty.
            status = HTTPStatus.BAD_REQUEST if exchange.body.length == 0 else HTTPStatus.INTERNAL_SERVER_ERROR
            exchange.answer(status)
            return
        if exchange.body.length is None:
            # OpenCloud: Content-Length is required; a chunked PUT is 206 and makes no file.
            exchange.answer(HTTPStatus.PARTIAL_CONTENT)
            return
    stored = storing.store(exchange, session)
    headers: dict[str, str] = {}
    if stored == HTTPStatus.OK and not state.v3:
        # OpenCloud only; Reva v3.12.1 says neither.
        entry = session.tree.entry(session.relative)
        headers = {"ETag": entry.etag, "OC-FileId": state.file_id(session.tree, entry)}
    exchange.answer(stored, headers)


def _get(exchange: Exchange, kind: str, rest: str) -> None:
    state = exchange.state
    if kind == "broken":
        # OpenCloud: the download of a bare file id.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    if kind != "file":
        # Reva v3.12.1: the token of an upload.
        exchange.answer(HTTPStatus.NOT_FOUND)
        return
    space_id, _, relative = rest.partition("/")
    tree = state.trees[space_id]
    try:
        entry = tree.entry(relative)
    except OSError:
        exchange.answer(HTTPStatus.NOT_FOUND)
        return
    if entry.busy:
        # OpenCloud: while post-processing holds the file, its old content is not to be had either.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    headers = {"Content-Type": "application/octet-stream"}
    if not state.v3:
        # OpenCloud: its files can be sought in (edge's download.go).
        headers |= {"Accept-Ranges": "bytes"}
    if not state.v3 and not entry.is_directory:
        headers |= {"ETag": entry.etag, "OC-Checksum": f"SHA1:{tree.digests(entry)['sha1']}"}
    send(exchange, tree, entry, headers)


def send(exchange: Exchange, tree: Tree, entry: Entry, headers: dict[str, str]) -> None:
    """Answer GET or HEAD with a file, or the ranges of it that are asked for.

    Neither line looks at ``If-Range`` or ``If-Match`` (``download.go``: "TODO check preconditions").
    """
    state = exchange.state
    asked = exchange.headers.get("Range", "")
    plain_get = exchange.command == "GET" and not asked
    if not state.v3 and plain_get and exchange.headers.get("If-None-Match") == entry.etag:
        # OpenCloud: 304. Edge looks at it for a GET of the whole file only.
        exchange.answer(HTTPStatus.NOT_MODIFIED, {"ETag": entry.etag})
        return
    if entry.is_directory and not asked:
        # Both lines: the length of the folder itself, and no byte of it.
        _break_off(exchange, headers, entry)
        return
    try:
        ranges = parse_ranges(asked, entry.size, v3=state.v3)
    except Unsatisfiable as exc:
        # Both lines: the size only where all ranges begin behind the end; so, too, for any range of an empty file.
        beyond = {"Content-Range": f"bytes */{entry.size}"} if exc.beyond else {}
        exchange.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, beyond)
        return
    if not ranges:
        exchange.send_file(HTTPStatus.OK, headers, entry.path, 0, entry.size)
        return
    # Reva v3.12.1: only in answers to a range, also where it cannot be served.
    headers |= {"Accept-Ranges": "bytes"}
    if state.v3 and not state.ranges:
        # Reva v3.12.1 local and cephmount: 416 to every range, also to a valid one.
        exchange.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Accept-Ranges": "bytes"})
    elif len(ranges) == 1:
        start, end = ranges[0]
        headers |= {"Content-Range": f"bytes {start}-{end}/{entry.size}"}
        exchange.send_file(HTTPStatus.PARTIAL_CONTENT, headers, entry.path, start, end - start + 1)
    else:
        _send_multipart(exchange, entry, ranges)


def _break_off(exchange: Exchange, headers: dict[str, str], entry: Entry) -> None:
    exchange.send_response(HTTPStatus.OK)
    for name, value in {**headers, "Content-Length": str(entry.size)}.items():
        exchange.send_header(name, value)
    exchange.end_headers()
    if exchange.command != "HEAD":
        exchange.end("a folder has no bytes", reset=False)


def _send_multipart(exchange: Exchange, entry: Entry, ranges: list[tuple[int, int]]) -> None:
    # OpenCloud: several ranges are multipart/byteranges. Small ones only are asked for in tests.
    body = b""
    with entry.path.open("rb") as file:
        for start, end in ranges:
            file.seek(start)
            body += f"--{_MULTIPART_BOUNDARY}\r\nContent-Range: bytes {start}-{end}/{entry.size}\r\n\r\n".encode()
            body += file.read(end - start + 1) + b"\r\n"
    body += f"--{_MULTIPART_BOUNDARY}--\r\n".encode()
    content_type = f"multipart/byteranges; boundary={_MULTIPART_BOUNDARY}"
    exchange.answer(HTTPStatus.PARTIAL_CONTENT, {"Content-Type": content_type}, body)
