"""What Rucio says of itself, to a client by requests and on a server from its database; one place for both.

All failures are :class:`~rucio_cs3.cs3.errors.CS3Error`, so that a check says what happened.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, get_args

from rucio.common import constants
from rucio.common.config import config_get_list, get_config, is_client
from rucio.common.exception import NoDistance, RSENotFound

from rucio_cs3.cs3 import errors

#: So many other RSEs are asked for a distance in a client, where each is a request.
_ASKED_MOST = 10


class Rucio:
    """Functions only."""

    @staticmethod
    def is_client() -> bool:
        """Whether this process has no database."""
        return bool(is_client())

    @staticmethod
    def configuration() -> str:
        """The file that was read, as far as it is known."""
        named = os.environ.get("RUCIO_CONFIG")
        return named or f"RUCIO_HOME {os.environ.get('RUCIO_HOME', '/opt/rucio')}"

    @staticmethod
    def prepare() -> tuple[str | None, str]:
        """Import what the checks need, in one thread: Rucio's modules import each other in circles.

        :returns: see :meth:`load_policy_package`.
        """
        package, fault = Rucio.load_policy_package()
        if is_client():
            names = ["rucio.client.rseclient", "rucio.client.accountclient"]
        else:
            names = ["rucio.core.heartbeat", "rucio.core.distance", "rucio.core.rse"]
            if find_spec("rucio.core.transfer") is not None:
                names.append("rucio.core.transfer")
        with _told():
            for name in names:
                importlib.import_module(name)
        return package, fault

    @staticmethod
    def conveyor(name: str) -> list[str]:
        """An option of section ``[conveyor]``, of rucio.cfg or the database; on a server."""
        with _told():
            return [str(word) for word in config_get_list("conveyor", name, raise_exception=False, default=[]) or []]

    @staticmethod
    def option(section: str, name: str) -> str | None:
        """One option of rucio.cfg."""
        parser = get_config()
        return str(parser.get(section, name, raw=True)) if parser.has_option(section, name) else None

    @staticmethod
    def attribute_names() -> frozenset[str]:
        """Names of attributes that mean something to Rucio."""
        found = getattr(constants, "RseAttr", None)
        return (
            frozenset(value for name, value in vars(found).items() if name.isupper() and isinstance(value, str))
            if found
            else frozenset()
        )

    @staticmethod
    def schemes_of_its_own() -> frozenset[str]:
        """Those that it knows without this package (``SUPPORTED_PROTOCOLS_LITERAL`` of Rucio 41)."""
        literal = getattr(constants, "SUPPORTED_PROTOCOLS_LITERAL", None)
        return frozenset(get_args(literal)) or frozenset({"root", "davs", "http", "https"})

    @staticmethod
    def policy_package() -> str | None:
        """Its name; None where there is none."""
        return os.environ.get("RUCIO_POLICY_PACKAGE") or Rucio.option("policy", "package") or None

    @staticmethod
    def load_policy_package() -> tuple[str | None, str]:
        """Import the policy package as Rucio does (common/schema/__init__.py of 41.5.1).

        :returns: its name, None where there is none; and why it cannot be imported, or nothing.
        """
        package = Rucio.policy_package()
        if not package:
            return None, ""
        try:
            importlib.import_module(package)
        except (Exception, SystemExit) as exc:  # it is the site's own code
            words = " ".join(str(exc).split())
            return package, words if isinstance(exc, ImportError) and words else f"{type(exc).__name__}: {words}"
        return package, ""

    @staticmethod
    def agents() -> list[str]:
        """Hosts on which an agent has given a sign of life."""
        with _told():
            from rucio.core.heartbeat import list_heartbeats

            return [str(beat["hostname"]) for beat in list_heartbeats() if "cs3-agent" in str(beat["readable"])]

    @staticmethod
    def distances(rse: Mapping[str, Any]) -> tuple[list[tuple[str, str]], int | None]:
        """Pairs of source and destination that one RSE is in.

        :returns: the pairs, and how many RSEs were asked about; None for all.
        """
        name = str(rse["rse"])
        with _told():
            if not is_client():
                from rucio.core.distance import get_distances
                from rucio.core.rse import get_rse_name

                rows = [*get_distances(src_rse_id=rse["id"]), *get_distances(dest_rse_id=rse["id"])]
                return [(get_rse_name(row["src_rse_id"]), get_rse_name(row["dest_rse_id"])) for row in rows], None
            from rucio.client.rseclient import RSEClient

            client = RSEClient()
            others = [other["rse"] for other in client.list_rses() if other["rse"] != name]
            pairs = []
            for other in others[:_ASKED_MOST]:
                for pair in ((name, other), (other, name)):
                    # Of a pair without one the client of 41.5.1 gives an empty answer, or StopIteration. And an RSE
                    # may be gone since it was listed.
                    with contextlib.suppress(StopIteration, NoDistance, RSENotFound):
                        if client.get_distance(*pair):
                            pairs.append(pair)
            return pairs, None if len(others) <= _ASKED_MOST else _ASKED_MOST

    @staticmethod
    def limits(rse: Mapping[str, Any]) -> Mapping[str, int]:
        """The RSE's limits, such as MinFreeSpace."""
        with _told():
            if not is_client():
                from rucio.core.rse import get_rse_limits

                return dict(get_rse_limits(rse["id"]))
            from rucio.client.rseclient import RSEClient

            # In a client a generator of one dictionary (41.5.1).
            found = RSEClient().get_rse_limits(str(rse["rse"]))
            parts = [found] if isinstance(found, Mapping) else list(found)
            return {name: value for part in parts for name, value in part.items()}

    @staticmethod
    def usage_sources(rse: Mapping[str, Any]) -> set[str]:
        """By whom Rucio is told how full the RSE is."""
        with _told():
            if not is_client():
                from rucio.core.rse import get_rse_usage

                return {str(row["source"]) for row in get_rse_usage(rse["id"])}
            from rucio.client.rseclient import RSEClient

            return {str(row["source"]) for row in RSEClient().get_rse_usage(str(rse["rse"]))}

    @staticmethod
    def account_limits(rse: str) -> tuple[str, Any, bool]:
        """In a client: the account that it works for, its limit at an RSE in bytes (None: no right to make rules), and
        whether it has limits for sets of RSEs."""
        with _told():
            from rucio.client.accountclient import AccountClient

            client = AccountClient()
            account = str(client.account)
            local = client.get_local_account_limit(account, rse).get(rse)
            return account, local, bool(client.get_global_account_limits(account))

    @staticmethod
    def account() -> str:
        """Who is meant by "me", for printed commands."""
        return os.environ.get("RUCIO_ACCOUNT") or Rucio.option("client", "account") or "root"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except errors.CS3Error:
        raise
    except Exception as exc:  # of requests and of the database, too
        words = " ".join(str(exc).split())
        raise errors.ConfigurationError(f"Rucio cannot be asked: {words or type(exc).__name__}") from exc
