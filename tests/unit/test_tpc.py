"""A third-party copy against servers on the bare socket: what the sandbox's servers do not say."""

from __future__ import annotations

import contextlib
import logging
import ssl
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from rucio_cs3.cs3 import Endpoint, Timeouts, WebDAVBase, errors
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.cs3.webdav.markers import Marker
from tests.unit.test_data_gateway import RawServer, says

OWN, OTHER = "own-token-4711", "other-token-0815"
MARKER = b"Perf Marker\nTimestamp: 1\nStripe Index: 0\nStripe Bytes Transferred: %d\nTotal Stripe Count: 1\nEnd\n"
COPIES = {"pull": tpc.pull, "push": tpc.push}


def chunked(status: str, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n%s%s" % (status.encode(), body, end)


def plain(status: str, *headers: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


@contextlib.contextmanager
def client(*, idle_s: float = 10.0, webdav: str = "http://127.0.0.1:1/dav", **changes: Any) -> Iterator[HTTPClient]:
    endpoint = Endpoint(
        name="SITE",
        gateway="127.0.0.1:1",
        gateway_tls=False,
        webdav=WebDAVBase.parse(webdav),
        timeouts=Timeouts(idle_s=idle_s),
        **changes,
    )
    with contextlib.closing(HTTPClient(endpoint)) as http:
        yield http


def run(mode: str, port: int, on_marker: Any = None, *, scheme: str = "http", **changes: Any) -> list[int]:
    """Copy between a file at ``port``, which is asked, and one elsewhere; the bytes of the markers."""
    markers: list[Marker] = []
    asked, other = f"{scheme}://127.0.0.1:{port}/dav/mine", "https://elsewhere.test/dav/theirs"
    ends = ("destination", "source") if mode == "pull" else ("source", "destination")
    arguments = dict(zip((f"{ends[0]}_url", f"{ends[1]}_url"), (asked, other), strict=True))
    arguments |= {f"{ends[0]}_authorization": f"Bearer {OWN}", f"{ends[1]}_authorization": f"Bearer {OTHER}"}
    with client(**changes) as http:
        COPIES[mode](http, on_marker=on_marker or markers.append, **arguments)
    return [marker.transferred_bytes for marker in markers]


def answers(*answers: bytes) -> Any:
    """A script that gives one connection after the other its answer."""
    left = list(answers)

    def script(connection: Any, rest: bytes) -> None:
        says(left.pop(0))(connection, rest)

    return script


@pytest.mark.parametrize(("mode", "header"), [("pull", "Source"), ("push", "Destination")])
def test_the_request(mode: str, header: str) -> None:
    with RawServer(says(plain("202 Accepted", body=b"success: Created"))) as server:
        run(mode, server.port)
    assert server.heads[0].startswith("COPY /dav/mine HTTP/1.1")
    assert server.header(header) == "https://elsewhere.test/dav/theirs"
    assert server.header({"Source": "Destination", "Destination": "Source"}[header]) is None
    assert server.header("Overwrite") == "F"
    assert server.header("Credential") == "none"
    assert server.header("RequireChecksumVerification") == "false"
    assert server.header("Authorization") == f"Bearer {OWN}"
    assert server.header("TransferHeaderAuthorization") == f"Bearer {OTHER}"


@pytest.mark.parametrize("mode", ["pull", "push"])
@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "200 OK"])
def test_a_report_counts_under_each_status(mode: str, status: str) -> None:
    """XRootD 5.5.3 says 201 before it begins."""
    with RawServer(says(chunked(status, MARKER % 5, MARKER % 9, b"success: Created"))) as server:
        assert run(mode, server.port) == [5, 9]
    with (
        RawServer(says(chunked(status, MARKER % 5, b"failure: disk full"))) as server,
        pytest.raises(errors.ServerFault, match="disk full") as caught,
    ):
        run(mode, server.port)
    assert caught.value.retryable
    with (
        RawServer(says(chunked(status, MARKER % 5))) as server,
        pytest.raises(errors.TransferInterrupted, match="without an outcome"),
    ):
        run(mode, server.port)


