"""The rows that a registration makes by itself are those that Rucio's own functions make, in all tables."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import did as did_core
from rucio.core import replica as replica_core
from rucio.core import rse as rse_core
from rucio.core import scope as scope_core
from rucio.db.sqla import models
from rucio.rse import rsemanager
from sqlalchemy import event, select
from sqlalchemy.dialects import oracle
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.registration import bulk_rows, database, known_rucio
from rucio_cs3.registration.batches import Batches
from rucio_cs3.registration.bulk_rows import BulkRows, NotPlain
from rucio_cs3.registration.catalogue import CatalogueError, Known, NewFile, Refused
from rucio_cs3.registration.database import DatabaseCatalogue
from rucio_cs3.registration.plan import File, Status
from rucio_cs3.registration.templates import Did
from tests.rucio.inside.rucio_queue import IMPL, OPERATIONS, writing

ACCOUNT = InternalAccount("root")
WEBDAV = "rucio.rse.protocols.webdav.Default"

#: What a batch with datasets adds rows to.
TABLES = {"dids", "replicas", "contents", "updated_dids", "updated_rse_counters"}

Rows = dict[str, Counter[tuple[tuple[str, Any], ...]]]


@dataclass
class Place:
    """An RSE, and a scope with two open datasets, a closed one and a container."""

    rse: str
    rse_id: str
    scope: str
    deterministic: bool

    def did(self, name: str) -> Did:
        return Did(self.scope, name)

    def file(self, name: str, **more: Any) -> NewFile:
        told = {"size": 5, "checksums": {"adler32": "01020304", "md5": "0" * 32}, "is_unknown": True, **more}
        did = told.pop("did", self.did(name))
        if self.deterministic:
            settings = rsemanager.get_rse_info(rse_id=self.rse_id)
            protocol = rsemanager.create_protocol(settings, "write", scheme="davs")
            (pfn,) = protocol.lfns2pfns({"scope": did.scope, "name": did.name}).values()
        else:
            pfn = f"davs://{self.rse.lower()}.test:443/remote.php/webdav/rucio/people/{name.replace(' ', '%20')}"
        return NewFile(did=did, pfn=pfn, **told)

    def catalogue(self, **more: Any) -> DatabaseCatalogue:
        rse = {"id": self.rse_id, "deterministic": self.deterministic}
        cloud: Any = SimpleNamespace(name=self.rse, rse=rse)
        return DatabaseCatalogue(cloud, "root", **more)

    def bulk(self) -> BulkRows:
        return BulkRows(self.rse_id, ACCOUNT, keeps_paths=not self.deterministic)


@pytest.fixture
def make_place() -> Callable[..., Place]:
    def make(*, deterministic: bool = False, impl: str = IMPL, tombstone_delay: str | None = None) -> Place:
        tag = uuid.uuid4().hex[:8]
        place = Place(f"BULK-{tag.upper()}", "", f"bulk{tag}", deterministic)
        scope = InternalScope(place.scope)
        protocol = {
            "scheme": "davs",
            "hostname": f"{place.rse.lower()}.test",
            "port": 443,
            "prefix": "/remote.php/webdav/rucio/",
            "impl": impl,
            "domains": {domain: dict.fromkeys(OPERATIONS, 1) for domain in ("lan", "wan")},
        }
        with writing() as session:
            scope_core.add_scope(scope, ACCOUNT, session=session)
            place.rse_id = rse_core.add_rse(place.rse, deterministic=deterministic, session=session)
            rse_core.add_protocol(place.rse_id, protocol, session=session)
            if tombstone_delay is not None:
                rse_core.add_rse_attribute(place.rse_id, "tombstone_delay", tombstone_delay, session=session)
            kinds = {"run1": "DATASET", "run2": "DATASET", "closed": "DATASET", "box": "CONTAINER"}
            told = [{"scope": scope, "name": name, "type": kind} for name, kind in kinds.items()]
            did_core.add_dids(told, account=ACCOUNT, session=session)
            did_core.set_status(scope, "closed", open=False, session=session)
        return place

    return make


@pytest.fixture
def own_calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the files that Rucio's own function was told of."""
    calls: list[list[str]] = []
    add_replicas = replica_core.add_replicas

    def spy(rse_id: str, files: Sequence[dict[str, Any]], *rest: Any, **more: Any) -> None:
        calls.append([file["name"] for file in files])
        add_replicas(rse_id, files, *rest, **more)

    # There, and not in Rucio, which is looked at to find out whether it is known.
    monkeypatch.setattr(database, "replica_core", SimpleNamespace(add_replicas=spy))
    return calls


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is five and a half hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-05:30")
        time.tzset()
        yield
    time.tzset()


