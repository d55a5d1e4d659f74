"""C1539 to C1554: deletions that nobody looks at before, and the removal of empty folders."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from rucio_cs3.cs3 import CS3Storage, FileInfo, Reference, errors
from rucio_cs3.cs3.empty_folders import Deed, EmptyFolders, Outcome
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from tests.contract.place import Place, endpoint_of
from tests.contract.test_deletion import bin_of, counted


@pytest.fixture
def calls(place: Place, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted(place.storage, monkeypatch)


# -- without looks ----------------------------------------------------------------------------------------------------


def test_c1539_a_deletion_without_a_look_is_one_call(place: Place, calls: Counter[str]) -> None:
    files = [place.put(f"{number}", b"x") for number in range(3)]
    long = place.put("n" * 250, b"x")
    deletions = place.storage.file_deletions(looks=False)
    calls.clear()
    for number, file in enumerate(files):
        deletions.delete(file, files[number + 1 :])
    assert calls == {"Delete": 3}
    deletions.delete(long)
    assert place.names() == []
    assert {item.reference for item in bin_of(place)} >= set(files)


def test_c1540_without_a_look_a_folder_goes_with_all_in_it(place: Place) -> None:
    """Said loudly in the documentation; it can be restored."""
    inner = place.put("folder/inner", b"x")
    place.storage.file_deletions(looks=False).delete(inner.parent)
    assert place.names() == []
    (item,) = bin_of(place)
    place.storage.recycle_bin.restore(item)
    assert place.stored(inner) == b"x"


@pytest.mark.parametrize("name", ["missing", "no-folder/missing", "n" * 250])
def test_c1541_without_a_look_what_is_not_there_is_not_found(place: Place, name: str) -> None:
    with pytest.raises(errors.NotFound):
        place.storage.file_deletions(looks=False).delete(place.file(name))
    assert place.names() == []


def test_c1542_a_not_found_without_a_look_is_looked_after(place: Place) -> None:
    file = place.put("file", b"x")
    place.fault("gateway.Delete", "code:NOT_FOUND")
    with pytest.raises(errors.ServerFault, match="shows it all the same"):
        place.storage.file_deletions(looks=False).delete(file)
    assert place.stored(file) == b"x"
    place.fault("gateway.Delete", "lost-answer")
    place.storage.file_deletions(looks=False).delete(file)
    assert place.names() == []


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
def test_c1543_a_token_that_dies_without_a_look_is_not_noticed(mortal: Place, there: bool) -> None:
    file = mortal.put("file", b"x") if there else mortal.file("missing")
    mortal.fault("gateway.Delete", "expire-token")
    deletions = mortal.storage.file_deletions(looks=False)
    if there:
        deletions.delete(file)
    else:
        with pytest.raises(errors.NotFound):
            deletions.delete(file)
    assert mortal.names() == []


def test_c1544_a_purge_without_looks_is_refused(place: Place) -> None:
    with pytest.raises(errors.ConfigurationError, match="does not go with deletion_look never"):
        endpoint_of(place.cloud, deletion="purge", deletion_look="never")


def test_c1545_a_chunk_is_deleted_without_looks(
    place: Place, rucio_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Rucio's protocol class, where the RSE wants that; what is gone with the prefix is not "deleted"."""
    from rucio.common.exception import ServiceUnavailable, SourceNotFound
    from rucio.rse import rsemanager

    from tests.contract.faces import rse_of

    rse = rse_of(place, {"cs3_delete_look": "never"})
    protocol = rsemanager.create_protocol(rse, "delete")
    user = next(iter(place.cloud.users.values()))
    protocol.connect({"username": user.username, "password": user.password})
    pfns = [
        pfn
        for name in ("one", "two", "missing")
        for pfn in rsemanager.lfns2pfns(rse, [{"scope": "user.jdoe", "name": name, "path": None}], "delete").values()
    ]
    for pfn in pfns[:2]:
        place.storage.upload(place.local_file(b"12345"), protocol.reference(pfn))
    calls = counted(protocol.storage, monkeypatch)
    for pfn in pfns[:2]:
        protocol.delete(pfn)
    assert (calls["Stat"], calls["Delete"]) == (0, 2)
    assert [path for path in place.on_disk(place.folder).rglob("*") if path.is_file()] == []
    with pytest.raises(SourceNotFound):
        protocol.delete(pfns[2])
    place.storage.delete(place.folder)
    with pytest.raises(ServiceUnavailable, match="not even the prefix's folder"):
        protocol.delete(pfns[2])
    place.storage.make_directories(place.folder)


