"""C4xx: stat, list, folders, move, delete, quota."""

from __future__ import annotations

import threading

import pytest
from cs3.rpc.v1beta1 import code_pb2

from rucio_cs3.cs3 import Reference, errors
from rucio_cs3.sandbox.cloud.faults import FOREVER
from tests.contract.place import Place, content

CODES = sorted(set(code_pb2.Code.keys()) - {"CODE_OK"})


def test_c401_stat_of_a_file(place: Place) -> None:
    reference = place.put("file", b"12345")
    info = place.storage.stat(reference)
    assert (info.reference, info.size, info.is_directory, info.processing) == (reference, 5, False, False)
    assert info.etag
    assert info.mtime_s == pytest.approx(place.on_disk(reference).stat().st_mtime, abs=2)
    assert info.checksums.get("adler32", "02f80100") == "02f80100"
    assert place.storage.exists(reference)


def test_c402_stat_of_a_folder(place: Place) -> None:
    info = place.storage.stat(place.folder)
    assert (info.reference, info.is_directory, dict(info.checksums)) == (place.folder, True, {})
    assert place.storage.exists(place.folder)


@pytest.mark.parametrize("name", ["missing", "missing/below"])
def test_c403_stat_of_nothing(place: Place, name: str) -> None:
    missing = place.file(name)
    with pytest.raises(errors.NotFound) as caught:
        place.storage.stat(missing)
    assert str(missing) in str(caught.value)
    assert not place.storage.exists(missing)


def test_c404_an_empty_file_has_a_checksum(place: Place) -> None:
    assert place.storage.stat(place.put("empty", b"")).checksums["adler32"] == "00000001"


def test_c405_a_listing_is_sorted_and_names_places(place: Place) -> None:
    for name in ("b", "a b", "ä", "a/inner", ".hidden"):
        place.put(name, name.encode())
    listed = place.storage.list(place.folder)
    assert [info.reference for info in listed] == [place.file(name) for name in (".hidden", "a", "a b", "b", "ä")]
    assert [info.is_directory for info in listed] == [False, True, False, False, False]
    for info in listed:
        assert place.storage.stat(info.reference).size == info.size or info.is_directory


def test_c406_a_listing_of_a_file(place: Place) -> None:
    file = place.put("file", b"x")
    with pytest.raises(errors.InvalidRequest, match="is a file") as caught:
        place.storage.list(file)
    assert str(file) in str(caught.value)


def test_c407_a_listing_of_nothing(place: Place) -> None:
    with pytest.raises(errors.NotFound) as caught:
        place.storage.list(place.file("missing"))
    assert str(place.file("missing")) in str(caught.value)


def test_c408_folders_are_made_once(place: Place) -> None:
    folder = place.file("a/b/c")
    place.storage.make_directories(folder)
    inner = place.put("a/b/c/file", b"x")
    place.storage.make_directories(folder)
    assert place.stored(inner) == b"x"


def test_c409_two_make_the_same_folders(place: Place) -> None:
    folder = place.file("one/two/three")
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait()
        try:
            place.storage.make_directories(folder)
        except errors.CS3Error as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert place.storage.stat(folder).is_directory


def test_c410_move_makes_folders(place: Place) -> None:
    source, destination = place.put("source", b"content"), place.file("new/folder/name #1")
    place.storage.move(source, destination)
    assert place.stored(destination) == b"content"
    assert place.names() == ["new"]


def test_c411_move_replaces_nothing(place: Place) -> None:
    source, destination = place.put("source", b"content"), place.put("taken", b"other")
    with pytest.raises(errors.AlreadyExists, match="the new name is taken") as caught:
        place.storage.move(source, destination)
    assert str(destination) in str(caught.value)
    assert (place.stored(source), place.stored(destination)) == (b"content", b"other")


def test_c412_move_of_nothing(place: Place) -> None:
    missing = place.file("missing")
    with pytest.raises(errors.NotFound) as caught:
        place.storage.move(missing, place.file("new/name"))
    assert str(missing) in str(caught.value)
    assert place.names() == []


