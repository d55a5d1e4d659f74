"""C1501 to C1538: the recycle bin, deletions that free, deletions of many files, and locks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import CS3Storage, Reference, errors, file_deletions, purging
from rucio_cs3.cs3.recycle import RecycledItem
from rucio_cs3.cs3.resources import to_message
from rucio_cs3.cs3.server_clock import ClockOffset, clock_offset
from rucio_cs3.sandbox.cloud.faults import FOREVER
from tests.contract.place import Place


def bin_of(place: Place) -> list[RecycledItem]:
    """What was deleted below the folder of the case, oldest first."""
    return sorted(place.storage.recycle_bin.items(place.folder), key=lambda item: item.deleted_at_s)


def names_in_bin(place: Place) -> list[str]:
    return [item.reference.path.removeprefix(f"{place.folder.path}/") for item in bin_of(place)]


def recycled(place: Place, name: str, data: bytes) -> RecycledItem:
    """A file that was put and deleted: the newest item of its place."""
    reference = place.put(name, data)
    known = {item.key for item in bin_of(place)}
    place.storage.delete(reference)
    (item,) = [item for item in bin_of(place) if item.key not in known]
    assert item.reference == reference
    return item


@pytest.fixture
def calls(place: Place, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """gRPC calls of the case's storage, by method, from when it is cleared on."""
    return counted(place.storage, monkeypatch)


