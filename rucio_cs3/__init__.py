"""CS3 clouds (CERNBox, ownCloud Infinite Scale, OpenCloud) as Rucio storage elements.

:func:`register` tells the running Rucio process about the schemes and the transfertool;
:mod:`rucio_cs3.protocol` holds the RSE protocols, :mod:`rucio_cs3.cs3` the client, which knows no Rucio.
"""

from rucio_cs3._version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Register schemes and transfertool with the Rucio of this process; may be called again.

    For sites that have a policy package of their own: call it there. All others set
    ``[policy] package = rucio_cs3.policy``.
    """
    # Imported here, because the client ring works with neither Rucio wheel installed.
    from rucio_cs3.policy import register as register_with_rucio

    register_with_rucio()
