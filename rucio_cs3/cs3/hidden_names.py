"""Names of what is not finished: hidden siblings of a file, where its bytes stand until it gets its name. Pure.

Nobody else has such a name, so what stands there is its maker's own, whatever becomes of it.
"""

from __future__ import annotations

import hashlib
import secrets

from rucio_cs3.cs3.reference import Reference

#: This, something that nobody else has, and that.
PART_PREFIX = ".rucio-cs3."
PART_SUFFIX = ".part"


def is_part(name: str) -> bool:
    """Whether a file or folder has a name that only this package gives, to what is not finished."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def hidden_sibling(reference: Reference, *, traceable: bool = False) -> Reference:
    """A hidden sibling that nobody else has; its name is short also where the file's has 255 bytes.

    :param traceable: :func:`is_hidden_sibling` knows it again, so that somebody else may remove it later.
    """
    prefix = _traceable_prefix(reference) if traceable else PART_PREFIX
    return reference.sibling(f"{prefix}{secrets.token_hex(8)}{PART_SUFFIX}")


def is_hidden_sibling(name: str, of: Reference) -> bool:
    """Whether a name of the same folder is that of a traceable hidden sibling of this file."""
    return name.startswith(_traceable_prefix(of)) and name.endswith(PART_SUFFIX)


def _traceable_prefix(reference: Reference) -> str:
    """The same for all hidden siblings of one file; no other file's have it."""
    return f"{PART_PREFIX}{hashlib.sha256(reference.name.encode()).hexdigest()[:16]}."