def counted(storage: CS3Storage, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    made: Counter[str] = Counter()
    call = storage._gateway._call_once

    def count(method: str, *arguments: Any) -> Any:
        made[method] += 1
        return call(method, *arguments)

    monkeypatch.setattr(storage._gateway, "_call_once", count)
    return made


# -- the recycle bin --------------------------------------------------------------------------------------------------


def test_c1501_what_was_deleted_is_listed(place: Place) -> None:
    file, kept = place.put("a/file #1", b"12345"), place.put("kept", b"y")
    place.put("folder/inner", b"x")
    began_s = time.time()
    place.storage.delete(file)
    place.storage.delete(place.file("folder"))
    found = {item.reference: item for item in bin_of(place)}
    assert found.keys() == {file, place.file("folder")}
    item = found[file]
    assert (item.is_directory, place.storage.recycle_bin.measured(item).size) == (False, 5)
    # Whole seconds at one line.
    assert began_s - 1 <= item.deleted_at_s <= time.time() + 1
    assert found[place.file("folder")].is_directory
    assert [one.reference for one in place.storage.recycle_bin.items(place.file("a"))] == [file]
    assert list(place.storage.recycle_bin.items(kept)) == []


def test_c1502_deletions_of_a_time_are_listed(place: Place) -> None:
    item = recycled(place, "file", b"x")
    at_s, look = item.deleted_at_s, place.storage.recycle_bin.items
    assert [one.key for one in look(place.folder, since_s=at_s - 1, until_s=at_s + 1)] == [item.key]
    assert list(look(place.folder, since_s=at_s + 1)) == []
    assert list(look(place.folder, since_s=0, until_s=at_s - 1)) == []


@pytest.mark.parametrize("folder", ["stays", "is gone"])
def test_c1503_what_is_restored_is_where_it_was(place: Place, folder: str) -> None:
    item = recycled(place, "a/b/file", b"content")
    if folder == "is gone":
        place.storage.delete(place.file("a"))
    place.storage.recycle_bin.restore(item)
    assert place.stored(place.file("a/b/file")) == b"content"
    assert item.key not in {one.key for one in bin_of(place)}


def test_c1504_nothing_is_restored_over_what_is_there(place: Place, calls: Counter[str]) -> None:
    item = recycled(place, "file", b"old")
    place.put("file", b"new")
    with pytest.raises(errors.AlreadyExists) as caught:
        place.storage.recycle_bin.restore(item)
    assert str(item.reference) in str(caught.value)
    assert place.stored(item.reference) == b"new"
    assert names_in_bin(place) == ["file"]
    # OpenCloud's posix driver would replace it (code: posix/trashbin/trashbin.go).
    assert "RestoreRecycleItem" not in calls


def test_c1505_what_is_gone_is_not_restored(place: Place) -> None:
    item = recycled(place, "file", b"x")
    assert place.storage.recycle_bin.purge(item)
    with pytest.raises(errors.NotFound, match="no longer in the recycle bin") as caught:
        place.storage.recycle_bin.restore(item)
    assert str(item.reference) in str(caught.value)
    assert place.names() == []


def test_c1506_an_older_version_is_restored(place: Place) -> None:
    old, new = recycled(place, "file", b"old"), recycled(place, "file", b"newer")
    assert names_in_bin(place) == ["file", "file"]
    place.storage.recycle_bin.restore(old)
    assert place.stored(place.file("file")) == b"old"
    assert [item.key for item in bin_of(place)] == [new.key]


def test_c1507_a_lost_answer_to_a_restoration_is_resolved_by_a_look(place: Place) -> None:
    item = recycled(place, "file", b"content")
    place.fault("gateway.RestoreRecycleItem", "lost-answer")
    place.storage.recycle_bin.restore(item)
    assert place.stored(item.reference) == b"content"
    assert bin_of(place) == []


def test_c1508_a_restoration_that_did_not_happen_is_an_error(place: Place) -> None:
    item = recycled(place, "file", b"content")
    place.fault("gateway.RestoreRecycleItem", "grpc:UNAVAILABLE")
    with pytest.raises(errors.Unavailable):
        place.storage.recycle_bin.restore(item)
    assert place.names() == []
    assert names_in_bin(place) == ["file"]


def test_c1509_exactly_one_item_is_purged(place: Place) -> None:
    first, second, other = (recycled(place, name, name.encode()) for name in ("file", "file", "other"))
    assert place.storage.recycle_bin.purge(second)
    assert {item.key for item in bin_of(place)} == {first.key, other.key}
    place.storage.recycle_bin.restore(first)
    assert place.stored(first.reference) == b"file"


@pytest.mark.parametrize("script", ["lost-answer", "grpc:UNAVAILABLE", "code:UNAVAILABLE"])
def test_c1510_a_purge_is_made_once_in_spite_of_a_lost_answer(place: Place, script: str, short_pauses: None) -> None:
    item, other = recycled(place, "file", b"x"), recycled(place, "other", b"x")
    place.fault("gateway.PurgeRecycle", script)
    place.storage.recycle_bin.purge(item)
    assert [one.key for one in bin_of(place)] == [other.key]
    assert not place.storage.recycle_bin.purge(item)


@pytest.mark.parametrize("key", ["", ".", "/", "./", "..", "a/b"])
def test_c1511_no_key_means_the_whole_bin(place: Place, key: str, calls: Counter[str]) -> None:
    item = recycled(place, "file", b"x")
    calls.clear()
    for act in (place.storage.recycle_bin.purge, place.storage.recycle_bin.restore):
        with pytest.raises(errors.InvalidRequest):
            act(replace(item, key=key))
    assert not calls.keys() & {"PurgeRecycle", "RestoreRecycleItem"}
    assert names_in_bin(place) == ["file"]


# -- deletions that free ----------------------------------------------------------------------------------------------


def delete_and_purge(place: Place, *names: str) -> list[str]:
    """Delete files and purge them; why some stay in the bin."""
    deleted = [place.storage.delete_file(place.file(name)) for name in names]
    return [one.why for one in place.storage.purge(place.folder, deleted)]


def test_c1512_deletions_are_purged_together(place: Place, calls: Counter[str]) -> None:
    mine, theirs = [f"a/{number}" for number in range(6)], [f"b/{number}" for number in range(6)]
    for name in mine + theirs:
        place.put(name, name.encode())
    for name in theirs:
        place.storage.delete(place.file(name))
    calls.clear()
    assert delete_and_purge(place, *mine) == []
    assert sorted(names_in_bin(place)) == theirs
    # One listing where the server does not say what a file has become; the other is that of the line above.
    listings = 2 if place.endpoint.stores_paths else 0
    assert calls == {"Stat": 6, "Delete": 6, "PurgeRecycle": 6, "ListRecycle": calls["ListRecycle"]}
    assert calls["ListRecycle"] == listings // 2 + 1


def test_c1513_an_older_version_in_the_bin_stays(place: Place) -> None:
    old = recycled(place, "file", b"older")
    place.put("file", b"new")
    assert delete_and_purge(place, "file") == []
    assert [item.key for item in bin_of(place)] == [old.key]


def test_c1514_what_cannot_be_told_apart_stays(place: Place) -> None:
    """Another of the same place and size, deleted a moment before by somebody else."""
    theirs = recycled(place, "file", b"same")
    place.put("file", b"same")
    why = delete_and_purge(place, "file")
    if place.endpoint.stores_paths:
        assert len(why) == 1
        assert "which is ours cannot be told" in why[0]
        assert names_in_bin(place) == ["file", "file"]
    else:
        assert why == []
        assert [item.key for item in bin_of(place)] == [theirs.key]


def test_c1515_two_deletions_of_one_place_are_both_ours(place: Place) -> None:
    deleted = []
    for _ in range(2):
        deleted.append(place.storage.delete_file(place.put("file", b"same")))
    assert place.storage.purge(place.folder, deleted) == []
    assert bin_of(place) == []


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "INTERNAL", "UNIMPLEMENTED"])
def test_c1516_a_server_that_does_not_purge_is_told(place: Place, code: str) -> None:
    place.put("file", b"x")
    place.fault("gateway.PurgeRecycle", f"code:{code}")
    (why,) = delete_and_purge(place, "file")
    assert code in why
    assert place.names() == []
    assert names_in_bin(place) == ["file"]


