"""What is remembered of which site, for how long, and who asks; the answers themselves: tests/contract."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.webdav import probes
from rucio_cs3.cs3.webdav.probes import DISPROVED_MAX_S, NO_S, YES_S, TPCProbes
from tests.unit.test_data_gateway import RawServer, Script, says
from tests.unit.test_tpc import chunked, client, plain

YES = plain("412 Precondition Failed", "Connection: close")
NO = plain("400 Bad Request", "Connection: close")
THERE = plain("207 Multi-Status", "Connection: close")
MISSING = plain("404 Not Found", "Connection: close")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A server that answers by method, or as a script does."""

    def __init__(self, copy: bytes = YES, propfind: bytes = THERE, script: Script | None = None) -> None:
        self.answers = {"COPY": copy, "PROPFIND": propfind}
        self.server = RawServer(script or self._script)

    def _script(self, connection: Any, rest: bytes) -> None:
        says(self.answers[self.server.heads[-1].partition(" ")[0]])(connection, rest)

    @property
    def copies(self) -> int:
        return sum(head.startswith("COPY ") for head in self.server.heads)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/dav"


def ask(site: Site, known: TPCProbes) -> bool:
    with client() as http:
        return known.ask(http, site.url, "Bearer token-4711")


def test_the_question() -> None:
    site = Site()
    with site.server:
        assert ask(site, TPCProbes())
        assert ask(site, TPCProbes())
    first, second = site.server.header("Source", 0), site.server.header("Source", 1)
    assert site.server.heads[0].startswith("COPY /dav/ HTTP/1.1"), "no file can have a name with a slash at its end"
    assert first is not None
    assert ".invalid/" in first
    assert first != second
    assert site.server.header("Overwrite") == "F"
    assert site.server.header("Destination") is None
    assert site.server.header("Authorization") == "Bearer token-4711"
    assert site.server.header("TransferHeaderAuthorization") is None


@pytest.mark.parametrize(
    ("answer", "speaks"),
    [
        (YES, True),
        (chunked("202 Accepted", b"failure: no such host"), True),
        (chunked("201 Created", b"failure: no such host"), True),
        # dCache, which says "Not a file" of a folder, by its name.
        (plain("400 Bad Request", "Server: dCache/9.2.3", "Connection: close"), True),
        (plain("400 Bad Request", "Server: XrootD/v5.5.3", "Connection: close"), False),
        (NO, False),
        (plain("405 Method Not Allowed", "Connection: close"), False),
        (plain("501 Not Implemented", "Connection: close"), False),
        (plain("307 Temporary Redirect", "Location: https://elsewhere.test/dav/", "Connection: close"), False),
    ],
)
def test_clear_answers(answer: bytes, speaks: bool) -> None:
    site = Site(answer)
    known = TPCProbes()
    with site.server:
        assert ask(site, known) == speaks
        assert ask(site, known) == speaks
    assert site.copies == 1, "remembered"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (plain("401 Unauthorized"), errors.Unauthenticated),
        (plain("403 Forbidden"), errors.AccessDenied),
        (plain("404 Not Found"), errors.PreconditionFailed),
        (plain("429 Slow down", "Retry-After: 5"), errors.Throttled),
        (plain("500 Oh"), errors.ServerFault),
        (plain("503 Busy", "Retry-After: 5"), errors.Unavailable),
        (plain("201 Created"), errors.ProtocolViolation),
        (b"HTTP/1.1 204 No Content\r\n\r\n", errors.ProtocolViolation),
        (chunked("202 Accepted", b"success: Created"), errors.ProtocolViolation),
        (chunked("202 Accepted"), errors.ProtocolViolation),
        (b"", errors.TransferInterrupted),
    ],
)
def test_unclear_answers_are_not_remembered(answer: bytes, kind: type[errors.CS3Error]) -> None:
    site = Site(answer)
    known = TPCProbes()
    with site.server:
        for _ in range(2):
            with pytest.raises(kind) as caught:
                ask(site, known)
            assert f"{site.url}/" in str(caught.value)
            assert "4711" not in str(caught.value)
            assert caught.value.retry_after_s == (5 if b"Retry-After" in answer else None)
        site.answers["COPY"] = YES
        assert ask(site, known)
    assert site.copies == 3


def test_a_folder_that_is_missing_says_nothing() -> None:
    """XRootD 5.5.3 says 400 of it, with and without its TPC library."""
    site = Site(NO, MISSING)
    with site.server, pytest.raises(errors.CS3Error, match="no such folder") as caught:
        ask(site, TPCProbes())
    assert not isinstance(caught.value, (errors.NotFound, errors.Unsupported))


@pytest.mark.parametrize(("answer", "seconds"), [(YES, YES_S), (NO, NO_S)])
def test_answers_hold_for_a_while(answer: bytes, seconds: float) -> None:
    clock, site = Clock(), Site(answer)
    known = TPCProbes(clock)
    with site.server:
        ask(site, known)
        clock.now += seconds - 1
        ask(site, known)
        assert site.copies == 1
        clock.now += 2
        ask(site, known)
        assert site.copies == 2


