"""A transfer's ends, claim, watch and servers in memory; for test_transfers.py and test_failed_transfers.py."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof, Site
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.transfers import aftermath, copies, ladder, proof
from rucio_cs3.transfers.copies import Progress
from rucio_cs3.transfers.ends import End, Landing
from rucio_cs3.transfers.ladder import Job, Outcome, transfer_one
from rucio_cs3.transfers.modes import Mode, Wish

CONTENT = b"physics" * 100
OTHER = b"X" * len(CONTENT)
FILE = Reference(MountRoot("/localfs"), "rucio/t/f")

#: All that anybody may do to a source.
READING = frozenset({"stat", "open", "authorization", "speaks_tpc", "refused_tpc"})


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


class MemoryEnd:
    """A file at a site in memory.

    ``speaks`` is a proof of a while ago that the site does third-party copies, ``speaks_still`` whether it does now.
    ``faults`` maps a method to the errors that its next calls raise; ``told_sizes`` and ``told_sums`` are what the
    server says at the next looks in place of the truth; an empty sum is that of a CS3 cloud that is still summing.
    """

    def __init__(self, name: str, content: bytes | None = None, *, proof: Proof = "read") -> None:
        self.name = name
        self.place = f"/{name}/rucio/t/f"
        self.url = f"https://{name}.test/webdav/rucio/t/f"
        self.wish: Wish = "auto"
        self.proof: Proof = proof
        self.http = HTTPClient(Site(name=name))
        self.content = content
        self.is_folder = False
        self.has_parents = False
        self.processing = False
        self.etag = ""
        self.mtime_s = float(zlib.crc32(name.encode()))
        self.server_sums = False
        self.speaks = self.speaks_still = True
        self.token_has_died = False
        self.kept: dict[str, str] = {}
        self.reads_at_once = False
        self.ages_asked: list[float] = []
        self.landings: list[MemoryLanding] = []
        #: Errors in place of the answers to the next names that are given.
        self.lost: list[errors.CS3Error] = []
        self.faults: dict[str, list[errors.CS3Error]] = {}
        self.told_sizes: list[int] = []
        self.told_sums: list[str] = []
        self.calls: list[str] = []

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.faults.get(method):
            raise self.faults[method].pop(0)

    def is_same_place(self, other: End) -> bool:
        return self.url == other.url

    def stat(self) -> FileInfo:
        self._called("stat")
        if self.is_folder:
            size = len(self.content or b"")
            return FileInfo(reference=FILE, size=size, is_directory=True, etag=self.etag, mtime_s=self.mtime_s)
        if self.content is None:
            raise errors.NotFound("no such file", operation="Stat", target=self.place, code="CODE_NOT_FOUND")
        sums = {"adler32": adler32(self.content)} if self.server_sums else {}
        summing = False
        if self.told_sums:
            told = self.told_sums.pop(0)
            sums, summing = {"adler32": told} if told else {}, not told
        size = self.told_sizes.pop(0) if self.told_sizes else len(self.content)
        return FileInfo(
            reference=FILE,
            size=size,
            is_directory=False,
            checksums=sums,
            etag=self.etag,
            mtime_s=self.mtime_s,
            summing=summing,
        )

    def settled(self) -> FileInfo:
        info = self.stat()
        if self.processing:
            raise errors.TooEarly("the server is stuck in post-processing", operation="Stat", target=self.place)
        return info

    def checksum(self, algorithm: str) -> str:
        self._called("checksum")
        assert algorithm == "adler32"
        assert self.content is not None
        return adler32(self.content)

    def read_back(self, size_bytes: int, algorithm: str) -> FileInfo | None:
        if not self.reads_at_once:
            return None
        self._called("read_back")
        if self.content is None:
            raise errors.NotFound("no such file", operation="GET", target=self.place)
        if len(self.content) != size_bytes:
            raise errors.SizeMismatch("another size", operation="GET", target=self.place)
        return FileInfo(
            reference=FILE, size=size_bytes, is_directory=False, checksums={algorithm: adler32(self.content)}
        )

    def make_parents(self, *, anew: bool = False) -> bool:
        self._called("make_parents")
        missing = not self.has_parents
        self.has_parents = True
        return missing and anew

    def delete(self) -> None:
        self._called("delete")
        assert not self.is_folder, "a folder is never deleted"
        if self.content is None:
            raise errors.NotFound("no such file", operation="Delete", target=self.place)
        self.content = None

    def speaks_tpc(self, *, max_age_s: float | None = None) -> bool:
        self._called("speaks_tpc")
        if max_age_s is not None:
            self.ages_asked.append(max_age_s)
            return self.speaks and self.speaks_still
        return self.speaks

    def refused_tpc(self) -> None:
        self._called("refused_tpc")
        self.speaks = False

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        self._called("authorization")
        return f"Bearer {self.name}"

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        self._called("open")
        assert self.content is not None
        yield io.BytesIO(self.content)

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        assert self.content is not None
        assert info.size == len(self.content)
        self.kept.update(checksums)

    def landing(self) -> MemoryLanding:
        self.landings.append(MemoryLanding(self))
        return self.landings[-1]

    def leftovers(self) -> list[MemoryLanding]:
        self._called("leftovers")
        return [landing for landing in self.landings if landing.content is not None]

    def leave(self, data: bytes) -> MemoryLanding:
        """Something in a landing, as an earlier attempt leaves it."""
        landing = self.landing()
        landing.content = data
        return landing


class MemoryLanding(MemoryEnd):
    """A hidden sibling. Its content is its own; its faults, and what is told and counted, are the site's."""

    def __init__(self, of: MemoryEnd) -> None:
        self.__dict__.update(of.__dict__)
        self.of = of
        self.content = None
        self.is_folder = False
        self.place = f"{of.place}.part"
        self.url = f"{of.url}.part"
        #: What it was told at :meth:`discard`.
        self.discards: list[bool] = []

    @property
    def token_has_died(self) -> bool:
        return self.of.token_has_died

    @token_has_died.setter
    def token_has_died(self, died: bool) -> None:
        self.of.token_has_died = died

    def store(self, body: UploadBody) -> None:
        self._called("store")
        self.content = b"".join(bytes(piece) for piece in body)

    def take_name(self, file: FileInfo) -> None:
        self._called("take_name")
        if self.content is None:
            raise errors.ServerFault("internal", operation="Move", target=self.place)
        assert file.size == len(self.content)
        if self.of.content is not None or self.of.is_folder:
            raise errors.AlreadyExists("something stands there", operation="Move", target=self.of.place)
        self.of.content, self.of.mtime_s, self.content = self.content, self.mtime_s, None
        if self.lost:
            raise self.lost.pop(0)

    def discard(self, *, may_come: bool) -> None:
        self._called("discard")
        self.discards.append(may_come)
        self.content = None


