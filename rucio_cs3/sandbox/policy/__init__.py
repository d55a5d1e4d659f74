"""Rucio policy package of the sandbox: names as storage has them, and the plugins of this package.

``[policy] package = rucio_cs3.sandbox.policy`` makes Rucio import it in the server, in every daemon and in the
client. ``schema.py`` widens what Rucio takes for a file name, ``wsgi.py`` lets such names through the server;
permissions stay those of ``[policy] permission``.
"""

from __future__ import annotations

from rucio_cs3.policy import SUPPORTED_VERSION, register
from rucio_cs3.sandbox.sqlite import take_turns

# Rucio reads SUPPORTED_VERSION. Where a policy package has none, Rucio's remark about it (logging.log at import)
# sets logging up, and a daemon's own set-up then comes too late: nothing below WARNING is written.
__all__ = ["SUPPORTED_VERSION", "register"]

register()
take_turns()
