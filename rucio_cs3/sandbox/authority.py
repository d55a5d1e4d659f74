"""The certificate authority of all TLS servers of the sandbox that were given none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme


@cache
def common_authority() -> trustme.CA:
    """One for the whole process, so that real and embedded sites can copy between each other."""
    import trustme

    return trustme.CA()
