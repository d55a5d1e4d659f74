"""C1xx: uploads that work, and those that are refused before a byte is sent."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest

from rucio_cs3.cs3 import errors
from tests.contract.place import Place, adler32, content

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
