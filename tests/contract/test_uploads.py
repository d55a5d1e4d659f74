"""C1xx: uploads that work, and those that are refused before a byte is sent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.gateway import Absence, Gateway
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.place import Place, adler32, content, provider_of

MIB = 1024 * 1024

NAMES = [
    "percent %41 100%",
    "hash#fragment",
    "question?query=1",
    "plus+plus",
    "ampersand&semicolon;comma,equals=",
    'it\'s "quoted"',
    "two  spaces and more ",
    " leading space",
    "-dash",
    "--help",
    "back\\slash",
    "colon:at@star*",
    "[brackets]{braces}(parens)",
    "dollar$bang!tilde~caret^",
    "naïve Ångström ß",
    "日本語ファイル",
    "emoji 🚀",
    ".hidden",
    "...",
]


@pytest.mark.parametrize("size", [0, 1, 4096, MIB - 1, MIB, MIB + 1, 5 * MIB])
def test_c101_bytes_come_back(place: Place, size: int) -> None:
    data = content(size)
    reference = place.file("data.bin")
    sums = {"adler32": adler32(data), "md5": hashlib.md5(data).hexdigest()}
    moved = place.storage.upload(place.local_file(data), reference, algorithms=("adler32", "md5"))
    assert (moved.size, dict(moved.checksums)) == (size, sums)
    assert place.stored(reference) == data
    assert place.names() == ["data.bin"]
    back = place.local / "back.bin"
    moved = place.storage.download(reference, back, algorithms=("adler32", "md5"))
    assert (moved.size, dict(moved.checksums)) == (size, sums)
    assert back.read_bytes() == data
    assert place.storage.checksum(reference) == sums["adler32"]


@pytest.mark.parametrize("name", NAMES)
def test_c102_names_are_kept(place: Place, name: str) -> None:
    data = name.encode()
    reference = place.put(name, data)
    assert place.stored(reference) == data
    assert place.names() == [name]
    back = place.local / "back.bin"
    place.storage.download(reference, back)
    assert back.read_bytes() == data
    place.storage.delete(reference)
    assert place.names() == []


def test_c103_unicode_forms_are_two_files(place: Place) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    first, second = place.put(composed, b"composed"), place.put(decomposed, b"decomposed")
    assert (place.stored(first), place.stored(second)) == (b"composed", b"decomposed")
    assert place.names() == sorted([composed, decomposed])


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127 + "x"])
def test_c104_the_longest_name(place: Place, name: str) -> None:
    reference = place.put(name, b"long name")
    back = place.local / "back.bin"
    place.storage.download(reference, back)
    assert back.read_bytes() == b"long name"
    # A download to a local name of the same length needs a sibling, too.
    place.storage.download(reference, place.local / name)
    assert (place.local / name).read_bytes() == b"long name"


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128])
def test_c105_a_longer_name_is_refused(place: Place, name: str) -> None:
    with pytest.raises(errors.InvalidReference, match="longer than the 255 bytes") as caught:
        place.file(name)
    assert name[:32] in str(caught.value)
    assert place.names() == []


def test_c106_missing_folders_are_made(place: Place) -> None:
    reference = place.put("a/b c/d%20/e/f", b"deep")
    assert place.stored(reference) == b"deep"
    assert place.storage.stat(place.file("a/b c/d%20")).is_directory


@pytest.mark.parametrize("name", ["file/child", "file/folder/child"])
def test_c107_a_file_where_a_folder_is_needed(place: Place, name: str) -> None:
    file = place.put("file", b"I am a file")
    with pytest.raises(errors.AlreadyExists, match="a file stands where a folder is needed") as caught:
        place.put(name, b"child")
    assert str(file) in str(caught.value)
    assert place.stored(file) == b"I am a file"
    assert place.names() == ["file"]


def test_c108_an_existing_file_is_not_replaced(place: Place) -> None:
    reference = place.put("taken", b"first")
    with pytest.raises(errors.AlreadyExists, match="a file of this name exists") as caught:
        place.put("taken", b"second")
    assert str(reference) in str(caught.value)
    assert place.stored(reference) == b"first"
    assert place.names() == ["taken"]


@pytest.mark.parametrize("size", [0, 10, 2 * MIB])
def test_c109_overwrite_replaces(place: Place, size: int) -> None:
    reference = place.put("taken", b"the old content")
    data = content(size)
    place.storage.upload(place.local_file(data), reference, overwrite=True)
    assert place.stored(reference) == data
    assert place.storage.stat(reference).size == size
    assert place.names() == ["taken"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_c110_a_folder_is_never_replaced(place: Place, overwrite: bool) -> None:
    inner = place.put("folder/inner", b"inner")
    with pytest.raises(errors.AlreadyExists, match="a folder of this name exists") as caught:
        place.storage.upload(place.local_file(b"x"), place.file("folder"), overwrite=overwrite)
    assert str(place.file("folder")) in str(caught.value)
    assert place.stored(inner) == b"inner"


def test_c111_a_missing_local_file(place: Place) -> None:
    missing = place.local / "missing"
    with pytest.raises(errors.LocalNotFound) as caught:
        place.storage.upload(missing, place.file("new/name"))
    assert str(missing) in str(caught.value)
    assert place.names() == []


def test_c112_a_local_folder(place: Place) -> None:
    with pytest.raises(errors.LocalError, match="is a folder") as caught:
        place.storage.upload(place.local, place.file("new/name"))
    assert str(place.local) in str(caught.value)
    assert place.names() == []


def test_c113_progress_counts_every_byte_once(place: Place) -> None:
    steps: list[int] = []
    place.storage.upload(place.local_file(content(3 * MIB + 5)), place.file("file"), progress=steps.append)
    assert sum(steps) == 3 * MIB + 5
    assert min(steps) > 0
    steps.clear()
    place.storage.download(place.file("file"), place.local / "back", progress=steps.append)
    assert sum(steps) == 3 * MIB + 5


def test_c114_read_back_compares_where_the_server_has_no_checksum(place: Place) -> None:
    data = content(2 * MIB)
    moved = place.storage.upload(place.local_file(data), place.file("file"), read_back=True)
    assert moved.checksums["adler32"] == adler32(data)
    assert place.names() == ["file"]


@dataclass
class Scene:
    """What the operations of C115 work on, in a folder that the storage knows."""

    place: Place

    @property
    def storage(self) -> CS3Storage:
        return self.place.storage

    def name(self, name: str) -> Reference:
        return self.place.file(f"folder/{name}")

    def upload(self, name: str, size: int = 4096, **options: bool) -> None:
        self.storage.upload(self.place.local_file(content(size)), self.name(name), **options)  # type: ignore[arg-type]

    def store_first(self) -> None:
        self.upload("old")
        # Reading back teaches the storage that this server keeps no checksums, where it does not.
        self.upload("old", overwrite=True, read_back=True)


OPERATIONS: dict[str, Callable[[Scene], object]] = {
    "upload": lambda scene: scene.upload("new"),
    "upload an empty file": lambda scene: scene.upload("new", size=0),
    "upload a large file": lambda scene: scene.upload("new", size=2 * MIB),
    "upload and read back": lambda scene: scene.upload("new", read_back=True),
    "upload to a new folder": lambda scene: scene.upload("deeper/new"),
    "overwrite": lambda scene: scene.upload("old", overwrite=True),
    "overwrite what is not there": lambda scene: scene.upload("new", overwrite=True),
    "upload to a taken name": lambda scene: _refused(errors.AlreadyExists, lambda: scene.upload("old")),
    "download": lambda scene: scene.storage.download(scene.name("old"), scene.place.local / "back"),
    "stat": lambda scene: scene.storage.stat(scene.name("old")),
    "exists": lambda scene: scene.storage.exists(scene.name("old")),
    "does not exist": lambda scene: scene.storage.exists(scene.name("none")),
    "move": lambda scene: scene.storage.move(scene.name("old"), scene.name("new")),
    "delete": lambda scene: scene.storage.delete(scene.name("old")),
    "delete a file": lambda scene: scene.storage.delete_file(scene.name("old")),
}

#: Calls of each operation, sorted. Those that go at the same time count as two.
ROUND_TRIPS: dict[str, dict[str, str]] = {
    "v3": {
        "upload": "InitiateFileUpload Move PUT Stat Stat",
        "upload an empty file": "InitiateFileUpload Move PUT Stat Stat",
        "upload a large file": "InitiateFileUpload Move PUT Stat Stat Stat",
        "upload and read back": "GET InitiateFileDownload InitiateFileUpload Move PUT Stat Stat",
        "upload to a new folder": "CreateContainer InitiateFileUpload InitiateFileUpload Move PUT Stat Stat Stat",
        "overwrite": "InitiateFileUpload Move PUT Stat Stat",
        "overwrite what is not there": "InitiateFileUpload Move PUT Stat Stat",
        "upload to a taken name": "Delete InitiateFileUpload PUT Stat Stat",
        "download": "GET InitiateFileDownload Stat",
        "stat": "Stat",
        "exists": "Stat",
        "does not exist": "Stat",
        "move": "Move Stat Stat",
        "delete": "Delete",
        "delete a file": "Delete Stat",
    },
    "spaces": {
        "upload": "InitiateFileUpload PUT Stat",
        "upload an empty file": "InitiateFileUpload Stat Stat WhoAmI",
        "upload a large file": "InitiateFileUpload PUT Stat",
        "upload and read back": "InitiateFileUpload PUT Stat",
        "upload to a new folder": "CreateContainer InitiateFileUpload InitiateFileUpload PUT Stat Stat Stat Stat",
        "overwrite": "InitiateFileUpload InitiateFileUpload PUT Stat Stat",
        "overwrite what is not there": "InitiateFileUpload PUT Stat",
        "upload to a taken name": "InitiateFileUpload Stat",
        "download": "GET InitiateFileDownload Stat",
        "stat": "Stat",
        "exists": "Stat",
        "does not exist": "Stat WhoAmI",
        "move": "Move Stat Stat",
        "delete": "Delete",
        "delete a file": "Delete Stat",
    },
}


def _refused(kind: type[errors.CS3Error], operation: Callable[[], object]) -> None:
    with pytest.raises(kind):
        operation()


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("kind", ["v3", "spaces"])
def test_c115_no_more_round_trips_than_needed(kind: str, operation: str, tmp_path: Path) -> None:
    with (
        EmbeddedCloud(name=kind, behaviour=Behaviour(kind)) as cloud,
        fresh_place(cloud, tmp_path / "local") as place,
    ):
        scene = Scene(place)
        scene.store_first()
        assert cloud.log is not None
        before = len(cloud.log.read_text().splitlines())
        OPERATIONS[operation](scene)
        lines = cloud.log.read_text().splitlines()[before:]
    # A line of the log: the time, "gRPC" or "HTTP", the method, what was answered.
    calls = [re.split(r"[ ]+", line)[2] for line in lines]
    assert " ".join(sorted(calls)) == ROUND_TRIPS[kind][operation]


def test_c116_uploads_to_one_new_folder_at_the_same_time(place: Place) -> None:
    names = [f"new/folder/{number}" for number in range(16)]

    def upload(name: str) -> None:
        local = place.local_file(name.encode(), name.replace("/", "-"))
        place.storage.upload(local, place.file(name))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(upload, names))
    assert [place.stored(place.file(name)) for name in names] == [name.encode() for name in names]
    assert len(place.storage.list(place.file("new/folder"))) == len(names)


def test_c120_a_folder_may_be_made_by_another_at_the_same_moment(spaces: Place) -> None:
    """OpenCloud's answer is about the folder that was missing, and when we come to make it, it is there."""
    spaces.storage.make_directories(spaces.file("new"))
    spaces.fault("gateway.InitiateFileUpload", "code:FAILED_PRECONDITION")
    spaces.storage.upload(spaces.local_file(b"content"), spaces.file("new/file"))
    assert spaces.stored(spaces.file("new/file")) == b"content"


