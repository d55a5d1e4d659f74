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


def part_name(word: str | None = None) -> str:
    """Such a name; without ``word`` one that nobody else has. Short, so that a file of any name may have a sibling."""
    return f"{PART_PREFIX}{word or secrets.token_hex(8)}{PART_SUFFIX}"


def is_part(name: str) -> bool:
    """Whether a file or folder has a name that only this package gives, to what is not finished."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def hidden_sibling(reference: Reference, *, traceable: bool = False) -> Reference:
    """A hidden sibling that nobody else has.

    :param traceable: :func:`is_hidden_sibling` knows it again, so that somebody else may remove it later.
    """
    return reference.sibling(part_name(f"{_trace(reference)}.{secrets.token_hex(8)}" if traceable else None))


def is_hidden_sibling(name: str, of: Reference) -> bool:
    """Whether a name of the same folder is that of a traceable hidden sibling of this file."""
    # First what is cheap: the folder may have many names.
    return is_part(name) and name.startswith(f"{PART_PREFIX}{_trace(of)}.")


def _trace(reference: Reference) -> str:
    """The same for all hidden siblings of one file; no other file's have it."""
    return hashlib.sha256(reference.name.encode()).hexdigest()[:16]
