"""How progress is kept beside what Rucio keeps in ``requests.attributes``."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from rucio_cs3.progress import KEY, MAX_CHARACTERS, POSTPONED_KEY, Progress, read, times_put_off, written
from rucio_cs3.transfers.modes import Mode

STARTED = datetime(2024, 5, 1, 10, 0, 0)
PROGRESS = Progress(
    mode=Mode.PULL, bytes_moved=1_048_576, rate=524_288, at=STARTED + timedelta(seconds=2), started=STARTED
)
#: What Rucio's queue_requests writes (Rucio 41.5.1 core/rule.py), with a name that is no ASCII.
RUCIOS = {
    "activity": "User Subscriptions",
    "bytes": 2_000_000,
    "md5": None,
    "ds_name": "Ferien in Zürich",
    "priority": 3,
}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("given", [RUCIOS, json.dumps(RUCIOS), json.dumps(json.dumps(RUCIOS))])
def test_what_is_written_is_read_and_the_rest_stays(given: object, mode: Mode) -> None:
    progress = Progress(mode=mode, bytes_moved=0, rate=0, at=STARTED, started=STARTED)
    text = written(given, progress)  # type: ignore[arg-type]
    assert text is not None
    assert text.isascii()
    assert read(text) == progress
    assert read(json.loads(text)) == progress
    kept = json.loads(text)
    kept.pop(KEY)
    assert kept == RUCIOS


def test_the_form_is_the_documented_one() -> None:
    text = written(None, PROGRESS)
    assert text is not None
    assert json.loads(text) == {
        "cs3": {
            "mode": "pull",
            "bytes": 1_048_576,
            "rate": 524_288,
            "at": "2024-05-01T10:00:02Z",
            "started": "2024-05-01T10:00:00Z",
        }
    }


def test_new_progress_replaces_the_old_and_can_go() -> None:
    first = written(RUCIOS, PROGRESS)
    later = Progress(mode=Mode.RELAY, bytes_moved=5, rate=1, at=STARTED, started=STARTED)
    second = written(first, later)
    assert read(second) == later
    assert json.loads(written(second, None) or "") == RUCIOS


def test_the_given_dictionary_is_left_alone() -> None:
    given = dict(RUCIOS)
    written(given, PROGRESS)
    assert given == RUCIOS


def test_fractions_of_seconds_and_time_zones_are_left_out() -> None:
    at = datetime(2024, 5, 1, 12, 0, 2, 900_000, tzinfo=timezone(timedelta(hours=2)))
    text = written({}, Progress(mode=Mode.PULL, bytes_moved=1, rate=1, at=at, started=at))
    found = read(text)
    assert found is not None
    assert found.at == STARTED + timedelta(seconds=2)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_column_is_never_overrun(more: int) -> None:
    empty = len(written({"x": ""}, PROGRESS) or "")
    text = written({"x": "y" * (MAX_CHARACTERS - empty + more)}, PROGRESS)
    assert (text is None) == (more > 0)
    assert text is None or len(text) == MAX_CHARACTERS + more


@pytest.mark.parametrize("given", ["no json", "[1, 2]", "7", '"[]"'])
def test_what_is_no_object_stays_as_it_is(given: str) -> None:
    assert written(given, PROGRESS) is None
    assert read(given) is None


@pytest.mark.parametrize("given", [None, "", "{}", {}])
def test_an_empty_column_takes_progress(given: object) -> None:
    assert read(given) is None  # type: ignore[arg-type]
    assert read(written(given, PROGRESS)) == PROGRESS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "teleport"},
        {"bytes": -1},
        {"bytes": "1"},
        {"rate": True},
        {"rate": None},
        {"at": "yesterday"},
        {"started": 7},
    ],
)
def test_what_cannot_be_understood_is_none(change: dict[str, object]) -> None:
    kept = json.loads(written({}, PROGRESS) or "")
    kept[KEY].update(change)
    assert read(kept) is None
    kept[KEY] = "else"
    assert read(kept) is None


@pytest.mark.parametrize(
    ("since", "seen"),
    [
        (STARTED - timedelta(seconds=1), True),
        # The row has fractions of seconds, the progress has none.
        (STARTED + timedelta(microseconds=999_999), True),
        (STARTED + timedelta(seconds=1), False),
    ],
)
def test_an_earlier_attempts_progress_is_not_this_ones(since: datetime, seen: bool) -> None:
    assert (read(written({}, PROGRESS), since=since) is not None) == seen


@pytest.mark.parametrize(
    ("mark", "times"),
    [
        ({"request": "a1", "since": "2024-05-01T10:00:00", "times": 3}, 3),
        # Rucio copies the attributes into the next attempt.
        ({"request": "b2", "since": "2024-05-01T10:00:00", "times": 3}, 0),
        ({"request": "a1", "times": "often"}, 0),
        ("else", 0),
    ],
)
def test_how_often_a_request_was_put_off(mark: object, times: int) -> None:
    attributes = {**RUCIOS, POSTPONED_KEY: mark}
    assert times_put_off(attributes, "a1") == times_put_off(json.dumps(attributes), "a1") == times


def test_a_request_that_was_not_put_off() -> None:
    assert times_put_off(None, "a1") == times_put_off("no json", "a1") == times_put_off(RUCIOS, "a1") == 0