def test_c413_a_lost_answer_to_a_move_is_resolved_by_a_look(place: Place) -> None:
    source, destination = place.put("source", b"content"), place.file("destination")
    place.fault("gateway.Move", "lost-answer")
    place.storage.move(source, destination)
    assert place.pending() == []
    assert place.names() == ["destination"]


def test_c414_a_move_that_did_not_happen_is_an_error(place: Place) -> None:
    source, destination = place.put("source", b"content"), place.file("destination")
    place.fault("gateway.Move", "grpc:UNAVAILABLE")
    with pytest.raises(errors.Unavailable) as caught:
        place.storage.move(source, destination)
    assert str(destination) in str(caught.value)
    assert place.names() == ["source"]


def test_c415_delete(place: Place) -> None:
    file, kept = place.put("file", b"x"), place.put("kept", b"y")
    place.storage.delete(file)
    assert not place.storage.exists(file)
    assert place.stored(kept) == b"y"
    assert place.names() == ["kept"]


@pytest.mark.parametrize("name", ["missing", "missing/below"])
def test_c416_delete_of_nothing(place: Place, name: str) -> None:
    missing = place.file(name)
    with pytest.raises(errors.NotFound) as caught:
        place.storage.delete(missing)
    assert str(missing) in str(caught.value)


def test_c417_a_lost_answer_to_a_delete_is_resolved_by_a_look(place: Place) -> None:
    file = place.put("file", b"x")
    place.fault("gateway.Delete", "lost-answer")
    place.storage.delete(file)
    assert place.pending() == []
    assert place.names() == []


def test_c418_a_delete_that_did_not_happen_is_not_repeated(place: Place) -> None:
    file = place.put("file", b"x")
    place.fault("gateway.Delete", "grpc:UNAVAILABLE")
    with pytest.raises(errors.Unavailable) as caught:
        place.storage.delete(file)
    assert str(file) in str(caught.value)
    assert place.pending() == []
    assert place.stored(file) == b"x"


@pytest.mark.parametrize("code", CODES)
def test_c419_only_not_found_means_deleted(place: Place, code: str) -> None:
    file = place.put("file", b"x")
    # A refused token is invisible (C508), so that one comes twice.
    place.fault("gateway.Delete", f"code:{code}", times=2 if code == "CODE_UNAUTHENTICATED" else 1)
    with pytest.raises(errors.for_cs3_code(code)) as caught:
        place.storage.delete(file)
    assert isinstance(caught.value, errors.NotFound) == (code == "CODE_NOT_FOUND")
    assert code in str(caught.value)
    assert str(file) in str(caught.value)
    assert place.pending() == []
    assert place.stored(file) == b"x"


def test_c420_quota(place: Place) -> None:
    place.put("file", content(4096))
    quota = place.storage.quota(place.folder)
    assert quota.used_bytes >= 4096
    if quota.total_bytes is None:
        assert quota.remaining_bytes is None
    else:
        assert quota.remaining_bytes is not None
        assert 0 < quota.remaining_bytes < quota.total_bytes
        assert quota.used_bytes < quota.total_bytes


def test_c421_a_folder_is_deleted_with_all_in_it(place: Place) -> None:
    place.put("folder/inner/file", b"x")
    place.storage.delete(place.file("folder"))
    assert place.names() == []


@pytest.mark.parametrize("length", [240, 241, 255])
def test_c422_long_names_can_be_deleted(place: Place, length: int) -> None:
    kept = place.put("kept", b"y")
    file = place.put("n" * length, b"x")
    place.storage.delete(file)
    assert not place.storage.exists(file)
    assert place.names() == ["kept"]
    assert place.stored(kept) == b"y"


def test_c423_deleting_a_file_spares_folders(place: Place) -> None:
    inner = place.put("folder/file", b"x")
    with pytest.raises(errors.InvalidRequest, match="is a folder") as caught:
        place.storage.delete_file(inner.parent)
    assert str(inner.parent) in str(caught.value)
    assert place.stored(inner) == b"x"
    place.storage.delete_file(inner)
    assert not place.storage.exists(inner)
    with pytest.raises(errors.NotFound):
        place.storage.delete_file(inner)


