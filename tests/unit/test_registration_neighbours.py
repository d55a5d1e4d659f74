"""Other RSEs with the same folder: their files are no replicas of this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.rucio_client import configure, rse_info  # isort: skip

from rucio_cs3 import rses
from rucio_cs3.registration.neighbours import Neighbours, neighbours_of
from rucio_cs3.registration.plan import Status
from tests.unit.registration_world import Storage, World, cloud_of

#: Where Rucio's algorithm "hash" has user.jdoe:f1, by its md5.
HASHED = "user/jdoe/7f/2d/f1"


@pytest.fixture(autouse=True)
def _rucio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch)
    monkeypatch.setattr(rses, "rse_attributes", lambda _settings: {})


def rse(name: str, *, prefix: str = "/webdav/base", port: int = 1, **more: Any) -> dict[str, Any]:
    extended = {"cs3_gateway": "127.0.0.1:1", "cs3_gateway_tls": "false", "cs3_root": "/"}
    where: dict[str, Any] = {"scheme": "http", "hostname": "127.0.0.1", "port": port, "prefix": prefix}
    made: dict[str, Any] = rse_info(rse=name, extended=extended, **where, **more)
    return made


class OwnAlgorithm:
    """A protocol of a site that has its own idea of places."""

    def __init__(self, *_: Any) -> None:
        pass

    def lfns2pfns(self, lfn: dict[str, str]) -> dict[str, str]:
        return {f"{lfn['scope']}:{lfn['name']}": f"http://127.0.0.1:1/webdav/base/{len(lfn['name'])}"}


def found(*others: dict[str, Any]) -> Neighbours:
    cloud = replace(cloud_of(Storage({})), rse=rse("MINE", deterministic=False))
    scopes = {"user.jdoe", "people"}
    return neighbours_of(cloud, [(one["rse"], one) for one in others], scopes=scopes)


def url(path: str) -> str:
    return f"http://127.0.0.1:1/webdav/base/{path}"


@pytest.mark.parametrize("prefix", ["/webdav/base", "webdav//base/"])
def test_what_lies_where_another_rse_keeps_its_files_is_left_out(prefix: str) -> None:
    near = found(rse("OTHER", prefix=prefix))
    assert near.names == ["OTHER"]
    assert "RSE OTHER, which has the same folder, keeps user.jdoe:f1" in str(near.fault(url(HASHED)))
    for other in ("user/jdoe/7f/2e/f1", "user/jdoe/f1", "people/x", "f1"):
        assert near.fault(url(other)) is None


@pytest.mark.parametrize(("prefix", "path"), [("/webdav/", "7f/2d/f1"), ("/webdav/base/user/", f"user/{HASHED}")])
def test_an_rse_above_or_below_is_a_neighbour(prefix: str, path: str) -> None:
    near = found(rse("OTHER", prefix=prefix))
    assert near.names == ["OTHER"]
    assert near.fault(url(HASHED)) is None
    assert bool(near.fault(url(path))) is (prefix == "/webdav/base/user/")


def test_an_rse_by_names_keeps_what_is_below_a_scope() -> None:
    near = found(rse("OTHER", lfn2pfn_algorithm="identity"))
    assert "people:x y" in str(near.fault(url("people/x%20y")))
    assert near.fault(url("nobodys/x")) is None


def test_other_hosts_and_folders_are_no_neighbours() -> None:
    near = found(rse("PORT", port=2), rse("FOLDER", prefix="/webdav/base2", deterministic=False))
    assert (near.names, near.unclear, near.unread) == ([], [], [])


def test_what_nobody_can_tell_is_named() -> None:
    odd = rse("ODD")
    odd["protocols"][0]["impl"] = "no_such_module.Default"
    own = rse("OWN", impl="tests.unit.test_registration_neighbours.OwnAlgorithm")
    near = found(rse("FREE", deterministic=False), odd, own)
    assert near.unclear == ["FREE", "ODD", "OWN"]
    assert near.names == []
    cloud = replace(cloud_of(Storage({})), rse=rse("MINE", deterministic=False))
    assert neighbours_of(cloud, [("AWAY", None)], scopes=()).unread == ["AWAY"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_such_files_are_conflicts_and_the_others_go_on(dry_run: bool) -> None:
    world = World(Storage({HASHED: b"x", "user/jdoe/mine": b"y"}))
    rows = world.run(neighbours=found(rse("OTHER")), dry_run=dry_run)
    assert {path: row.status for path, row in rows.items()} == {
        HASHED: Status.CONFLICT,
        "user/jdoe/mine": Status.PLANNED if dry_run else Status.REGISTERED,
    }
