"""A network of containers, and sites in it, each at an address of its own that this machine reaches as well."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from docker.models.networks import Network

from tests.containers.containers import ContainerReva, reva_image
from tests.containers.engine import Engine

# The engine gives the first ones to whoever asks for none.
_FIRST_ADDRESS = 10


class ContainerPlace:
    """Makes sites that are not started yet.

    :param directory: where each gets a folder of its own.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.image = reva_image(engine)
        self.network = engine.network("sites")
        self._directory = directory
        self._used: dict[str, int] = {}

    def address(self, network: Network) -> str:
        """One that nobody has yet."""
        network.reload()
        subnet = ipaddress.ip_network(network.attrs["IPAM"]["Config"][0]["Subnet"])
        number = self._used.setdefault(network.name, _FIRST_ADDRESS)
        self._used[network.name] += 1
        return str(subnet[number])

    def site(self, name: str, **options: Any) -> ContainerReva:
        """
        :param name: used once here.
        :param options: as for :class:`ContainerReva`; the place's own network if none is named.
        """
        directory = options.pop("directory", None) or self._directory / name
        directory.mkdir(exist_ok=True)
        options.setdefault("networks", [(self.network, self.address(self.network), [name])])
        return ContainerReva(self.engine, self.image, name, directory=directory, **options)