@pytest.mark.parametrize("mode", ["pull", "push"])
@pytest.mark.parametrize(
    "answer",
    [
        plain("201 Created"),
        plain("201 Created", body=b"Created"),
        chunked("201 Created", b"\n", b"\n"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        plain("200 OK", body=b"<html>log in here</html>"),
        b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_no_third_party_copy_says(mode: str, answer: bytes) -> None:
    with RawServer(says(answer)) as server, pytest.raises(errors.ProtocolViolation, match="a bare 20") as caught:
        run(mode, server.port)
    stray = f"http://127.0.0.1:{server.port}/dav/theirs"
    assert (stray in str(caught.value)) == (mode == "push" and "bare 200" not in str(caught.value))


@pytest.mark.parametrize(
    ("end", "outcome"), [(b"", None), (b"5\r\nab", None), (b"zz\r\n", None), (b"10\r\nsuccess: Created\r\n", "success")]
)
def test_a_connection_that_breaks(end: bytes, outcome: str | None) -> None:
    """What was claimed by then counts; a copy may well be whole, and the caller looks."""
    with RawServer(says(chunked("202 Accepted", MARKER % 5, end=end))) as server:
        if outcome:
            assert run("pull", server.port) == [5]
        else:
            with pytest.raises(errors.TransferInterrupted):
                run("pull", server.port)


def test_last_words_are_told() -> None:
    """XRootD up to 5.6 has failures without the word."""
    with (
        RawServer(says(chunked("201 Created", MARKER % 0, b"Internal server error due to libcurl"))) as server,
        pytest.raises(errors.TransferInterrupted, match="its last words: Internal server error due to libcurl"),
    ):
        run("pull", server.port)


@pytest.mark.parametrize("mode", ["pull", "push"])
@pytest.mark.parametrize("status", [400, 405, 501, 301, 302, 307, 308])
def test_refused_before_anything_was_written(mode: str, status: int) -> None:
    answer = plain(f"{status} No", "Location: https://elsewhere.test/dav/mine?authz=secret-0815")
    with RawServer(says(answer)) as server, pytest.raises(errors.Unsupported) as caught:
        run(mode, server.port)
    assert caught.value.code == f"HTTP {status}"
    assert "0815" not in str(caught.value)
    assert len(server.heads) == 1


@pytest.mark.parametrize(("mode", "kind"), [("pull", errors.PreconditionFailed), ("push", errors.Unsupported)])
def test_a_missing_folder(mode: str, kind: type[errors.CS3Error]) -> None:
    """StoRM says 409 of the destination's folder; a source says it only of a copy within itself."""
    with RawServer(says(plain("409 Conflict"))) as server, pytest.raises(kind):
        run(mode, server.port)


@pytest.mark.parametrize(
    ("mode", "look", "kind", "message"),
    [
        ("pull", plain("207 Multi-Status"), errors.AlreadyExists, "something stands"),
        ("pull", plain("404 Not Found"), errors.ServerFault, "the copy failed at the destination"),
        ("pull", plain("401 Unauthorized"), errors.AlreadyExists, "something stands"),
        ("pull", b"", errors.AlreadyExists, "something stands"),
        ("push", plain("207 Multi-Status"), errors.Unsupported, "a copy within itself"),
        ("push", plain("404 Not Found"), errors.ServerFault, "the copy failed at the source"),
        ("push", plain("500 Oh"), errors.Unsupported, "a copy within itself"),
    ],
)
def test_a_failed_precondition(mode: str, look: bytes, kind: type[errors.CS3Error], message: str) -> None:
    """StoRM says 412 of any copy that failed; whether something stands there tells which it is."""
    refusal = plain(
        "412 Precondition Failed", "X-Request-Id: trace-1", "Connection: close", body=b"Third party transfer error: 404"
    )
    with RawServer(answers(refusal, look)) as server, pytest.raises(kind, match=message) as caught:
        run(mode, server.port)
    assert "Third party transfer error: 404" in str(caught.value)
    assert caught.value.trace == "trace-1"
    assert caught.value.retryable == (kind is errors.ServerFault)
    # What stands there is looked at where the server that was asked would have put it.
    assert server.heads[1].startswith(f"PROPFIND /dav/{'mine' if mode == 'pull' else 'theirs'} ")
    assert server.header("Authorization", 1) == f"Bearer {OWN}"
    assert server.header("TransferHeaderAuthorization", 1) is None


OWN_HOST = frozenset({"127.0.0.1"})


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_the_tokens_do_not_follow_to_another_port(mode: str) -> None:
    """There may be anybody's server, though the host is the site's."""
    with RawServer(says(plain("202 Accepted", body=b"success: Created"))) as node:
        there = f"http://127.0.0.1:{node.port}/dav/mine"
        with (
            RawServer(says(plain("307 Temporary Redirect", f"Location: {there}"))) as head,
            pytest.raises(errors.Unsupported, match=r"another host or port .*cs3_data_hosts"),
        ):
            run(mode, head.port)
    assert node.heads == []


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_the_tokens_never_leave_tls(mode: str, tmp_path: Path) -> None:
    """Not to the site's own host, nor where plaintext is allowed: what began with TLS ends with it."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with RawServer(says(plain("202 Accepted", body=b"success: Created"))) as node:
        there = f"http://127.0.0.1:{node.port}/dav/mine"
        with (
            RawServer(says(plain("307 Temporary Redirect", f"Location: {there}")), tls) as head,
            pytest.raises(errors.Unsupported),
        ):
            run(mode, head.port, scheme="https", ca_bundle=bundle, allow_plaintext=True, data_hosts=OWN_HOST)
    assert len(head.heads) == 1
    assert node.heads == []


def test_a_redirect_to_no_url_is_not_followed() -> None:
    for location in ("http://[x/?authz=secret-0815", "http://[::1]x/?authz=secret-0815", "http://127.0.0.1:0815x/"):
        with (
            RawServer(says(plain("307 Temporary Redirect", f"Location: {location}"))) as head,
            pytest.raises(errors.CS3Error) as caught,
        ):
            run("pull", head.port, data_hosts=frozenset({"127.0.0.1", "::1"}))
        assert "0815" not in "".join(traceback.format_exception(caught.value))


def test_a_head_node_sends_on_within_the_site() -> None:
    with RawServer(says(chunked("202 Accepted", MARKER % 5, b"success: Created"))) as node:
        there = f"http://127.0.0.1:{node.port}/dav/mine?authz=secret"
        with RawServer(says(plain("307 Temporary Redirect", f"Location: {there}"))) as head:
            assert run("pull", head.port, data_hosts=OWN_HOST) == [5]
    assert node.heads[0].startswith("COPY /dav/mine?authz=secret HTTP/1.1")
    assert node.header("Source") == "https://elsewhere.test/dav/theirs"
    assert node.header("TransferHeaderAuthorization") == f"Bearer {OTHER}"
    with RawServer(says(plain("503 Busy", "Retry-After: 3"))) as node:
        there = f"http://127.0.0.1:{node.port}/dav/mine?authz=secret"
        with (
            RawServer(says(plain("307 Temporary Redirect", f"Location: {there}"))) as head,
            pytest.raises(errors.Unavailable) as caught,
        ):
            run("pull", head.port, data_hosts=OWN_HOST)
    assert f":{head.port}/dav/mine" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retry_after_s == 3


def test_redirects_come_to_an_end() -> None:
    with (
        RawServer(says(plain("307 Temporary Redirect", "Location: /dav/mine", "Connection: close"))) as server,
        pytest.raises(errors.Unsupported),
    ):
        run("pull", server.port)
    assert len(server.heads) == 4


def test_tokens_are_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f"you said {OWN} and {OTHER}".encode()
    for answer in (
        plain("500 Oh", body=echo),
        plain("400 No", body=echo),
        chunked("202 Accepted", b"failure: " + echo),
        chunked("202 Accepted", echo),
    ):
        with RawServer(says(answer)) as server, pytest.raises(errors.CS3Error, match="you said") as caught:
            run("push", server.port)
        for text in (str(caught.value), repr(caught.value), caught.value.message, caplog.text):
            assert OWN not in text
            assert OTHER not in text


def test_a_token_of_a_redirect_is_in_no_text() -> None:
    """A head node puts the token for its data node into the URL, and the data node repeats it in its report."""
    for answer in (
        chunked("202 Accepted", b"failure: you said secret-2342"),
        chunked("202 Accepted", b"you said Bearer%20secret-2342"),
        plain("500 Oh", body=b"you said authz=Bearer%20secret-2342"),
    ):
        with RawServer(says(answer)) as node:
            there = f"http://127.0.0.1:{node.port}/dav/mine?authz=Bearer%20secret-2342"
            with (
                RawServer(says(plain("307 Temporary Redirect", f"Location: {there}"))) as head,
                pytest.raises(errors.CS3Error, match="you said") as caught,
            ):
                run("push", head.port, data_hosts=OWN_HOST)
        assert "2342" not in str(caught.value)


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_markers_without_progress(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """XRootD 5.5.3 reports every 5 s for as long as its peer says nothing."""
    monkeypatch.setattr(tpc, "STALL_S", 0.3)
    count = 0

    def script(connection: Any, _: bytes) -> None:
        nonlocal count
        connection.sendall(chunked("202 Accepted", MARKER % 5, end=b""))
        piece = MARKER % 7
        with contextlib.suppress(OSError):
            while count < 400:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                count += 1
                # As long as the client listens, it says nothing; this is the pause between two markers.
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1):
                        return

    with RawServer(script) as server:
        with pytest.raises(errors.DeadlineExceeded, match=r"no byte has moved for \d+ s.* come to 7 bytes") as caught:
            run(mode, server.port)
        assert server.closed.acquire(timeout=20), "the connection has ended, and with it the copy"
    assert caught.value.retryable
    assert "elsewhere.test" in str(caught.value)
    assert count > 1


def test_progress_keeps_a_slow_copy_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("rucio_cs3.cs3.webdav.tpc.time", types.SimpleNamespace(monotonic=lambda: now))
    heard = []

    def on_marker(marker: Marker) -> None:
        nonlocal now
        heard.append(marker.transferred_bytes)
        now += tpc.STALL_S - 1

    report = [MARKER % number for number in range(1, 50)]
    with RawServer(says(chunked("202 Accepted", *report, b"success: Created"))) as server:
        run("pull", server.port, on_marker)
    assert heard == list(range(1, 50))


def test_silence_ends() -> None:
    def script(connection: Any, _: bytes) -> None:
        connection.sendall(chunked("202 Accepted", MARKER % 5, end=b""))
        connection.recv(1)

    with RawServer(script) as server, pytest.raises(errors.DeadlineExceeded, match="fell silent"):
        run("pull", server.port, idle_s=0.3)


def test_what_the_caller_raises_ends_the_copy() -> None:
    class Enough(errors.Cancelled):
        pass

    def on_marker(_: Marker) -> None:
        raise Enough("that is enough")

    def script(connection: Any, _: bytes) -> None:
        connection.sendall(chunked("202 Accepted", MARKER % 5, end=b""))
        while connection.recv(1):
            pass

    with RawServer(script) as server:
        with pytest.raises(Enough):
            run("pull", server.port, on_marker)
        assert server.closed.acquire(timeout=20)