def test_c1517_a_bin_that_cannot_be_listed_is_told(place: Place, short_pauses: None) -> None:
    place.put("file", b"x")
    place.fault("gateway.Delete", "lost-answer")
    place.fault("gateway.ListRecycle", "code:PERMISSION_DENIED", FOREVER)
    (why,) = delete_and_purge(place, "file")
    assert "PERMISSION_DENIED" in why
    place.cloud.faults.clear()
    assert names_in_bin(place) == ["file"]


def test_c1518_a_deletion_with_a_lost_answer_is_purged(place: Place) -> None:
    place.put("file", b"x")
    place.fault("gateway.Delete", "lost-answer")
    assert delete_and_purge(place, "file") == []
    assert bin_of(place) == []


@pytest.mark.parametrize("off_s", [-10.0, 10.0])
def test_c1519_an_item_of_another_time_is_not_ours(place: Place, off_s: float) -> None:
    """By the server's clock; where that is not known nothing is purged, and that is told."""
    offset = clock_offset(place.storage.http, place.endpoint)
    assert offset is not None
    assert offset.least_s <= 0 <= offset.most_s  # it runs on this machine
    purge = partial(purging.purge, place.storage.recycle_bin, place.folder)
    place.put("file", b"x")
    deleted = replace(place.storage.delete_file(place.file("file")), key=None)
    (remains,) = purge([deleted], lambda: None)
    assert "clock is not known" in remains.why
    other = replace(deleted, began_s=deleted.began_s + off_s, ended_s=deleted.ended_s + off_s)
    (remains,) = place.storage.purge(place.folder, [other])
    assert "by the server's clock" in remains.why
    assert names_in_bin(place) == ["file"]
    wrong = ClockOffset(least_s=offset.least_s - off_s, most_s=offset.most_s - off_s)
    assert purge([other], lambda: wrong) == []
    assert bin_of(place) == []


def test_c1520_long_names_are_purged(place: Place) -> None:
    place.put("n" * 250, b"x")
    assert delete_and_purge(place, "n" * 250) == []
    assert bin_of(place) == []
    assert place.names() == []


@pytest.mark.parametrize("known", ["by its key", "by its place"])
def test_c1521_whose_item_is_gone_has_no_other_purged(place: Place, known: str) -> None:
    """Somebody restores it before the end of the chunk; an older version of the same size is in the bin."""
    old = recycled(place, "file", b"older")
    deleted = place.storage.delete_file(place.put("file", b"newer"))
    (ours,) = [item for item in bin_of(place) if item.key != old.key]
    place.storage.recycle_bin.restore(ours)
    if known == "by its key":
        deleted = replace(deleted, key=ours.key)
    else:
        # As if the older one had been deleted ten seconds before, and not just now.
        deleted = replace(deleted, key=None, began_s=deleted.began_s + 10, ended_s=deleted.ended_s + 10)
    why = [one.why for one in place.storage.purge(place.folder, [deleted])]
    assert len(why) == (0 if known == "by its key" else 1)
    assert [item.key for item in bin_of(place)] == [old.key]
    assert place.stored(place.file("file")) == b"newer"


