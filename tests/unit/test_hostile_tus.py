"""TUS servers that take next to nothing, or say what cannot be: the dialogue ends, in so many steps and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3.uploads import tus
from rucio_cs3.cs3.uploads.piece_sizes import MIB, PieceSizes
from rucio_cs3.cs3.uploads.tus import ATTEMPTS, RESTARTS, Ask, Done, GiveUp, Look, Pause, Renew, Restart, Send, Upload
from tests.unit.hostile import TEXT

SIZE = 64 * MIB

#: Answers to a step: status and offset; None breaks the connection.
Server = Callable[[tus.Step], tuple[int, int] | None]


def run(server: Server, size: int = SIZE, most: int = 2000) -> tuple[tus.Step, int, int]:
    """The last step, the number of requests, and the bytes that were sent."""
    dialogue = Upload(size, pause_s=lambda _: 0.0, pieces=PieceSizes(start=4 * MIB))
    requests = sent = 0
    for _ in range(most):
        step = dialogue.step
        if isinstance(step, Done | GiveUp):
            return step, requests, sent
        if isinstance(step, Pause | Renew):
            dialogue.waited()
        elif isinstance(step, Look):
            dialogue.looked(found=False)
        elif isinstance(step, Restart):
            dialogue.began_again()
        else:
            requests += 1
            count = step.count if isinstance(step, Send) else 0
            sent += count
            if (answer := server(step)) is None:
                dialogue.broken()
            else:
                status, offset = answer
                headers = {"Upload-Offset": str(offset), "Upload-Length": str(size)}
                dialogue.answered(status, headers, sent=count, seconds=1)
    raise AssertionError("the dialogue does not end")


def test_a_byte_for_each_request_is_too_little() -> None:
    """64 MiB by PATCHes of 4 MiB, of each of which one byte counts: 67 million requests, and 256 TiB."""
    kept = 0

    def server(step: tus.Step) -> tuple[int, int]:
        nonlocal kept
        kept += isinstance(step, Send)
        return 204, kept

    step, requests, _ = run(server)
    assert step == GiveUp("the server takes next to nothing of what it is sent")
    assert requests <= 2 * ATTEMPTS


def test_a_mebibyte_for_each_request_is_enough() -> None:
    """A server, or a proxy before it, may take less than it gets (TUS 1.0.0, "PATCH")."""
    kept = 0

    def server(step: tus.Step) -> tuple[int, int]:
        nonlocal kept
        kept = min(kept + MIB, SIZE) if isinstance(step, Send) else kept
        return 204, kept

    step, requests, _ = run(server)
    assert isinstance(step, Done)
    assert requests == SIZE // MIB


@pytest.mark.parametrize("offset", [0, SIZE])
@pytest.mark.parametrize("status", [200, 204])
def test_a_server_that_always_says_the_same(status: int, offset: int) -> None:
    step, requests, _ = run(lambda _: (status, offset))
    assert isinstance(step, GiveUp | Done)
    assert requests <= 10 * ATTEMPTS * (RESTARTS + 1)


@given(
    st.lists(
        st.none() | st.tuples(st.sampled_from([200, 204, 204, 401, 404, 409, 413, 423, 500]), st.integers(-2, 70)),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_steps_are_limited_by_the_size(script: list[tuple[int, int] | None], grows: bool) -> None:
    """Each MiB that counts may cost so many failures, each with the looks that settle it; and all of it some few times
    over."""
    turn = told = 0

    def server(step: tus.Step) -> tuple[int, int] | None:
        nonlocal turn, told
        turn += 1
        answer = script[turn % len(script)]
        if answer is None:
            return None
        status, number = answer
        told = max(told + number, 0) if grows else number
        return status, told if grows else number * MIB

    size = 4 * MIB
    _, requests, _ = run(server, size, most=100_000)
    assert requests <= (size // MIB + 1) * ATTEMPTS * 25 * (RESTARTS + 1)


@given(TEXT | st.integers().map(str) | st.sampled_from(["9" * 30, "1" * 60_000, "٣", "+5", " 5 ", "5, 5", "0x5"]))
def test_any_offset_is_a_number_or_none(text: str) -> None:
    dialogue = Upload(SIZE, pause_s=float, begun_elsewhere=True)
    assert isinstance(dialogue.step, Ask)
    dialogue.answered(200, {"Upload-Offset": text, "Upload-Length": text})
    assert 0 <= dialogue.offset <= SIZE
