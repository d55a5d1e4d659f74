"""Where a copy lands at a plain WebDAV site: what is sent, how it gets its name, and what a failure leaves."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.hidden_names import hidden_sibling
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.transfers import webdav_end
from rucio_cs3.transfers.ladder import Job, Outcome, State, transfer_one
from rucio_cs3.transfers.webdav_end import WebDAVLanding
from tests.recording_site import Answer, Asked, RecordingSite
from tests.sweeping import sweep
from tests.unit.plain_site import CONTENT, body_of, end_of
from tests.unit.transfer_world import Clock, MemoryEnd, Notes, PaperClaim


@pytest.fixture
def site() -> Iterator[RecordingSite]:
    with RecordingSite() as site:
        site.folders.add("/rucio")
        yield site


def path_of(landing: WebDAVLanding) -> str:
    """As the server has it."""
    return "/" + landing.url.split("/", 3)[3]


def landed(site: RecordingSite, path: str = "/rucio/f") -> WebDAVLanding:
    """A copy that has come."""
    landing = end_of(site, path).landing()
    site.files[path_of(landing)] = CONTENT
    return landing


class Broken(io.BytesIO):
    """A source that breaks off after its first piece."""

    def readinto(self, buffer: Any, /) -> int:
        if self.tell():
            raise errors.TransferInterrupted("cut")
        return super().readinto(buffer)


# -- sending -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("continues", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b""], ids=["two-pieces", "empty"])
def test_what_is_sent_stands_under_a_hidden_name(content: bytes, continues: bool) -> None:
    with RecordingSite(continues=continues) as site:
        site.folders.add("/rucio")
        landing = end_of(site).landing()
        landing.store(body_of(content))
        assert site.files == {path_of(landing): content}
        assert path_of(landing).startswith("/rucio/.rucio-cs3.")
        (put,) = site.asked
        assert put.headers["If-None-Match"] == "*"
        assert put.headers["Content-Length"] == str(len(content))
        assert "Transfer-Encoding" not in put.headers


def test_no_two_copies_land_on_one_name(site: RecordingSite) -> None:
    end = end_of(site)
    assert len({end.landing().url for _ in range(3)}) == 3


def test_a_refused_body_is_not_sent(site: RecordingSite) -> None:
    site.script = lambda asked: Answer(507, body=b"disk full") if asked.method == "PUT" else None
    with pytest.raises(errors.NoSpaceLeft, match="disk full"):
        end_of(site).landing().store(body_of(CONTENT))
    (put,) = site.asked
    assert put.body is None


def test_a_server_that_says_that_something_stands_there_is_believed(site: RecordingSite) -> None:
    site.script = lambda asked: Answer(412) if asked.method == "PUT" else None
    with pytest.raises(errors.AlreadyExists):
        end_of(site).landing().store(body_of(CONTENT))


# -- its name ----------------------------------------------------------------------------------------------------


def test_a_copy_takes_its_name(site: RecordingSite) -> None:
    landing = landed(site)
    landing.take_name(landing.stat())
    assert site.files == {"/rucio/f": CONTENT}
    assert site.methods() == ["PROPFIND", "PROPFIND", "MOVE"]
    look, rename = site.asked[1:]
    # What stands there is looked at last.
    assert (look.path, look.headers["Depth"]) == ("/rucio/f", "0")
    assert (rename.headers["Destination"], rename.headers["Overwrite"]) == (f"{site.url}/rucio/f", "F")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_is_taken_stays(site: RecordingSite, kind: str) -> None:
    landing = landed(site)
    if kind == "file":
        site.files["/rucio/f"] = b"somebody's"
    else:
        site.folders.add("/rucio/f")
    before = dict(site.files)
    with pytest.raises(errors.AlreadyExists, match="name is taken"):
        landing.take_name(landing.stat())
    assert site.files == before
    assert "MOVE" not in site.methods()


def test_a_name_that_was_taken_since_the_look_stays(site: RecordingSite) -> None:
    """Where the server knows ``Overwrite``."""
    landing = landed(site)

    def script(asked: Asked) -> None:
        if asked.method == "MOVE":
            site.files["/rucio/f"] = b"somebody's"

    site.script = script
    with pytest.raises(errors.AlreadyExists, match="name is taken"):
        landing.take_name(landing.stat())
    assert site.files == {path_of(landing): CONTENT, "/rucio/f": b"somebody's"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (202, errors.CS3Error),
        (403, errors.AccessDenied),
        (404, errors.NotFound),
        (405, errors.Unsupported),
        (409, errors.PreconditionFailed),
        (500, errors.ServerFault),
        (501, errors.Unsupported),
    ],
)
def test_a_server_that_does_not_rename(site: RecordingSite, status: int, kind: type[errors.CS3Error]) -> None:
    landing = landed(site)
    site.script = lambda asked: Answer(status, body=b"in its own words") if asked.method == "MOVE" else None
    with pytest.raises(kind, match="in its own words") as caught:
        landing.take_name(landing.stat())
    assert caught.value.operation == "MOVE"
    assert site.methods().count("MOVE") == 1


def losing(
    site: RecordingSite, *, done: bool, leaves: bytes | None = CONTENT, looks: int = 207
) -> Callable[[Asked], Any]:
    """A server, or a proxy before it, whose answer to MOVE is not what has happened.

    :param done: whether it has renamed all the same.
    :param leaves: what stands under the new name then.
    :param looks: status of all further looks.
    """

    def script(asked: Asked) -> Answer | None:
        if asked.method == "MOVE":
            if done:
                del site.files[asked.path]
            if leaves is not None:
                site.files["/rucio/f"] = leaves
            return Answer(502)
        return Answer(looks) if looks != 207 and "MOVE" in site.methods() else None

    return script


def test_a_renaming_whose_answer_was_lost_is_found_out(site: RecordingSite) -> None:
    landing = landed(site)
    info = landing.stat()
    site.script = losing(site, done=True)
    landing.take_name(info)
    assert site.files == {"/rucio/f": CONTENT}


@pytest.mark.parametrize("what", ["not-done", "another-agents", "another-size", "nobody-knows"])
def test_a_renaming_that_is_not_known_to_be_done_is_an_error(site: RecordingSite, what: str) -> None:
    landing = landed(site)
    info = landing.stat()
    site.script = {
        "not-done": losing(site, done=False, leaves=None),
        "another-agents": losing(site, done=False, leaves=CONTENT[::-1]),
        "another-size": losing(site, done=True, leaves=b"somebody's"),
        "nobody-knows": losing(site, done=True, looks=503),
    }[what]
    with pytest.raises(errors.Unavailable) as caught:
        landing.take_name(info)
    assert caught.value.code == "HTTP 502"


NAME = "a b%20é#"


@pytest.mark.parametrize(
    ("software", "written"),
    [("dCache/10.2.13", quote(NAME)), ("XrootD/v5.5.3", NAME.encode().decode("latin-1"))],
    ids=["by-the-standard", "xrootd"],
)
def test_a_name_is_written_as_the_server_reads_it(software: str, written: str) -> None:
    """XRootD 5.5.3 takes percents for a part of the name."""
    with RecordingSite(software=software) as site:

        def script(asked: Asked) -> Answer | None:
            if asked.method != "MOVE":
                return None
            new = asked.headers["Destination"].removeprefix(site.url)
            new = new if software.startswith("dCache") else quote(new.encode("latin-1"))
            site.files[new] = site.files.pop(asked.path)
            return Answer(201)

        site.script = script
        site.folders |= {"/rucio", "/rucio/c%20d"}
        landing = landed(site, f"/rucio/c%20d/{quote(NAME)}")
        landing.take_name(landing.stat())
        assert site.files == {f"/rucio/c%20d/{quote(NAME)}": CONTENT}
        (asked,) = (asked for asked in site.asked if asked.method == "MOVE")
        assert asked.headers["Destination"].endswith("/" + written)


def test_a_name_that_xrootd_cannot_have_is_not_asked_for() -> None:
    """It would take what is before the question mark."""
    with RecordingSite(software="XrootD/v5.5.3") as site:
        site.folders.add("/rucio")
        landing = landed(site, "/rucio/a%3Fb")
        with pytest.raises(errors.Unsupported, match="question mark"):
            landing.take_name(landing.stat())
        assert "MOVE" not in site.methods()


def test_a_server_that_gives_another_name_is_found_out(site: RecordingSite) -> None:
    landing = landed(site, "/rucio/a%20b")

    def script(asked: Asked) -> Answer | None:
        if asked.method != "MOVE":
            return None
        site.files["/rucio/a%2520b"] = site.files.pop(asked.path)
        return Answer(201)

    site.script = script
    with pytest.raises(errors.ServerFault, match="seems to have named the file /rucio/a%20b"):
        landing.take_name(landing.stat())


# -- what a failure leaves ---------------------------------------------------------------------------------------


def test_what_has_landed_is_removed(site: RecordingSite) -> None:
    site.files["/rucio/f"] = b"somebody's"
    landing = landed(site)
    landing.discard(may_come=False)
    assert site.files == {"/rucio/f": b"somebody's"}
    site.asked.clear()
    landing.discard(may_come=False)
    assert site.methods() == ["PROPFIND"]


def late(site: RecordingSite, landing: WebDAVLanding, look: int, before: int = 404) -> None:
    """Make the site show a part of what was sent at a later look only; what it answers to the looks before."""

    def script(asked: Asked) -> Answer | None:
        if asked.method != "PROPFIND":
            return None
        looks = site.methods().count("PROPFIND")
        if looks == look:
            site.files[path_of(landing)] = CONTENT[:1000]
        return Answer(before) if looks < look else None

    site.script = script


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(webdav_end, "time", clock)
    return clock


def test_a_part_that_comes_late_is_removed(site: RecordingSite, clock: Clock) -> None:
    landing = end_of(site).landing()
    late(site, landing, 3)
    landing.discard(may_come=True)
    assert site.methods() == ["PROPFIND"] * 3 + ["DELETE"]
    assert site.files == {}


def test_a_part_that_comes_after_an_outage_is_removed(
    site: RecordingSite, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait begins when the site is back."""
    monkeypatch.setattr(webdav_end, "_POLL_S", 0.5)
    landing = end_of(site).landing()

    def script(asked: Asked) -> Answer | None:
        if asked.method != "PROPFIND":
            return None
        looks = site.methods().count("PROPFIND")
        if looks == 8:
            site.files[path_of(landing)] = CONTENT[:1000]
        return Answer(503) if looks < 6 else None

    site.script = script
    landing.discard(may_come=True)
    assert site.files == {}
    assert site.methods()[-1] == "DELETE"