# -- many files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ahead is not too old on a busy machine either."""
    monkeypatch.setattr(file_deletions, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("time_stands_still")
def test_c1522_each_of_many_files_is_looked_at_once(place: Place, calls: Counter[str]) -> None:
    files = [place.put(f"{number}", b"x") for number in range(8)]
    deletions = place.storage.file_deletions()
    calls.clear()
    for number, file in enumerate(files):
        deletions.delete(file, files[number + 1 :])
    assert calls == {"Stat": len(files), "Delete": len(files)}
    assert place.names() == []


def test_c1523_looks_are_made_while_files_are_deleted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes its time for each Stat is waited for once, not once for each file."""
    files = [place.put(f"{number}", b"x") for number in range(6)]
    deletions = place.storage.file_deletions()
    stat, own = place.storage._gateway.stat, []

    def look(reference: Reference) -> Any:
        own.append(threading.current_thread() is threading.main_thread())
        return stat(reference)

    monkeypatch.setattr(place.storage._gateway, "stat", look)
    for number, file in enumerate(files):
        deletions.delete(file, files[number + 1 :])
    # The crew may be busy with another test's work, so not all need be by others.
    assert own[0]
    assert own.count(False) > 0


def test_c1524_a_folder_among_many_files_stays(place: Place) -> None:
    inner, file = place.put("folder/inner", b"x"), place.put("file", b"x")
    last = place.put("last", b"x")
    places = [file, inner.parent, last]
    deletions = place.storage.file_deletions()
    deletions.delete(file, places[1:])
    with pytest.raises(errors.InvalidRequest, match="is a folder"):
        deletions.delete(inner.parent, places[2:])
    deletions.delete(last)
    assert place.names() == ["folder"]
    assert place.stored(inner) == b"x"


def test_c1525_an_old_look_is_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file becomes a folder after it was looked at ahead."""
    first, second = place.put("first", b"x"), place.put("second", b"x")
    deletions = file_deletions.FileDeletions(place.storage._gateway, place.storage._namespace, look_s=0.0)
    deletions.delete(first, [second])
    place.storage.delete(second)
    inner = place.put("second/inner", b"x")
    with pytest.raises(errors.InvalidRequest, match="is a folder"):
        deletions.delete(second)
    assert place.stored(inner) == b"x"


def test_c1526_a_file_that_was_not_there_ahead_is_looked_at_again(place: Place) -> None:
    first, second, was_folder = place.put("first", b"x"), place.file("second"), place.file("folder")
    place.storage.make_directories(was_folder)
    deletions = place.storage.file_deletions()
    deletions.delete(first, [second, was_folder])
    place.put("second", b"x")
    place.storage.delete(was_folder)
    place.put("folder", b"x")
    deletions.delete(second, [was_folder, place.file("third")])
    deletions.delete(was_folder, [place.file("third")])
    with pytest.raises(errors.NotFound):
        deletions.delete(place.file("third"))
    assert place.names() == []


def test_c1527_a_token_that_dies_ahead_is_not_noticed(mortal: Place) -> None:
    files = [mortal.put(f"{number}", b"x") for number in range(4)]
    deletions = mortal.storage.file_deletions()
    deletions.delete(files[0], files[1:2])
    mortal.fault("gateway.Stat", "expire-token")
    for number, file in enumerate(files[1:], 1):
        deletions.delete(file, files[number + 1 :])
    assert mortal.names() == []


def test_c1528_files_of_one_name_deleted_at_the_same_moment_are_deleted(place: Place) -> None:
    """Reva v3.12.1 local has one key in its bin for those of a millisecond, and says INTERNAL to the later."""
    files = [place.put(f"{number}/name", b"x" * number) for number in range(1, 9)]
    barrier, failures = threading.Barrier(len(files)), []

    def delete(file: Reference) -> None:
        barrier.wait()
        try:
            place.storage.delete_file(file)
        except errors.CS3Error as error:
            failures.append(error)

    threads = [threading.Thread(target=delete, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [file for file in files if place.on_disk(file).exists()] == []


# -- as Rucio deletes -------------------------------------------------------------------------------------------------


@pytest.fixture
def chunk(place: Place, rucio_client: None) -> Callable[..., tuple[Any, list[str]]]:
    """Files, and a protocol object as Rucio's reaper makes it, which has made their names by other objects before."""
    from rucio.rse import rsemanager

    from tests.contract.faces import rse_of

    def make(number: int, **settings: Any) -> tuple[Any, list[str]]:
        # Each has a storage of its own in the process's pool.
        rse = rse_of(place, {**settings, "cs3_call_timeout_s": 20.0 + int(place.folder.path[5:]) / 1000})
        protocol = rsemanager.create_protocol(rse, "delete")
        user = next(iter(place.cloud.users.values()))
        pfns = []
        for name in range(number):
            lfn = {"scope": "user.jdoe", "name": f"file-{name}", "path": None}
            pfns.extend(rsemanager.lfns2pfns(rse, [lfn], operation="delete").values())
        protocol.connect({"username": user.username, "password": user.password})
        for pfn in pfns:
            place.storage.upload(place.local_file(b"12345"), protocol.reference(pfn))
        return protocol, pfns

    return make


def files_left(place: Place) -> list[str]:
    top = place.on_disk(place.folder)
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


@pytest.mark.usefixtures("time_stands_still")
@pytest.mark.parametrize("settings", [{}, {"cs3_delete": "keep"}, {"cs3_delete": "purge"}], ids=str)
def test_c1529_a_chunk_is_deleted_as_the_rse_wants(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]], settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, pfns = chunk(5, **settings)
    calls = counted(protocol.storage, monkeypatch)
    for pfn in pfns:
        protocol.delete(pfn)
    assert files_left(place) == []
    assert (calls["Stat"], calls["Delete"]) == (5, 5)
    protocol.close()
    assert len(names_in_bin(place)) == (0 if settings.get("cs3_delete") == "purge" else 5)
    protocol.close()


def test_c1530_rucio_is_told_what_stays_in_the_bin(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    protocol, pfns = chunk(2, cs3_delete="purge")
    place.fault("gateway.PurgeRecycle", "code:PERMISSION_DENIED", times=2)
    for pfn in pfns:
        protocol.delete(pfn)
    protocol.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (said,) = [text for text in warnings if "not purged from the recycle bin" in text]
    for pfn in pfns:
        assert str(protocol.reference(pfn)) in said
    assert files_left(place) == []
    assert len(names_in_bin(place)) == 2


def test_c1531_many_deletions_are_purged_before_the_end(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed leaves some in the bin, and not all."""
    monkeypatch.setattr("rucio_cs3.deletion.TOGETHER", 3)
    protocol, pfns = chunk(5, cs3_delete="purge")
    for pfn in pfns:
        protocol.delete(pfn)
    assert len(names_in_bin(place)) == 2
    protocol.close()
    assert names_in_bin(place) == []


def test_c1532_a_wrong_wish_is_said_at_once(place: Place, chunk: Callable[..., tuple[Any, list[str]]]) -> None:
    from rucio.common.exception import ConfigurationError

    with pytest.raises(ConfigurationError, match="cs3_delete is 'shred', but must be keep or purge"):
        chunk(0, cs3_delete="shred")


# -- locks ------------------------------------------------------------------------------------------------------------


def lock(place: Place, file: Reference, *, lock_id: str = "somebody's") -> Any:
    return provider_api_pb2.SetLockRequest(
        ref=to_message(file), lock=resources_pb2.Lock(lock_id=lock_id, type=resources_pb2.LOCK_TYPE_EXCL)
    )


def test_c1533_a_locked_file_is_deleted_later(spaces: Place) -> None:
    file, other = spaces.put("file", b"x"), spaces.put("other", b"x")
    gateway = spaces.storage._gateway
    request = lock(spaces, file)
    gateway.ask("SetLock", request, str(file))
    deletions = spaces.storage.file_deletions()
    with pytest.raises(errors.Locked) as caught:
        deletions.delete(file, [other])
    assert caught.value.retryable
    deletions.delete(other)
    assert spaces.stored(file) == b"x"
    gateway.ask("Unlock", provider_api_pb2.UnlockRequest(ref=request.ref, lock=request.lock), str(file))
    deletions.delete(file)
    assert spaces.names() == []


def test_c1534_a_lock_is_told_apart_from_a_fault_of_the_cloud(rucio_client: None) -> None:
    """Rucio's reaper excludes a whole RSE for a while after some faults of these classes."""
    from rucio.common import exception

    from rucio_cs3.rucio_exceptions import rucio_exception

    strikes = (exception.ServiceUnavailable, exception.RSEAccessDenied, exception.ResourceTemporaryUnavailable)
    for error in (errors.Locked("x"), errors.TooEarly("x"), errors.AccessDenied("x"), errors.ServerFault("x")):
        said = rucio_exception(error)
        assert not isinstance(said, (*strikes, exception.SourceNotFound)), error


# -- ends -------------------------------------------------------------------------------------------------------------


def test_c1535_what_was_not_purged_yet_can_be_restored(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]]
) -> None:
    """Whoever is killed between deletion and purge has deleted, and freed nothing."""
    protocol, pfns = chunk(2, cs3_delete="purge")
    protocol.delete(pfns[0])
    (item,) = bin_of(place)
    place.storage.recycle_bin.restore(item)
    assert place.stored(protocol.reference(pfns[0])) == b"12345"
    protocol.delete(pfns[0])
    protocol.delete(pfns[1])
    protocol.close()
    # Two deletions and one item: where the bin has to be searched nobody knows of which it is.
    left = [protocol.reference(pfns[0])] if place.endpoint.stores_paths else []
    assert [item.reference for item in bin_of(place)] == left


@pytest.mark.parametrize("method", ["ListRecycle", "RestoreRecycleItem", "PurgeRecycle"])
def test_c1536_a_token_that_dies_is_not_noticed(mortal: Place, method: str) -> None:
    item, other = recycled(mortal, "file", b"x"), recycled(mortal, "other", b"y")
    mortal.fault(f"gateway.{method}", "expire-token")
    if method == "RestoreRecycleItem":
        mortal.storage.recycle_bin.restore(item)
        assert mortal.stored(item.reference) == b"x"
    else:
        assert len(bin_of(mortal)) == 2
        assert mortal.storage.recycle_bin.purge(item)
    assert mortal.pending() == []
    assert [one.key for one in bin_of(mortal)] == [other.key]


@pytest.mark.parametrize("then", ["the same login", "another login"])
def test_c1537_what_one_login_deleted_is_purged_after_the_next(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]], then: str
) -> None:
    protocol, pfns = chunk(2, cs3_delete="purge")
    protocol.delete(pfns[0])
    user = next(iter(place.cloud.users.values()))
    protocol.connect({"username": user.username, "password": user.password})
    if then == "another login":
        protocol._take = lambda: place.storage
        protocol.delete(pfns[1])
        assert len(names_in_bin(place)) <= 1
    protocol.close()
    assert not [name for name in names_in_bin(place) if name.endswith("file-0")]


def test_c1538_nothing_more_is_begun_where_nobody_answers(
    place: Place, chunk: Callable[..., tuple[Any, list[str]]], monkeypatch: pytest.MonkeyPatch, short_pauses: None
) -> None:
    monkeypatch.setattr("rucio_cs3.deletion.TOGETHER", 6)
    protocol, pfns = chunk(12, cs3_delete="purge")
    calls = counted(protocol.storage, monkeypatch)
    place.fault("gateway.PurgeRecycle", "grpc:UNAVAILABLE", FOREVER)
    for pfn in pfns:
        protocol.delete(pfn)
    protocol.close()
    place.cloud.faults.clear()
    # Four at a time, each of which is tried four times.
    assert 0 < calls["PurgeRecycle"] <= 16
    assert len(names_in_bin(place)) == 12