# -- empty folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(place: Place) -> EmptyFolders:
    return place.storage.empty_folders(place.folder)


def seen(place: Place, name: str) -> FileInfo:
    """A folder, made now."""
    place.storage.make_directories(place.file(name))
    return place.storage.stat(place.file(name))


def removed(folders: EmptyFolders, info: FileInfo, **options: Any) -> Outcome:
    (settled,) = folders.settle([folders.remove(info, **options)])
    return settled


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done between the last look and the Delete that follows."""

    def plan(act: Callable[[], object]) -> None:
        delete = Gateway.delete

        def late(self: Gateway, reference: Reference, **options: Any) -> str | None:
            monkeypatch.setattr(Gateway, "delete", delete)
            act()
            return delete(self, reference, **options)

        monkeypatch.setattr(Gateway, "delete", late)

    return plan


def on_disk(place: Place, name: str, data: bytes) -> Path:
    path = place.on_disk(place.file(name))
    path.write_bytes(data)
    return path


def test_c1546_an_empty_folder_goes(place: Place, folders: EmptyFolders) -> None:
    place.put("kept", b"k")
    settled = removed(folders, seen(place, "a/b"))
    assert settled.deed is Deed.REMOVED
    assert place.names() == ["a", "kept"]
    assert place.storage.list(place.file("a")) == []
    # Out of the bin, too, where that is how it is found out that it is empty.
    left = [] if place.endpoint.stores_paths else [place.file("a/b")]
    assert [item.reference for item in bin_of(place)] == left


@pytest.mark.parametrize("what", ["file", "folder", ".hidden"])
def test_c1547_a_folder_that_is_not_empty_stays(place: Place, folders: EmptyFolders, what: str) -> None:
    place.storage.make_directories(place.file("a"))
    if what == "folder":
        place.storage.make_directories(place.file("a/folder"))
    else:
        place.put(f"a/{what}", b"x")
    with pytest.raises(errors.PreconditionFailed, match="not empty any more"):
        folders.remove(place.storage.stat(place.file("a")))
    assert sorted(path.name for path in place.on_disk(place.file("a")).iterdir()) == [what]
    assert bin_of(place) == []


def test_c1548_a_folder_that_was_changed_stays(place: Place, folders: EmptyFolders) -> None:
    """Something came and went; unless that was our own removal."""
    info = seen(place, "a")
    os.utime(place.on_disk(place.file("a")), (1e9, 1e9))
    old = place.storage.stat(place.file("a"))
    place.storage.delete(place.put("a/x", b"x"))
    with pytest.raises(errors.PreconditionFailed, match="was changed since"):
        folders.remove(old)
    with pytest.raises(errors.PreconditionFailed, match="was changed since"):
        folders.remove(old, ours_until_s=time.time() - 60)
    assert place.names() == ["a"]
    assert removed(folders, old, ours_until_s=time.time() + 60).deed is Deed.REMOVED
    with pytest.raises(errors.NotFound):
        folders.remove(info)
    place.put("a", b"a file by now")
    with pytest.raises(errors.PreconditionFailed, match="is a file by now"):
        folders.remove(info)
    assert place.stored(place.file("a")) == b"a file by now"


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("answer", ["an answer", "a lost answer"])
def test_c1549_what_came_between_look_and_delete_comes_back(
    place: Place, folders: EmptyFolders, arriving: Callable[[Callable[[], object]], None], size: int, answer: str
) -> None:
    info = seen(place, "a/b")
    arriving(lambda: on_disk(place, "a/b/late", b"x" * size))
    if answer == "a lost answer":
        place.fault("gateway.Delete", "lost-answer")
    deleted = folders.remove(info)
    assert not place.on_disk(place.file("a/b")).exists()
    # What is above may be gone by then, too.
    place.storage.delete(place.file("a"))
    (settled,) = folders.settle([deleted])
    assert (settled.deed, settled.why) == (Deed.RESTORED, "")
    assert place.stored(place.file("a/b/late")) == b"x" * size
    assert [item.reference for item in bin_of(place)] == [place.file("a")]


def test_c1550_what_cannot_come_back_is_told(
    place: Place, folders: EmptyFolders, arriving: Callable[[Callable[[], object]], None]
) -> None:
    """Somebody has made the folder again by then; all is kept."""
    info = seen(place, "a")
    arriving(lambda: on_disk(place, "a/late", b"late"))
    deleted = folders.remove(info)
    place.put("a/other", b"other")
    (settled,) = folders.settle([deleted])
    assert settled.deed is Deed.NOT_RESTORED
    assert "stays" in settled.why
    assert place.stored(place.file("a/other")) == b"other"
    (item,) = bin_of(place)
    place.storage.delete(place.file("a"))
    place.storage.recycle_bin.restore(item)
    assert place.stored(place.file("a/late")) == b"late"


@pytest.mark.parametrize("trouble", ["gone from the bin", "no listing", "no purge"])
def test_c1551_what_nobody_can_say_is_told(
    place: Place, folders: EmptyFolders, trouble: str, short_pauses: None
) -> None:
    deleted = folders.remove(seen(place, "a"))
    if trouble == "gone from the bin":
        (item,) = bin_of(place)
        place.storage.recycle_bin.purge(item)
    else:
        asked = "PurgeRecycle" if trouble == "no purge" and place.endpoint.stores_paths else "ListRecycle"
        place.fault(f"gateway.{asked}", "code:PERMISSION_DENIED")
    (settled,) = folders.settle([deleted])
    assert settled.deed is Deed.UNCHECKED
    assert settled.why
    assert place.names() == []


def test_c1552_only_where_a_purge_is_no_danger_is_it_a_look(place: Place, folders: EmptyFolders) -> None:
    """A server of paths whose bin does not show the marks of Reva's ``local`` driver may purge folders with all in
    them; a space's bin is only listed."""
    deleted = folders.remove(seen(place, "a"))
    (item,) = bin_of(place)
    inside = place.storage.recycle_bin.is_empty(replace(item, by_rmdir=False))
    assert inside is (None if place.endpoint.stores_paths else True)
    assert [one.key for one in bin_of(place)] == [item.key]
    assert [one.deed for one in folders.settle([deleted])] == [Deed.REMOVED]