def test_nobody_waits_for_what_cannot_come(site: RecordingSite) -> None:
    landing = end_of(site).landing()
    late(site, landing, 2)
    landing.discard(may_come=False)
    assert site.methods() == ["PROPFIND"]


@pytest.mark.parametrize("why", ["source", "content", "connection"])
def test_a_part_of_what_was_cut_is_waited_for(site: RecordingSite, clock: Clock, why: str) -> None:
    """Whoever has cut it, and whatever for. Reva v3.12.1 over HTTP makes a file of it some milliseconds later."""
    landing = end_of(site).landing()
    file = Broken(CONTENT) if why == "source" else io.BytesIO(CONTENT)
    expected = {"adler32": "00000001"} if why == "content" else {}
    body = UploadBody(file, len(CONTENT), Digests(["adler32"]), name="f", expected=expected)
    site.script = lambda asked: Answer(502) if asked.method == "PUT" and asked.body is not None else None
    with pytest.raises((errors.TransferInterrupted, errors.ChecksumMismatch, errors.Unavailable)):
        landing.store(body)
    late(site, landing, 3)
    landing.discard(may_come=False)
    assert site.files == {}
    assert site.methods().count("PROPFIND") == 3


def test_where_the_site_has_answered_nobody_waits(site: RecordingSite) -> None:
    landing = end_of(site).landing()
    site.script = lambda asked: Answer(500) if asked.method == "PUT" and asked.body is not None else None
    with pytest.raises(errors.ServerFault):
        landing.store(body_of(CONTENT))
    landing.discard(may_come=False)
    assert site.methods().count("PROPFIND") == 1


