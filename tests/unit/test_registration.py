"""What registering decides, on a cloud and a catalogue in memory."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from rucio_cs3 import places
from rucio_cs3.cli.register import command
from rucio_cs3.cs3 import errors
from rucio_cs3.registration import keeping, opening
from rucio_cs3.registration.catalogue import MOST, CatalogueError, Known, NewFile, Overtaken
from rucio_cs3.registration.content_memory import ContentMemory
from rucio_cs3.registration.plan import Row, Status
from rucio_cs3.registration.reading import Reader
from rucio_cs3.registration.report import Report
from rucio_cs3.registration.templates import Did
from tests.unit.registration_world import Catalogue, Storage, World

TREE = {"a.txt": b"a", "run1/b.txt": b"bb", "run1/deep/c.txt": b"ccc", "run2/b.txt": b"other"}


@pytest.fixture
def world() -> World:
    return World(Storage(TREE))


def statuses(rows: dict[str, Row]) -> dict[str, Status]:
    return {place: row.status for place, row in rows.items()}


def all_are(rows: dict[str, Row], status: Status, *, but: dict[str, Status] | None = None) -> bool:
    return statuses(rows) == {**dict.fromkeys(rows, status), **(but or {})}


# -- the plain way --------------------------------------------------------------------------------------------


def test_all_files_become_replicas_with_their_checksums(world: World) -> None:
    rows = world.run()
    assert rows.keys() == TREE.keys()
    assert all_are(rows, Status.REGISTERED)
    assert world.catalogue.dids[Did("jdoe", "run1/b.txt")] == Known(
        kind="FILE", size=2, checksums={"adler32": "012800c5"}, state="AVAILABLE", path="run1/b.txt"
    )


def test_a_second_run_adds_nothing(world: World) -> None:
    options = {"dataset": "{folder}", "container": "group:all"}
    world.run(**options)
    before = (dict(world.catalogue.dids), set(world.catalogue.content))
    world.catalogue.writes.clear()
    report = Report()
    for row in world.run(**options).values():
        report.add(row)
    assert report.changed_nothing
    assert report.all_well
    assert report.files == Counter({Status.ALREADY: 4})
    assert (world.catalogue.dids, world.catalogue.content) == before
    assert world.catalogue.writes == []


def test_what_a_killed_run_has_left_is_completed(world: World) -> None:
    world.run()
    rows = world.run(dataset="{folder}")
    assert all_are(rows, Status.ALREADY)
    assert [place for place, row in rows.items() if row.attached] == ["run1/b.txt", "run1/deep/c.txt", "run2/b.txt"]
    assert (Did("jdoe", "run2"), Did("jdoe", "run2/b.txt")) in world.catalogue.content


def test_a_dry_run_changes_nothing_and_says_what_would_be(world: World) -> None:
    registration = world.registration(dataset="{folder}", dry_run=True)
    rows = {row.place: row for row in registration.rows()}
    assert all_are(rows, Status.PLANNED)
    assert registration.datasets == {Did("jdoe", "run1"): 1, Did("jdoe", "run1/deep"): 1, Did("jdoe", "run2"): 1}
    assert registration.made["DATASET"] == 3
    assert world.catalogue.writes == []
    assert world.catalogue.dids == {}


def test_names_do_not_depend_on_the_folder_that_is_named(world: World) -> None:
    world.run("run1")
    rows = world.run()
    assert [place for place, row in rows.items() if row.status is Status.ALREADY] == ["run1/b.txt", "run1/deep/c.txt"]


def test_a_dataset_that_is_there_is_not_made_again(world: World) -> None:
    world.run(dataset="{folder}")
    world.storage.files["run1/new.txt"] = b"new"
    world.catalogue.writes.clear()
    registration = world.registration(dataset="{folder}")
    assert {row.place for row in registration.rows() if row.attached} == {"CLOUD:run1/new.txt"}
    assert registration.made["DATASET"] == 0
    assert world.catalogue.writes == ["add", "attach"]


def test_many_files_go_in_batches() -> None:
    world = World(Storage({f"d/{number:05}": b"%d" % number for number in range(2 * MOST + 1)}))
    assert all_are(world.run(), Status.REGISTERED)
    assert world.catalogue.writes.count("add") == 3


def test_datasets_and_containers(world: World) -> None:
    registration = world.registration("run1", dataset="group:{folder:.}", container="{top}.all")
    assert all(row.attached for row in registration.rows())
    run1, deep = Did("group", "run1"), Did("group", "run1.deep")
    assert world.catalogue.content == {
        (run1, Did("jdoe", "run1/b.txt")),
        (deep, Did("jdoe", "run1/deep/c.txt")),
        (Did("jdoe", "run1.all"), run1),
        (Did("jdoe", "run1.all"), deep),
    }
    assert registration.made == {"DATASET": 2, "CONTAINER": 1}
    world.catalogue.disliked.add(deep)
    assert list(registration.rules(locked=False)) == [(run1, True), (deep, "no quota")]
    assert dict(registration.rules(locked=False))[run1] is False


# -- what is left out -----------------------------------------------------------------------------------------


def test_unfinished_uploads_and_what_is_excluded_are_skipped() -> None:
    world = World(Storage({".rucio-cs3.x.part": b"", "d/a.rucio.upload": b"", "d/b.tmp": b"", "d/c": b""}))
    rows = world.run(exclude=["*.tmp"])
    assert statuses(rows) == {
        ".rucio-cs3.x.part": Status.PARTIAL,
        "d/a.rucio.upload": Status.PARTIAL,
        "d/b.tmp": Status.EXCLUDED,
        "d/c": Status.REGISTERED,
    }
    report = Report()
    for row in rows.values():
        report.add(row)
    assert report.all_well


def test_a_file_without_a_checksum_is_left_out_unless_the_size_is_enough() -> None:
    world = World(Storage(TREE, sums=False))
    rows = world.run()
    assert all_are(rows, Status.NO_CHECKSUM)
    assert world.catalogue.dids == {}
    assert all_are(world.run(size_only=True), Status.REGISTERED)
    assert world.catalogue.dids[Did("jdoe", "a.txt")].checksums == {}


def test_files_are_read_once_where_that_is_asked_for() -> None:
    world = World(Storage(TREE, sums=False))
    world.storage.broken.add("run2/b.txt")
    rows = world.run(reader=Reader(world.storage, parallel=2))  # type: ignore[arg-type]
    assert all_are(rows, Status.REGISTERED, but={"run2/b.txt": Status.UNREADABLE})
    assert "the line broke" in rows["run2/b.txt"].reason
    assert world.catalogue.dids[Did("jdoe", "a.txt")].checksums == {"adler32": "00620062"}
    world.storage.reads.clear()
    again = world.run(reader=Reader(world.storage, parallel=2))  # type: ignore[arg-type]
    assert world.storage.reads == ["run2/b.txt"]
    assert all_are(again, Status.ALREADY, but={"run2/b.txt": Status.UNREADABLE})


def test_a_file_that_changes_while_it_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Storage(TREE, sums=False))
    read = world.storage.digests

    def changing(*arguments: object, **more: object) -> dict[str, str]:
        sums = read(*arguments, **more)  # type: ignore[arg-type]
        world.storage.files["a.txt"] = b"x"
        return sums

    monkeypatch.setattr(world.storage, "digests", changing)
    rows = world.run(reader=Reader(world.storage, parallel=1))  # type: ignore[arg-type]
    assert rows["a.txt"].status is Status.UNREADABLE
    assert "changed" in rows["a.txt"].reason


def test_a_dry_run_says_of_what_it_would_read_no_conflict() -> None:
    world = World(Storage({"a.txt": b"a"}, sums=False))
    world.catalogue.dids[Did("jdoe", "a.txt")] = Known(kind="FILE", size=1, checksums={"adler32": "00620062"})
    told = [world.run(reader=Reader(world.storage, parallel=1), dry_run=dry)["a.txt"].status for dry in (True, False)]  # type: ignore[arg-type]
    assert told == [Status.PLANNED, Status.REGISTERED]


def test_a_dry_run_reads_no_file() -> None:
    world = World(Storage(TREE, sums=False))
    assert all_are(world.run(reader=Reader(world.storage, parallel=1), dry_run=True), Status.PLANNED)  # type: ignore[arg-type]
    assert world.storage.reads == []


def test_what_the_server_works_on_and_what_it_does_not_list_is_said(world: World) -> None:
    world.storage.processing.add("a.txt")
    world.storage.unlistable.add("run1/deep")
    rows = world.run()
    assert rows.pop("run1/deep").status is Status.UNREADABLE
    assert all_are(rows, Status.REGISTERED, but={"a.txt": Status.UNREADABLE})


def test_names_that_are_not_allowed_are_refused_one_by_one(world: World) -> None:
    class Schema:
        def fault(self, did: Did) -> str | None:
            return "too deep" if did.name.count("/") > 1 else None

    rows = world.run(schema=Schema())
    assert all_are(rows, Status.REGISTERED, but={"run1/deep/c.txt": Status.REFUSED})
    assert rows["run1/deep/c.txt"].reason == "too deep"
    rows = world.run(scope="{path[0]}")
    assert all_are(rows, Status.REFUSED)
    assert "no scope 'run1'" in rows["run1/b.txt"].reason
    rows = world.run(scope="jdoe", name="{path[1]}", dry_run=True)
    assert rows["a.txt"].status is Status.REFUSED
    assert "has 1 parts" in rows["a.txt"].reason


def test_a_path_that_rucio_cannot_keep_is_refused() -> None:
    path = "/".join(["d" * 250] * 4 + ["e" * 19])
    assert len(path) == 1023
    world = World(Storage({path: b"", f"{path}e": b""}))
    assert statuses(world.run()) == {path: Status.REGISTERED, f"{path}e": Status.REFUSED}


def test_files_without_a_folder_are_in_no_dataset(world: World) -> None:
    rows = world.run(dataset="{folder}")
    assert rows["a.txt"].status is Status.REGISTERED
    assert rows["a.txt"].dataset is None


def test_a_place_outside_of_the_rse_is_refused(world: World) -> None:
    with pytest.raises(errors.InvalidReference, match="outside of the folder of RSE CLOUD"):
        world.registration("/elsewhere")
    with pytest.raises(errors.InvalidReference, match="outside"):
        world.registration("/based")


# -- conflicts ------------------------------------------------------------------------------------------------

HERE = {"kind": "FILE", "size": 1, "checksums": {"adler32": "00620062"}, "state": "AVAILABLE", "path": "a.txt"}


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"size": 2}, "has 2 bytes in Rucio, and the file 1"),
        ({"checksums": {"adler32": "00000000"}}, "adler32 00000000 in Rucio, and the file 00620062"),
        ({"size": 2, "state": None, "path": None}, "has 2 bytes"),
        ({"checksums": {"md5": "0" * 32}, "state": None, "path": None}, "no checksum that this file could be compared"),
        ({"kind": "DATASET"}, "is a dataset in Rucio"),
        ({"state": "BEING_DELETED"}, "that is being deleted"),
        ({"path": "elsewhere/a.txt"}, "is another file of this RSE in Rucio: elsewhere/a.txt"),
    ],
)
def test_what_differs_from_the_catalogue_is_a_conflict_and_stays(
    world: World, known: dict[str, object], why: str
) -> None:
    there = Known(**{**HERE, **known})  # type: ignore[arg-type]
    world.catalogue.dids[Did("jdoe", "a.txt")] = there
    for dry_run in (True, False):
        rows = world.run(dry_run=dry_run)
        assert rows["a.txt"].status is Status.CONFLICT
        assert why in rows["a.txt"].reason
        assert world.catalogue.dids[Did("jdoe", "a.txt")] == there


def test_a_known_file_of_another_rse_gets_a_replica_here(world: World) -> None:
    world.catalogue.dids[Did("jdoe", "a.txt")] = Known(kind="FILE", size=1, checksums=HERE["checksums"])  # type: ignore[arg-type]
    assert world.run()["a.txt"].status is Status.REGISTERED
    assert world.catalogue.unknown == {Did("jdoe", path) for path in TREE if path != "a.txt"}


def test_a_file_has_one_name_at_one_rse(world: World) -> None:
    world.run()
    rows = world.run(name="{path:.}")
    assert all_are(rows, Status.CONFLICT, but={"a.txt": Status.ALREADY})
    assert rows["run1/b.txt"].reason == "it is registered as jdoe:run1/b.txt at this RSE"


def test_two_files_with_one_name_are_a_conflict(world: World) -> None:
    rows = world.run(name="{name}")
    assert rows["run1/b.txt"].status is Status.REGISTERED
    assert rows["run2/b.txt"].status is Status.CONFLICT
    assert "CLOUD:run1/b.txt" in rows["run2/b.txt"].reason


def test_two_files_with_one_name_in_batches_of_one_moment_are_a_conflict() -> None:
    """Both have asked Rucio before either has told it of its file; and Rucio passes over what it has, in silence."""
    both = threading.Barrier(2, timeout=2.0)

    class Rucio(Catalogue):
        def look(self, dids: Collection[Did], **more: Any) -> Mapping[Did, Known]:
            found = super().look(dids, **more)
            if any(did.name.startswith("f") for did in dids):
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait()
            return found

        def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
            super().add([file for file in files if file.did not in self.dids], attachments)

    storage = Storage({f"run{run}/f{number:03}": b"x" * run for run in (1, 2) for number in range(MOST)})
    world = World(storage, Rucio())
    rows = world.run(name="{name}", dataset="{folder}")
    found = Counter((place.split("/")[0], row.status) for place, row in rows.items())
    assert found == {("run1", Status.REGISTERED): MOST, ("run2", Status.CONFLICT): MOST}
    assert {parent.name for parent, _ in world.catalogue.content} == {"run1"}


@pytest.mark.parametrize(
    ("known", "why"),
    [(Known(kind="CONTAINER", is_open=True), "is to be a dataset"), (Known(kind="DATASET"), "is closed in Rucio")],
)
def test_a_dataset_that_takes_no_files_leaves_them_out(world: World, known: Known, why: str) -> None:
    world.catalogue.dids[Did("jdoe", "run1")] = known
    rows = world.run(dataset="{folder}")
    assert all_are(rows, Status.REGISTERED, but={"run1/b.txt": Status.CONFLICT})
    assert why in rows["run1/b.txt"].reason
    assert Did("jdoe", "run1/b.txt") not in world.catalogue.dids


def test_a_closed_dataset_is_no_conflict_for_what_is_in_it(world: World) -> None:
    world.run(dataset="{folder}")
    world.catalogue.dids[Did("jdoe", "run1")] = Known(kind="DATASET")
    assert all_are(world.run(dataset="{folder}"), Status.ALREADY)


# -- a Rucio that refuses -------------------------------------------------------------------------------------


def test_the_one_file_that_rucio_refuses_does_not_keep_the_others_out(world: World) -> None:
    world.catalogue.disliked.add(Did("jdoe", "run1/b.txt"))
    rows = world.run(dataset="{folder}")
    assert all_are(rows, Status.REGISTERED, but={"run1/b.txt": Status.FAILED})
    assert rows["run1/b.txt"].reason == "no such names here"


def test_names_that_only_the_server_can_refuse(world: World) -> None:
    world.catalogue.disallowed = {Did("jdoe", "run1/b.txt"), Did("jdoe", "run2")}
    rows = world.run(dataset="{folder}")
    assert all_are(rows, Status.REGISTERED, but={"run1/b.txt": Status.REFUSED, "run2/b.txt": Status.CONFLICT})
    assert rows["run1/b.txt"].reason == rows["run2/b.txt"].reason == "against the schema"


def test_a_rucio_that_refuses_all_is_not_asked_for_each() -> None:
    world = World(Storage({f"{number:04}": b"" for number in range(400)}))
    world.catalogue.disliked = {Did("jdoe", path) for path in world.storage.files}
    with pytest.raises(CatalogueError, match="one file after the other"):
        world.run()
    assert world.catalogue.writes.count("add") < 60


def test_what_somebody_else_registers_meanwhile_is_compared_and_not_read_again() -> None:
    class Late(Catalogue):
        def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
            if not self.writes:
                self.writes.append("refused")
                self.dids[Did("jdoe", "a")] = Known(kind="FILE", size=1, checksums={"adler32": "0badcafe"})
                raise Overtaken("somebody was quicker")
            super().add(files, attachments)

    world = World(Storage({"a": b"a", "b": b"b"}, sums=False), Late())
    reader: Any = Reader(world.storage, parallel=1)  # type: ignore[arg-type]
    rows = world.run(reader=reader)
    assert statuses(rows) == {"a": Status.CONFLICT, "b": Status.REGISTERED}
    assert sorted(world.storage.reads) == ["a", "b"]
    assert world.catalogue.unknown == {Did("jdoe", "b")}


def test_an_early_end_begins_nothing_more() -> None:
    world = World(Storage({f"{number:05}": b"" for number in range(40 * MOST)}))
    rows = world.registration().rows()
    next(rows)
    rows.close()
    assert 1 <= world.catalogue.writes.count("add") < 20


# -- what is said ---------------------------------------------------------------------------------------------


def test_what_the_catalogue_remarks_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.catalogue.remark = "all of it was slow"
    rucio = opening.Rucio(catalogue=world.catalogue, schema=None, deterministic=None)
    monkeypatch.setattr(places, "find_rse", lambda _: world.place())
    monkeypatch.setattr(opening, "open_rucio", lambda *_, **__: rucio)
    finished = CliRunner().invoke(command, ["CLOUD:", "--scope", "jdoe"])
    assert finished.exit_code == 0, finished.output
    assert "all of it was slow" in finished.stderr.splitlines()


def test_a_row_is_json(world: World) -> None:
    row = world.run(dataset="{folder}")["run1/b.txt"]
    assert json.loads(json.dumps(row.as_dict())) == {
        "status": "registered",
        "place": "CLOUD:run1/b.txt",
        "scope": "jdoe",
        "name": "run1/b.txt",
        "dataset": "jdoe:run1",
        "bytes": 2,
        "adler32": "012800c5",
        "md5": None,
        "attached": True,
        "reason": None,
    }


@pytest.mark.parametrize(
    ("attributes", "harmless"),
    [
        ({}, True),
        ({"tombstone_delay": None}, True),
        ({"tombstone_delay": "0"}, True),
        ({"tombstone_delay": 0}, True),
        ({"tombstone_delay": "-1"}, False),
        ({"tombstone_delay": 3600}, False),
        ({"tombstone_delay": "soon"}, False),
    ],
)
def test_an_rse_where_the_reaper_would_delete_is_seen(attributes: dict[str, object], harmless: bool) -> None:
    said = keeping.danger("CLOUD", attributes)
    assert (said is None) == harmless
    assert said is None or "rucio rse attribute unset CLOUD --attribute tombstone_delay" in said


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "Missing option '--scope'"),
        (["--scope", "{nonsense}"], "there is no field nonsense"),
        (["--scope", "jdoe", "--rule"], "--rule needs datasets"),
        (["--scope", "jdoe", "--container", "all"], "--container needs datasets"),
        (["--scope", "jdoe", "--locked"], "--rule"),
        (["--scope", "jdoe", "--read-checksums", "--size-only"], "leave out --size-only"),
        (["--scope", "jdoe", "--dataset", "d", "--dataset-per-folder"], "give one of them"),
    ],
)
def test_wrong_usage_is_told_before_rucio_is_asked(options: list[str], why: str) -> None:
    result = CliRunner().invoke(command, ["CLOUD:x", *options])
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())


def test_datasets_are_listed_once_and_memory_is_bounded() -> None:
    memory, listed = ContentMemory(5), []

    def listing(dataset: Did) -> Iterator[Did]:
        listed.append(dataset.name)
        yield from (Did("s", f"{dataset.name}{number}") for number in range(int(dataset.name)))

    three, two, one, ten = (Did("s", name) for name in ("3", "2", "1", "10"))
    for dataset in (three, three, two, three, ten, ten):
        found = memory.of(dataset, listing)
        assert (found is None) == (dataset is ten)
        assert found is None or len(found) == int(dataset.name)
    assert listed == ["3", "2", "10"]
    memory.of(one, listing)
    memory.forget([two])
    for dataset in (two, three):
        memory.of(dataset, listing)
    assert listed == ["3", "2", "10", "1", "2", "3"]