def test_an_old_yes_is_asked_for_again_where_it_is_dangerous() -> None:
    clock, site = Clock(), Site()
    known = TPCProbes(clock)
    with site.server, client() as http:
        assert known.ask(http, site.url, "", max_age_s=60)
        clock.now += 60
        assert known.ask(http, site.url, "", max_age_s=60)
        assert site.copies == 1
        clock.now += 1
        site.answers["COPY"] = NO
        assert known.ask(http, site.url, ""), "believed for its whole time elsewhere"
        assert not known.ask(http, site.url, "", max_age_s=60)
        assert site.copies == 2
        # It counts for all, and a no is dangerous nowhere.
        clock.now += NO_S - 1
        assert not known.ask(http, site.url, "")
        assert not known.ask(http, site.url, "", max_age_s=60)
        assert site.copies == 2


def test_urls_are_one_with_and_without_a_slash() -> None:
    known = TPCProbes()
    known.note("https://site.test/dav", speaks=True)
    with client() as http:
        assert known.ask(http, "https://site.test/dav/", "")
        known.note("https://site.test/dav/", speaks=False)
        assert not known.ask(http, "https://site.test/dav", "")


def test_what_copies_show_counts_for_more_than_probes() -> None:
    clock, site = Clock(), Site()
    known = TPCProbes(clock)
    with site.server:
        assert ask(site, known)
        # Many copies that were under way say the same; then it holds longer each time that the probe says yes.
        for hold_s in (NO_S, 2 * NO_S, 4 * NO_S):
            for _ in range(10):
                known.note(site.url, speaks=False)
            clock.now += hold_s - 1
            assert not ask(site, known)
            clock.now += 2
            assert ask(site, known)
        # A yes that held for its whole time is a good one again.
        clock.now += YES_S + 1
        assert ask(site, known)
        known.note(site.url, speaks=False)
        clock.now += NO_S + 1
        assert ask(site, known)
        for _ in range(20):
            known.note(site.url, speaks=False)
            clock.now += DISPROVED_MAX_S + 1
            assert ask(site, known)
        known.note(site.url, speaks=False)
        known.note(site.url, speaks=True)
        copies = site.copies
        assert ask(site, known)
        assert site.copies == copies


def in_threads(count: int, function: Callable[[], object], until: Callable[[float], bool]) -> list[object]:
    """Results or errors of as many threads, none of which come before ``until``, which takes seconds."""

    def one() -> object:
        try:
            return function()
        except errors.CS3Error as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(one) for _ in range(count)]
        assert until(30.0)
        return [future.result(timeout=30) for future in running]


@pytest.mark.parametrize("answer", [YES, plain("503 Busy", "Connection: close")])
def test_one_thread_asks_for_all(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 8
    waiting = threading.Semaphore(0)
    asked = threading.Event()

    class Counted(Future[bool]):
        def result(self, timeout: float | None = None) -> bool:
            waiting.release()
            return super().result(timeout)

    monkeypatch.setattr("rucio_cs3.cs3.webdav.probes.Future", Counted)

    def script(connection: Any, rest: bytes) -> None:
        # Only when all others wait for this answer.
        for _ in range(count - 1):
            assert waiting.acquire(timeout=5)
        asked.set()
        says(answer)(connection, rest)

    site = Site(script=script)
    known = TPCProbes()
    with site.server:
        results = in_threads(count, lambda: ask(site, known), asked.wait)
    assert len(site.server.heads) == 1
    if answer is YES:
        assert results == [True] * count
    else:
        assert all(isinstance(result, errors.Unavailable) for result in results)
        assert len({id(result) for result in results}) == count, "each thread has an exception of its own"


def test_an_interrupted_question_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    known = TPCProbes()
    site = Site()

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with site.server:
        with monkeypatch.context() as patch:
            patch.setattr(probes, "_ask", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ask(site, known)
        assert ask(site, known)


def _in_the_child(known: TPCProbes, url: str, answers: Any) -> None:
    try:
        with client() as http:
            answers.put((known.ask(http, "https://known.test/", ""), known.ask(http, url, "")))
    except BaseException:
        answers.put(traceback.format_exc())
        raise


# Python 3.12 warns of any fork with threads about; this one is about that.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_question() -> None:
    """The child knows what was known, and waits for no thread that it does not have."""
    known = TPCProbes()
    known.note("https://known.test", speaks=True)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    reached, release = threading.Event(), threading.Event()

    def script(connection: Any, rest: bytes) -> None:
        reached.set()
        assert release.wait(30)
        says(YES)(connection, rest)

    site, other = Site(script=script), Site()
    with site.server, other.server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, site, known)
        assert reached.wait(30)
        # As if the same site were asked: the child must not wait for its parent's thread.
        with known._lock:
            known._asking[f"{other.url}/"] = known._asking[f"{site.url}/"]
            child = context.Process(target=_in_the_child, args=(known, other.url, answers), daemon=True)
            child.start()
        assert answers.get(timeout=30) == (True, True)
        child.join(30)
        assert child.exitcode == 0
        release.set()
        assert running.result(timeout=30)
