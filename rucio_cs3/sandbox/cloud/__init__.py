"""CS3 clouds inside this process: a real gRPC gateway and a real HTTP server over a tree on disk.

For the demo without a Reva, and for tests of what a healthy server does not show. Read next: ``cloud.py``.
"""

from rucio_cs3.sandbox.cloud.cloud import EmbeddedCloud
from rucio_cs3.sandbox.cloud.faults import Faults
from rucio_cs3.sandbox.cloud.state import Behaviour

__all__ = ["Behaviour", "EmbeddedCloud", "Faults"]