@pytest.mark.parametrize("size", [0, 4096, 3 * MIB], ids=["empty", "small", "large"])
def test_c117_checksums_that_are_known_beforehand_are_compared(place: Place, size: int) -> None:
    data = content(size)
    local, sums = place.local_file(data), {"adler32": adler32(data), "md5": hashlib.md5(data).hexdigest()}
    moved = place.storage.upload(local, place.file("right"), checksums=sums)
    assert moved.checksums == sums
    with pytest.raises(errors.ChecksumMismatch) as caught:
        place.storage.upload(local, place.file("wrong"), checksums={"md5": "0" * 32})
    assert str(local) in str(caught.value)
    assert place.names() == ["right"]
    assert place.stored(place.file("right")) == data


def test_c118_the_server_is_told_what_it_gets(spaces: Place) -> None:
    """OpenCloud compares what comes with length and checksum of the ticket, so that nothing else is ever seen."""
    spaces.fault("data.put", "flip-byte")
    with pytest.raises(errors.ChecksumMismatch, match="HTTP 419"):
        spaces.storage.upload(spaces.local_file(content(4096)), spaces.file("file"))
    assert spaces.names() == []


def test_c119_the_time_of_modification_is_kept(spaces: Place) -> None:
    local = spaces.local_file(b"old news")
    os.utime(local, (1_234_567_890, 1_234_567_890))
    spaces.storage.upload(local, spaces.file("file"))
    assert spaces.storage.stat(spaces.file("file")).mtime_s == 1_234_567_890