@pytest.mark.parametrize("method", ["PROPFIND", "DELETE"])
def test_a_short_outage_is_outlasted(site: RecordingSite, clock: Clock, method: str) -> None:
    landing = landed(site)
    failures = [Answer(503), Answer(502), Answer(504), Answer(429)]
    site.script = lambda asked: failures.pop() if asked.method == method and failures else None
    landing.discard(may_come=False)
    assert (site.files, failures) == ({}, [])


@pytest.mark.parametrize(
    ("status", "kind"), [(503, errors.Unavailable), (403, errors.AccessDenied), (500, errors.ServerFault)]
)
def test_what_may_be_left_is_told(site: RecordingSite, clock: Clock, status: int, kind: type[errors.CS3Error]) -> None:
    landing = landed(site)
    site.script = lambda asked: Answer(status) if asked.method == "DELETE" else None
    with pytest.raises(kind):
        landing.discard(may_come=True)
    assert (site.methods().count("DELETE") > 1) == (status == 503)
    assert site.files == {path_of(landing): CONTENT}


def test_a_folder_is_never_removed(site: RecordingSite) -> None:
    landing = end_of(site).landing()
    site.folders.add(path_of(landing))
    with pytest.raises(errors.InvalidRequest, match="folder"):
        landing.discard(may_come=True)
    assert "DELETE" not in site.methods()


# -- what killed attempts have left ------------------------------------------------------------------------------


