"""What objects show of themselves: whatever is alive in the middle of the work is looked at, public or not."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, Secret
from rucio_cs3.cs3.login import providers
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.uploads.sealing import Seal
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.cloud.tokens import TokenMint
from rucio_cs3.sandbox.reva import User
from rucio_cs3.transfers.copies import COPIES
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.modes import Mode
from tests.contract.place import adler32, content, endpoint_of
from tests.leaks.known import Known
from tests.leaks.search import Place, search

SIZE = 3_000_000
PASSWORD = "the-password-of-this-test"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """The password, and all tokens of embedded clouds as they are made."""
    known = Known()
    known.add("the password", PASSWORD)
    issue = TokenMint._issue

    def recorded(self: TokenMint, *arguments: Any) -> str:
        token = issue(self, *arguments)
        known.add("a token", token)
        return token

    monkeypatch.setattr(TokenMint, "_issue", recorded)
    return known


@pytest.fixture(params=[Behaviour.V3, Behaviour.SPACES], ids=lambda behaviour: behaviour.value)
def cloud(request: pytest.FixtureRequest, known: Known) -> Iterator[EmbeddedCloud]:
    user = User(username="einstein", password=PASSWORD)
    with EmbeddedCloud(name="a", behaviour=request.param, users=[user], marker_interval_s=0) as cloud:
        yield cloud


class Looks:
    """Looks at all objects of this package that there are, one time for each kind."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.kinds: set[str] = set()
        self.found: set[str] = set()

    def look(self, *_: object) -> None:
        places = []
        for one in gc.get_objects():
            kind = type(one)
            name = f"{kind.__module__}.{kind.__qualname__}"
            if not name.startswith("rucio_cs3.") or name.startswith("rucio_cs3.sandbox."):
                continue
            self.kinds.add(name)
            places.append(Place(f"repr of {name}", repr(one).encode()))
            places.append(Place(f"str of {name}", str(one).encode()))
            if hasattr(one, "__dict__"):
                places.append(Place(f"vars of {name}", repr(vars(one)).encode()))
        self.found.update(search(self._known, places))


