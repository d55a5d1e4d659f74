"""What commands show of servers' words: no markup of theirs, no steering of the terminal, no time that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from rucio_cs3.cli import app_password
from rucio_cs3.cli.transfers_table import printable
from tests.unit.hostile import TRICKY


@given(st.integers(0, 2**64 - 1))
def test_any_time_of_a_server_is_shown(at: int) -> None:
    shown = app_password._iso(at)
    assert shown is None or shown == str(at) or shown.endswith("Z")


@pytest.mark.parametrize(("at", "shown"), [(0, None), (1, "1970-01-01T00:00:01Z"), (2**64 - 1, str(2**64 - 1))])
def test_times(at: int, shown: str | None) -> None:
    assert app_password._iso(at) == shown


@given(TRICKY)
def test_any_words_can_be_printed(words: str) -> None:
    assert printable(words).isprintable()
    printable(words).encode()