def utc_now() -> datetime:
    """As Rucio's tables have it."""
    return datetime.now(tz=timezone.utc).replace(tzinfo=None)


def plain(table: str, name: str, value: Any, now: datetime) -> Any:
    """A value without what differs from call to call: ids that are made up, and times but for the minutes from now."""
    if name == "id" and table not in ("rses", "rules"):
        return "made up"
    if isinstance(value, datetime):
        return f"{round((value - now).total_seconds() / 60)} min" if value.year > 2000 else value
    return str(value) if isinstance(value, (InternalScope, InternalAccount)) else value


def all_rows(session: Session, now: datetime) -> Rows:
    session.flush()
    rows: Rows = {}
    for table in models.BASE.metadata.sorted_tables:
        if any("TEMPORARY" in str(prefix).upper() for prefix in table._prefixes):
            continue
        found = session.execute(select(table)).mappings()
        rows[table.name] = Counter(
            tuple((name, repr(plain(table.name, name, value, now))) for name, value in row.items()) for row in found
        )
    return rows


def made(work: Callable[[Session], object]) -> Rows:
    """Rows that some work has made, by table; afterwards they are not there.

    The work only adds rows: nothing that was there is changed or gone.
    """

    with writing() as session:
        now = utc_now()
        before = all_rows(session, now)
        work(session)
        # What Rucio's functions know of rows is not what is in them.
        session.expire_all()
        after = all_rows(session, now)
        session.rollback()
    assert not gone(before, after)
    return gone(after, before)


def gone(before: Rows, after: Rows) -> Rows:
    """Rows that are not there any more, by table."""
    missing = {name: rows - after.get(name, Counter()) for name, rows in before.items()}
    return {name: rows for name, rows in missing.items() if rows}


KINDS: dict[str, dict[str, Any]] = {
    "free": {},
    "free, by another protocol": {"impl": WEBDAV},
    "deterministic": {"deterministic": True},
    "tombstone now": {"tombstone_delay": "-1"},
    "tombstone later": {"tombstone_delay": "86400"},
}


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_make_the_same_rows(make_place: Callable[..., Place], kind: str) -> None:
    place = make_place(**KINDS[kind])
    other = InternalScope(f"{place.scope}.more")
    with writing() as session:
        scope_core.add_scope(other, ACCOUNT, session=session)
    files = [
        place.file("both.dat"),
        place.file("with space.tar.gz", size=2**40),
        place.file("empty", size=0, checksums={"adler32": "00000001"}),
        place.file("no sums", checksums={}),
        place.file("md5 only", checksums={"md5": "f" * 32}),
        place.file("Übersicht"),
        place.file("elsewhere", did=Did(other.external, "both.dat")),
    ]
    dids = [file.did for file in files]
    attachments = {place.did("run2"): dids[:3], place.did("run1"): dids[1:6]}
    for told in (attachments, {}):
        own = made(lambda session, told=told: place.catalogue(bulk=False)._add(session, files, told))  # type: ignore[misc]
        bulk = made(lambda session, told=told: place.bulk().add(session, files, told))  # type: ignore[misc]
        assert not gone(bulk, own)
        assert not gone(own, bulk)
        assert own.keys() == (TABLES if told else TABLES - {"contents", "updated_dids"})
        assert own["dids"].total() == own["replicas"].total() == len(files)