@dataclass
class PaperClaim:
    """A claim that says what the test wrote on it."""

    gone: type[errors.Cancelled] | None = None
    confirmed: type[errors.Cancelled] | None = None
    removal: errors.CS3Error | None = None
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        if self.gone is not None:
            raise self.gone("over")

    def confirm(self) -> None:
        self.asked.append("confirm")
        self.check()
        if self.confirmed is not None:
            raise self.confirmed("over")

    def allow_removal(self) -> None:
        self.asked.append("removal")
        if self.removal is not None:
            raise self.removal


@dataclass
class Notes:
    """A watch that writes down what it is told."""

    told: list[Mode | int] = field(default_factory=list)
    proofs: int = 0

    def began(self, mode: Mode) -> None:
        self.told.append(mode)

    def moved(self, total_bytes: int) -> None:
        self.told.append(total_bytes)

    def copied(self) -> None:
        self.proofs += 1

    @property
    def modes(self) -> list[Mode]:
        return [entry for entry in self.told if isinstance(entry, Mode)]


class Clock:
    """Goes on only where somebody waits."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


#: What a third-party copy does in place of a server.
ThirdParty = Callable[["World", Progress], None]


class World:
    """Two ends, a claim, and servers that copy as ``pulls`` and ``pushes`` say; a relay is the real one."""

    def __init__(self) -> None:
        self.source = MemoryEnd("source", CONTENT)
        self.destination = MemoryEnd("destination")
        self.claim = PaperClaim()
        self.notes = Notes()
        self.job = Job(request_id="f" * 32, size_bytes=len(CONTENT), adler32=adler32(CONTENT))
        self.pulls: ThirdParty = copied
        self.pushes: ThirdParty = copied
        self.pauses: list[float] = []

    def run(self, pulls: ThirdParty | None = None) -> Outcome:
        self.pulls = pulls or self.pulls
        before = self.source.content
        outcome = transfer_one(self.job, self.source, self.destination, self.claim, self.notes)
        assert self.source.content == before
        assert set(self.source.calls) <= READING
        return outcome

    @property
    def landing(self) -> MemoryLanding:
        """Where the copy of now lands."""
        return self.destination.landings[-1]

    @property
    def named(self) -> bytes | None:
        """What stands under the file's name at the destination."""
        return self.destination.content

    @property
    def left(self) -> list[bytes]:
        """What stands under hidden names there."""
        return [landing.content for landing in self.destination.landings if landing.content is not None]


def copied(world: World, progress: Progress) -> None:
    progress(0)
    world.landing.content = world.source.content


def make_world(monkeypatch: pytest.MonkeyPatch, *, unseen: bool) -> World:
    """A world in which everything goes well; its pauses take no time.

    :param unseen: whether a first attempt asks for the copy before it looks; a large file's does not.
    """
    world = World()
    if not unseen:
        monkeypatch.setattr(ladder, "UNSEEN_BYTES", -1)

    def pull(size: int, checksums: Mapping[str, str], source: End, landing: Landing, progress: Progress) -> None:
        assert (source, landing) == (world.source, world.landing)
        world.pulls(world, progress)

    def push(size: int, checksums: Mapping[str, str], source: End, landing: Landing, progress: Progress) -> None:
        assert (source, landing) == (world.source, world.landing)
        world.pushes(world, progress)

    monkeypatch.setattr(copies, "COPIES", {Mode.PULL: pull, Mode.PUSH: push, Mode.RELAY: copies.COPIES[Mode.RELAY]})
    monkeypatch.setattr(aftermath, "time", Clock())
    for module in (proof, ladder):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=world.pauses.append))
    return world


def writes(data: bytes, then: errors.CS3Error | None = None) -> ThirdParty:
    """A copy that leaves ``data`` and then fails, or claims success."""

    def copy(world: World, progress: Progress) -> None:
        if then is None or then.code is None:
            # With a code it is an answer in place of a report.
            progress(0)
        world.landing.content = data
        if then is not None:
            raise then

    return copy


def fails(error: errors.CS3Error) -> ThirdParty:
    def copy(world: World, progress: Progress) -> None:
        raise error

    return copy


def must_not_copy(world: World, progress: Progress) -> None:
    raise AssertionError("nothing was to be copied")
