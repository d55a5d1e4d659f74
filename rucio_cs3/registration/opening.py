"""What a registration needs of Rucio on this machine: the catalogue, the schema, and what the RSE is like."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.registration import keeping
from rucio_cs3.registration.catalogue import Catalogue
from rucio_cs3.registration.naming import Deterministic, RucioSchema
from rucio_cs3.registration.neighbours import Neighbours, neighbours_of, others_of_rucio


@dataclass(frozen=True, kw_only=True)
class Rucio:
    """Rucio, as a registration at one RSE sees it.

    :param schema: None where only Rucio's clients are installed.
    :param deterministic: None at a non-deterministic RSE.
    :param neighbours: of a non-deterministic RSE.
    """

    catalogue: Catalogue
    schema: RucioSchema | None
    deterministic: Deterministic | None
    neighbours: Neighbours | None = None


def open_rucio(cloud: Cloud, *, account: str | None, reaper_may_delete: bool) -> Rucio:
    """Rucio by its database, where its configuration on this machine names one, and by its REST interface elsewhere.

    :param account: None is the one of the configuration, and ``root`` where that names none.
    :param reaper_may_delete: registers also at an RSE where the reaper would delete the files by itself.
    :raises ConfigurationError: for a cloud that is no RSE, or an RSE that cannot take replicas.
    :raises CatalogueError: when Rucio cannot be asked.
    """
    if cloud.rse is None:
        raise errors.ConfigurationError(
            f"{cloud.name} is a section of the clouds file, and only an RSE has replicas; name the RSE"
        )
    # Late: Rucio reads its configuration when it is imported.
    from rucio_cs3 import rses

    if cloud.rse.get("volatile"):
        raise errors.ConfigurationError(f"RSE {cloud.name} is volatile, and Rucio registers no replicas there")
    danger = keeping.danger(cloud.name, rses.rse_attributes(cloud.rse))
    if danger is not None and not reaper_may_delete:
        raise errors.ConfigurationError(danger)
    catalogue = _catalogue(cloud, account)
    deterministic = Deterministic(cloud) if cloud.rse["deterministic"] else None
    neighbours = None
    if deterministic is None:
        neighbours = neighbours_of(cloud, others_of_rucio(cloud.name), scopes=catalogue.scopes())
    return Rucio(catalogue=catalogue, schema=_schema(catalogue.vo), deterministic=deterministic, neighbours=neighbours)


def _catalogue(cloud: Cloud, account: str | None) -> Catalogue:
    from rucio.common.config import config_get, is_client

    if is_client() or importlib.util.find_spec("rucio.db") is None:
        from rucio.client import Client

        from rucio_cs3.registration.rest import RestCatalogue

        return RestCatalogue(cloud, lambda: Client(account=account))
    from rucio_cs3.registration.database import DatabaseCatalogue

    named = account or os.environ.get("RUCIO_ACCOUNT") or config_get("client", "account", raise_exception=False)
    return DatabaseCatalogue(cloud, named or "root")


def _schema(vo: str) -> RucioSchema | None:
    try:
        return RucioSchema(vo)
    except ImportError:
        return None
