"""CS3 clouds (CERNBox, ownCloud Infinite Scale, OpenCloud) as Rucio storage elements.

:func:`register` tells the running Rucio process about the schemes and the transfertool;
:mod:`rucio_cs3.protocol` holds the RSE protocols, :mod:`rucio_cs3.cs3` the client, which knows no Rucio.
:class:`CloudStorage` is a cloud for people who write Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_cs3._version import __version__

if TYPE_CHECKING:
    from rucio_cs3.cloud_storage import CloudStorage

__all__ = ["CloudStorage", "__version__", "register"]


def register() -> None:
    """Register schemes and transfertool with the Rucio of this process; may be called again.

    For sites that have a policy package of their own: call it there. All others set
    ``[policy] package = rucio_cs3.policy``.
    """
    # Imported here, because the client ring works with neither Rucio wheel installed.
    from rucio_cs3.policy import register as register_with_rucio

    register_with_rucio()


if not TYPE_CHECKING:  # with it, a type checker would believe in any name

    def __getattr__(name: str) -> object:
        # When it is asked for: Rucio imports this package in every process that has the RSE plugin.
        if name == "CloudStorage":
            from rucio_cs3.cloud_storage import CloudStorage

            return CloudStorage
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
