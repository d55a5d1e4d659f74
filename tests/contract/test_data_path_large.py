"""C137x: files larger than 32 bits can count, and 30 GB: no number overflows, and memory stays as it is.

The files are sparse, and the embedded cloud forgets what it reads. More than 2^32 bytes pass in each direction; a whole
30 GB would take minutes. What is bound is the memory of a process of its own (VmHWM), not the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.contract.child import Child
from tests.contract.conftest import fresh_place
from tests.contract.place import Place

DECLARED = 30_000_000_000
BEYOND_32_BITS = 2**32 + 1
MIB = 1024 * 1024
MEMORY_BYTES = 64 * MIB


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in a cloud of its own."""
    with EmbeddedCloud(name="roomy") as cloud, fresh_place(cloud, tmp_path / "local") as place:
        yield place


def sparse(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def test_c1371_thirty_gigabytes_are_announced(roomy: Place) -> None:
    local = sparse(roomy.local / "large", DECLARED)
    roomy.fault("data.put", f"return-507,at:{256 * MIB}")
    told = Child(roomy, roomy.file("large"), local, upload_protocol="simple").wait()
    assert told["error"].startswith("NoSpaceLeft: ")
    assert "HTTP 507" in told["error"]
    assert told["memory_bytes"] < MEMORY_BYTES
    passed = roomy.passed("data.put")[-1]
    assert (passed.length, passed.received) == (DECLARED, 256 * MIB)
    assert roomy.names() == []
    assert local.stat().st_size == DECLARED


def test_c1372_more_than_32_bits_are_stored(roomy: Place) -> None:
    local = sparse(roomy.local / "large", BEYOND_32_BITS)
    roomy.fault("data.put", "sink")
    told = Child(roomy, roomy.file("large"), local, upload_protocol="simple").wait()
    assert told["error"] == ""
    assert told["moved"] == BEYOND_32_BITS
    assert told["memory_bytes"] < MEMORY_BYTES
    assert roomy.storage.stat(roomy.file("large")).size == BEYOND_32_BITS
    assert roomy.names() == ["large"]


def test_c1373_more_than_32_bits_are_read(roomy: Place) -> None:
    there = roomy.file("large")
    sparse(roomy.on_disk(there), BEYOND_32_BITS)
    told = Child(roomy, there, roomy.local, down=True).wait()
    assert told["error"] == ""
    # Of zeros only the upper half of Adler-32 grows (RFC 1950, 8.2).
    assert told["checksum"] == f"{BEYOND_32_BITS % 65521:04x}0001"
    assert told["memory_bytes"] < MEMORY_BYTES
    assert roomy.passed("data.get")[-1].sent == BEYOND_32_BITS


def test_c1374_the_size_of_a_large_file_is_what_it_is(roomy: Place) -> None:
    sparse(roomy.on_disk(roomy.file("large")), DECLARED)
    assert roomy.storage.stat(roomy.file("large")).size == DECLARED
    assert [info.size for info in roomy.storage.list(roomy.folder)] == [DECLARED]
