"""The WebDAV front end: the few methods that Rucio, FTS and browsers use, in the manner of each server line.

Without another word a rule was run against Reva v3.12.1 (ocdav); OpenCloud's ocdav is of the same origin, and where
its facts (docs/cs3apis.md) say nothing else it is taken to answer alike. Read next: ``tpc.py``, ``propfind.py``.
"""

from __future__ import annotations

import email.utils
import errno
import time
import urllib.parse
import uuid
from http import HTTPStatus

from rucio_cs3.sandbox.cloud import data_gateway, propfind, storing, tpc
from rucio_cs3.sandbox.cloud.dav_resources import Resource, answer_error, look
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tree import Entry, OutsideTree, Tree
from rucio_cs3.sandbox.reva import User

_METHODS = "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, MOVE, COPY, PROPFIND"
_POINTED = frozenset(_METHODS.split(", "))


def handle(exchange: Exchange) -> None:
    """Answer a request that is not for the data gateway."""
    method = exchange.command
    if method in _POINTED:
        exchange.begin(f"webdav.{method.lower()}")
    if method == "OPTIONS":
        # Without credentials too.
        exchange.answer(HTTPStatus.NO_CONTENT, {"Allow": _METHODS, "DAV": "1, 2"})
        return
    user = exchange.user()
    if user is None:
        given = exchange.headers.get("Authorization")
        exchange.answer(HTTPStatus.UNAUTHORIZED, {} if given else data_gateway.unauthorized_headers(exchange.state))
        return
    try:
        resource = _resolve(exchange.state, user, exchange.url_path)
    except OutsideTree:
        resource = None
    if resource is None:
        exchange.answer(HTTPStatus.NOT_FOUND)
        return
    answer = {
        "GET": _get,
        "HEAD": _get,
        "PUT": _put,
        "DELETE": _delete,
        "MKCOL": _mkcol,
        "MOVE": _move,
        "COPY": _copy,
        "PROPFIND": propfind.answer,
    }.get(method)
    if answer is None:
        exchange.answer(HTTPStatus.NOT_FOUND)
        return
    try:
        answer(exchange, resource)
    except OSError as error:
        # Any other OSError is the client's connection, and the server's business.
        if error.errno != errno.ENAMETOOLONG:
            raise
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _resolve(state: CloudState, user: User, path: str) -> Resource | None:
    """:raises OutsideTree: ``..`` leads out of the tree."""
    own = state.id_of(user)
    tree = state.tree_of(user)
    bases = {"/remote.php/webdav": tree, "/webdav": tree}
    name = user.username
    bases |= {f"{prefix}/dav/files/{name}": tree for prefix in ("", "/remote.php")}
    if not state.v3:
        # OpenCloud: spaces by id. HTTP-TPC of Reva v3 has none of these.
        place = f"{state.storage_id}${own}"
        bases |= {f"{prefix}/dav/spaces/{place}": tree for prefix in ("", "/remote.php")}
    for base, found in bases.items():
        if path == base or path.startswith(f"{base}/"):
            return Resource(tree=found, relative=found.clean(path[len(base) :]), base=base)
    return None


def _headers(state: CloudState, tree: Tree, entry: Entry) -> dict[str, str]:
    modified = email.utils.formatdate(entry.mtime_ns / 1e9, usegmt=True)
    headers = {
        "Content-Type": "httpd/unix-directory" if entry.is_directory else "application/octet-stream",
        "ETag": entry.etag,
        "OC-ETag": entry.etag,
        "OC-FileId": state.file_id(tree, entry),
        "Last-Modified": modified,
    }
    if not state.v3 and not entry.is_directory and not entry.without_checksums:
        headers["OC-Checksum"] = f"SHA1:{tree.digests(entry)['sha1']}"
    return headers


def _get(exchange: Exchange, resource: Resource) -> None:
    entry = look(exchange, resource.tree, resource.relative)
    if entry is None:
        return
    headers = _headers(exchange.state, resource.tree, entry)
    if entry.is_directory and exchange.command == "GET":
        exchange.answer(HTTPStatus.NOT_IMPLEMENTED)
    elif entry.busy:
        # OpenCloud: 425 while post-processing holds the file; the data gateway says 500.
        exchange.answer(HTTPStatus.TOO_EARLY)
    else:
        data_gateway.send(exchange, resource.tree, entry, headers)


