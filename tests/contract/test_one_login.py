"""C1441 to C1444: one login is enough, whatever the clocks say, and however many threads there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud.faults import FOREVER
from tests.contract.faulty_reva import FaultyReva
from tests.contract.http_relay import Witness
from tests.contract.mortal import CHANGED, assert_says_whose
from tests.contract.place import SHORT_S, TIMEOUTS, Place, content

SIZE = 200 * 1024 + 7
DATA = content(SIZE)


class Count(Witness):
    """Counts what comes by points."""

    def __init__(self) -> None:
        self.came_at: Counter[str] = Counter()
        self._lock = threading.Lock()

    def came(self, point: str, headers: Mapping[str, str]) -> None:
        with self._lock:
            self.came_at[point] += 1

    @property
    def logins(self) -> int:
        return self.came_at["gateway.Authenticate"]


@pytest.fixture
def counted(mortal: Place) -> Iterator[Count]:
    cloud = mortal.cloud
    assert isinstance(cloud, FaultyReva)
    cloud.witness = count = Count()
    yield count
    cloud.witness, cloud.password = Witness(), None


class ShiftedClock:
    """This machine's clock, wrong by so many seconds."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s

    def time(self) -> float:
        return time.time() + self._ahead_s

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("ahead_s", [300.0, -300.0, 30 * 3600.0, -30 * 3600.0])
def test_c1441_clocks_need_not_agree(
    mortal: Place, counted: Count, ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a token's life, too. One login is enough, and a dead token is found out all the same."""
    monkeypatch.setattr("rucio_cs3.cs3.login.tokens.time", ShiftedClock(ahead_s))
    cloud, storage = mortal.cloud, mortal.another()
    assert isinstance(cloud, FaultyReva)
    file = mortal.file("file")
    for number in (1, 2):
        storage.upload(mortal.local_file(DATA), file, overwrite=True, read_back=True)
        assert storage.stat(file).size == SIZE
        assert not storage.exists(mortal.file("nothing"))
        storage.download(file, mortal.local / "down")
        assert counted.logins == number
        cloud.tokens.expire_all(transfer=True)


def _together(count: int, act: Callable[[], object]) -> list[BaseException | None]:
    """What comes of it in so many threads at the same time."""
    ready = threading.Barrier(count)

    def run() -> BaseException | None:
        ready.wait(20)
        try:
            act()
        except errors.CS3Error as error:
            return error
        return None

    with ThreadPoolExecutor(count) as threads:
        return [done.result() for done in [threads.submit(run) for _ in range(count)]]


def test_c1442_many_threads_log_in_once(mortal: Place, counted: Count) -> None:
    cloud, storage = mortal.cloud, mortal.another()
    assert isinstance(cloud, FaultyReva)
    for number in (1, 2):
        assert _together(12, lambda: storage.stat(mortal.folder)) == [None] * 12
        assert counted.logins == number
        cloud.tokens.expire_all()


def test_c1443_a_login_that_hangs_ends(mortal: Place) -> None:
    storage = mortal.another(timeouts=replace(TIMEOUTS, call_s=SHORT_S, operation_s=2 * SHORT_S))
    mortal.fault("gateway.Authenticate", "stall", FOREVER)
    told = _together(8, lambda: storage.stat(mortal.folder))
    for error in told:
        assert isinstance(error, errors.DeadlineExceeded)
        assert mortal.cloud.gateway in str(error)


def test_c1444_a_refused_login_is_not_sent_for_each_file(
    mortal: Place, counted: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clouds lock accounts out after some wrong passwords."""
    monkeypatch.setattr("rucio_cs3.cs3.login.authentication.REFUSED_S", 3600.0)  # a busy machine is slow
    cloud, storage = mortal.cloud, mortal.another()
    assert isinstance(cloud, FaultyReva)
    cloud.password = CHANGED

    def look_at_many() -> None:
        for number in range(10):
            with pytest.raises(errors.Unauthenticated) as caught:
                storage.delete_file(mortal.file(f"file-{number}"))
            assert_says_whose(caught.value, cloud)

    assert _together(8, look_at_many) == [None] * 8
    assert counted.logins == 1