def test_this_rucio_is_known_and_another_is_left_to_itself(
    make_place: Callable[..., Place], own_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known_rucio.is_known(), f"add {known_rucio.shape()!r} to KNOWN if both ways make the same rows"
    place = make_place()
    assert "own functions" not in place.catalogue().described
    place.catalogue().add([place.file("a")], {place.did("run1"): [place.did("a")]})
    assert own_calls == []

    monkeypatch.setattr(replica_core, "tombstone_from_delay", lambda delay: None)
    assert not known_rucio.is_known()
    monkeypatch.undo()
    monkeypatch.setattr(models.DataIdentifier.__table__.c.is_new, "server_default", None)
    assert not known_rucio.is_known()
    monkeypatch.undo()
    monkeypatch.delattr(did_core, "__add_files_to_dataset")
    assert not known_rucio.is_known()
    catalogue = place.catalogue()
    monkeypatch.undo()
    assert catalogue.described.endswith("slowly, by Rucio's own functions")
    calls: list[int] = []
    monkeypatch.setattr(BulkRows, "add", lambda *_: calls.append(1))
    catalogue.add([place.file("b")], {})
    assert calls == []
    assert catalogue.look([place.did("b")])[place.did("b")].state == "AVAILABLE"


def test_what_a_site_has_put_round_rucio_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = replica_core.add_replicas

    @functools.wraps(original)
    def wrapper(*args: Any, **more: Any) -> None:
        original(*args, **more)

    assert known_rucio.is_known()
    monkeypatch.setattr(replica_core, "add_replicas", wrapper)
    assert not known_rucio.is_known()
    monkeypatch.undo()

    def heard(*_: object) -> None: ...

    for target, name in ((models.DataIdentifier, "after_insert"), (Session, "before_flush")):
        event.listen(target, name, heard)
        try:
            assert not known_rucio.is_known()
        finally:
            event.remove(target, name, heard)
        assert known_rucio.is_known()


@pytest.mark.parametrize("lost", [False, True], ids=["blocked", "connection lost"])
def test_only_a_lost_connection_ends_a_run(
    make_place: Callable[..., Place],
    own_calls: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lost: bool,
) -> None:
    def fail(_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("deadlock detected"), connection_invalidated=lost)

    place = make_place()
    catalogue = place.catalogue()
    files = [place.file("b"), place.file("a")]
    caplog.set_level(logging.INFO, database.__name__)
    monkeypatch.setattr(bulk_rows, "insert", fail)
    with pytest.raises(CatalogueError, match="deadlock") if lost else contextlib.nullcontext():
        catalogue.add(files, {})
    # In one order, whatever the folder listed first.
    assert own_calls == ([] if lost else [["a", "b"]])
    assert catalogue.remark.endswith("deadlock detected") is not lost
    assert ("2 files is left to Rucio's own functions: deadlock detected" in caplog.text) is not lost
    monkeypatch.undo()
    catalogue.add([place.file("c")], {})
    assert catalogue.remark == ""


@pytest.mark.parametrize("bulk", [True, False], ids=["in bulk", "by Rucio"])
def test_what_somebody_else_registers_meanwhile_is_compared(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch, bulk: bool
) -> None:
    place, elsewhere = make_place(), make_place()
    catalogue = place.catalogue(bulk=bulk)
    run1 = place.did("run1")
    rivals = [elsewhere.file("other size", did=place.did("other size"), size=6)]
    rivals.append(elsewhere.file("other sum", did=place.did("other sum"), checksums={"adler32": "0badcafe"}))
    rivals.append(elsewhere.file("no sum", did=place.did("no sum"), checksums={}))
    rivals.append(elsewhere.file("the same", did=place.did("the same")))
    look = catalogue.look

    def slow_look(dids: Collection[Did], **more: Any) -> Mapping[Did, Known]:
        found = look(dids, **more)
        while rivals:
            elsewhere.catalogue().add([rivals.pop()], {})
        return found

    monkeypatch.setattr(catalogue, "look", slow_look)
    batches = Batches(catalogue, keeps_paths=True, reader=None, size_only=False, dry_run=False)
    files = []
    for name in ("other size", "other sum", "no sum", "the same", "new"):
        told = place.file(name)
        reference = Reference(MountRoot("/"), f"people/{name}")
        info = FileInfo(reference=reference, size=told.size, is_directory=False, checksums=told.checksums)
        files.append(File(info=info, path=reference.path, shown=name, pfn=told.pfn, did=told.did, dataset=run1))
    rows = batches.register(files)
    assert {row.place: row.status for row in rows} == {
        **dict.fromkeys(("other size", "other sum", "no sum"), Status.CONFLICT),
        **dict.fromkeys(("the same", "new"), Status.REGISTERED),
    }
    found = look([file.did for file in files], parents=[run1])
    assert {did.name for did, known in found.items() if known.state} == {"the same", "new"}
    assert {did.name for did, known in found.items() if known.parents} == {"the same", "new"}


def test_no_list_is_too_long_for_oracle(make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    place, dialect = make_place(), oracle.dialect()  # type: ignore[no-untyped-call]
    statements: list[str] = []

    class OracleSession:
        def get_bind(self) -> object:
            return SimpleNamespace(dialect=dialect)

        def execute(self, statement: Any) -> list[object]:
            compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
            statements.append(str(compiled))
            return []

    monkeypatch.setattr(database, "db_session", lambda _: contextlib.nullcontext(OracleSession()))
    monkeypatch.setattr(database, "account_exists", lambda *_, **__: True)
    catalogue = place.catalogue()
    assert catalogue.described.endswith("slowly, by Rucio's own functions")
    names = [f"f{number}" for number in range(catalogue.most)]
    catalogue.others(names)
    catalogue.look([place.did(name) for name in names])
    lengths = [len(terms.split(",")) for text in statements for terms in re.findall(r"IN \(([^)]*)\)", text)]
    assert lengths == [2 * len(names), len(names)]
    # ORA-01795.
    assert max(lengths) <= 1000


def test_what_is_not_plain_is_left_to_rucio(make_place: Callable[..., Place], own_calls: list[list[str]]) -> None:
    place, elsewhere = make_place(), make_place()
    catalogue = place.catalogue()
    run1, run2 = place.did("run1"), place.did("run2")
    elsewhere.catalogue().add([elsewhere.file("known", did=place.did("known"))], {})
    assert own_calls == []

    # Some are known: those by Rucio, the others not, all in one go.
    files = [place.file("new"), place.file("known", is_unknown=False)]
    catalogue.add(files, {run1: [file.did for file in files], run2: [place.did("known")]})
    assert own_calls == [["known"]]
    found = catalogue.look([file.did for file in files], parents=[run1, run2])
    assert {did.name: (known.state, known.path, known.parents) for did, known in found.items()} == {
        "new": ("AVAILABLE", "people/new", frozenset({run1})),
        "known": ("AVAILABLE", "people/known", frozenset({run1, run2})),
    }

    # Somebody was quicker with one of them.
    own_calls.clear()
    files = [place.file("new"), place.file("newer")]
    catalogue.add(files, {run2: [file.did for file in files]})
    assert own_calls == [["new", "newer"]]
    found = catalogue.look([file.did for file in files], parents=[run2])
    assert [known.parents for known in found.values()] == [{run2}, {run2}]


#: What Rucio refuses -> name of the dataset, DID of the file, and what Rucio says.
REFUSED: dict[str, tuple[str, Did | None, str]] = {
    "closed": ("closed", None, "is closed"),
    "no dataset": ("nowhere", None, "not found"),
    "container": ("box", None, "to a container .* is forbidden"),
    "no scope": ("run1", Did("no-such-scope", "refused"), "Scope not found"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_rucio_refuses_is_refused_and_nothing_stays(
    make_place: Callable[..., Place], own_calls: list[list[str]], what: str
) -> None:
    place = make_place()
    dataset, did, said = REFUSED[what]
    refused = place.file("refused", **({"did": did} if did else {}))
    now = utc_now()
    with writing() as session:
        before = all_rows(session, now)
    with pytest.raises(Refused, match=said):
        place.catalogue().add([place.file("beside"), refused], {place.did(dataset): [refused.did]})
    with writing() as session:
        after = all_rows(session, now)
    assert not gone(before, after)
    assert not gone(after, before)
    # Rucio itself said so.
    assert own_calls == [["beside", "refused"]]


def test_a_place_that_is_none_of_the_rse_is_refused(make_place: Callable[..., Place]) -> None:
    place, other = make_place(deterministic=True), make_place()
    wrong = NewFile(did=place.did("x"), size=1, checksums={}, pfn=place.file("y").pfn, is_unknown=True)
    with pytest.raises(Refused):
        place.catalogue().add([wrong], {})
    with pytest.raises(NotPlain), writing() as session:
        other.bulk().add(session, [NewFile(did=other.did("x"), size=1, checksums={}, pfn="davs://a.test/x")], {})
    # The RSE was another when the run began.
    with pytest.raises(NotPlain, match="is not what it was"), writing() as session:
        BulkRows(place.rse_id, ACCOUNT, keeps_paths=True).add(session, [place.file("x")], {})


def test_datasets_are_made_though_one_is_there(make_place: Callable[..., Place]) -> None:
    place = make_place()
    catalogue = place.catalogue()
    names = [place.did(name) for name in ("before", "run1", "behind")]
    catalogue.make(names, "DATASET")
    assert {did.name: known.kind for did, known in catalogue.look(names).items()} == dict.fromkeys(
        ("before", "run1", "behind"), "DATASET"
    )


def test_large_batches_go_to_rucio_in_parts(
    make_place: Callable[..., Place], own_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.registration.database.MOST", 2)
    place = make_place()
    files = [place.file(f"f{number}") for number in range(5)]
    place.catalogue(bulk=False).add(files, {place.did("run1"): [file.did for file in files]})
    assert [len(call) for call in own_calls] == [2, 2, 1]
    found = place.catalogue().look([file.did for file in files], parents=[place.did("run1")])
    assert all(known.parents == {place.did("run1")} for known in found.values())
    assert len(found) == 5
