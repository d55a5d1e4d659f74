"""Who is asked to copy, with which tokens, and what ends a relay; its bytes are in test_remote_file.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.cs3.webdav.markers import Marker
from rucio_cs3.transfers import copies
from rucio_cs3.transfers.copies import COPIES, Copy
from rucio_cs3.transfers.modes import Mode
from tests.unit.transfer_world import CONTENT, OTHER, MemoryEnd, MemoryLanding, adler32

SUMS = {"adler32": adler32(CONTENT)}


class _Tokens:
    """They say what they are for."""

    name: str

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        return f"Bearer {self.name} {'write' if write else 'read'}{' lent' if lent else ''}"


class TokenEnd(_Tokens, MemoryEnd):
    pass


class TokenLanding(_Tokens, MemoryLanding):
    pass


@pytest.mark.parametrize(
    ("copy", "asked", "tokens"),
    [
        (copies.pull, "destination", ("Bearer source read lent", "Bearer destination write")),
        (copies.push, "source", ("Bearer source read", "Bearer destination write lent")),
    ],
)
def test_each_side_gets_the_token_that_is_meant_for_it(
    monkeypatch: pytest.MonkeyPatch, copy: Copy, asked: str, tokens: tuple[str, str]
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []
    progress: list[int] = []
    monkeypatch.setattr(tpc, copy.__name__, lambda http, **arguments: calls.append((http, arguments)))
    source, landing = TokenEnd("source", CONTENT), TokenLanding(MemoryEnd("destination"))
    copy(len(CONTENT), SUMS, source, landing, progress.append)
    ((http, arguments),) = calls
    assert http is (source if asked == "source" else landing).http
    assert (arguments["source_url"], arguments["destination_url"]) == (source.url, landing.url)
    assert (arguments["source_authorization"], arguments["destination_authorization"]) == tokens
    on_marker: Callable[[Marker], None] = arguments["on_marker"]
    on_marker(Marker(transferred_bytes=7))
    assert progress == [7]


def test_a_relay_tells_the_bytes_so_far_and_sends_no_others() -> None:
    source, landing = MemoryEnd("source", CONTENT), MemoryEnd("destination").landing()
    progress: list[int] = []
    copies.relay(len(CONTENT), SUMS, source, landing, progress.append)
    assert landing.content == CONTENT
    assert progress == [len(CONTENT)]


def test_without_a_checksum_in_the_catalogue_the_size_is_all_that_a_relay_compares() -> None:
    source, landing = MemoryEnd("source", OTHER), MemoryEnd("destination").landing()
    copies.relay(len(OTHER), {}, source, landing, lambda total: None)
    assert landing.content == OTHER
    landing.content = None
    with pytest.raises(errors.SizeMismatch, match=r"/source/.*the source has 700 bytes, Rucio's catalogue says 701"):
        copies.relay(len(OTHER) + 1, {}, source, landing, lambda total: None)
    assert landing.content is None


def test_what_progress_raises_ends_a_relay() -> None:
    source, landing = MemoryEnd("source", CONTENT), MemoryEnd("destination").landing()

    def progress(total: int) -> None:
        raise errors.Cancelled("over")

    with pytest.raises(errors.Cancelled):
        copies.relay(len(CONTENT), SUMS, source, landing, progress)
    assert landing.content is None


def test_there_is_a_copy_for_each_mode() -> None:
    assert set(COPIES) == set(Mode)