def _put(exchange: Exchange, resource: Resource) -> None:
    state, tree = exchange.state, resource.tree
    if "Content-Range" in exchange.headers:
        exchange.answer(HTTPStatus.NOT_IMPLEMENTED)
        return
    size = exchange.body.length
    if size is None:
        # Unlike the data gateway, which takes a chunked PUT.
        exchange.answer(HTTPStatus.BAD_REQUEST)
        return
    existing = tree.entry(resource.relative) if tree.exists(resource.relative) else None
    if existing is not None and existing.is_directory:
        exchange.answer(HTTPStatus.CONFLICT)
        return
    wanted = exchange.headers.get("If-Match")
    if existing is not None and wanted and wanted != existing.etag:
        exchange.answer(HTTPStatus.PRECONDITION_FAILED)
        return
    if not state.v3:
        if not tree.exists(resource.relative.rpartition("/")[0]):
            # OpenCloud: Initiate refuses a missing parent. Reva v3.12.1: 500, from the inner PUT.
            exchange.answer(HTTPStatus.CONFLICT)
            return
        if state.quota_bytes is not None and tree.used_bytes() + size > state.quota_bytes:
            exchange.answer(HTTPStatus.INSUFFICIENT_STORAGE)
            return
    session = state.uploads.open(tree, resource.relative)
    if not state.v3:
        # Reva v3.12.1: mtime and checksum are accepted and forgotten.
        mtime, checksum = exchange.headers.get("X-OC-Mtime"), exchange.headers.get("OC-Checksum", "")
        algorithm, _, digits = checksum.partition(":")
        session.declared_size = size
        session.mtime_s = float(mtime) if mtime else None
        session.checksum = (algorithm.lower(), digits) if digits else None
    status = storing.store(exchange, session)
    if status == storing.CHECKSUM_MISMATCH:
        # OpenCloud: 400 at the front end.
        answer_error(
            exchange, HTTPStatus.BAD_REQUEST, "BadRequest", "The computed checksum does not match the given one."
        )
        return
    if status != HTTPStatus.OK:
        exchange.answer(status)
        return
    entry = tree.entry(resource.relative)
    created = existing is None
    exchange.answer(HTTPStatus.CREATED if created else HTTPStatus.NO_CONTENT, _headers(state, tree, entry))


def _delete(exchange: Exchange, resource: Resource) -> None:
    entry = look(exchange, resource.tree, resource.relative)
    if entry is None:
        return
    if entry.busy:
        exchange.answer(HTTPStatus.TOO_EARLY)
        return
    if resource.relative == "":
        answer_error(exchange, HTTPStatus.FORBIDDEN, "PermissionDenied", "can't delete mount path")
        return
    try:
        discard(exchange.state, resource.tree, resource.relative)
    except OSError:
        # A name of 255 bytes has no room for the recycle bin's suffix.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    exchange.answer(HTTPStatus.NO_CONTENT)


def discard(state: CloudState, tree: Tree, relative: str) -> None:
    """Move a resource to the recycle bin, under a key as the server makes them."""
    deleted_ms = time.time_ns() // 1_000_000
    key = f"{relative.rpartition('/')[2]}.d{deleted_ms}" if state.v3 else str(uuid.uuid4())
    tree.delete(relative, key=key, deleted_ms=deleted_ms)


def _mkcol(exchange: Exchange, resource: Resource) -> None:
    if exchange.body.length != 0:
        exchange.answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return
    try:
        resource.tree.make_directory(resource.relative)
    except FileExistsError:
        answer_error(
            exchange,
            HTTPStatus.METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The resource you tried to create already exists",
        )
    except FileNotFoundError:
        answer_error(exchange, HTTPStatus.CONFLICT, "NotFound", "Parent node does not exist")
    except OSError:
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
    else:
        exchange.answer(HTTPStatus.CREATED)


