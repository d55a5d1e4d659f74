"""The main job as a story in steps: two clouds become RSEs of a Rucio, and a dataset goes all the way.

Told by ``rucio-cs3 demo`` and by the tests with the same code, on real Reva and embedded clouds alike. Every
step runs the real commands and daemons and raises :class:`StoryError` unless what it says is so.
"""

from __future__ import annotations

import filecmp
import hashlib
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from rucio_cs3.cs3.config import is_loopback
from rucio_cs3.sandbox.rucio_site import RucioSite

#: Longest wait for Rucio to do one step, in seconds.
_RULE_TIMEOUT_S = 240.0


class StoryError(RuntimeError):
    """Something that the story says is not so."""


class User(Protocol):
    """Somebody who can log in to a cloud."""

    @property
    def username(self) -> str: ...

    @property
    def password(self) -> str: ...


class Cloud(Protocol):
    """What the embedded cloud and a real Reva site have in common."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> str: ...

    @property
    def gateway_tls(self) -> bool: ...

    @property
    def gateway(self) -> str: ...

    @property
    def webdav_url(self) -> str: ...

    @property
    def ca_bundle(self) -> Path | None: ...

    @property
    def users(self) -> Mapping[str, Any]: ...

    @property
    def log(self) -> Path | None: ...

    def path_on_disk(self, relative: str) -> Path: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Rse:
    """A cloud as an RSE.

    :param scheme: of its PFNs; of the TLS family where the cloud has TLS.
    :param impl: the protocol class.
    """

    name: str
    cloud: Cloud
    scheme: str
    impl: str = "rucio_cs3.protocol.Default"
    folder: str = "rucio"

    def protocol(self) -> dict[str, object]:
        """What ``rucio rse protocol add`` is told."""
        url = urlsplit(self.cloud.webdav_url)
        extended: dict[str, object] = {
            "cs3_gateway": self.cloud.gateway,
            "cs3_root": self.cloud.root,
            "cs3_gateway_tls": self.cloud.gateway_tls,
        }
        if not (self.cloud.gateway_tls or is_loopback(self.cloud.gateway.rpartition(":")[0])):
            # Reva has no TLS for gRPC, nor has a sandbox in containers a network that others share.
            extended["cs3_allow_plaintext"] = True
        if self.cloud.ca_bundle is not None:
            extended["cs3_ca_bundle"] = str(self.cloud.ca_bundle)
        return {
            "scheme": self.scheme,
            "hostname": str(url.hostname),
            "port": str(url.port),
            "prefix": f"{url.path}/{self.folder}/",
            "impl": self.impl,
            "extended_attributes": extended,
        }

    def account(self) -> dict[str, str]:
        """Its entry in rse-accounts.cfg: the cloud's first user."""
        user: User = next(iter(self.cloud.users.values()))
        return {"username": user.username, "password": user.password}