def test_c1554_a_purge_that_takes_all_is_found_out_before(
    place: Place,
    folders: EmptyFolders,
    arriving: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a folder of our own; a later version of Reva may do so. What had come into a folder is still in the bin."""
    purge = RecycleBin.purge
    places = []

    def recursive(self: RecycleBin, item: RecycledItem) -> bool:
        places.append(item.reference)
        try:
            return purge(self, item)
        except errors.ServerFault:
            return True

    monkeypatch.setattr(RecycleBin, "purge", recursive)
    info = seen(place, "a")
    arriving(lambda: on_disk(place, "a/late", b"late"))
    deleted = folders.remove(info)
    (settled,) = folders.settle([deleted])
    assert settled.deed is (Deed.UNCHECKED if place.endpoint.stores_paths else Deed.RESTORED)
    assert place.file("a") not in places
    for item in bin_of(place):
        if item.reference == place.file("a"):
            place.storage.recycle_bin.restore(item)
    assert place.stored(place.file("a/late")) == b"late"


def upload_under_way(place: Place, name: str) -> Callable[[], int]:
    """The ticket of an upload; call what comes back to send the bytes, for the HTTP status."""
    storage: CS3Storage = place.storage
    ticket = next(
        one for one in storage.gateway.initiate_upload(place.file(name), 5) if one.protocol in ("simple", "spaces")
    )

    def send() -> int:
        headers = {"x-access-token": storage.access_token(), "X-Reva-Transfer": ticket.token}
        return requests.put(ticket.url, data=b"12345", headers=headers, timeout=30).status_code

    return send


def test_c1553_an_upload_under_way_into_a_folder_that_goes(place: Place, folders: EmptyFolders) -> None:
    """It leaves nothing there, and fails (`spaces`: its status means nothing, for what OpenCloud does was only read in
    its source); the next upload makes the folder again.
    """
    info = seen(place, "a/b")
    send = upload_under_way(place, "a/b/late")
    assert place.storage.list(info.reference) == []
    assert removed(folders, info).deed is Deed.REMOVED
    status = send()
    if place.endpoint.stores_paths:
        assert status == 500
    assert place.storage.list(place.file("a")) == []
    file = place.put("a/b/again", b"again")
    assert place.stored(file) == b"again"
