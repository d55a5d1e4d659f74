"""C1421 to C1426: tokens that die before, during and after each operation. What is promised: docs/contract.md.

Each case runs its operation again and again: the tokens die at its first passage through a relay, then at its second,
and so on, until a run has no passage left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.streams import UploadBody
from tests.contract.faulty_reva import FaultyReva
from tests.contract.mortal import (
    ACCESS,
    ALL,
    REVOKED,
    TRANSFER,
    Death,
    assert_says_whose,
    at_each_passage,
    run_revoked,
    secrets_of,
)
from tests.contract.place import Place, adler32, content

KIB = 1024
SIZE = 200 * KIB + 7
OLD = b"what stood there"


@dataclass
class Run:
    """One run of an operation in a folder of its own.

    :param storage: its token is at hand, and alive.
    """

    place: Place
    storage: CS3Storage
    folder: Reference

    def file(self, name: str) -> Reference:
        return self.folder.child(name)

    def put(self, name: str, data: bytes) -> Reference:
        """Put a file on the server's disk, behind its back; it is there for the server all the same."""
        path = self.place.on_disk(self.file(name))
        path.write_bytes(data)
        return self.file(name)

    def local(self, data: bytes) -> Path:
        return self.place.local_file(data, "run.bin")

    def left(self) -> dict[str, bytes]:
        """The folder's files on the server's disk, hidden ones included."""
        root = self.place.on_disk(self.folder)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


DATA = content(SIZE)

#: Prepares a run; gives what is run, and what is left after it.
Operation = Callable[[Run], tuple[Callable[[], object], dict[str, bytes]]]


