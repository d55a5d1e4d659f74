"""The dialogue of a resumable upload: which step follows which answer, and that every dialogue ends."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3.uploads import tus
from rucio_cs3.cs3.uploads.piece_sizes import MIB, PieceSizes
from rucio_cs3.cs3.uploads.tus import Ask, Done, GiveUp, Look, Pause, Renew, Restart, Send

SIZE = 10 * MIB


def now(dialogue: tus.Upload) -> tus.Step:
    """The step, for a type checker that does not see that it changes."""
    return dialogue.step


def upload(size: int = SIZE, *, piece: int = 4 * MIB, **options: Any) -> tus.Upload:
    return tus.Upload(size, pause_s=float, pieces=PieceSizes(start=piece), **options)


def at(offset: int, length: int | None = SIZE) -> dict[str, str]:
    return {"Upload-Offset": str(offset), **({} if length is None else {"Upload-Length": str(length)})}


def send_all(dialogue: tus.Upload) -> None:
    """Let every piece go through."""
    while isinstance(step := dialogue.step, Send):
        dialogue.answered(204, at(step.offset + step.count), sent=step.count, seconds=1)


def settle(dialogue: tus.Upload, offset: int) -> None:
    """From the pause after a break to the second of two equal answers."""
    for _ in range(2):
        assert isinstance(now(dialogue), Pause)
        dialogue.waited()
        assert now(dialogue) == Ask()
        dialogue.answered(200, at(offset))


def lose(dialogue: tus.Upload) -> None:
    """From the pause after a break to the news that the upload is gone."""
    assert isinstance(now(dialogue), Pause)
    dialogue.waited()
    dialogue.answered(404, {})


def test_pieces_follow_each_other_until_all_is_there() -> None:
    dialogue = upload()
    seen = []
    while isinstance(step := dialogue.step, Send):
        seen.append((step.offset, step.count))
        dialogue.answered(204, at(step.offset + step.count), sent=step.count, seconds=20)
    assert seen == [(0, 4 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, 2 * MIB)]
    assert now(dialogue) == Done()
    assert not dialogue.interrupted


def test_a_break_goes_on_where_the_server_is() -> None:
    dialogue = upload()
    dialogue.broken()
    assert now(dialogue) == Pause(1.0)
    settle(dialogue, 2 * MIB)
    assert now(dialogue) == Send(2 * MIB, 2 * MIB), "and in half the length"
    assert dialogue.interrupted
    send_all(dialogue)
    assert now(dialogue) == Done()


def test_an_offset_that_still_grows_is_not_believed() -> None:
    """Reva v3.12.1 appends what it has received after the connection has gone: a PATCH that begins meanwhile would be
    mixed with it."""
    dialogue = upload()
    dialogue.broken()
    for offset in (MIB, 2 * MIB, 2 * MIB + 1):
        dialogue.waited()
        dialogue.answered(200, at(offset))
        assert now(dialogue) == Pause(tus.SETTLE_S)
    dialogue.waited()
    dialogue.answered(200, at(2 * MIB + 1))
    assert now(dialogue) == Send(2 * MIB + 1, 2 * MIB)


def test_a_lost_last_answer_is_settled_by_a_look() -> None:
    dialogue = upload(piece=SIZE)
    dialogue.broken()
    lose(dialogue)
    assert now(dialogue) == Look()
    dialogue.looked(found=True)
    assert now(dialogue) == Done()


def test_a_lost_upload_is_begun_again() -> None:
    dialogue = upload()
    dialogue.broken()
    lose(dialogue)
    assert now(dialogue) == Restart(), "not all was sent, so that it cannot be there"
    dialogue.began_again()
    assert now(dialogue) == Send(0, 2 * MIB)


def test_all_sent_and_neither_upload_nor_file() -> None:
    dialogue = upload(piece=SIZE)
    dialogue.broken()
    lose(dialogue)
    dialogue.looked(found=False)
    assert now(dialogue) == Pause(tus.SETTLE_S), "it may be on its way"
    lose(dialogue)
    assert now(dialogue) == Look()
    dialogue.looked(found=False)
    assert now(dialogue) == Restart()


def test_a_whole_upload_without_a_file_is_looked_for_twice() -> None:
    """OpenCloud: post-processing has it. Reva v3.12.1: it could not be finished, and never will be."""
    dialogue = upload(piece=SIZE)
    dialogue.answered(500, {}, sent=SIZE)
    settle(dialogue, SIZE)
    assert now(dialogue) == Look()
    dialogue.looked(found=False)
    assert now(dialogue) == Pause(tus.SETTLE_S)
    dialogue.waited()
    dialogue.answered(200, at(SIZE))
    assert now(dialogue) == Look()
    dialogue.looked(found=False)
    assert now(dialogue) == Restart()


@pytest.mark.parametrize(
    "told",
    [
        at(MIB, SIZE + 1),
        at(SIZE + 1),
        at(4 * MIB + 1),  # more than was sent
        at(MIB),  # less than was confirmed
    ],
)
def test_an_upload_that_cannot_be_ours_is_begun_again(told: Mapping[str, str]) -> None:
    dialogue = upload(piece=2 * MIB)
    dialogue.answered(204, at(2 * MIB), sent=2 * MIB, seconds=20)
    dialogue.answered(409, {}, sent=0)
    dialogue.waited()
    dialogue.answered(200, told)
    assert now(dialogue) == Restart()


@pytest.mark.parametrize("offset", ["", "x", "-1", "٣", "1" * 5000, "1.0", "0x10"])
def test_garbage_for_an_offset_is_no_offset(offset: str) -> None:
    dialogue = upload()
    for _ in range(tus.ATTEMPTS):
        if isinstance(now(dialogue), Pause):
            dialogue.waited()
        dialogue.answered(200, {"Upload-Offset": offset}, sent=4 * MIB if isinstance(now(dialogue), Send) else 0)
    step = now(dialogue)
    assert isinstance(step, GiveUp)
    assert step.reason


def test_an_answer_to_less_than_all_of_a_piece_is_asked_about() -> None:
    dialogue = upload()
    dialogue.answered(204, at(4 * MIB), sent=MIB)
    settle(dialogue, MIB)
    assert now(dialogue) == Send(MIB, 4 * MIB)


def test_a_server_that_took_less_than_it_got_is_sent_the_rest() -> None:
    dialogue = upload()
    dialogue.answered(204, at(3 * MIB), sent=4 * MIB, seconds=20)
    assert now(dialogue) == Send(3 * MIB, 4 * MIB)


def test_a_dead_access_token_is_renewed_and_the_upload_goes_on() -> None:
    dialogue = upload()
    dialogue.answered(204, at(4 * MIB), sent=4 * MIB, seconds=20)
    dialogue.answered(401, {}, sent=0)
    assert now(dialogue) == Renew()
    dialogue.waited()
    for _ in range(2):
        if isinstance(now(dialogue), Pause):
            dialogue.waited()
        dialogue.answered(200, at(4 * MIB))
    assert now(dialogue) == Send(4 * MIB, 4 * MIB)
    dialogue.answered(401, {}, sent=0)
    assert now(dialogue) == Restart(), "the new one is refused, too, so it is the ticket's that has died"


def test_a_dead_transfer_token_begins_again_and_goes_in_one() -> None:
    """Where tokens live shorter than the upload lasts, pieces would never come to an end."""
    dialogue = upload()
    dialogue.answered(204, at(4 * MIB), sent=4 * MIB, seconds=20)
    dialogue.answered(403, {}, sent=0)
    assert now(dialogue) == Restart()
    dialogue.began_again()
    assert now(dialogue) == Send(0, SIZE)
    dialogue.broken()
    settle(dialogue, 3 * MIB)
    assert now(dialogue) == Send(3 * MIB, SIZE - 3 * MIB)


def test_one_piece_that_is_too_large_is_cut_again() -> None:
    dialogue = upload()
    dialogue.answered(403, {}, sent=0)
    dialogue.began_again()
    dialogue.answered(413, {}, sent=0)
    dialogue.answered(200, at(0))
    dialogue.waited()
    dialogue.answered(200, at(0))
    assert now(dialogue) == Send(0, 4 * MIB)


def test_a_lost_upload_of_another_process_goes_in_pieces() -> None:
    """A ticket that has been kept for a day says nothing of how long a new one lives."""
    dialogue = upload(begun_elsewhere=True)
    dialogue.answered(403, {})
    assert now(dialogue) == Restart()
    dialogue.began_again()
    assert now(dialogue) == Send(0, 4 * MIB)


@pytest.mark.parametrize("status", [401, 403])
def test_a_new_ticket_that_is_refused_at_once_is_a_refusal(status: int) -> None:
    dialogue = upload()
    tickets = 1
    for _ in range(20):
        step = now(dialogue)
        if isinstance(step, GiveUp):
            break
        if isinstance(step, Restart):
            tickets += 1
            dialogue.began_again()
        elif isinstance(step, Renew):
            dialogue.waited()
        else:
            dialogue.answered(status, {}, sent=0)
    assert now(dialogue) == GiveUp()
    assert tickets == 2


def test_too_large_a_piece_is_halved_until_it_is_taken() -> None:
    dialogue = upload(piece=8 * MIB)
    counts = []
    while True:
        step = dialogue.step
        if isinstance(step, Ask):
            dialogue.answered(200, at(0))
        elif isinstance(step, Pause):
            dialogue.waited()
        elif isinstance(step, Send):
            counts.append(step.count)
            if step.count <= 2 * MIB:
                break
            dialogue.answered(413, {}, sent=0)
    assert counts == [8 * MIB, 4 * MIB, 2 * MIB]
    send_all(dialogue)
    assert now(dialogue) == Done()


def test_a_full_quota_ends_it_at_the_shortest_piece() -> None:
    dialogue = upload(piece=MIB)
    dialogue.answered(413, {}, sent=0)
    assert now(dialogue) == GiveUp()


@pytest.mark.parametrize("status", [423, 425, 429, 503])
def test_a_busy_server_is_waited_for_as_long_as_it_says(status: int) -> None:
    dialogue = upload()
    dialogue.answered(status, {}, sent=0, retry_after_s=7)
    assert now(dialogue) == Pause(7.0)
    dialogue.waited()
    assert now(dialogue) == Ask()


def test_a_server_that_wants_long_to_be_left_alone_is() -> None:
    dialogue = upload()
    dialogue.answered(503, {}, sent=0, retry_after_s=tus.PATIENCE_S + 1)
    assert now(dialogue) == GiveUp()


@pytest.mark.parametrize("status", [400, 405, 412, 415, 501, 507, 302, 206, 299])
def test_what_no_repetition_mends_ends_it(status: int) -> None:
    dialogue = upload()
    dialogue.answered(status, {}, sent=0)
    assert now(dialogue) == GiveUp()


@pytest.mark.parametrize("status", [419, 460])
def test_a_wrong_checksum_ends_it_unless_it_was_put_together(status: int) -> None:
    whole = upload(piece=SIZE)
    whole.answered(status, {}, sent=0)
    assert now(whole) == GiveUp()
    mended = upload()
    mended.broken()
    settle(mended, MIB)
    mended.answered(status, {}, sent=4 * MIB)
    assert now(mended) == Restart()


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
def test_failures_without_progress_are_counted(status: int) -> None:
    dialogue = upload()
    for number in range(1, tus.ATTEMPTS):
        while not isinstance(now(dialogue), Send):
            if isinstance(now(dialogue), Ask):
                dialogue.answered(200, at(0))
            else:
                dialogue.waited()
        dialogue.answered(status, {}, sent=0)
        assert now(dialogue) == Pause(float(number))
    dialogue.waited()
    dialogue.answered(status, {})
    assert now(dialogue) == GiveUp()


def test_one_that_another_process_began_is_asked_about_first() -> None:
    dialogue = upload(begun_elsewhere=True)
    assert now(dialogue) == Ask()
    dialogue.answered(200, at(5 * MIB))
    assert now(dialogue) == Pause(tus.SETTLE_S), "it may have been killed just now"
    dialogue.waited()
    dialogue.answered(200, at(5 * MIB))
    assert now(dialogue) == Send(5 * MIB, 4 * MIB)
    assert dialogue.interrupted


def test_one_that_another_process_ended_is_looked_for() -> None:
    dialogue = upload(begun_elsewhere=True)
    dialogue.answered(404, {})
    assert now(dialogue) == Look()


@pytest.mark.parametrize("status", [400, 405, 501])
def test_an_old_ticket_that_the_server_does_not_understand_is_replaced(status: int) -> None:
    dialogue = upload(begun_elsewhere=True)
    dialogue.answered(status, {})
    assert now(dialogue) == Restart()


def test_an_old_ticket_whose_place_is_silent_is_replaced() -> None:
    dialogue = upload(begun_elsewhere=True)
    dialogue.broken()
    dialogue.waited()
    dialogue.broken()
    assert now(dialogue) == Restart()
    dialogue.began_again()
    for _ in range(tus.ATTEMPTS):
        while not isinstance(now(dialogue), Ask | Send):
            dialogue.waited()
        dialogue.broken()
    assert isinstance(now(dialogue), GiveUp)


def test_pieces_take_some_ten_seconds() -> None:
    pieces = PieceSizes(start=8 * MIB, most=16 * MIB)
    pieces.took(8 * MIB, 1)
    assert pieces.current == 16 * MIB
    pieces.took(16 * MIB, 1)
    assert pieces.current == 16 * MIB, "no more than the most"
    pieces.took(16 * MIB, 20)
    assert pieces.current == 16 * MIB
    pieces.took(16 * MIB, 31)
    assert pieces.current == 8 * MIB
    pieces.took(3, 0.001)
    assert pieces.current == 8 * MIB, "the end of a file says nothing"
    assert pieces.refuse(8 * MIB)
    pieces.took(4 * MIB, 1)
    assert pieces.current == 4 * MIB, "what was refused is not tried again"
    for _ in range(9):
        pieces.halve()
    assert pieces.current == MIB
    assert not pieces.refuse(MIB)


def test_an_upload_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="nothing"):
        upload(0)


@pytest.mark.parametrize("event", ["answered", "broken", "waited", "looked", "began_again"])
def test_news_that_nobody_waits_for_is_refused(event: str) -> None:
    dialogue = upload(piece=SIZE)
    dialogue.answered(204, at(SIZE), sent=SIZE)
    calls = {
        "answered": lambda: dialogue.answered(200, {}),
        "broken": dialogue.broken,
        "waited": dialogue.waited,
        "looked": lambda: dialogue.looked(found=True),
        "began_again": dialogue.began_again,
    }
    with pytest.raises(ValueError, match="Done"):
        calls[event]()


#: More steps than any dialogue of so few bytes can have: every piece of 1 MiB may fail ATTEMPTS times, settling.
_MANY = 20_000

_STATUSES = st.sampled_from(
    [200, 204, 204, 206, 302, 400, 401, 403, 404, 408, 409, 410, 412, 413, 419, 423, 429, 460, 500, 502, 503, 507, 0]
)
_OFFSETS = st.one_of(
    st.sampled_from(["", "x", "-5", "0", str(MIB), str(SIZE), str(SIZE + 1)]),
    st.integers(0, SIZE).map(str),
)


@given(data=st.data(), elsewhere=st.booleans())
def test_every_dialogue_ends(data: st.DataObject, elsewhere: bool) -> None:
    """Whatever is answered, and however wrong it is."""
    dialogue = upload(size=3 * MIB, piece=MIB, begun_elsewhere=elsewhere)
    script = data.draw(st.lists(st.tuples(_STATUSES, _OFFSETS, st.booleans()), min_size=1, max_size=30))
    for number in range(_MANY):
        step = dialogue.step
        status, offset, flag = script[number % len(script)]
        if isinstance(step, Done | GiveUp):
            return
        if isinstance(step, Pause | Renew):
            dialogue.waited()
        elif isinstance(step, Look):
            dialogue.looked(found=flag)
        elif isinstance(step, Restart):
            dialogue.began_again()
        elif status == 0:
            dialogue.broken()
        else:
            sent = step.count if isinstance(step, Send) and flag else 0
            dialogue.answered(status, {"Upload-Offset": offset, "Upload-Length": str(3 * MIB)}, sent=sent)
    raise AssertionError("the dialogue does not end")


class Server:
    """Keeps what comes, as Reva does; breaks in ways that leave it in order, or loses the whole upload."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)
        self.size = size
        self.content: list[int] | None = []
        self.stored: list[int] | None = None
        self.late: list[int] = []

    def patch(self, offset: int, pieces: list[int]) -> tuple[int, dict[str, str], int] | None:
        """Status, headers and bytes sent; None for no answer."""
        self._arrive()
        choice = self.random.random()
        if self.content is None:
            return 404, {}, 0
        if choice < 0.1:
            return self.random.choice([401, 413, 423, 429, 500, 502, 503]), {}, 0
        if choice < 0.13:
            self.content = None  # the server has forgotten the upload
            return 404, {}, 0
        if offset != len(self.content):
            return 409, {}, 0
        if choice < 0.4:
            came = self.random.randint(0, len(pieces))
            # Some of what has come is written only after the connection has gone.
            now = self.random.randint(0, came)
            self.content += pieces[:now]
            self.late = pieces[now:came]
            self._finish_if_whole()
            sent = self.random.randint(came, len(pieces))
            return None if self.random.random() < 0.8 else (500, {}, sent)
        self.content += pieces
        reached = len(self.content)
        self._finish_if_whole()
        if self.random.random() < 0.2:
            return None  # only the answer is lost
        return 204, {"Upload-Offset": str(reached)}, len(pieces)

    def head(self) -> tuple[int, dict[str, str]] | None:
        if self.content is None:
            return 404, {}
        answer = 200, {"Upload-Offset": str(len(self.content)), "Upload-Length": str(self.size)}
        self._arrive()
        choice = self.random.random()
        return None if choice < 0.1 else (503, {}) if choice < 0.15 else answer

    def settle(self) -> None:
        self._arrive()

    def _arrive(self) -> None:
        if self.content is not None and self.late:
            self.content += self.late
            self.late = []
            self._finish_if_whole()

    def _finish_if_whole(self) -> None:
        if self.content is not None and len(self.content) == self.size:
            self.stored, self.content = self.content, None


