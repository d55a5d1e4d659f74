"""One transfer between two clouds with faults in it, and the one check of what is left after it.

Whatever happens, nothing but a whole, right file is ever under the final name, or what the case put there itself:
somebody looks all the time (:class:`NameWatch`), and the check asks what was seen.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rucio_cs3.cs3 import CS3Storage, errors
from rucio_cs3.cs3.hidden_names import PART_PREFIX, PART_SUFFIX
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ladder import Job, Outcome, State, transfer_one
from rucio_cs3.transfers.modes import Mode, Wish
from tests.contract.place import Cloud, adler32, content, endpoint_of, provider_of

#: More than one block of every loop on the way, with a rest.
SIZE = 300_001

#: How long a server may take to tidy up after a connection that broke, in seconds.
SETTLE_S = 5.0

#: Pause between two looks at the final name, in seconds.
_LOOK_AGAIN_S = 0.005

Side = Literal["source", "destination"]

_numbers = itertools.count(1)


@dataclass
class Site:
    """One cloud, and the file of a scene there.

    :param relative: of the file, below the WebDAV base and not percent-encoded.
    """

    cloud: Cloud
    storage: CS3Storage
    relative: str
    #: All that :meth:`write` has put there.
    written: set[bytes] = field(default_factory=set)

    @property
    def reference(self) -> Reference:
        return Reference(self.storage.endpoint.root, self.relative)

    @property
    def on_disk(self) -> Path:
        """Where the server keeps the file, whether it is there or not."""
        return self.cloud.path_on_disk(self.relative)

    def write(self, data: bytes) -> None:
        """Put the file on the server's disk, behind its back, and all of it at once."""
        self.on_disk.parent.mkdir(parents=True, exist_ok=True)
        self.written.add(data)
        beside = self.on_disk.with_name(f"{self.on_disk.name}~")
        beside.write_bytes(data)
        beside.replace(self.on_disk)

    def files(self) -> set[str]:
        """All files of the cloud, hidden ones included, by their paths below the data directory."""
        folder = self.cloud.data_directory
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def hidden(self) -> set[Path]:
        """The hidden siblings of the file that are on the server's disk."""
        return set(self.on_disk.parent.glob(f"{PART_PREFIX}*{PART_SUFFIX}"))

    def end(self, wish: Wish) -> CS3End:
        return CS3End(self.storage, self.reference, url=self.storage.endpoint.webdav.url(self.reference), wish=wish)


class NameWatch:
    """Looks at a name all the time.

    :param right: the content that a transfer may put there.
    :ivar wrong: what else was seen there, in words.
    """

    def __init__(self, site: Site, right: bytes) -> None:
        self._site = site
        self._right = right
        self._seen: tuple[int, ...] = ()
        self._over = threading.Event()
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(_LOOK_AGAIN_S):
            # Nothing there, or a disk that is just taken away.
            with contextlib.suppress(OSError):
                self._look()

    def _look(self) -> None:
        status = self._site.on_disk.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            data = self._site.on_disk.read_bytes()
            if data != self._right and data not in self._site.written:
                self.wrong.append(f"{len(data)} bytes")
            self._seen = seen


@dataclass
class PaperClaim:
    """A claim that says what the case wrote on it."""

    removal: errors.CS3Error | None = None

    def check(self) -> None: ...

    def confirm(self) -> None: ...

    def allow_removal(self) -> None:
        if self.removal is not None:
            raise self.removal


