"""A WebDAV server for tests that answers what it is told to, and writes down what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

S = TypeVar("S", bound="RecordingSite")

_RESPONSE = """<d:response><d:href>{path}</d:href><d:propstat><d:prop>
<d:resourcetype>{kind}</d:resourcetype><d:getcontentlength>{size}</d:getcontentlength>
<d:getetag>"{size}"</d:getetag></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
"""

_MULTISTATUS = '<?xml version="1.0"?>\n<d:multistatus xmlns:d="DAV:">{}</d:multistatus>'

#: About one file or folder.
MULTISTATUS = _MULTISTATUS.format(_RESPONSE)


@dataclass(frozen=True)
class Asked:
    """One request. ``body`` is None where the answer came instead of "100 Continue"."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Bytes that Content-Length announces; those of the body by default.
    announced: int | None = None


#: Gets a request and the site; None leaves it to the site, which keeps files in memory.
Script = Callable[[Asked], "Answer | None"]


class RecordingSite:
    """Files in memory at 127.0.0.1, and in :attr:`asked` every request. A context manager.

    :param script: is asked first; also before the body is sent, where the client asks for that.
    :param continues: whether "100 Continue" is ever said; a server that does not must get the body all the same.
    :param software: what it calls itself in the header ``Server``.
    """

    def __init__(self, script: Script | None = None, *, continues: bool = True, software: str = "recording") -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.files: dict[str, bytes] = {}
        self.folders = {"/"}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            _refused = False

            def log_message(self, *_: Any) -> None: ...

            def version_string(self) -> str:
                return software

            def handle_expect_100(self) -> bool:
                asked = Asked(self.command, self.path, dict(self.headers), None)
                answer = site.script(asked) if site.script else None
                if answer is not None:
                    site.asked.append(asked)
                    self._send(answer)
                    self.close_connection = True
                    return False
                return super().handle_expect_100() if continues else True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers), body)
                site.asked.append(asked)
                answer = site.script(asked) if site.script else None
                self._send(answer or site.answer(asked))

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:
                    length = len(answer.body) if answer.announced is None else answer.announced
                    self.send_header("Content-Length", str(length))
                # A client that has read enough may be gone.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(answer.body)
                if answer.announced is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815
            do_PROPFIND = do_MKCOL = do_POST = do_COPY = do_MOVE = _any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: Asked) -> Answer:
        """As a WebDAV server would."""
        path = asked.path.rstrip("/") or "/"
        parent = path.rpartition("/")[0] or "/"
        if asked.method == "MKCOL":
            if path in self.folders or path in self.files:
                return Answer(405)
            if parent not in self.folders:
                return Answer(409)
            self.folders.add(path)
            return Answer(201)
        if asked.method == "PUT":
            if parent not in self.folders:
                return Answer(409)
            self.files[path] = asked.body or b""
            return Answer(201)
        if asked.method == "PROPFIND" and path in self.folders and asked.headers.get("Depth") == "1":
            return Answer(207, body=self._listing(path).encode())
        if asked.method == "PROPFIND" and path in self.folders:
            return Answer(207, body=MULTISTATUS.format(path=path, kind="<d:collection/>", size=4096).encode())
        if path not in self.files:
            return Answer(404, body=b"no such file")
        if asked.method == "PROPFIND":
            text = MULTISTATUS.format(path=path, kind="", size=len(self.files[path]))
            return Answer(207, body=text.encode())
        if asked.method == "DELETE":
            del self.files[path]
            return Answer(204)
        if asked.method == "MOVE":
            return self._move(path, asked)
        if asked.method in ("GET", "HEAD"):
            return Answer(200, body=self.files[path])
        return Answer(405)

    def _listing(self, folder: str) -> str:
        inside = folder.rstrip("/") + "/"
        entries = [(path, "<d:collection/>", 4096) for path in self.folders]
        entries += [(path, "", len(content)) for path, content in self.files.items()]
        responses = "".join(
            _RESPONSE.format(path=path, kind=kind, size=size)
            for path, kind, size in sorted(entries)
            if path == folder or (path.startswith(inside) and "/" not in path.removeprefix(inside))
        )
        return _MULTISTATUS.format(responses)

    def _move(self, path: str, asked: Asked) -> Answer:
        new = urlsplit(asked.headers["Destination"]).path
        taken = new in self.files or new in self.folders
        if taken and asked.headers.get("Overwrite") == "F":
            return Answer(412)
        if (new.rpartition("/")[0] or "/") not in self.folders:
            return Answer(409)
        self.files[new] = self.files.pop(path)
        return Answer(204 if taken else 201)

    def methods(self) -> list[str]:
        return [asked.method for asked in self.asked]

    def __enter__(self: S) -> S:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