@given(seed=st.integers(0, 2**32), size=st.integers(1, 40), piece=st.integers(1, 16))
def test_bytes_are_neither_skipped_nor_repeated(seed: int, size: int, piece: int) -> None:
    """Against a server that keeps what comes: what is stored in the end is the file, or nothing is said to be."""
    server = Server(seed, size)
    pieces = PieceSizes(start=piece, least=1)
    dialogue = tus.Upload(size, pause_s=float, pieces=pieces)
    for _ in range(_MANY):
        step = dialogue.step
        if isinstance(step, Done):
            assert server.stored == list(range(size))
            return
        if isinstance(step, GiveUp):
            return
        if isinstance(step, Send):
            assert 0 < step.count <= size - step.offset
            answer = server.patch(step.offset, list(range(step.offset, step.offset + step.count)))
            if answer is None:
                dialogue.broken()
            else:
                status, headers, sent = answer
                dialogue.answered(status, headers, sent=sent, seconds=1)
        elif isinstance(step, Ask):
            told = server.head()
            if told is None:
                dialogue.broken()
            else:
                dialogue.answered(*told)
        elif isinstance(step, Look):
            dialogue.looked(found=server.stored is not None)
        elif isinstance(step, Restart):
            server.content, server.late = [], []
            dialogue.began_again()
        else:
            if isinstance(step, Pause):
                server.settle()
            dialogue.waited()
    raise AssertionError("the dialogue does not end")
