"""What ``rucio-cs3 doctor`` has written is gone in the end, also where it is ended early; what is not, it says."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from rucio_cs3.doctor.scratch import PREFIX
from tests.commands.clouds import CommandPlace
from tests.commands.doctor.seen import FOREVER, doctor, leftovers
from tests.commands.running import Done, wait_until


def test_what_could_not_be_removed_is_said(fresh: Callable[..., CommandPlace], impatient: None) -> None:
    place = fresh()
    place.fault("gateway.Delete", "stall", FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    (left,) = seen.document["left"]
    (folder,) = [name for name in place.tree() if name.startswith(PREFIX) and "/" not in name]
    assert f"/{folder} " in left
    assert seen.code in (3, 4)
    # The next one finds it.
    again = doctor(place)
    assert (again.code, again.having("weak")) == (3, {"listing"})
    assert f"rucio-cs3 rm -r TEST:{folder}" in again["listing"]["advice"]


@pytest.mark.parametrize(
    ("point", "by", "code"), [("data.put", signal.SIGINT, 130), ("gateway.GetQuota", signal.SIGTERM, 143)]
)
def test_who_ends_it_early_finds_nothing_left(
    fresh: Callable[..., CommandPlace], point: str, by: signal.Signals, code: int
) -> None:
    place = fresh()
    place.fault(point, "stall")
    with place.started("doctor", "TEST") as running:
        wait_until(lambda: not place.cloud.faults.pending(), "the stall")
        wait_until(lambda: any(name.startswith(PREFIX) for name in place.tree()), "the folder")
        running.process.send_signal(by)
        done = running.end()
    _ended_clean(place, done, code)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_it_while_several_write_finds_nothing_left(
    fresh: Callable[..., CommandPlace], by: signal.Signals, code: int
) -> None:
    place = fresh()
    # Bytes are there at once, and each writer goes on a while later.
    place.fault("data.put", "delay:1000", FOREVER)
    with place.started("doctor", "TEST") as running:
        wait_until(lambda: len(place.cloud.traffic.of("data.put")) >= 4, "several uploads")
        running.process.send_signal(by)
        done = running.end()
    _ended_clean(place, done, code)


def _ended_clean(place: CommandPlace, done: Done, code: int) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "could not be removed" not in done.err
    assert place.tree() == {}
    assert leftovers(place) == []


def test_a_bin_that_cannot_be_looked_into_is_said(fresh: Callable[..., CommandPlace], impatient: None) -> None:
    place = fresh()
    place.fault("gateway.ListRecycle", "grpc:UNAVAILABLE", FOREVER)
    seen = doctor(place)
    (left,) = seen.document["left"]
    assert "in the recycle bin, which could not be looked into" in left
    assert seen["recycle bin"]["status"] == "weak"
    place.cloud.faults.clear()
    assert leftovers(place) != []


def test_nothing_is_left_in_a_bin_that_is_not_there(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh()
    place.fault("gateway.ListRecycle", "code:CODE_UNIMPLEMENTED", FOREVER)
    seen = doctor(place)
    assert (seen.document["left"], seen["recycle bin"]["status"]) == ([], "note")
