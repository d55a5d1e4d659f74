"""From rows of Rucio's requests to the two ends of a transfer, for CS3 clouds and plain sites."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rucio.core import rse as rse_core
from rucio.core.topology import Topology
from rucio.core.transfer import ProtocolFactory
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from rucio.rse import RSE_REGION
from sqlalchemy import update

from rucio_cs3 import rses
from rucio_cs3.agent import hops
from rucio_cs3.agent.sites import Sites
from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.webdav_end import WebDAVEnd

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

WEBDAV = "rucio.rse.protocols.webdav.Default"
OURS = "rucio_cs3.protocol.Default"


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="hop") as cloud:
        yield cloud


@pytest.fixture
def ready(
    make_queue: Callable[..., Queue], cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Queue]:
    """RSEs whose CS3 ends are the embedded cloud, and credentials for both."""

    def make(**options: Any) -> Queue:
        queue = make_queue(schemes=("http", "http"), **options)
        user = cloud.first_user
        secrets: dict[str, dict[str, str]] = {}
        gateway_and_port = {"gateway": cloud.gateway, "port": int(cloud.webdav_url.split(":")[2].split("/")[0])}
        with db_session(DatabaseOperationType.WRITE) as session:
            for name, impl in zip((queue.source_rse, queue.destination_rse), options["impls"], strict=True):
                ours = impl == OURS
                secrets[name] = (
                    {"username": user.username, "password": user.password} if ours else {"token": f"token-of-{name}"}
                )
                data: dict[str, Any] = {"hostname": "127.0.0.1", "port": gateway_and_port["port"]}
                session.execute(
                    update(models.RSEProtocol).where(models.RSEProtocol.rse_id == queue.rse_ids[name]).values(**data)
                )
                if ours:
                    for key, value in (("cs3_gateway", cloud.gateway), ("cs3_gateway_tls", "false")):
                        rse_core.add_rse_attribute(queue.rse_ids[name], key, value, session=session)
                    rse_core.add_rse_attribute(queue.rse_ids[name], "cs3_root", cloud.root, session=session)
        file = tmp_path / "secrets.json"
        file.write_text(json.dumps(secrets))
        file.chmod(0o600)
        monkeypatch.setenv("RUCIO_CS3_CREDENTIALS", str(file))
        rses._attributes.clear()
        return queue

    return make


@pytest.fixture(autouse=True)
def nothing_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "SITES", Sites())


def opened(queue: Queue, name: str = "f") -> hops.Hop:
    row = queue.row(name)
    assert row["state"] == RequestState.SUBMITTED
    return hops.open_hop(row, Topology(ignore_availability=True))


@pytest.mark.parametrize("plain", ["source", "destination"])
def test_a_hop_between_a_cloud_and_a_plain_site(ready: Callable[..., Queue], plain: str) -> None:
    queue = ready(impls=(WEBDAV, OURS) if plain == "source" else (OURS, WEBDAV))
    queue.ask("f")
    queue.submit()
    hop = opened(queue)
    kinds = {"source": type(hop.source), "destination": type(hop.destination)}
    assert kinds.pop(plain) is WebDAVEnd
    assert set(kinds.values()) == {CS3End}
    row = queue.row("f")
    assert hop.destination_url == row["dest_url"]
    assert hop.destination.url == row["dest_url"]
    assert hop.source.url == hop.source_url
    assert hop.source_rse_id == queue.rse_ids[queue.source_rse]
    assert hop.source_host == hop.source_url.split("/")[2]
    assert (hop.job.request_id, hop.job.size_bytes, hop.job.attempt, hop.job.resumed) == (row["id"], 700, 0, False)
    assert hop.job.adler32 == row["adler32"]
    assert hop.path is None
    end = hop.source if plain == "source" else hop.destination
    name = queue.source_rse if plain == "source" else queue.destination_rse
    assert end.name == name
    assert end.authorization(write=plain == "destination") == f"Bearer token-of-{name}"
    assert (end.wish, end.proof) == ("auto", "read")


@pytest.mark.parametrize(
    ("changes", "begun"),
    [
        ({"started_at": None, "attributes": None}, False),
        ({"started_at": None, "attributes": "{}"}, False),
        ({"started_at": None, "attributes": '{"activity": "User"}'}, False),
        ({"started_at": datetime.datetime(2024, 5, 1), "attributes": None}, True),
        # Killed, perhaps before its start was written.
        ({"started_at": None, "attributes": None, "estimated_transferred_at": datetime.datetime(2024, 5, 1)}, True),
        # Put off by a site, and by an agent that stopped: there may be something beside the file.
        ({"started_at": None, "attributes": '{"cs3_postponed": {"request": "1", "times": 1}}'}, True),
        ({"started_at": None, "attributes": '{"cs3": {"mode": "relay"}}'}, True),
        ({"started_at": None, "attributes": {"cs3": {"mode": "relay"}}}, True),
    ],
)
def test_a_row_tells_whether_somebody_has_begun_it(changes: dict[str, Any], begun: bool) -> None:
    assert hops.was_begun({"estimated_transferred_at": None, **changes}) is begun


def test_settings_of_the_plain_site_reach_its_end(ready: Callable[..., Queue]) -> None:
    queue = ready(impls=(WEBDAV, OURS))
    with db_session(DatabaseOperationType.WRITE) as session:
        for key, value in (("cs3_transfer_mode", "relay"), ("cs3_proof", "size")):
            rse_core.add_rse_attribute(queue.rse_ids[queue.source_rse], key, value, session=session)
    queue.ask("f")
    queue.submit()
    end = opened(queue).source
    assert (end.wish, end.proof) == ("relay", "size")


def test_copy_mode_for_fts_is_no_part_of_the_name(ready: Callable[..., Queue]) -> None:
    queue = ready(impls=(WEBDAV, OURS))
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            update(models.Source)
            .where(models.Source.request_id == row["id"])
            .values(url=models.Source.url + "?copy_mode=push")
        )
    assert opened(queue).source_url.endswith("/f")


@pytest.mark.parametrize("impl", [OURS, WEBDAV])
def test_path_at_a_non_deterministic_rse_is_the_finishers(ready: Callable[..., Queue], impl: str) -> None:
    queue = ready(impls=(OURS, impl))
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            update(models.RSE).where(models.RSE.id == queue.rse_ids[queue.destination_rse]).values(deterministic=False)
        )
    RSE_REGION.invalidate()
    queue.ask("f")
    queue.submit()
    hop = opened(queue)
    destination = Topology(ignore_availability=True)[queue.rse_ids[queue.destination_rse]].ensure_loaded(load_info=True)
    protocol = ProtocolFactory().protocol(destination, "http", "write")
    folder = protocol.parse_pfns([hop.destination_url])[hop.destination_url]["path"]
    assert hop.path == f"{folder.rstrip('/')}/f"
    assert hop.path.startswith("/")


def test_a_protocol_that_is_gone_is_said_so(ready: Callable[..., Queue]) -> None:
    queue = ready(impls=(OURS, WEBDAV))
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    row["dest_url"] = row["dest_url"].replace("127.0.0.1", "elsewhere.test")
    with pytest.raises(errors.ConfigurationError, match="no protocol"):
        hops.open_hop(row, Topology(ignore_availability=True))


def test_two_plain_ends_are_not_taken(ready: Callable[..., Queue]) -> None:
    queue = ready(impls=(OURS, WEBDAV))
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            update(models.RSEProtocol)
            .where(models.RSEProtocol.rse_id == queue.rse_ids[queue.source_rse])
            .values(impl=WEBDAV)
        )
    RSE_REGION.invalidate()
    with pytest.raises(errors.ConfigurationError, match="neither"):
        opened(queue)


def test_a_request_without_a_source_is_said_so(ready: Callable[..., Queue]) -> None:
    queue = ready(impls=(OURS, WEBDAV))
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Source).where(models.Source.request_id == row["id"]).values(is_using=False))
    with pytest.raises(errors.InvalidRequest, match="no URL"):
        hops.open_hop(row, Topology(ignore_availability=True))
