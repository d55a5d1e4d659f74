"""The recycle bin of servers that nobody has here: time windows as Reva's EOS driver takes them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import Endpoint, Reference, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.recycle import RecycleBin

DAY_S = 86_400
ROOT = parse_root("/eos/project")


class Eos:
    """Answers as eosfs.go of Reva (August 2026): by days from the end of the window on, two days without one, and
    INVALID_ARGUMENT for too many days or items.
    """

    def __init__(self, *deleted_s: float, most_days: int = 14, most_items: int = 2000) -> None:
        self.items: list[dict[str, Any]] = [
            {
                "key": f"key{number}",
                "ref": {"path": f"/eos/project/file{number}"},
                "deletion_time": {"seconds": int(at)},
            }
            for number, at in enumerate(deleted_s)
        ]
        self.most_days, self.most_items = most_days, most_items
        self.asked = 0

    def ask(self, method: str, request: Any, target: str, *, idempotent: bool = False) -> Any:
        assert (method, idempotent) == ("ListRecycle", True)
        self.asked += 1
        first_s, last_s = request.from_ts.seconds, request.to_ts.seconds
        if first_s + self.most_days * DAY_S < last_s:
            raise errors.InvalidRequest("too many days", code="CODE_INVALID_ARGUMENT")
        days = {(at_s // DAY_S) for at_s in range(last_s, first_s - 1, -DAY_S)}
        items = [item for item in self.items if item["deletion_time"]["seconds"] // DAY_S in days]
        if len(items) > self.most_items:
            raise errors.InvalidRequest("too many entries", code="CODE_INVALID_ARGUMENT")
        return provider_api_pb2.ListRecycleResponse(recycle_items=items)


def listed(server: Eos, **times: Any) -> list[str]:
    endpoint = Endpoint(
        name="eos",
        gateway="127.0.0.1:1",
        gateway_tls=False,
        webdav=WebDAVBase.parse("http://127.0.0.1:1/webdav", root=ROOT),
    )
    bin_ = RecycleBin(endpoint, server, None)  # type: ignore[arg-type]  # what is asked for is all it needs
    return [item.key for item in bin_.items(Reference(ROOT), **times)]


def test_all_windows_are_asked_for_and_each_item_comes_once() -> None:
    now = time.time()
    server = Eos(*(now - days * DAY_S / 2 for days in range(160)))
    found = listed(server)
    assert sorted(found) == sorted(f"key{number}" for number in range(160))


def test_a_server_that_allows_fewer_days_is_asked_for_fewer() -> None:
    now = time.time()
    server = Eos(*(now - days * DAY_S for days in range(20)), most_days=2)
    assert len(listed(server)) == 20


def test_a_week_with_too_many_is_asked_for_in_days() -> None:
    now = time.time()
    server = Eos(*(now - number * DAY_S / 10 for number in range(60)), most_items=30)
    assert len(listed(server)) == 60


def test_a_day_with_too_many_is_an_error() -> None:
    now = time.time()
    with pytest.raises(errors.Throttled, match="more was deleted within a day"):
        listed(Eos(*[now] * 30, most_items=20))


def test_only_the_time_that_is_asked_for_is_listed() -> None:
    now = time.time()
    server = Eos(now - 10, now - 3600, now - 3 * DAY_S)
    assert listed(server, since_s=now - 60) == ["key0"]
    assert listed(server, since_s=now - 4 * DAY_S, until_s=now - 60) == ["key1", "key2"]


def test_a_clock_ahead_of_ours_hides_nothing() -> None:
    assert listed(Eos(time.time() + DAY_S / 2)) == ["key0"]


def test_a_server_that_ignores_windows_is_asked_once() -> None:
    class Local(Eos):
        def ask(self, *arguments: Any, **options: Any) -> Any:
            self.asked += 1
            return provider_api_pb2.ListRecycleResponse(recycle_items=self.items)

    server = Local(
        time.time() - 3600, (time.time() - 7200) * 1000
    )  # the second in milliseconds, as Reva's local driver
    assert listed(server) == ["key0", "key1"]
    assert server.asked == 1


@pytest.mark.parametrize("path", ["", "/", "/eos/project", "/eos/other/file", "/eos/project/../other", "relative"])
def test_what_is_no_place_of_ours_is_left_out(path: str) -> None:
    server = Eos(time.time(), time.time())
    server.items[0]["ref"] = {"path": path}
    assert listed(server) == ["key1"]


@pytest.mark.parametrize("key", ["", ".", "..", "a/b"])
def test_a_key_that_means_more_than_one_item_is_left_out(key: str) -> None:
    server = Eos(time.time(), time.time())
    server.items[0]["key"] = key
    assert listed(server) == ["key1"]


def test_a_size_that_no_file_has_is_left_out() -> None:
    server = Eos(time.time(), time.time())
    server.items[0]["size"] = 2**63
    assert listed(server) == ["key1"]
