"""An RSE that a command names, as Rucio describes it: from the database on a server, by requests in a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rucio.common.exception import ConfigNotFound, RSENotFound, RucioException

from rucio_cs3.cli.rucio_here import unusable
from rucio_cs3.cli.transfers_table import printable

if TYPE_CHECKING:
    from rucio_cs3.cs3.config import Endpoint


@dataclass(frozen=True, kw_only=True)
class CloudRSE:
    """An RSE that is a CS3 cloud.

    :param settings: Rucio's description of it.
    """

    name: str
    settings: Mapping[str, Any]
    endpoint: Endpoint


def find(name: str) -> CloudRSE:
    """
    :raises click.ClickException: when Rucio cannot be asked, knows no such RSE, or it is no CS3 cloud.
    :raises ConfigurationError: when its settings are wrong.
    """
    try:
        # Rucio reads its configuration when it is imported; the help must not need one.
        from rucio.rse import rsemanager

        from rucio_cs3 import rses
        from rucio_cs3.partners import is_ours
    except RucioException as exc:
        raise unusable(exc) from exc
    try:
        settings = rsemanager.get_rse_info(rse=name)
        protocols = [protocol for protocol in settings["protocols"] if is_ours(protocol["impl"])]
        if not protocols:
            raise click.ClickException(f"RSE {name} is no CS3 cloud: no protocol of it has an impl of rucio_cs3")
        return CloudRSE(name=name, settings=settings, endpoint=rses.endpoint(settings, protocols[0]))
    except RSENotFound:
        raise click.ClickException(f"Rucio knows no RSE {name}; rucio rse list shows all") from None
    except ConfigNotFound as exc:
        raise unusable(exc) from exc
    except RucioException as exc:
        words = printable(" ".join(str(exc).split()))
        raise click.ClickException(f"Rucio cannot be asked about RSE {name}: {words}") from exc
