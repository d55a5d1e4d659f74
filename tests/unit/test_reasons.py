"""Why a transfer failed, in as many characters as Rucio shows."""

from __future__ import annotations

import pytest

from rucio_cs3 import reasons
from rucio_cs3.cs3 import errors
from rucio_cs3.transfers.jobs import Outcome, State

ROOM = 200


def failed(error: errors.CS3Error | None, reason: str | None = None) -> Outcome:
    return Outcome(state=State.FAILED, reason=str(error) if error else reason, error=error)


def test_what_is_short_stays_as_it_is() -> None:
    error = errors.NoSpaceLeft("quota is used up", operation="Stat", target="/f", code="CODE_X", trace="4711")
    assert reasons.reason(failed(error), ROOM) == "Stat /f: quota is used up (CODE_X, trace 4711)"


@pytest.mark.parametrize("outcome", [failed(None, "no source"), failed(None, "x" * 999), failed(None)])
def test_without_an_error_there_is_the_reason_alone(outcome: Outcome) -> None:
    assert reasons.reason(outcome, ROOM) == (outcome.reason or "no reason is known")


def test_message_code_and_trace_come_before_a_long_place() -> None:
    error = errors.ServerFault("it failed", operation="COPY", target="/x" * 300, code="HTTP 507", trace="0af7651916")
    text = reasons.reason(failed(error), ROOM)
    assert text.startswith("it failed (HTTP 507, trace 0af7651916) | COPY /x/x")
    assert text.endswith(str(error))


def test_of_a_long_message_the_beginning_and_the_servers_words_at_its_end_are_kept() -> None:
    message = (
        "the destination reports a failed copy from https://a.test" + "/folder" * 60 + ": 507 Insufficient Storage"
    )
    error = errors.ServerFault(message, code="HTTP 202", trace="f" * 32)
    shown = reasons.reason(failed(error), ROOM)[:ROOM]
    assert shown.startswith("the destination reports a failed copy")
    assert "507 Insufficient Storage (HTTP 202, trace " + "f" * 32 + ")" in shown


def test_a_long_code_leaves_room_for_words() -> None:
    error = errors.ServerFault("no space " * 99, code="X" * 500, trace="y" * 500)
    shown = reasons.reason(failed(error), ROOM)[:ROOM]
    assert shown.startswith("no space")
    assert "XXX" in shown
    assert "yyy" in shown


@pytest.mark.parametrize("text", ["ä" * 5000, "x" * 3999 + "ö" * 9, "€" * 1334, "𝄞" * 1001])
def test_the_column_is_never_overfull_and_no_character_cut_in_two(text: str) -> None:
    cut = reasons.bounded(text)
    assert len(cut.encode()) <= reasons.ERR_MSG_MAX_BYTES
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))
    assert len(cut.encode()) > reasons.ERR_MSG_MAX_BYTES - 8


def test_what_no_database_takes_and_no_terminal_should_see_is_gone() -> None:
    assert reasons.bounded("a\x00b\x1b[31mc\nd") == "a b [31mc d"
