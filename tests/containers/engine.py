"""A Docker Engine for one run of the tests: everything made there carries the run's label, and is removed with it.

Removed at the end, on Ctrl-C, on SIGTERM and at the interpreter's end; what a run left that was killed with SIGKILL,
the next run removes. Nothing without the label is ever touched. Read next: ``containers.py``.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import ipaddress
import os
import secrets
import signal
import socket
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.networks import Network
from docker.utils import parse_host

#: Whose it is: the run, and the process that made it.
RUN_LABEL = "io.github.rucio-cs3.tests.run"
OWNER_LABEL = "io.github.rucio-cs3.tests.owner"

# The engine answers at once when it is idle; a build copies some ten megabytes.
_TIMEOUT_S = 120

# Of each container, with a test that failed.
_LOG_LINES = 40

# Two runs may look at the same free addresses at the same moment.
_ADDRESS_ATTEMPTS = 20


def engine_missing() -> str | None:
    """Why there is no engine to test with; None if there is one."""
    if sys.platform != "linux":
        return "no Docker Engine on this Linux: tests speak to containers at their own addresses"
    address = parse_host(os.environ.get("DOCKER_HOST")) or ""
    if not address.startswith("http+unix://"):
        return "no Docker Engine on this machine: tests look at the volumes and speak to the containers' addresses"
    # Before the package, which leaves its connection open where nobody answers (docker 7.2.0).
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.removeprefix("http+unix://"))
        except OSError as error:
            return f"no Docker Engine at {address.removeprefix('http+')}: {error.strerror or error}"
    try:
        client = docker.from_env(timeout=_TIMEOUT_S)
    except DockerException as error:
        return f"no Docker Engine: {error}"
    client.close()
    return None


class Engine:
    """What one run makes at the engine; close it, or use it as a context manager."""

    def __init__(self) -> None:
        self.run = f"rucio-cs3-{secrets.token_hex(4)}"
        self.labels: Mapping[str, str] = {RUN_LABEL: self.run, OWNER_LABEL: _owner()}
        self._client = docker.from_env(timeout=_TIMEOUT_S)
        # Of the maker: a child by fork must not remove what is its parent's.
        self._process = os.getpid()
        self._previous: Callable[[int, FrameType | None], Any] | int | None = None

    def __enter__(self) -> Engine:
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._previous = signal.signal(signal.SIGTERM, self._end)
        self.sweep()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def api(self) -> docker.DockerClient:
        return self._client

    def close(self) -> None:
        """Remove all that the run made. Idempotent."""
        if os.getpid() != self._process:
            return
        atexit.unregister(self.close)
        self._remove(lambda labels: labels.get(RUN_LABEL) == self.run)
        self._client.close()
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def sweep(self) -> None:
        """Remove what runs left behind whose process is gone."""
        self._remove(lambda labels: _is_gone(labels.get(OWNER_LABEL, "")))

    def left(self) -> list[str]:
        """Names of all containers, networks, volumes and images of this run."""
        return [name for name, labels, _ in self._objects() if labels.get(RUN_LABEL) == self.run]

    def logs(self) -> list[tuple[str, str]]:
        """Name of each container of this run, and the end of what it wrote."""
        found = []
        for container in self._client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={self.run}"}):
            text = container.logs(tail=_LOG_LINES).decode(errors="replace")
            found.append((f"container {container.name} ({container.status})", text))
        return found

    def image(self, name: str, folder: Path, files: Mapping[str, Path | None], arguments: Mapping[str, str]) -> str:
        """Build an image, or take what the engine has already built from the same.

        :param folder: where its Dockerfile is, and nothing else that the build sees.
        :param files: what it sees beside that, by their names there; None for a folder that everybody may write to.
        :param arguments: the build's arguments.
        :returns: its tag, which is this run's own.
        """
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            tar.add(folder / "Dockerfile", arcname="Dockerfile", filter=_without_times)
            for there, here in files.items():
                if here is None:
                    folder_for_all = tarfile.TarInfo(there)
                    folder_for_all.type, folder_for_all.mode = tarfile.DIRTYPE, 0o1777
                    tar.addfile(folder_for_all)
                else:
                    tar.add(here.resolve(), arcname=there, filter=_without_times)
        context.seek(0)
        tag = f"{self.run}/{name}"
        self._client.images.build(
            fileobj=context, custom_context=True, tag=tag, buildargs=dict(arguments), labels=dict(self.labels), rm=True
        )
        return tag

    def network(self, name: str) -> Network:
        """A network with a range of addresses of its own, so that containers can have fixed ones."""
        full_name = f"{self.run}-{name}"
        for attempt in range(_ADDRESS_ATTEMPTS):
            # The engine takes wished addresses only where the range was wished, too: so ask it for a free one first.
            probe = self._client.networks.create(f"{full_name}-probe", labels=dict(self.labels))
            probe.reload()
            subnet = ipaddress.ip_network(probe.attrs["IPAM"]["Config"][0]["Subnet"])
            probe.remove()
            pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
            ipam = docker.types.IPAMConfig(pool_configs=[pool])
            try:
                return self._client.networks.create(full_name, ipam=ipam, labels=dict(self.labels))
            except APIError as error:
                # Somebody else took it meanwhile ("Pool overlaps with other one on this address space").
                if attempt + 1 == _ADDRESS_ATTEMPTS or "overlap" not in str(error):
                    raise
        raise AssertionError("unreachable")

    # -- inside ------------------------------------------------------------------------------------------------

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _remove(self, mine: Callable[[Mapping[str, str]], bool]) -> None:
        for _, labels, remove in self._objects():
            if mine(labels):
                # Gone by now, or an image that another run has a tag of.
                with contextlib.suppress(NotFound, ImageNotFound):
                    remove()

    def _objects(self) -> Iterator[tuple[str, Mapping[str, str], Callable[[], object]]]:
        """Name, labels and removal of everything with a label of ours, in an order in which it can be removed."""
        filters = {"label": RUN_LABEL}
        for container in self._client.containers.list(all=True, filters=filters, ignore_removed=True):
            yield container.name, container.labels, partial(container.remove, force=True, v=True)
        for network in self._client.networks.list(filters=filters):
            yield network.name, network.attrs.get("Labels") or {}, network.remove
        for volume in self._client.volumes.list(filters=filters):
            yield volume.name, volume.attrs.get("Labels") or {}, partial(volume.remove, force=True)
        for image in self._client.images.list(filters=filters):
            # By its id, so that all of a run's tags go at once.
            yield str(image.tags), image.labels, partial(self._client.images.remove, image.id, force=True)


def _without_times(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same file is the same for the engine's cache, whoever has it and since when."""
    info.mtime = 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _owner() -> str:
    return f"{_machine()} {os.getpid()} {_began(os.getpid())}"


def _is_gone(owner: str) -> bool:
    """Whether a process of this machine has ended; False for those of other machines, which nobody can see here."""
    machine, _, process = owner.rpartition(" ")[0].rpartition(" ")
    if machine != _machine() or not process.isdigit():
        return False
    return _began(int(process)) != owner.rpartition(" ")[2]


def _machine() -> str:
    """This start of this machine, and the namespace that process ids count in."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _began(process: int) -> str:
    """When a process began, in the kernel's ticks (proc(5), field 22 of stat); empty if there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return ""
    # The name in parentheses may have spaces and parentheses of its own.
    return text.rpartition(")")[2].split()[19]