def _asked(ask: Callable[[CS3Storage, Reference], object], expected: object) -> Operation:
    """Something that changes nothing and gives an answer about a file."""

    def prepare(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
        file = run.put("file", DATA)

        def act() -> None:
            assert ask(run.storage, file) == expected

        return act, {"file": DATA}

    return prepare


def _uploaded(size: int = SIZE, *, over: bytes | None = None, **options: Any) -> Operation:
    """An upload, to a new name or over an old file."""

    def prepare(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
        data = content(size)
        local = run.local(data)
        if over is not None:
            run.put("file", over)

        def act() -> None:
            run.storage.upload(local, run.file("file"), overwrite=over is not None, **options)

        return act, {"file": data}

    return prepare


def _downloaded(size: int = SIZE, **options: Any) -> Operation:
    def prepare(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
        data = content(size)
        file, target = run.put("file", data), run.place.local / "down.bin"
        target.write_bytes(OLD)

        def act() -> None:
            try:
                run.storage.download(file, target, **options)
            except BaseException:
                assert target.read_bytes() == OLD
                raise
            finally:
                assert not [name for name in run.place.local_names() if name.startswith(".")]
            assert target.read_bytes() == data

        return act, {"file": data}

    return prepare


def _read(storage: CS3Storage, file: Reference) -> bytes:
    with storage.open(file) as reader:
        pieces = []
        while piece := reader.read(64 * KIB):
            pieces.append(piece)
    return b"".join(pieces)


def _made(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
    def act() -> None:
        run.storage.make_directories(run.file("a").child("b").child("c"))
        assert run.place.on_disk(run.file("a").child("b").child("c")).is_dir()

    return act, {}


def _moved(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
    file = run.put("file", DATA)
    return lambda: run.storage.move(file, run.file("new").child("name")), {"new/name": DATA}


def _deleted(delete: Callable[[CS3Storage, Reference], object]) -> Operation:
    def prepare(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
        file = run.put("file", DATA)
        run.put("neighbour", OLD)
        return lambda: delete(run.storage, file), {"neighbour": OLD}

    return prepare


def _stored(run: Run) -> tuple[Callable[[], object], dict[str, bytes]]:
    """What a relay does at its destination; the source is a local file here, which can be read anew."""
    local = run.local(DATA)

    def act() -> None:
        with local.open("rb", buffering=0) as file:
            run.storage.store(UploadBody(file, SIZE, Digests(["adler32"]), name="source"), run.file("file"))

    return act, {"file": DATA}


METADATA: dict[str, Operation] = {
    "stat": _asked(lambda storage, file: storage.stat(file).size, SIZE),
    "settled": _asked(lambda storage, file: storage.settled(file).size, SIZE),
    "exists": _asked(lambda storage, file: storage.exists(file), True),
    "exists not": _asked(lambda storage, file: storage.exists(file.sibling("nothing")), False),
    "list": _asked(lambda storage, file: [info.reference for info in storage.list(file.parent)] == [file], True),
    "quota": _asked(lambda storage, file: storage.quota(file.parent).used_bytes >= 0, True),
    "make folders": _made,
    "move": _moved,
    "delete": _deleted(lambda storage, file: storage.delete(file)),
    "delete a file": _deleted(lambda storage, file: storage.delete_file(file)),
}

DATA_PATH: dict[str, Operation] = {
    "upload": _uploaded(),
    "upload of more": _uploaded(1200 * KIB),
    "upload of nothing": _uploaded(0),
    "upload read back": _uploaded(read_back=True),
    "upload over another": _uploaded(over=OLD),
    "store": _stored,
    "download": _downloaded(),
    "open": _asked(_read, DATA),
    "checksum": _asked(lambda storage, file: storage.checksum(file), adler32(DATA)),
}

#: In several requests each.
IN_PIECES: dict[str, Operation] = {
    "upload in pieces": _uploaded(700 * KIB),
    "upload in pieces over another": _uploaded(700 * KIB, over=OLD),
    "download in ranges": _downloaded(700 * KIB, streams=2),
}


@pytest.fixture
def in_pieces(quick_tus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and ranges of a quarter MiB."""
    monkeypatch.setattr("rucio_cs3.cs3.uploads.tus_uploads.FIRST_PIECE_BYTES", 256 * KIB)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.ranges.BLOCK_BYTES", 256 * KIB)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._LOOK_S", 0.0)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._FAST_BYTES_PER_S", float("inf"))


def survives(mortal: Place, operation: Operation, death: Death, **settings: Any) -> None:
    """The operation is done whenever the tokens die, and nobody is told."""
    cloud = mortal.cloud
    assert isinstance(cloud, FaultyReva)
    storage = mortal.another(**settings)
    for number, doom in at_each_passage(death, [cloud]):
        run = Run(mortal, storage, mortal.file(f"run-{number}"))
        mortal.storage.make_directories(run.folder)
        act, left = operation(run)
        storage.stat(run.folder)  # with a living token, after the last run
        with doom:
            try:
                act()
            except errors.CS3Error as error:
                pytest.fail(f"tokens that died {doom.at}: {error!r}")
        assert run.left() == left, doom.at


def fails_cleanly(mortal: Place, operation: Operation, **settings: Any) -> None:
    """Whenever the identity is revoked, the operation is done or fails cleanly, and changes nothing."""
    cloud = mortal.cloud
    assert isinstance(cloud, FaultyReva)
    for number, doom in at_each_passage(REVOKED, [cloud]):
        with CS3Storage(replace(mortal.endpoint, **settings), mortal.provider) as storage:
            run = Run(mortal, storage, mortal.file(f"run-{number}"))
            mortal.storage.make_directories(run.folder)
            act, left = operation(run)
            before = run.left()
            storage.access_token()
            with doom:
                done = run_revoked(act, cloud)
            found = run.left()
            # Nobody may remove a hidden sibling any more; it is not under the name.
            shown = {name: data for name, data in found.items() if not name.startswith(".rucio-cs3.")}
            assert shown in ((left,) if done else (before, left)), doom.at


@pytest.mark.parametrize("operation", list(METADATA))
def test_c1421_no_operation_on_names_notices(mortal: Place, operation: str) -> None:
    survives(mortal, METADATA[operation], ACCESS)


@pytest.mark.parametrize("death", [ACCESS, TRANSFER, ALL], ids=["access", "transfer", "all"])
@pytest.mark.parametrize("operation", list(DATA_PATH))
def test_c1422_no_operation_on_data_notices(mortal: Place, operation: str, death: Death, short_pauses: None) -> None:
    survives(mortal, DATA_PATH[operation], death, upload_protocol="simple")


@pytest.mark.parametrize("death", [ACCESS, ALL], ids=["access", "all"])
@pytest.mark.parametrize("operation", list(IN_PIECES))
@pytest.mark.usefixtures("in_pieces")
def test_c1423_no_operation_in_several_requests_notices(mortal: Place, operation: str, death: Death) -> None:
    survives(mortal, IN_PIECES[operation], death, upload_protocol="tus")


@pytest.mark.parametrize("operation", [*METADATA, *DATA_PATH])
def test_c1424_a_revoked_identity_is_said_and_nothing_is_lost(
    mortal: Place, operation: str, caplog: pytest.LogCaptureFixture, no_late_commit: None
) -> None:
    caplog.set_level("DEBUG")
    fails_cleanly(mortal, {**METADATA, **DATA_PATH}[operation], upload_protocol="simple")
    assert isinstance(mortal.cloud, FaultyReva)
    assert not [secret for secret in secrets_of(mortal.cloud) if secret in caplog.text]
    assert "eyJ" not in caplog.text


@pytest.mark.parametrize("operation", list(IN_PIECES))
@pytest.mark.usefixtures("in_pieces", "no_late_commit")
def test_c1427_so_it_is_in_the_midst_of_several_requests(
    mortal: Place, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fails_cleanly(mortal, IN_PIECES[operation], upload_protocol="tus")
    assert isinstance(mortal.cloud, FaultyReva)
    assert not [secret for secret in secrets_of(mortal.cloud) if secret in caplog.text]


# -- the protocol class, as Rucio makes it -----------------------------------------------------------------


#: No two protocol objects of these cases share a storage.
_patience = itertools.count(1)


@pytest.fixture
def make_protocol(mortal: Place, rucio_client: None) -> Callable[..., Any]:
    """Makes protocol objects for the folder of the case, each with a storage of its own in the process's pool."""
    from rucio.rse import rsemanager

    from tests.contract.faces import rse_of

    user = next(iter(mortal.cloud.users.values()))

    def make() -> Any:
        patience_s = 20.0 + next(_patience) / 1000  # another endpoint
        protocol = rsemanager.create_protocol(rse_of(mortal, {"cs3_call_timeout_s": patience_s}), "write")
        protocol.connect({"username": user.username, "password": user.password})
        return protocol

    return make


def _exists(protocol: Any, pfn: str, local: Path) -> None:
    assert protocol.exists(pfn)
    assert not protocol.exists(f"{pfn}.not")


def _stat(protocol: Any, pfn: str, local: Path) -> None:
    assert protocol.stat(pfn) == {**protocol.stat(pfn), "filesize": SIZE, "adler32": adler32(DATA)}


def _get(protocol: Any, pfn: str, local: Path) -> None:
    protocol.get(pfn, str(local.with_name("got")))
    assert local.with_name("got").read_bytes() == DATA


#: What is asked of a protocol object with the PFN of a file, and what is left: names -> content.
_PROTOCOL: dict[str, tuple[Callable[[Any, str, Path], object], dict[str, bytes]]] = {
    "exists": (_exists, {"file": DATA}),
    "stat": (_stat, {"file": DATA}),
    "get": (_get, {"file": DATA}),
    "put": (
        lambda protocol, pfn, local: protocol.put(local.name, f"{pfn}.rucio.upload", source_dir=str(local.parent)),
        {"file": DATA, "file.rucio.upload": DATA},
    ),
    "delete": (lambda protocol, pfn, local: protocol.delete(pfn), {}),
    "rename": (lambda protocol, pfn, local: protocol.rename(pfn, f"{pfn}.new"), {"file.new": DATA}),
    "space": (lambda protocol, pfn, local: protocol.get_space_usage(), {"file": DATA}),
}


def _prepared(mortal: Place, protocol: Any, number: int) -> tuple[Run, str, Path]:
    run = Run(mortal, protocol.storage, mortal.file(f"run-{number}"))
    mortal.storage.make_directories(run.folder)
    file, local = run.put("file", DATA), run.local(DATA)
    protocol.storage.stat(run.folder)
    return run, protocol.endpoint.webdav.url(file), local


@pytest.mark.parametrize("operation", list(_PROTOCOL))
def test_c1425_rucio_notices_nothing(mortal: Place, make_protocol: Callable[..., Any], operation: str) -> None:
    cloud, (act, left) = mortal.cloud, _PROTOCOL[operation]
    assert isinstance(cloud, FaultyReva)
    protocol = make_protocol()
    for number, doom in at_each_passage(ALL, [cloud]):
        run, pfn, local = _prepared(mortal, protocol, number)
        with doom:
            act(protocol, pfn, local)
        assert run.left() == left, doom.at


@pytest.mark.parametrize("operation", list(_PROTOCOL))
def test_c1426_rucio_is_told_of_a_revoked_identity(
    mortal: Place, make_protocol: Callable[..., Any], operation: str, no_late_commit: None
) -> None:
    from rucio.common.exception import RSEAccessDenied

    cloud, (act, left) = mortal.cloud, _PROTOCOL[operation]
    assert isinstance(cloud, FaultyReva)
    for number, doom in at_each_passage(REVOKED, [cloud]):
        protocol = make_protocol()
        run, pfn, local = _prepared(mortal, protocol, number)
        before, done = run.left(), True
        with doom:
            try:
                act(protocol, pfn, local)
            except RSEAccessDenied as error:
                done = False
                assert_says_whose(error, cloud)
        found = {name: data for name, data in run.left().items() if not name.startswith(".rucio-cs3.")}
        assert found in ((left,) if done else (before, left)), doom.at
