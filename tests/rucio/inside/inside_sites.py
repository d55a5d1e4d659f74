"""Sites are prepared once for many files: what is kept, for how long, and what is not. And how a copy is watched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rucio.core.topology import Topology
from sqlalchemy import event
from sqlalchemy.engine import Engine

from rucio_cs3 import partners
from rucio_cs3.agent import claims, hops, sites
from rucio_cs3.agent.sites import Sites
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.agent.watching import ProgressWatch
from rucio_cs3.cs3 import errors
from rucio_cs3.rse_credentials import CREDENTIALS_VARIABLE
from rucio_cs3.transfers.modes import Mode

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

WEBDAV = "rucio.rse.protocols.webdav.Default"


@pytest.fixture
def plain(make_queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Queue:
    """Two plain sites with credentials: making their ends needs no network."""
    queue = make_queue(impls=(WEBDAV, WEBDAV))
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({name: {"token": "secret"} for name in queue.rse_ids}))
    path.chmod(0o600)
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(path))
    return queue


def pfn(queue: Queue, rse: str, name: str) -> str:
    return f"davs://{rse.lower()}.test:443/remote.php/webdav/rucio/{queue.scope}/ab/cd/{name}"


def test_a_second_file_asks_nothing_of_the_database(plain: Queue) -> None:
    rse = Topology()[plain.rse_ids[plain.source_rse]]
    found, statements = Sites(), []

    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    first = found.of(rse, partners.READ, pfn(plain, plain.source_rse, "one"))
    event.listen(Engine, "before_cursor_execute", count)
    try:
        second = found.of(rse, partners.READ, pfn(plain, plain.source_rse, "two"))
        end = second.end(pfn(plain, plain.source_rse, "two"))
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert second is first
    assert end.url.endswith("/two")
    assert statements == []


def test_reading_and_writing_are_two_sites(plain: Queue) -> None:
    rse = Topology()[plain.rse_ids[plain.source_rse]]
    found, where = Sites(), pfn(plain, plain.source_rse, "f")
    assert found.of(rse, partners.READ, where) is not found.of(rse, partners.WRITE, where)


def test_a_change_of_the_settings_is_seen_in_time(plain: Queue) -> None:
    now = 0.0
    rse = Topology()[plain.rse_ids[plain.source_rse]]
    found, where = Sites(clock=lambda: now), pfn(plain, plain.source_rse, "f")
    first = found.of(rse, partners.READ, where)
    now = sites.TTL_S - 1
    assert found.of(rse, partners.READ, where) is first
    now = sites.TTL_S
    assert found.of(rse, partners.READ, where) is not first


def test_what_could_not_be_made_is_tried_again(plain: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = Topology()[plain.rse_ids[plain.source_rse]]
    found, where = Sites(), pfn(plain, plain.source_rse, "f")
    with monkeypatch.context() as patch:
        patch.delenv(CREDENTIALS_VARIABLE)
        with pytest.raises(errors.ConfigurationError, match=plain.source_rse):
            found.of(rse, partners.READ, where)
    assert found.of(rse, partners.READ, where).end(where).name == plain.source_rse


def test_the_sources_of_a_claimed_row_are_not_read_again(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    (claim,) = claims.take([queue.row("f")["id"]])
    picked = hops.pick_source(claim.row)
    assert picked["rse_id"] == queue.rse_ids[queue.source_rse]
    with pytest.raises(errors.InvalidRequest, match="no URL"):
        hops.pick_source({**claim.row, "sources": []})


def test_the_rate_is_over_the_time_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rucio_cs3.agent.watching.time.monotonic", lambda: now)
    subject = Subject(
        request_id="1",
        scope="s",
        name="f",
        size_bytes=10_000,
        source="A",
        destination="B",
        source_url="davs://a/f",
        destination_url="davs://b/f",
    )
    watch = ProgressWatch(subject)
    assert watch.progress() is None
    watch.began(Mode.PULL)
    watch.moved(3000)
    now += 3
    first = watch.progress()
    assert first is not None
    assert (first.mode, first.bytes_moved, first.rate) == (Mode.PULL, 3000, 1000)
    watch.moved(3500)
    now += 1
    second = watch.progress()
    assert second is not None
    assert (second.bytes_moved, second.rate) == (3500, 500)
    # Another way, and the bytes count anew.
    watch.began(Mode.RELAY)
    now += 1
    third = watch.progress()
    assert third is not None
    assert (third.mode, third.bytes_moved, third.rate) == (Mode.RELAY, 0, 0)
