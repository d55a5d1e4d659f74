"""Reva sites in containers: the same sites as :class:`~rucio_cs3.sandbox.reva.RevaSite`, only not on this machine's own
address.

A site's folder is mounted under its own path, so its disk can be looked at from here. What happens to such a site
(killed, paused, cut off) happens to the container as a whole.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from rucio_cs3.sandbox.ports import LOOPBACK
from rucio_cs3.sandbox.processes import ProcessError, Server
from rucio_cs3.sandbox.reva import RevaSite, find_revad
from tests.containers.engine import Engine

#: As in docker/reva/Dockerfile.
GRPC_PORT = 9142
HTTP_PORT = 8080
USER_ID = 10_001

DOCKER = Path(__file__).parents[2] / "docker"

_POLL_S = 0.05

# For the kernel to find all processes of a container at rest.
_PAUSE_S = 60.0
_TAIL_BYTES = 4_000


def reva_image(engine: Engine) -> str:
    """The image of docker/reva, made of nothing but the ``revad`` that is found here."""
    revad = find_revad()
    assert revad is not None
    return engine.image(
        "reva", DOCKER / "reva", {"files/usr/bin/revad": revad, "files/tmp": None}, {"REVA_IMAGE": "scratch"}
    )


class ContainerProcess(Server):
    """A container as something that starts, stops and is killed.

    :param name: what messages call it.
    :param networks: each with the container's address and further names there.
    :param options: for the engine, as ``docker run`` takes them.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        image: str,
        command: Sequence[str | Path],
        *,
        networks: Sequence[tuple[Network, str, Sequence[str]]],
        log: Path,
        **options: Any,
    ) -> None:
        self.name = name
        self.log = log
        self._engine = engine
        self._image = image
        self._command = [str(word) for word in command]
        self._networks = {network.name: (network, address, tuple(names)) for network, address, names in networks}
        self._options = options
        self.container: Container | None = None

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        return int(self._state()["Pid"])

    @property
    def running(self) -> bool:
        return self.container is not None and bool(self._state()["Running"])

    def start(self) -> None:
        """Start it, the same one again if it ran before.

        :raises ProcessError: the engine refuses.
        """
        try:
            if self.container is None:
                self.container = self._create()
            self.container.start()
        except APIError as error:
            raise ProcessError(f"{self.name} could not be started: {error}") from error

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.running:
            if ready():
                return
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {timeout_s:g} s; {self._told()}")
            time.sleep(_POLL_S)
        raise ProcessError(f"{self.name} ended before it was ready; {self._told()}")

    def stop(self) -> None:
        """End and remove it; its log stays in the file."""
        if self.container is not None:
            with contextlib.suppress(NotFound):
                self.keep_log()
                self.container.remove(force=True, v=True)
            self.container = None

    def kill(self) -> None:
        if self.container is not None and self.running:
            self.container.kill()
            self.container.wait()

    def pause(self) -> None:
        """All its processes stand still; its connections stay open."""
        assert self.container is not None
        deadline = time.monotonic() + _PAUSE_S
        while True:
            try:
                self.container.pause()
            except APIError as error:
                # On a busy machine with cgroup v1 ("unable to freeze", runc 1.1.5).
                if time.monotonic() > deadline or "freeze" not in str(error):
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def go_on(self) -> None:
        """After :meth:`pause`; idempotent."""
        if self.container is not None and self._state()["Paused"]:
            self.container.unpause()

    def cut_off(self, network: Network) -> None:
        """Take it out of a network: nothing arrives any more, and nobody is told."""
        network.disconnect(self.container)

    def join(self, network: Network) -> None:
        """Back into a network, with the same address; idempotent."""
        assert self.container is not None
        self.container.reload()
        if network.name not in self.container.attrs["NetworkSettings"]["Networks"]:
            _, address, names = self._networks[network.name]
            network.connect(self.container, ipv4_address=address, aliases=list(names))

    def keep_log(self) -> None:
        """Bring the log's file up to date."""
        if self.container is not None:
            self.log.write_bytes(self.container.logs())

    def _create(self) -> Container:
        api = self._engine.api
        (first, address, names), *others = self._networks.values()
        container = api.containers.create(
            self._image,
            self._command,
            name=f"{self._engine.run}-{self.name}-{os.urandom(2).hex()}",
            labels=dict(self._engine.labels),
            network=first.name,
            networking_config={
                first.name: api.api.create_endpoint_config(ipv4_address=address, aliases=list(names)),
            },
            # Asked for by polling from outside.
            healthcheck={"test": ["NONE"]},
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            **self._options,
        )
        for network, address, names in others:
            network.connect(container, ipv4_address=address, aliases=list(names))
        return container

    def _state(self) -> Mapping[str, Any]:
        assert self.container is not None
        self.container.reload()
        state: Mapping[str, Any] = self.container.attrs["State"]
        return state

    def _told(self) -> str:
        self.keep_log()
        text = self.log.read_text(errors="replace").strip()
        return f"the end of its log:\n{text[-_TAIL_BYTES:]}" if text else "it wrote nothing"


class ContainerReva(RevaSite):
    """A Reva site in a container.

    :param image: as :func:`reva_image` gives it.
    :param networks: each with the site's address there, and names for other containers; the first one's address is the
        site's.
    :param host: name or address that clients and the other site use, if it is not that address.
    :param published: gRPC and HTTP ports of this machine's 127.0.0.1 that lead to the site, which is then known by
        these only.
    :param container_options: for the engine, as ``docker run`` takes them.
    """

    _listen = "0.0.0.0"

    def __init__(
        self,
        engine: Engine,
        image: str,
        name: str,
        *,
        networks: Sequence[tuple[Network, str, Sequence[str]]],
        host: str | None = None,
        published: tuple[int, int] | None = None,
        container_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._address = networks[0][1]
        self._host = LOOPBACK if published else host or self._address
        self._grpc_port, self._http_port = published or (GRPC_PORT, HTTP_PORT)
        # Whoever runs the tests is to see what the site writes; root sees what everybody writes.
        self._user = os.getuid() or USER_ID
        self.box = ContainerProcess(
            engine,
            name,
            image,
            ["-c", self.directory / "revad.toml", "-p", "/tmp/revad.pid"],
            networks=networks,
            log=self.directory / "revad.log",
            user=f"{self._user}:{self._user}",
            volumes={str(self.directory): {"bind": str(self.directory), "mode": "rw"}},
            environment={"SSL_CERT_FILE": str(self.directory / "trusted.pem")} if self.tls else {},
            ports={f"{port}/tcp": (LOOPBACK, port) for port in published or ()},
            **(container_options or {}),
        )

    @property
    def host(self) -> str:
        return self._host

    @property
    def log(self) -> Path:
        self.box.keep_log()
        return self.directory / "revad.log"

    def _is_ready(self) -> bool:
        # Its name may mean something to others only.
        base = f"{'https' if self.tls else 'http'}://{self._address}:{self._http_port}"
        return self._answers(base) and self._can_log_in(f"{self._address}:{self._grpc_port}")

    def _server(self, configuration: Path, environment: Mapping[str, str]) -> Server:
        for path in (self.directory, *self.directory.rglob("*")):
            if os.getuid() == 0:
                os.chown(path, self._user, self._user)
        return self.box
