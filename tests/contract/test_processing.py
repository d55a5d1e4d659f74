"""C6xx: post-processing. OpenCloud shows an upload at once, and lets it be read only when it has been checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.place import TIMEOUTS, Place, content

SIZE = 100_000


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Place]:
    """A folder in a cloud that works half a second on each upload."""
    with (
        EmbeddedCloud(name="slow", behaviour=Behaviour.SPACES, processing_delay_s=0.5) as cloud,
        fresh_place(cloud, tmp_path / "local") as place,
    ):
        yield place


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Place]:
    """A folder in a cloud that never finishes."""
    with (
        EmbeddedCloud(name="stuck", behaviour=Behaviour.SPACES, processing_delay_s=3600) as cloud,
        fresh_place(cloud, tmp_path / "local") as place,
    ):
        yield place


def test_c601_an_upload_returns_when_it_can_be_read(slow: Place) -> None:
    data = content(SIZE)
    slow.storage.upload(slow.local_file(data), slow.file("file"))
    assert not slow.storage.stat(slow.file("file")).processing
    slow.storage.download(slow.file("file"), slow.local / "back")
    assert (slow.local / "back").read_bytes() == data


def test_c602_an_overwrite_returns_when_the_new_content_can_be_read(slow: Place) -> None:
    slow.put("file", b"old")
    data = content(SIZE)
    slow.storage.upload(slow.local_file(data), slow.file("file"), overwrite=True)
    slow.storage.download(slow.file("file"), slow.local / "back")
    assert (slow.local / "back").read_bytes() == data


def test_c603_stuck_processing_is_said(stuck: Place) -> None:
    storage = stuck.another(timeouts=replace(TIMEOUTS, processing_s=0.3))
    with pytest.raises(errors.StillProcessing) as caught:
        storage.upload(stuck.local_file(content(SIZE)), stuck.file("file"))
    said = re.search(r"stuck in post-processing: (\d+\.\d) s", str(caught.value))
    assert said is not None
    assert float(said[1]) >= 0.3
    assert str(stuck.file("file")) in str(caught.value)
    assert caught.value.retryable


def test_c604_a_download_waits_and_then_says_so(stuck: Place) -> None:
    storage = stuck.another(timeouts=replace(TIMEOUTS, processing_s=0.3))
    with pytest.raises(errors.TooEarly):
        storage.upload(stuck.local_file(content(SIZE)), stuck.file("file"))
    with pytest.raises(errors.StillProcessing, match="stuck in post-processing") as caught:
        storage.download(stuck.file("file"), stuck.local / "back")
    assert str(stuck.file("file")) in str(caught.value)
    assert stuck.local_names() == ["local.bin"]
