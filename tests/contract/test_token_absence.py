"""C1435 to C1439: "not found" is never said for want of a token. What is promised: docs/contract.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.login.providers import Login
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ladder import Job, State, transfer_one
from tests.contract.faulty_reva import FaultyReva
from tests.contract.mortal import CHANGED, assert_says_whose
from tests.contract.place import Place, adler32
from tests.faults.scene import Observer, PaperClaim

DATA = b"x" * 1000


def _garbage(cloud: FaultyReva, token: str) -> str:
    return "garbage"


def _forged(cloud: FaultyReva, token: str) -> str:
    """Right but for the signature."""
    return token[:-8] + "".join("A" if character != "A" else "B" for character in token[-8:])


def _expired(cloud: FaultyReva, token: str) -> str:
    return cloud.site.aged_token(token)


def _of_nobody(cloud: FaultyReva, token: str) -> str:
    """A token by which nobody is named, signed by nobody."""
    return "eyJhbGciOiJub25lIn0.e30."


#: What becomes of a good token.
TOKENS: dict[str, Callable[[FaultyReva, str], str]] = {
    "expired": _expired,
    "forged": _forged,
    "garbage": _garbage,
    "of nobody": _of_nobody,
}

#: All that can say "not found", of a file.
OPERATIONS: dict[str, Callable[[CS3Storage, Reference, Path], object]] = {
    "stat": lambda storage, file, local: storage.stat(file),
    "settled": lambda storage, file, local: storage.settled(file),
    "exists": lambda storage, file, local: storage.exists(file),
    "list": lambda storage, file, local: storage.list(file),
    "delete": lambda storage, file, local: storage.delete(file),
    "delete a file": lambda storage, file, local: storage.delete_file(file),
    "move": lambda storage, file, local: storage.move(file, file.sibling("new")),
    "download": lambda storage, file, local: storage.download(file, local / "down"),
    "checksum": lambda storage, file, local: storage.checksum(file),
    "checksum at once": lambda storage, file, local: storage.checksum(file, size=len(DATA)),
    "open": lambda storage, file, local: storage.open(file).__enter__(),
}


@pytest.fixture
def revoked(mortal: Place) -> Iterator[FaultyReva]:
    """A cloud that lets nobody in any more; tokens are good as long as they live."""
    cloud = mortal.cloud
    assert isinstance(cloud, FaultyReva)
    try:
        yield cloud
    finally:
        cloud.password = None


def _with_token(storage: CS3Storage, cloud: FaultyReva, change: Callable[[FaultyReva, str], str]) -> None:
    """Give a storage another token in place of its own; it believes it to be alive."""
    tokens = storage._gateway.tokens
    good = tokens.get()
    tokens._current = Credential(change(cloud, good.token), good.expires_at, good.issued_at)


@pytest.mark.parametrize("token", list(TOKENS))
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_c1435_a_bad_token_finds_nothing_missing(
    mortal: Place, revoked: FaultyReva, operation: str, token: str, short_pauses: None
) -> None:
    file = mortal.put("file", DATA)
    act = OPERATIONS[operation]
    for reference in (file, mortal.file("nothing"), mortal.file("no-folder").child("nothing")):
        with CS3Storage(mortal.endpoint, mortal.provider) as storage:
            _with_token(storage, revoked, TOKENS[token])
            revoked.password = CHANGED
            with pytest.raises(errors.Unauthenticated) as caught:
                act(storage, reference, mortal.local)
            revoked.password = None
            assert_says_whose(caught.value, revoked)
    assert mortal.names() == ["file"]
    assert mortal.stored(file) == DATA


@pytest.mark.parametrize("token", ["good", *TOKENS])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "exists"])
def test_c1436_who_is_let_in_is_told_what_is_missing(mortal: Place, operation: str, token: str) -> None:
    cloud = mortal.cloud
    assert isinstance(cloud, FaultyReva)
    mortal.storage.exists(mortal.folder)
    if token != "good":
        _with_token(mortal.storage, cloud, TOKENS[token])
    with pytest.raises(errors.NotFound):
        OPERATIONS[operation](mortal.storage, mortal.file("nothing"), mortal.local)
    if token != "good":
        _with_token(mortal.storage, cloud, TOKENS[token])
    assert not mortal.storage.exists(mortal.file("nothing"))


@pytest.mark.parametrize("token", list(TOKENS))
def test_c1437_no_transfer_finds_its_source_missing(mortal: Place, revoked: FaultyReva, token: str) -> None:
    """What the agent would tell Rucio of a lost source."""
    file = mortal.put("file", DATA)
    job = Job(request_id="0" * 32, size_bytes=len(DATA), adler32=adler32(DATA), attempt=1)
    with (
        CS3Storage(mortal.endpoint, mortal.provider) as from_storage,
        CS3Storage(mortal.endpoint, mortal.provider) as to_storage,
    ):
        # The destination is who it is all the time.
        to_storage.exists(mortal.file("nothing"))
        from_storage.exists(file)
        _with_token(from_storage, revoked, TOKENS[token])
        revoked.password = CHANGED
        for reference in (file, mortal.file("nothing")):
            ends = [
                CS3End(storage, place, url=storage.endpoint.webdav.url(place), wish="relay")
                for storage, place in ((from_storage, reference), (to_storage, mortal.file("target")))
            ]
            outcome = transfer_one(job, ends[0], ends[1], PaperClaim(), Observer())
            assert outcome.state is State.FAILED
            assert isinstance(outcome.error, errors.Unauthenticated), outcome.reason
            assert_says_whose(outcome.error, revoked)
    assert mortal.names() == ["file"]


def test_c1438_whoever_gives_tokens_and_is_not_found_says_nothing_of_a_file(mortal: Place) -> None:
    """An identity provider that answers 404, say."""

    class Gone:
        def login(self) -> Login:
            raise errors.NotFound("the issuer answered 404", operation="POST", code="HTTP 404")

        def lasting_secret(self) -> None:
            return None

    file = mortal.put("file", DATA)
    with CS3Storage(mortal.endpoint, Gone()) as storage:
        for act in OPERATIONS.values():
            with pytest.raises(errors.Unavailable, match="no token is to be had: the issuer answered 404"):
                act(storage, file, mortal.local)


def test_c1439_rucio_is_told_of_a_loss_by_good_tokens_only(
    mortal: Place, revoked: FaultyReva, rucio_client: None
) -> None:
    from rucio.common import exception
    from rucio.rse import rsemanager

    from tests.contract.faces import rse_of

    user = next(iter(revoked.users.values()))
    file = mortal.put("file", DATA)
    told: list[Any] = []
    for number, change in enumerate(TOKENS.values(), start=1):
        settings = rse_of(mortal, {"cs3_call_timeout_s": 19.0 + number / 1000})
        protocol = rsemanager.create_protocol(settings, "delete")
        protocol.connect({"username": user.username, "password": user.password})
        there, missing = (protocol.endpoint.webdav.url(place) for place in (file, mortal.file("nothing")))
        with pytest.raises(exception.SourceNotFound):
            protocol.delete(missing)
        _with_token(protocol.storage, revoked, change)
        revoked.password = CHANGED
        for pfn in (there, missing):
            for method, *more in (("delete",), ("stat",), ("exists",), ("get", str(mortal.local / "down"))):
                with pytest.raises(exception.RSEAccessDenied) as caught:
                    getattr(protocol, method)(pfn, *more)
                told.append(caught.value)
        revoked.password = None
    for error in told:
        assert_says_whose(error, revoked)
    assert mortal.names() == ["file"]