def test_c424_the_root_is_never_deleted(place: Place) -> None:
    file = place.put("file", b"x")
    with pytest.raises(errors.InvalidRequest, match="is the root of the storage"):
        place.storage.delete(Reference(place.storage.endpoint.root))
    assert place.stored(file) == b"x"


@pytest.mark.parametrize("looks", [1, 2], ids=["for a moment", "for longer"])
def test_c425_a_storage_that_is_away_is_no_proof_of_a_delete(place: Place, looks: int) -> None:
    """A living gateway before it says NOT_FOUND of everything, and the file is there."""
    file = place.put("file", b"x")
    place.fault("gateway.Delete", "grpc:UNAVAILABLE")
    place.fault("gateway.Stat", "code:NOT_FOUND", times=looks)
    with pytest.raises(errors.Unavailable):
        place.storage.delete(file)
    assert place.pending() == []
    assert place.stored(file) == b"x"


def test_c426_a_storage_that_is_away_is_no_proof_of_a_move(place: Place) -> None:
    source, destination = place.put("source", b"new"), place.put("destination", b"old")
    place.fault("gateway.Move", "grpc:UNAVAILABLE")
    place.fault("gateway.Stat", "code:NOT_FOUND")
    with pytest.raises(errors.Unavailable):
        place.storage._namespace.move(source, destination, size=3)
    assert place.pending() == []
    assert (place.stored(source), place.stored(destination)) == (b"new", b"old")


@pytest.mark.parametrize(
    ("move", "deletes"),
    [
        ("lost-answer", []),
        (None, ["grpc:UNAVAILABLE", "grpc:UNAVAILABLE"]),
        (None, ["lost-answer"]),
        ("lost-answer", ["lost-answer"]),
        (None, ["code:NOT_FOUND"]),  # of a storage that is away
    ],
)
def test_c427_a_long_name_is_deleted_in_spite_of_a_short_outage(
    place: Place, move: str | None, deletes: list[str]
) -> None:
    kept, file = place.put("kept", b"y"), place.put("n" * 250, b"x")
    # What Reva v3.12.1 says to such a name.
    for script in ("code:INTERNAL", *deletes):
        place.fault("gateway.Delete", script)
    if move:
        place.fault("gateway.Move", move)
    place.storage.delete(file)
    assert place.pending() == []
    assert place.names() == ["kept"]
    assert place.stored(kept) == b"y"


@pytest.mark.parametrize(
    "moves",
    [["grpc:UNAVAILABLE"], ["lost-answer", "grpc:UNAVAILABLE"], ["lost-answer", "code:INTERNAL"]],
    ids=["not moved", "moved back after an outage", "moved back after a failure"],
)
def test_c428_a_long_name_that_is_not_deleted_is_kept(
    place: Place, moves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.namespace._INSIST_S", 0.3)
    file = place.put("n" * 250, b"x")
    place.fault("gateway.Delete", "code:INTERNAL")
    place.fault("gateway.Delete", "grpc:UNAVAILABLE", times=FOREVER)
    for script in moves:
        place.fault("gateway.Move", script)
    with pytest.raises(errors.Unavailable):
        place.storage.delete(file)
    assert place.pending() == []
    assert place.names() == ["n" * 250]
    assert place.stored(file) == b"x"


def test_c429_a_long_name_never_comes_back_over_somebody_elses_file(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.namespace._INSIST_S", 0.0)
    file = place.put("n" * 250, b"x")
    other = place.another()
    delete = place.storage._gateway.delete

    def meanwhile(reference: Reference) -> None:
        if reference != file:
            other.upload(place.local_file(b"theirs"), file)
        delete(reference)

    monkeypatch.setattr(place.storage._gateway, "delete", meanwhile)
    place.fault("gateway.Delete", "code:INTERNAL")
    place.fault("gateway.Delete", "code:PERMISSION_DENIED")
    with pytest.raises(errors.AccessDenied):
        place.storage.delete(file)
    assert place.stored(file) == b"theirs"