def _destination(exchange: Exchange, resource: Resource) -> str | None:
    """Path of the Destination header in the same tree; None after an answer.

    The host is ignored, on both lines: only the path counts.
    """
    header = exchange.headers.get("Destination")
    path = urllib.parse.unquote(urllib.parse.urlsplit(header).path) if header else ""
    if path.startswith(f"{resource.base}/"):
        path = path[len(resource.base) :]
    elif not exchange.state.v3:
        # OpenCloud: a path that is none of this server's.
        path = ""
    # Reva v3.12.1: a path that is not below the WebDAV base is taken as one below the name space.
    try:
        cleaned = resource.tree.clean(path)
    except OutsideTree:
        cleaned = ""
    if not cleaned:
        exchange.answer(HTTPStatus.BAD_REQUEST)
        return None
    return cleaned


def _overwrite(exchange: Exchange) -> bool | None:
    """The Overwrite header; None after an answer because it is wrong."""
    text = exchange.headers.get("Overwrite", "T").upper()
    if text not in {"T", "F"}:
        answer_error(exchange, HTTPStatus.BAD_REQUEST, "BadRequest", "Overwrite header is set to incorrect value ")
        return None
    return text == "T"


def _free_destination(exchange: Exchange, tree: Tree, destination: str, overwrite: bool) -> bool | None:
    """Make way at the destination of MOVE or COPY.

    :returns: whether something was there; None after an answer.
    """
    if tree.exists(destination):
        if not overwrite:
            answer_error(
                exchange,
                HTTPStatus.PRECONDITION_FAILED,
                "PreconditionFailed",
                f"Could not overwrite Resource {destination}",
            )
            return None
        discard(exchange.state, tree, destination)
        return True
    if not tree.exists(destination.rpartition("/")[0]):
        exchange.answer(HTTPStatus.CONFLICT)
        return None
    return False


def _move(exchange: Exchange, resource: Resource) -> None:
    overwrite = _overwrite(exchange)
    if overwrite is None:
        return
    destination = _destination(exchange, resource)
    if destination is None:
        return
    tree = resource.tree
    if look(exchange, tree, resource.relative) is None:
        return
    existed = _free_destination(exchange, tree, destination, overwrite)
    if existed is None:
        return
    try:
        tree.move(resource.relative, destination)
    except OSError:
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    headers = _headers(exchange.state, tree, tree.entry(destination))
    exchange.answer(HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED, headers)


def _copy(exchange: Exchange, resource: Resource) -> None:
    state = exchange.state
    if exchange.fault is not None and exchange.fault.kind == "say":
        exchange.answer(HTTPStatus.ACCEPTED, {"Content-Type": "text/plain"}, exchange.fault.name.encode())
        return
    overwrite = _overwrite(exchange)
    if overwrite is None:
        return
    if state.v3 and state.http_tpc:
        # Source wins where both are given.
        if exchange.headers.get("Source"):
            tpc.pull(exchange, resource.tree, resource.relative, overwrite)
            return
        if exchange.headers.get("Destination"):
            tpc.push(exchange, resource.tree, resource.relative)
            return
    if not state.v3 and exchange.headers.get("Source"):
        # OpenCloud: there is no HTTP-TPC.
        exchange.answer(HTTPStatus.BAD_REQUEST)
        return
    # Without HTTP-TPC a pull has no Destination and is 400, and a push is a local copy, its host ignored.
    destination = _destination(exchange, resource)
    if destination is None:
        return
    tree = resource.tree
    source = look(exchange, tree, resource.relative)
    if source is None:
        return
    existed = _free_destination(exchange, tree, destination, overwrite)
    if existed is None:
        return
    try:
        _copy_locally(state, tree, source, destination)
    except OSError:
        # The destination was deleted first; where it was the source, the file is destroyed.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return
    exchange.answer(HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED)


def _copy_locally(state: CloudState, tree: Tree, source: Entry, destination: str) -> None:
    if source.is_directory:
        children = tree.children(source.relative)
        tree.make_directory(destination)
        for child in children:
            _copy_locally(state, tree, child, f"{destination}/{child.name}")
        return
    session = state.uploads.open(tree, destination)
    with source.path.open("rb") as file:
        session.append(iter(lambda: file.read(1 << 20), b""))
    state.uploads.finish(session)