def test_nothing_shows_a_secret_in_the_middle_of_the_work(
    cloud: EmbeddedCloud, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUCIO_CS3_STATE_DIR", str(tmp_path / "states"))
    monkeypatch.setattr("rucio_cs3.cs3.uploads.tus_uploads.KEEP_AFTER_S", 0.0)
    looks = Looks(known)
    local = tmp_path / "local"
    local.write_bytes(content(SIZE))
    provider = providers.BasicProvider("einstein", Secret(PASSWORD))
    for protocol in ("simple", "tus"):
        storage = CS3Storage(endpoint_of(cloud, upload_protocol=protocol), provider)
        try:
            target = Reference(storage.endpoint.root, f"folder/{protocol}")
            storage.make_directories(target.parent)
            storage.upload(local, target, progress=looks.look)
            looks.look()
            storage.download(target, tmp_path / "back", progress=looks.look)
            with storage.open(target) as reader:
                reader.readinto(memoryview(bytearray(10)))
                looks.look()
        finally:
            storage.close()
    assert looks.found == set()
    assert looks.kinds >= {
        "rucio_cs3.cs3.login.secret.Secret",
        "rucio_cs3.cs3.login.tokens.Credential",
        "rucio_cs3.cs3.resources.Ticket",
        "rucio_cs3.cs3.http.client._Call",
        "rucio_cs3.cs3.http.connection.Request",
        "rucio_cs3.cs3.uploads.tus_uploads.Errand",
        "rucio_cs3.cs3.uploads.upload_state.Unfinished",
        "rucio_cs3.cs3.uploads.sealing.Seal",
    }


def test_a_key_that_was_made_of_a_secret_is_not_shown() -> None:
    """Nor its fingerprint, by which passwords could be tried fast."""
    seal = Seal(providers.BasicProvider("me", Secret(PASSWORD)))
    seal.close("text", b"label")
    assert not hasattr(seal, "__dict__")
    assert repr(seal).startswith("<rucio_cs3.cs3.uploads.sealing.Seal object at ")


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH, Mode.RELAY], ids=lambda mode: mode.value)
def test_nothing_shows_a_secret_in_the_middle_of_a_copy(known: Known, mode: Mode) -> None:
    looks = Looks(known)
    users = [User(username="einstein", password=PASSWORD)]
    data = content(SIZE)
    with (
        EmbeddedCloud(name="a", users=users, marker_interval_s=0) as a,
        EmbeddedCloud(name="b", users=users, marker_interval_s=0) as b,
        contextlib.ExitStack() as stack,
    ):
        ends = []
        for cloud in (a, b):
            cloud.data_directory.mkdir(exist_ok=True)
            storage = CS3Storage(endpoint_of(cloud), providers.BasicProvider("einstein", Secret(PASSWORD)))
            stack.callback(storage.close)
            reference = Reference(storage.endpoint.root, f"{cloud.name}.dat")
            ends.append(CS3End(storage, reference, url=storage.endpoint.webdav.url(reference)))
        a.path_on_disk("a.dat").write_bytes(data)
        landing = ends[1].landing()
        COPIES[mode](SIZE, {"adler32": adler32(data)}, ends[0], landing, looks.look)
        landing.take_name(landing.stat())
        looks.look()
        assert b.path_on_disk("b.dat").read_bytes() == data
    assert looks.found == set()
    assert looks.kinds >= {"rucio_cs3.cs3.login.tokens.Credential", "rucio_cs3.cs3.http.client._Call"}
    # All objects of the process are looked at, and a relay has none of these; but an earlier test may have left some.
    assert mode is Mode.RELAY or "rucio_cs3.cs3.webdav.tpc._Request" in looks.kinds


@pytest.mark.parametrize(
    "make",
    [
        lambda secret: secret,
        lambda secret: providers.BasicProvider("me", secret),
        lambda secret: providers.AppPasswordProvider("me", secret),
        lambda secret: providers.MachineProvider("me", secret),
        lambda secret: providers.ServiceAccountProvider("me", secret),
        lambda secret: providers.PublicLinkProvider(secret, secret),
        lambda secret: providers.BearerProvider(secret),
        lambda secret: providers.BearerProvider(
            IssuedToken(
                issuer=IssuerSite(name="i", url="https://i.example.org"),
                grant="token_exchange",
                client_id="me",
                client_secret=secret,
                subject=secret,
            )
        ),
    ],
)
def test_no_way_to_log_in_shows_its_secret(make: Callable[[Secret], Any]) -> None:
    """And none of them shows it once it is asked for its login."""
    known = Known()
    known.add("the secret", PASSWORD)
    one = make(Secret(PASSWORD))
    shown = [repr(one), str(one), f"{one!r}", repr(copy.copy(one)), repr(copy.deepcopy(one)), repr([one])]
    if hasattr(one, "login") and not isinstance(getattr(one, "token", None), IssuedToken):
        shown += [repr(one.login()), str(one.login()), one.login().who]
    if hasattr(one, "__dict__"):
        shown.append(repr(vars(one)))
    assert search(known, [Place("it", text.encode()) for text in shown]) == []
    assert copy.deepcopy(one) == one
    assert dataclasses.replace(one) == one


@pytest.mark.parametrize(
    "one",
    [
        Secret(PASSWORD),
        Credential(PASSWORD),
        Ticket(protocol="simple", url=PASSWORD, token=PASSWORD),
        providers.Login("basic", "me", PASSWORD),
        providers.BasicProvider("me", Secret(PASSWORD)),
    ],
)
def test_a_secret_is_not_pickled(one: object) -> None:
    """A pickle is written somewhere, or sent."""
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(one)