class Story:
    """One dataset's way through two RSEs.

    :param rucio: a running Rucio.
    :param source: where files are uploaded to.
    :param destination: where the rule wants a copy.
    """

    scope = "demo"

    def __init__(self, rucio: RucioSite, source: Rse, destination: Rse, *, dataset: str = "holiday") -> None:
        self.rucio = rucio
        self.source = source
        self.destination = destination
        self.dataset = f"{self.scope}:{dataset}"
        self.rule_id = ""

    def set_up(self) -> None:
        """The two RSEs, a distance between them, a scope, and the passwords in rse-accounts.cfg."""
        rses = (self.source, self.destination)
        self.rucio.set_rse_accounts({rse.name: rse.account() for rse in rses})
        for rse in rses:
            self.rucio.add_rse(rse.name, rse.protocol())
        self.rucio.set_distance(self.source.name, self.destination.name)
        self.rucio.add_scope(self.scope)

    def upload(self, files: Sequence[Path]) -> None:
        """``rucio upload`` of all files into one dataset at the source; then look at the cloud's disk."""
        self.rucio.rucio(
            *("upload", "--rse", self.source.name, "--scope", self.scope, self.dataset),
            *files,
        )
        for file in files:
            stored = self.on_disk(self.source, file.name)
            if stored is None or not filecmp.cmp(stored, file, shallow=False):
                raise StoryError(f"{file.name} is not on the disk of {self.source.name} as it was uploaded")

    def add_rule(self) -> str:
        """``rucio rule add``: one copy of the dataset at the destination."""
        out = self.rucio.rucio("rule", "add", self.dataset, "--copies", "1", "--rses", self.destination.name).stdout
        self.rule_id = out.split()[-1]
        return self.rule_id

    def rule_progress(self) -> tuple[int, int, int]:
        """Locks of the rule that are OK, replicating, stuck; read from Rucio's database."""
        rows = self.rucio.query(
            "SELECT locks_ok_cnt, locks_replicating_cnt, locks_stuck_cnt FROM rules WHERE id = ?",
            self.rule_id,
        )
        if not rows:
            raise StoryError(f"rule {self.rule_id} is gone")
        ok, replicating, stuck = rows[0]
        return int(ok), int(replicating), int(stuck)

    def transfer(self, work: Callable[[], object], on_progress: Callable[[int, int], object] | None = None) -> None:
        """Wait until the rule is OK.

        :param work: called between two looks; runs the daemons once, or waits a little for those that run.
        :param on_progress: called with locks that are OK and all locks.
        """
        deadline = time.monotonic() + _RULE_TIMEOUT_S
        while True:
            work()
            ok, replicating, stuck = self.rule_progress()
            if on_progress is not None:
                on_progress(ok, ok + replicating + stuck)
            if stuck:
                raise StoryError(f"rule {self.rule_id} is stuck: {self.rule_error()}")
            if not replicating:
                return
            if time.monotonic() > deadline:
                raise StoryError(f"rule {self.rule_id} still replicates {replicating} files")

    def rule_error(self) -> str:
        """What Rucio shows as the reason of a stuck rule."""
        rows = self.rucio.query("SELECT error FROM rules WHERE id = ?", self.rule_id)
        return str(rows[0][0]) if rows else "the rule is gone"

    def download(self, folder: Path) -> None:
        """``rucio download`` of the dataset from the destination."""
        # Verbose, because Rucio says why a download failed at DEBUG only.
        self.rucio.rucio("-v", "download", "--rses", self.destination.name, "--dir", folder, self.dataset)

    def compare(self, files: Sequence[Path], folder: Path) -> None:
        """Each downloaded file is the uploaded one, byte for byte."""
        for file in files:
            downloaded = folder / self.dataset.partition(":")[2] / file.name
            if not downloaded.is_file() or not filecmp.cmp(file, downloaded, shallow=False):
                raise StoryError(f"{file.name} came back changed, or not at all")

    def delete(self, files: Sequence[Path], work: Callable[[], object]) -> None:
        """All rules away, then Rucio's daemons delete the files at both clouds; then look at their disks.

        :param work: as for :meth:`transfer`.
        """
        for rule_id in self.rules():
            self.rucio.rucio("rule", "remove", rule_id, "--purge-replicas")
            # Rucio gives people an hour to change their mind (core/rule.py:1195); a story does not wait.
            self.rucio.rucio("rule", "update", rule_id, "--lifetime", "0")
        deadline = time.monotonic() + _RULE_TIMEOUT_S
        while left := self.replicas():
            if time.monotonic() > deadline:
                raise StoryError(f"Rucio still knows {left} replicas that were to be deleted")
            work()
        for rse in (self.source, self.destination):
            for file in files:
                if self.on_disk(rse, file.name) is not None:
                    raise StoryError(f"{file.name} is still on the disk of {rse.name}")

    def run_conveyor_once(self) -> None:
        """One round of Rucio's submitter, our agent, and Rucio's poller and finisher."""
        self.rucio.conveyor("submitter")
        self.rucio.cs3("agent", "--run-once")
        self.rucio.conveyor("poller")
        self.rucio.conveyor("finisher")

    def run_deletion_once(self) -> None:
        """One round of Rucio's judge-evaluator, judge-cleaner and reaper."""
        self.rucio.daemon("judge-evaluator")
        self.rucio.daemon("judge-cleaner")
        self.rucio.daemon("reaper", "--include-rses", f"{self.source.name}|{self.destination.name}")

    def lock_new_files(self, work: Callable[[], object]) -> None:
        """Wait until the rule that ``rucio upload`` made for the dataset has locked the files that came after it.

        :param work: as for :meth:`transfer`.
        """
        deadline = time.monotonic() + _RULE_TIMEOUT_S
        while self.rucio.query("SELECT 1 FROM updated_dids LIMIT 1"):
            if time.monotonic() > deadline:
                raise StoryError("Rucio's judge-evaluator did not look at the dataset")
            work()

    def search_secrets(self) -> list[Path]:
        """Files of Rucio and the clouds that hold a password and should not: all but those that configure it."""
        passwords = {user.password for rse in (self.source, self.destination) for user in rse.cloud.users.values()}
        logs = [rse.cloud.log for rse in (self.source, self.destination) if rse.cloud.log is not None]
        found = []
        for path in [*logs, *(p for p in self.rucio.directory.rglob("*") if p.is_file())]:
            content = content_of(path)
            if path.name != "rse-accounts.cfg" and any(word.encode() in content for word in passwords):
                found.append(path)
        return found

    def rules(self) -> list[str]:
        """Ids of all rules, as Rucio's commands take them."""
        return [str(row[0]) for row in self.rucio.query("SELECT id FROM rules WHERE scope = ?", self.scope)]

    def replicas(self) -> int:
        """Number of replicas that Rucio knows in the story's scope."""
        return int(self.rucio.query("SELECT count(*) FROM replicas WHERE scope = ?", self.scope)[0][0])

    def on_disk(self, rse: Rse, name: str) -> Path | None:
        """Where a file of the scope is on the disk of a cloud, by Rucio's rule for deterministic RSEs."""
        path = rse.cloud.path_on_disk(f"{rse.folder}/{hash_path(self.scope, name)}")
        return path if path.is_file() else None


def hash_path(scope: str, name: str) -> str:
    """Path of a file below the prefix: two folders from the md5 of ``scope:name`` (rucio/rse/translation.py)."""
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    return f"{scope.replace('.', '/')}/{digest[0:2]}/{digest[2:4]}/{name}"


def make_files(folder: Path, *, large_bytes: int) -> list[Path]:
    """A small directory with what goes wrong elsewhere: large, empty, spaces, unicode, percent signs.

    The content is reproducible and does not compress or repeat.

    :param large_bytes: size of the largest file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "large.dat": large_bytes,
        "empty.dat": 0,
        "photo with spaces.jpg": 300_000,
        "Zürich Genève 東京.txt": 4_096,
        "100% of it; really?+1 #2.csv": 12_345,
    }
    for name, size in sizes.items():
        _write(folder / name, size, seed=zlib.crc32(name.encode()))
    return [folder / name for name in sizes]


def _write(path: Path, size: int, *, seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311  # content, no secret
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(generator.randbytes(min(size, 1 << 20)))


def content_of(path: Path) -> bytes:
    """What is in a file of a running server; nothing where it is gone by now."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""  # SQLite's journal lives for as long as a transaction