def _calls(place: Place, function: Callable[[], object]) -> list[str]:
    """The gRPC methods that an embedded cloud sees meanwhile, in order."""
    assert isinstance(place.cloud, EmbeddedCloud)
    assert place.cloud.log is not None
    before = len(place.cloud.log.read_text().splitlines())
    function()
    lines = place.cloud.log.read_text().splitlines()[before:]
    return [re.split(r"[ ]+", line)[2] for line in lines if " gRPC " in line]


def test_c122_folders_that_were_seen_are_not_looked_at_again(place: Place) -> None:
    folder = place.file("a/b/c")
    place.storage.make_directories(folder)
    if isinstance(place.cloud, EmbeddedCloud):
        assert _calls(place, lambda: place.storage.make_directories(folder, remembered=True)) == []
        assert _calls(place, lambda: place.storage.make_directories(folder)) == ["Stat"]
    # Somebody else removes it: whoever finds that out asks for the truth, and has it.
    place.another().delete(place.file("a"))
    place.storage.make_directories(folder)
    assert place.on_disk(folder).is_dir()
    # What this storage removes itself is never remembered.
    place.storage.delete(place.file("a"))
    place.storage.make_directories(folder, remembered=True)
    assert place.on_disk(folder).is_dir()
    # Nor is it where only what is above is known, and that is gone.
    place.another().delete(place.file("a"))
    place.storage.make_directories(place.file("a/b/d"), remembered=True)
    assert place.on_disk(place.file("a/b/d")).is_dir()


def test_c123_a_move_that_relies_on_a_look_is_made_with_its_token(place: Place) -> None:
    source, destination = place.put("source", b"x"), place.file("destination")
    with contextlib.closing(Gateway(place.storage.endpoint, provider_of(place.cloud))) as gateway:
        seen = gateway.glance(destination)
        assert isinstance(seen, Absence)
        place.fault("gateway.Move", "expire-token")
        with pytest.raises(errors.Unauthenticated):
            gateway.move(source, destination, absent=seen)
        if isinstance(place.cloud, EmbeddedCloud):
            # Nor with a newer one that is there already. (Two of Reva's of the same second are one.)
            gateway.stat(place.folder)
            with pytest.raises(errors.Unauthenticated):
                gateway.move(source, destination, absent=seen)
        assert place.names() == ["source"]
        # With a look by the token of today it is.
        seen = gateway.glance(destination)
        assert isinstance(seen, Absence)
        gateway.move(source, destination, absent=seen)
    assert place.names() == ["destination"]