@dataclass
class Observer:
    """A watch; ``on_begin`` is called once, at the first copy's begin."""

    on_begin: Callable[[], None] | None = None
    on_bytes: Callable[[int], None] | None = None
    modes: list[Mode] = field(default_factory=list)
    total_bytes: int = 0

    def began(self, mode: Mode) -> None:
        self.modes.append(mode)
        act, self.on_begin = self.on_begin, None
        if act is not None:
            act()

    def moved(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        if self.on_bytes is not None:
            self.on_bytes(total_bytes)

    def copied(self) -> None: ...


@dataclass
class Scene:
    """Source, destination and the job between them.

    :param wish: the mode that both RSEs ask for.
    :param claim: of the first attempt; later ones may always remove.
    """

    source: Site
    destination: Site
    wish: Wish
    data: bytes = field(default_factory=lambda: content(SIZE))
    claim: PaperClaim = field(default_factory=PaperClaim)
    watch: Observer = field(default_factory=Observer)
    job: Job = field(init=False)
    _before: dict[Side, set[str]] = field(init=False)
    _name: NameWatch = field(init=False)

    def __post_init__(self) -> None:
        self.source.write(self.data)
        self.job = Job(request_id="0" * 32, size_bytes=len(self.data), adler32=adler32(self.data))
        self._before = {"source": self.source.files(), "destination": self.destination.files()}
        self._name = NameWatch(self.destination, self.data)

    @classmethod
    def make(cls, source: Cloud, destination: Cloud, wish: Wish, *, equal_paths: bool = True) -> Scene:
        """A scene with a folder of its own; Rucio's paths are equal at all RSEs with the same prefix."""
        folder = f"scene-{next(_numbers)}"
        elsewhere = "file" if equal_paths else "elsewhere"
        return cls(
            Site(source, CS3Storage(endpoint_of(source), provider_of(source)), f"{folder}/sub/file"),
            Site(
                destination, CS3Storage(endpoint_of(destination), provider_of(destination)), f"{folder}/sub/{elsewhere}"
            ),
            wish,
        )

    def site(self, side: Side) -> Site:
        return self.source if side == "source" else self.destination

    def forget(self, side: Side, relative: str) -> None:
        """A file that was there before the scene is gone, and rightly so."""
        self._before[side].discard(relative)

    def patience(self, **seconds: float) -> None:
        """Other time-outs than the clouds' own, for cases of silence."""
        for site in (self.source, self.destination):
            endpoint = site.storage.endpoint
            site.storage.close()
            changed = replace(endpoint, timeouts=replace(endpoint.timeouts, **seconds))
            site.storage = CS3Storage(changed, provider_of(site.cloud))

    def run(self, **changes: object) -> Outcome:
        """One attempt."""
        ends = self.source.end(self.wish), self.destination.end(self.wish)
        return transfer_one(replace(self.job, **changes), *ends, self.claim, self.watch)  # type: ignore[arg-type]

    def close(self) -> None:
        self._name.stop()
        for site in (self.source, self.destination):
            site.cloud.faults.clear()
            site.storage.close()

    # -- the check --------------------------------------------------------------------------------------------

    def check(self, outcome: Outcome, *, strays: bool = False, foreign: bytes | None = None) -> None:
        """What holds after every attempt, however it went.

        :param strays: whether this attempt was kept from tidying up, by the case or because a site was away: what its
            server has made of half a file stands there under a hidden name until the next attempt.
        :param foreign: what somebody else put under the final name, and is to stay there.
        """
        pending = [*self.source.cloud.faults.pending(), *self.destination.cloud.faults.pending()]
        assert pending == [], "a fault that never happened"
        assert self.source.on_disk.read_bytes() == self.data, "the source was touched"
        assert self._name.wrong == [], "something else was under the final name"
        if outcome.state is State.DONE:
            assert self.destination.on_disk.read_bytes() == self.data, "reported done, and is not"
            assert outcome.reason is None
        elif foreign is not None:
            assert self.destination.on_disk.read_bytes() == foreign, "somebody else's file was touched"
            assert outcome.reason
        else:
            assert outcome.reason
            assert not self.destination.on_disk.exists(), "something stands under the final name"
        if not strays:
            self.check_strays()

    def check_strays(self) -> None:
        """Nothing is left at either site that was not there before, hidden or not."""
        deadline = time.monotonic() + SETTLE_S
        while self.strays() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.strays() == set()

    def strays(self) -> set[str]:
        """What is at one of the sites and was not there before, or the other way round, but for the file itself."""
        sides: tuple[Side, ...] = ("source", "destination")
        found = {f"{side}: {name}" for side in sides for name in self.site(side).files() ^ self._before[side]}
        return found - {f"destination: {self.destination.relative}"}

    def check_next(self, outcome: Outcome) -> None:
        """The same job once more, the faults being gone, ends well."""
        self.claim.removal = None
        again = self.run(attempt=self.job.attempt + (0 if outcome.state is State.DONE else 1))
        assert again.state is State.DONE, again.reason
        self.check(again)
        if outcome.state is State.DONE:
            assert not again.copied, "copied again what was there and right"