def left(site: RecordingSite, path: str) -> str:
    """A hidden sibling of a file, of an attempt that was killed; where it is."""
    sibling = f"/{hidden_sibling(Reference(MountRoot('/'), unquote(path).lstrip('/')), traceable=True).path}"
    site.files[quote(sibling)] = CONTENT[:1000]
    return quote(sibling)


def test_what_earlier_attempts_have_left_is_removed(site: RecordingSite) -> None:
    for _ in range(2):
        left(site, "/rucio/f")
    stays = {"/rucio/f", "/rucio/g", left(site, "/rucio/g"), "/rucio/.rucio-cs3.0123456789abcdef.part"}
    for path in stays:
        site.files[path] = b"somebody's"
    folder = end_of(site).landing()
    site.folders |= {path_of(folder), "/rucio/sub"}
    left(site, "/rucio/sub/f")
    sweep(end_of(site))
    assert {path for path in site.files if not path.startswith("/rucio/sub/")} == stays
    assert len(site.files) == len(stays) + 1
    assert path_of(folder) in site.folders
    assert site.asked[0].headers["Depth"] == "1"


def test_a_name_in_percents_is_swept(site: RecordingSite) -> None:
    site.folders.add("/rucio/a%20b")
    left(site, "/rucio/a%20b/%C3%A9")
    sweep(end_of(site, "/rucio/a%20b/%C3%A9"))
    assert site.files == {}


def test_a_folder_that_is_not_there_has_no_leftovers(site: RecordingSite) -> None:
    sweep(end_of(site, "/rucio/nothing/f"))
    assert site.methods() == ["PROPFIND"]


def test_one_that_went_meanwhile_is_as_well(site: RecordingSite) -> None:
    left(site, "/rucio/f")
    site.script = lambda asked: site.files.clear() if len(site.asked) == 2 else None
    sweep(end_of(site))
    assert site.methods() == ["PROPFIND", "PROPFIND"]


@pytest.mark.parametrize("answer", [Answer(403), Answer(200, body=b"<html>"), Answer(207, body=b"<html>")])
def test_a_listing_that_cannot_be_had_is_told(site: RecordingSite, answer: Answer) -> None:
    site.script = lambda asked: answer
    with pytest.raises(errors.CS3Error):
        sweep(end_of(site))


# -- a whole transfer --------------------------------------------------------------------------------------------


def relay(site: RecordingSite, source: MemoryEnd, **job: Any) -> Outcome:
    source.wish = "relay"
    adler32 = f"{zlib.adler32(CONTENT):08x}"
    asked_for = Job(request_id="f" * 32, size_bytes=len(CONTENT), adler32=adler32, **job)
    return transfer_one(asked_for, source, end_of(site), PaperClaim(), Notes())


def test_a_relay_lands_and_takes_its_name(site: RecordingSite) -> None:
    left(site, "/rucio/f")
    outcome = relay(site, MemoryEnd("source", CONTENT), attempt=1)
    assert (outcome.state, outcome.copied) == (State.DONE, True), outcome.reason
    assert site.files == {"/rucio/f": CONTENT}
    (put,) = (asked for asked in site.asked if asked.method == "PUT")
    assert put.path.startswith("/rucio/.rucio-cs3.")


def test_a_cut_relay_leaves_nothing_and_touches_nobody_elses_file(site: RecordingSite) -> None:
    source = MemoryEnd("source", CONTENT)
    source.open = lambda: Broken(CONTENT)  # type: ignore[assignment, method-assign, return-value]
    looks: list[str] = []

    def script(asked: Asked) -> Answer | None:
        if asked.method == "PUT" and asked.body is not None:
            site.files["/rucio/f"] = b"another agent's"
            return Answer(500)  # to a connection that nobody reads any more
        if asked.method == "PROPFIND" and ".rucio-cs3." in asked.path:
            looks.append(asked.path)
            if len(looks) == 3:
                # XRootD 5.5.3 makes a file of what had come, some milliseconds later.
                site.files[asked.path] = CONTENT[:1000]
        return None

    site.script = script
    outcome = relay(site, source)
    assert outcome.state is State.FAILED
    assert "cut" in str(outcome.reason)
    assert len(looks) == 3
    # The server may notice only now that the connection has ended.
    deadline = time.monotonic() + 20
    while "/rucio/f" not in site.files and time.monotonic() < deadline:
        time.sleep(0.01)
    assert site.files == {"/rucio/f": b"another agent's"}


def test_a_body_whose_reading_fails_tells_whose_fault_it_is(site: RecordingSite) -> None:
    body = UploadBody(Broken(CONTENT), len(CONTENT), Digests(), name="f")
    with pytest.raises(errors.TransferInterrupted, match="cut"):
        end_of(site).landing().store(body)
    assert set(site.methods()) <= {"PUT"}
