"""Rucio's catalogue by REST: what is asked, and what becomes of Rucio's refusals; a client in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rucio", reason="no Rucio: pip install 'rucio-cs3[client]'")

from rucio.common import exception

from rucio_cs3.registration import opening
from rucio_cs3.registration.catalogue import CatalogueError, Known, NewFile, Refused
from rucio_cs3.registration.content_memory import ContentMemory
from rucio_cs3.registration.rest import RestCatalogue
from rucio_cs3.registration.templates import Did
from tests.unit.registration_world import Storage, cloud_of

FILE, OTHER, DATASET = Did("s", "a"), Did("s", "b"), Did("s", "d")
NEW = NewFile(did=FILE, size=3, checksums={"adler32": "01020304", "sha1": "0" * 40}, pfn="http://127.0.0.1:1/x")


class Client:
    """Answers as Rucio's client does; ``fails`` has what a method raises instead."""

    vo, host, account = "def", "https://rucio.example.org", "jdoe"

    def __init__(self) -> None:
        self.fails: dict[str, Exception] = {}
        self.asked: list[tuple[str, Any]] = []

    def _ask(self, method: str, what: Any) -> None:
        self.asked.append((method, what))
        if method in self.fails:
            raise self.fails[method]

    def get_metadata_bulk(self, dids: Any) -> Iterator[dict[str, Any]]:
        self._ask("get_metadata_bulk", dids)
        yield {"scope": "s", "name": "a", "did_type": "FILE", "bytes": 3, "adler32": "0102ABCD", "md5": None}
        yield {"scope": "s", "name": "d", "did_type": "DATASET", "bytes": None, "is_open": True}

    def list_replicas(self, dids: Any, *, resolve_parents: bool, **more: Any) -> Iterator[dict[str, Any]]:
        self._ask("list_replicas", (dids, more["rse_expression"], resolve_parents))
        found: dict[str, Any] = {"scope": "s", "name": "a", "states": {"CLOUD": "AVAILABLE"}}
        found["rses"] = {"CLOUD": ["http://127.0.0.1:1/webdav/base/x%20y/a"]}
        yield {**found, **({"parents": ["s:d"]} if resolve_parents else {})}

    def list_content(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        self._ask("list_content", (scope, name))
        yield {"scope": "s", "name": "a"}
        yield {"scope": "s", "name": "c"}

    def add_replicas(self, rse: str, files: Any) -> None:
        self._ask("add_replicas", (rse, files))

    def attach_dids_to_dids(self, attachments: Any, ignore_duplicate: bool) -> None:
        self._ask("attach_dids_to_dids", (attachments, ignore_duplicate))

    def add_dids(self, dids: Any) -> None:
        self._ask("add_dids", [did["name"] for did in dids])

    def add_replication_rule(self, dids: Any, copies: int, rse: str, *, locked: bool) -> None:
        self._ask("add_replication_rule", (dids, copies, rse, locked))

    def list_scopes(self) -> list[str]:
        self._ask("list_scopes", None)
        return ["s"]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def catalogue(client: Client) -> RestCatalogue:
    cloud = replace(cloud_of(Storage({})), rse={"deterministic": False})
    return RestCatalogue(cloud, lambda: client)


def test_what_is_there_is_asked_in_two_questions_and_one_for_each_dataset(
    client: Client, catalogue: RestCatalogue
) -> None:
    for _ in range(2):
        assert catalogue.look([FILE, OTHER, DATASET], parents=[DATASET]) == {
            FILE: Known(
                kind="FILE",
                size=3,
                checksums={"adler32": "0102abcd"},
                state="AVAILABLE",
                path="x y/a",
                parents=frozenset({DATASET}),
            ),
            DATASET: Known(kind="DATASET", is_open=True),
        }
    assert [method for method, _ in client.asked].count("list_content") == 1
    assert ("list_replicas", ([{"scope": "s", "name": "a"}], "CLOUD", False)) in client.asked


def test_a_dataset_that_is_too_large_is_not_kept_in_memory(client: Client, catalogue: RestCatalogue) -> None:
    catalogue._content = ContentMemory(1)
    assert catalogue.look([FILE], parents=[DATASET])[FILE].parents == {DATASET}
    assert client.asked[-1][1][2] is True


def test_replicas_are_added_and_attached(client: Client, catalogue: RestCatalogue) -> None:
    catalogue.add([NEW], {DATASET: [FILE, OTHER], Did("s", "empty"): []})
    file = {"scope": "s", "name": "a", "bytes": 3, "pfn": NEW.pfn, "adler32": "01020304"}
    children = [{"scope": "s", "name": "a"}, {"scope": "s", "name": "b"}]
    assert client.asked == [
        ("add_replicas", ("CLOUD", [file])),
        ("attach_dids_to_dids", ([{"scope": "s", "name": "d", "dids": children}], True)),
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exception.InvalidObject("Problem validating dids"), Refused),
        (exception.Duplicate("File replica already exists!"), Refused),
        (exception.AccessDenied("Account jdoe can not add file replicas on CLOUD."), CatalogueError),
        (exception.CannotAuthenticate("no"), CatalogueError),
        (exception.ServerConnectionException("away"), CatalogueError),
        (exception.RSENotFound("gone"), CatalogueError),
    ],
)
def test_what_concerns_one_file_is_told_from_what_concerns_all(
    client: Client, catalogue: RestCatalogue, error: Exception, kind: type[Exception]
) -> None:
    client.fails["add_replicas"] = client.fails["add_replication_rule"] = error
    with pytest.raises(kind) as caught:
        catalogue.add([NEW], {})
    assert type(caught.value) is kind
    assert "Details" not in str(caught.value)
    with pytest.raises(kind):
        catalogue.add_rule(DATASET, locked=False)


def test_a_name_that_the_schema_refuses_is_no_failure_of_the_server(client: Client, catalogue: RestCatalogue) -> None:
    error = "Problem validating dids: 'a b' does not match '^x$'\n\nFailed validating 'pattern' in schema['items']"
    client.fails["get_metadata_bulk"] = exception.InvalidObject(error)
    with pytest.raises(Refused) as caught:
        catalogue.look([FILE])
    assert str(caught.value) == "Problem validating dids: 'a b' does not match '^x$'"


def test_collections_that_somebody_else_has_made_meanwhile(client: Client, catalogue: RestCatalogue) -> None:
    client.fails["add_dids"] = exception.DataIdentifierAlreadyExists("Data Identifier already exists!")
    catalogue.make([DATASET, Did("s", "e")], "DATASET")
    assert [names for _, names in client.asked] == [["d", "e"], ["d"], ["e"]]


def test_where_only_clients_are_installed_rucios_server_is_left_to_refuse_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # rucio-clients 41.5.1 has rucio.common.schema without rucio.db, which it imports.
    monkeypatch.setitem(sys.modules, "rucio.common.schema", None)
    assert opening._schema("def") is None


def test_a_rule_that_is_there_already(client: Client, catalogue: RestCatalogue) -> None:
    assert catalogue.add_rule(DATASET, locked=True)
    assert client.asked[-1] == ("add_replication_rule", ([{"scope": "s", "name": "d"}], 1, "CLOUD", True))
    client.fails["add_replication_rule"] = exception.DuplicateRule("there")
    assert not catalogue.add_rule(DATASET, locked=True)
