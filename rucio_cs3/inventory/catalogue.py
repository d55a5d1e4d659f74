"""What Rucio's catalogue says of an RSE, as a file: a replica in each line, in the form of Rucio's own dumps. Pure.

The columns, with tabs between, are those of ``rucio.common.dumper.data_models.Replica`` (Rucio 41.5.1), so Rucio's
consistency tools read these files, and :func:`read` reads theirs: RSE, scope, name, adler32, bytes, creation, path
below the prefix, last change, state (``A`` is available).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rucio_cs3.cs3 import errors

#: The state of a replica that is there and may be read.
AVAILABLE = "A"

_COLUMNS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """A file that is at an RSE, as Rucio has it.

    :param path: below the prefix, without a leading slash.
    :param created_at: ``2026-11-21 16:00:00``, UTC; "" where it is not known.
    :param state: the letter of ``rucio.db.sqla.constants.ReplicaState``.
    """

    rse: str
    scope: str
    name: str
    path: str
    size: int | None
    adler32: str | None
    created_at: str = ""
    updated_at: str = ""
    state: str = AVAILABLE


def is_plain(text: str) -> bool:
    """Whether a name or path can stand in a column of a line."""
    return not any(one in text for one in "\t\n\r")


def written(replica: Replica) -> str:
    """The text of a line, with its end; a DID that no column can hold is written as an empty one.

    :param replica: its path must be plain; see :func:`is_plain`.
    """
    if not is_plain(replica.scope + replica.name):
        replica = replace(replica, scope="", name="")
    size = "" if replica.size is None else str(replica.size)
    fields = (replica.rse, replica.scope, replica.name, replica.adler32 or "", size, replica.created_at)
    return "\t".join((*fields, replica.path, replica.updated_at, replica.state)) + "\n"


def read(text: str) -> Replica:
    """A replica from the text of its line. Where a tab is in a name, nobody can say where that begins and ends: then
    scope and name are empty, and the path is what stands behind its last tab.

    :raises LocalError: when it is none.
    """
    fields = text.removesuffix("\n").split("\t")
    if len(fields) < _COLUMNS:
        raise errors.LocalError(
            f"{text[:80]!r} is no line of a replica dump of Rucio, which has {_COLUMNS} columns with tabs between"
        )
    if len(fields) > _COLUMNS:
        fields[1:-6] = ["", ""]
    # Names and paths may begin and end with spaces.
    _, scope, name, *_ = fields
    rse, _, _, adler32, size, created_at, _, updated_at, state = (field.strip() for field in fields)
    return Replica(
        rse=rse,
        scope=scope,
        name=name,
        path=path_of(text),
        size=int(size) if size.isdecimal() else None,
        adler32=adler32.lower() or None,
        created_at=created_at,
        updated_at=updated_at,
        state=state,
    )


def path_of(text: str) -> str:
    """The path in a line; "" where it is no line."""
    fields = text.rsplit("\t", 3)
    return fields[1].strip("/") if len(fields) == 4 else ""
