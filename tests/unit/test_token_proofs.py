"""When a "not found" may be believed: what proves a token, and how often the server is asked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login import token_proofs
from rucio_cs3.cs3.login.token_proofs import Refusals, TokenProofs
from rucio_cs3.cs3.login.tokens import Credential

TOKEN, OTHER = Credential("one"), Credential("two")


class Server:
    """Answers whether it knows a token, and counts how often it is asked."""

    def __init__(self, answer: bool | errors.CS3Error = True) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, credential: Credential, _timeout_s: float) -> bool:
        self.asked.append(credential.token)
        assert self.go_on.wait(10)
        if isinstance(self.answer, errors.CS3Error):
            raise self.answer
        return self.answer


def test_a_call_that_began_later_is_a_proof() -> None:
    server = Server()
    proofs = TokenProofs(server)
    doubt = time.monotonic()
    proofs.succeeded(TOKEN, doubt + 1)
    assert proofs.was_good(TOKEN, doubt, 1)
    assert server.asked == []


def test_the_later_of_two_proofs_counts_whichever_is_told_first() -> None:
    server = Server()
    proofs = TokenProofs(server)
    doubt = time.monotonic()
    proofs.succeeded(TOKEN, doubt + 1)
    proofs.succeeded(TOKEN, doubt - 1)
    assert proofs.was_good(TOKEN, doubt, 1)
    assert server.asked == []


@pytest.mark.parametrize(
    ("credential", "began_after_s"), [(TOKEN, -0.001), (OTHER, 1.0)], ids=["an earlier call", "another token"]
)
def test_what_proves_nothing(credential: Credential, began_after_s: float) -> None:
    server = Server()
    proofs = TokenProofs(server)
    doubt = time.monotonic()
    proofs.succeeded(credential, doubt + began_after_s)
    assert proofs.was_good(TOKEN, doubt, 1)
    assert server.asked == ["one"]


def test_a_token_that_the_server_does_not_know() -> None:
    server = Server(answer=False)
    assert not TokenProofs(server).was_good(TOKEN, time.monotonic(), 1)
    assert server.asked == ["one"]


def test_a_server_that_cannot_say() -> None:
    proofs = TokenProofs(Server(answer=errors.Unavailable("gone")))
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="gone"):
            proofs.was_good(TOKEN, time.monotonic(), 1)


@pytest.mark.parametrize("answer", [True, False, errors.Unavailable("gone")], ids=["yes", "no", "cannot say"])
def test_one_question_settles_the_doubts_of_many_threads(answer: bool | errors.CS3Error) -> None:
    server = Server(answer)
    server.go_on.clear()
    proofs = TokenProofs(server)
    begun = threading.Barrier(9)

    def doubt() -> bool | str:
        at = time.monotonic()
        begun.wait(10)
        try:
            return proofs.was_good(TOKEN, at, 1)
        except errors.Unavailable as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(doubt) for _ in range(8)]
        begun.wait(10)  # all have their doubt, and only then does the first one ask
        server.go_on.set()
        assert [result.result() for result in results] == [str(answer) if answer not in (True, False) else answer] * 8
    assert server.asked == ["one"]


def test_a_question_that_began_before_the_doubt_does_not_settle_it() -> None:
    server = Server()
    server.go_on.clear()
    proofs = TokenProofs(server)
    with ThreadPoolExecutor(2) as threads:
        early = threads.submit(proofs.was_good, TOKEN, time.monotonic(), 1)
        while not server.asked:
            time.sleep(0.001)
        late = threads.submit(proofs.was_good, TOKEN, time.monotonic(), 1)
        server.go_on.set()
        assert early.result()
        assert late.result()
    assert server.asked == ["one", "one"]


# -- how a server refuses tokens ---------------------------------------------------------------------------


class Refusing:
    """Says whether it refuses a forged token with an error of gRPC; counts as :class:`Server` does."""

    def __init__(self, answer: bool | None) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, forged: Credential, _timeout_s: float) -> bool | None:
        self.asked.append(forged.token)
        assert self.go_on.wait(10)
        return self.answer


@pytest.mark.parametrize("answer", [True, False, None])
def test_many_threads_show_a_server_one_forged_token(answer: bool | None) -> None:
    """Also where it cannot be asked: each of them would wait for all before it."""
    server = Refusing(answer)
    server.go_on.clear()
    refusals = Refusals(server)
    begun = threading.Barrier(9)

    def ask() -> bool:
        begun.wait(10)
        return refusals.are_unmistakable(Credential("header.claims.signature"), 1)

    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(ask) for _ in range(8)]
        begun.wait(10)
        server.go_on.set()
        assert [result.result() for result in results] == [bool(answer)] * 8
    assert server.asked == ["header.claims.sAAAAAAAA"]


def test_a_server_that_could_not_be_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Refusing(None)
    refusals = Refusals(server)
    monkeypatch.setattr(token_proofs, "_ASK_AGAIN_S", 0.0)
    assert not refusals.are_unmistakable(TOKEN, 1)
    server.answer = True
    assert refusals.are_unmistakable(TOKEN, 1)
    assert refusals.are_unmistakable(TOKEN, 1)
    assert len(server.asked) == 2
