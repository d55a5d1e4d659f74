"""The cloud that is measured, seen twice: directly, and through a link; and the files that lie there."""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from far_link import FarLink
from peers import SENDS, Operation, Peer, Site, Task

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, parse_root
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.resources import Ticket, pick_ticket
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite

_BLOCK_BYTES = 1024 * 1024
_SOURCES = "sources"
_TARGETS = "targets"


class Cloud(contextlib.ExitStack):
    """A running cloud with files to fetch, and ways to make and check the tasks of all peers.

    :param running: started by its owner, who also stops it.
    """

    def __init__(self, running: RevaSite | EmbeddedCloud) -> None:
        super().__init__()
        self.running = running
        user = next(iter(running.users.values()))
        provider = BasicProvider(user.username, Secret(user.password))
        self._root = parse_root(running.root)
        endpoint = Endpoint(
            name=running.name,
            gateway=running.gateway,
            gateway_tls=False,
            webdav=WebDAVBase.parse(running.webdav_url, root=self._root),
        )
        self._storage = self.enter_context(CS3Storage(endpoint, provider))
        self._gateway = self.enter_context(contextlib.closing(Gateway(endpoint, provider)))
        #: How a peer on this machine reaches it.
        self.site = Site(
            gateway=running.gateway,
            webdav_url=running.webdav_url,
            root=running.root,
            username=user.username,
            password=user.password,
            token=self._storage.access_token(),
        )
        self._storage.make_directories(self._reference(_TARGETS))

    def add_sources(self, sources: Sources, sizes: Sequence[int]) -> None:
        """Bring files there that peers can fetch, as the protocol without settings does: read back, and from 1 MiB on
        with the checksum kept beside the file.
        """
        for size in sizes:
            self._storage.make_directories(self._reference(f"{_SOURCES}/{size}"))
            for path in sources.paths(size):
                self._storage.upload(path, self._reference(f"{_SOURCES}/{size}/{path.name}"), read_back=True)

    def tasks(
        self, peer: type[Peer], operation: Operation, sources: Sources, size: int, count: int, folder: Path, case: str
    ) -> list[Task]:
        """One task for each file, with tickets where the peer wants them.

        :param folder: an empty one, for what is fetched.
        :param case: names the folder of what is sent; letters and digits.
        """
        made = []
        if operation in SENDS:
            # On the disk, and not by a call: what it costs is not the question.
            self.running.path_on_disk(f"{_TARGETS}/{case}").mkdir()
        for path in sources.paths(size)[:count]:
            if operation in SENDS:
                name, local = f"{_TARGETS}/{case}/{path.name}", path
            else:
                name, local = f"{_SOURCES}/{size}/{path.name}", folder / path.name
            ticket = {"ticket_url": "", "ticket_token": ""}
            if peer.tickets:
                reference = self._reference(name)
                offers: Sequence[Ticket]
                if operation in SENDS:
                    offers = self._gateway.initiate_upload(reference, size)
                else:
                    offers = self._gateway.initiate_download(reference)
                picked = pick_ticket(offers, ("simple", "spaces"), reference)
                ticket = {"ticket_url": picked.url, "ticket_token": picked.token}
            made.append(Task(name=name, local_path=str(local), size=size, **ticket))
        return made

    def check(self, operation: Operation, tasks: Sequence[Task], sources: Sources) -> str | None:
        """What is wrong with what arrived; None if nothing."""
        if operation == "stat":
            return None
        wrong = None
        for task in tasks:
            arrived = self.arrived(operation, task)
            if not arrived.is_file():
                wrong = "reported done, and no file is there"
                continue
            size = arrived.stat().st_size
            if size != task.size:
                wrong = f"reported done with {size} bytes instead of {task.size}"
            elif _adler32(arrived) != sources.adler32(task.size):
                wrong = "reported done with other content"
        return wrong

    def discard(self, operation: Operation, tasks: Sequence[Task]) -> None:
        """Remove what is there of the tasks, whole or not, and the folder of what was sent."""
        if operation in SENDS:
            shutil.rmtree(self.running.path_on_disk(tasks[0].name).parent, ignore_errors=True)
        elif operation == "get":
            for task in tasks:
                self.arrived(operation, task).unlink(missing_ok=True)

    def arrived(self, operation: Operation, task: Task) -> Path:
        """Where the file of a task is when it is done."""
        return self.running.path_on_disk(task.name) if operation in SENDS else Path(task.local_path)

    def _reference(self, name: str) -> Reference:
        return Reference(self._root, name)


