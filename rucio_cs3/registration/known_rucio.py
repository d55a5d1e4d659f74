"""Whether the Rucio that is installed is one whose rows :mod:`rucio_cs3.registration.bulk_rows` is known to make.

By the text of those functions of Rucio that it stands for, and by the columns that it fills: the number of a version
says nothing of what a site has patched. What a site has put round these functions, or has SQLAlchemy do with each new
object, is not known either. With any other Rucio its own functions are called, which is slower and always
right. A test (``tests/rucio/inside/inside_bulk_rows.py``) fails where the Rucio that it runs with is not known here:
look at what has changed there, and add :func:`shape` to :data:`KNOWN` when both ways make the same rows.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from rucio.core import did, replica, rse_counter
from rucio.db.sqla import models, session
from sqlalchemy.orm import class_mapper

#: What :func:`shape` gives -> the versions of Rucio that have it.
KNOWN = {
    "9a55cdc1bd27b0a5": "41.5.1",
}

#: Those with two underscores are private to their modules: Rucio's add_replicas and attach_dids_to_dids call them.
_FUNCTIONS = (
    (replica, ("add_replicas", "__bulk_add_replicas", "__bulk_add_file_dids", "__bulk_add_new_file_dids")),
    (replica, ("tombstone_from_delay",)),
    (did, ("attach_dids_to_dids", "__add_files_to_dataset")),
    (rse_counter, ("increase",)),
)
_TABLES = (
    "DataIdentifier",
    "RSEFileAssociation",
    "DataIdentifierAssociation",
    "UpdatedDID",
    "UpdatedRSECounter",
)
#: What SQLAlchemy calls when objects become rows; rows that are made without objects pass all of this by.
_OF_CLASSES = ("before_insert", "after_insert")
_OF_SESSIONS = (
    *("do_orm_execute", "before_attach", "after_attach", "transient_to_pending", "pending_to_persistent"),
    *("before_flush", "after_flush", "after_flush_postexec"),
)


def is_known() -> bool:
    """Whether this Rucio makes the rows that are known here."""
    return shape() in KNOWN and not any(_listeners())


def _listeners() -> Iterator[bool]:
    for name in _TABLES:
        dispatch = class_mapper(getattr(models, name)).dispatch
        yield from (bool(getattr(dispatch, event)) for event in _OF_CLASSES)
    dispatch = session.get_session()().dispatch
    yield from (bool(getattr(dispatch, event)) for event in _OF_SESSIONS)


def shape() -> str:
    """A digest of all that the rows follow from; empty where the text of Rucio's functions is not to be had."""
    try:
        told = "\n".join(_parts())
    except (AttributeError, OSError, TypeError):
        return ""
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _parts() -> Iterator[str]:
    for module, names in _FUNCTIONS:
        for name in names:
            yield _source(module, name)
    for name in _TABLES:
        yield name
        for column in sorted(getattr(models, name).__table__.columns, key=lambda column: str(column.name)):
            default = _default(column.default), _default(column.onupdate), _default(column.server_default)
            yield f"{column.name} {type(column.type).__name__} {column.nullable} {default}"


def _source(module: Any, name: str) -> str:
    """The text of a function of a module, in which only Rucio's own decorators may wrap it.

    :raises TypeError: when anything else does.
    """
    found = link = getattr(module, name)
    while link is not None:
        # The type itself: what some packages wrap a function into says of itself that it is one.
        if type(link) is not FunctionType or link.__code__.co_filename not in (module.__file__, session.__file__):
            raise TypeError(f"{name} is not Rucio's own")
        link = getattr(link, "__wrapped__", None)
    return inspect.getsource(found)


def _default(default: Any) -> str:
    """A default of a column, without what differs from process to process."""
    value = getattr(default, "arg", None)
    return str(getattr(value, "__name__", value))