class Sources:
    """Local files to send: of each size one, under as many names as are needed.

    :param folder: an empty one.
    """

    def __init__(self, folder: Path, counts: dict[int, int]) -> None:
        self._paths: dict[int, list[Path]] = {}
        self._adler32: dict[int, int] = {}
        for size, count in counts.items():
            place = folder / str(size)
            place.mkdir(parents=True)
            first = place / "0000"
            self._adler32[size] = _write(first, size)
            self._paths[size] = [first]
            for number in range(1, count):
                path = place / f"{number:04}"
                path.hardlink_to(first)
                self._paths[size].append(path)

    def paths(self, size: int) -> list[Path]:
        return self._paths[size]

    def adler32(self, size: int) -> int:
        return self._adler32[size]


class LinkedReva(contextlib.ExitStack):
    """Two Reva sites behind links: one for peers that speak CS3, whose tickets lead over the link, and one for those
    that speak WebDAV. The second's front end uses tickets of its own inside, which must not pass the link.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._grpc, self._data, self._webdav = (self.enter_context(FarLink()) for _ in range(3))
        by_tickets = RevaSite(
            "tickets", directory=folder / "tickets", data_gateway_url=f"http://{self._data.address}/datagateway"
        )
        self._by_tickets = self.enter_context(Cloud(self.enter_context(by_tickets)))
        self._by_webdav = self.enter_context(Cloud(self.enter_context(RevaSite("webdav", directory=folder / "webdav"))))
        self._grpc.lead_to(by_tickets.gateway)
        self._data.lead_to(urlsplit(by_tickets.http_url).netloc)
        self._webdav.lead_to(urlsplit(self._by_webdav.running.http_url).netloc)

    @property
    def http_links(self) -> tuple[FarLink, FarLink]:
        return self._data, self._webdav

    @property
    def links(self) -> tuple[FarLink, FarLink, FarLink]:
        return self._grpc, self._data, self._webdav

    def add_sources(self, sources: Sources, sizes: Sequence[int]) -> None:
        for cloud in (self._by_tickets, self._by_webdav):
            cloud.add_sources(sources, sizes)

    def cloud(self, peer: type[Peer]) -> Cloud:
        """The site for a peer."""
        return self._by_tickets if peer.speaks == "CS3" else self._by_webdav

    def site(self, peer: type[Peer]) -> Site:
        """How a peer reaches it, over the links."""
        direct = self.cloud(peer).site
        gateway = self._grpc.address if peer.speaks == "CS3" else direct.gateway
        url = f"http://{self._webdav.address}{urlsplit(direct.webdav_url).path}"
        return Site(
            gateway=gateway,
            webdav_url=url,
            root=direct.root,
            username=direct.username,
            password=direct.password,
            token=direct.token,
        )


def _write(path: Path, size: int) -> int:
    """Random bytes, so that nobody can compress them; the adler32."""
    adler32 = 1
    block = os.urandom(min(size, _BLOCK_BYTES))
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK_BYTES):
            # Each block differs from the last: a block in the wrong place is seen.
            block = start.to_bytes(8, "big") + block[8:] if size >= _BLOCK_BYTES else block
            piece = block[: size - start]
            adler32 = zlib.adler32(piece, adler32)
            file.write(piece)
    return adler32


def _adler32(path: Path) -> int:
    adler32 = 1
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            adler32 = zlib.adler32(block, adler32)
    return adler32
