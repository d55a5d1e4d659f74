"""Removes folders that are empty, and gives back those that were not empty any more.

No server has a Delete for empty folders only. So each is looked at directly before, and after it the item in the
recycle bin: what came into the folder in between is in there, and both come back. Servers differ in how that can be
seen (:meth:`~rucio_cs3.cs3.recycle.RecycleBin.is_empty`), and whether it can is tried first
(:mod:`rucio_cs3.cs3.bin_proof`). What remains is in docs/deletion.md. Which folders are wanted is the matter of
:mod:`rucio_cs3.pruning`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.bin_proof import why_unseen
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import OPEN_OUTCOME, Deleted, Namespace
from rucio_cs3.cs3.purging import SILENCE, identified, item_of
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.server_clock import ClockOffset


class Deed(enum.Enum):
    """What became of a folder that is empty, or of one that could not be looked at; the first four after a removal."""

    REMOVED = "removed"
    #: It is in the bin, and whether anything came into it between look and Delete nobody can say.
    UNCHECKED = "removed, not checked"
    #: Something had come into it, and it is back.
    RESTORED = "restored"
    #: Something had come into it, and it is in the bin with that.
    NOT_RESTORED = "not restored"
    WOULD_REMOVE = "would remove"
    TOO_YOUNG = "too young"
    CHANGED = "changed meanwhile"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one folder.

    :param why: in words, where the deed does not say it all.
    """

    reference: Reference
    deed: Deed
    why: str = ""


class EmptyFolders:
    """For one thread.

    :param below: a folder that all are below; it exists.
    :param clock: measures the server's clock.
    """

    def __init__(
        self,
        gateway: Gateway,
        namespace: Namespace,
        bin_: RecycleBin,
        below: Reference,
        clock: Callable[[], ClockOffset | None],
    ) -> None:
        self._gateway = gateway
        self._namespace = namespace
        self._bin = bin_
        self._below = below
        self._clock = clock

    @cached_property
    def unseen(self) -> str:
        """Why nobody can see afterwards whether a folder was empty that :meth:`remove` has removed; empty where it can
        be seen. Tried when it is asked first, which makes a folder and removes it.

        :raises CS3Error: where the server does not answer; ask again then.
        """
        return why_unseen(self._namespace, self._bin, self._below, self._clock)

    def remove(self, seen: FileInfo, *, ours_until_s: float | None = None) -> Deleted:
        """Look once more, and delete it; :meth:`settle` it then, soon.

        :param seen: an earlier look.
        :param ours_until_s: since that look something was removed in it by us, which gives it another time and etag;
            this is when the last of that was over, in seconds since the epoch by the server's clock at most.
        :raises PreconditionFailed: when it is not empty any more, or was changed since; it stays.
        :raises NotFound: when it is not there any more.
        """
        now = self._gateway.stat(seen.reference)
        if not now.is_directory:
            raise _changed(seen, "is a file by now")
        is_ours = ours_until_s is not None and now.mtime_s <= ours_until_s
        if not is_ours and (now.mtime_s, now.etag) != (seen.mtime_s, seen.etag):
            raise _changed(seen, "was changed since it was looked at first")
        entries = self._gateway.list_folder(seen.reference)
        if entries or entries.left_out:
            raise _changed(seen, "is not empty any more")
        try:
            return replace(self._namespace.delete(seen.reference), is_directory=True)
        except OPEN_OUTCOME as error:
            raise type(error)(
                f"{error.message}; the server may still remove it, with what has come into it by then: look at "
                "undelete --list",
                operation="Delete",
                target=str(seen.reference),
                code=error.code,
                trace=error.trace,
            ) from error

    def settle(self, removed: Collection[Deleted]) -> Iterator[Outcome]:
        """Look at them in the recycle bin, and restore what was not empty; the last one first, so that a folder comes
        back before one in it makes it anew. Nothing is raised for one of them.
        """
        items = [(one, item_of(self._below, one)) for one in removed if one.key is not None]
        unknown = [one for one in removed if one.key is None]
        why = ""
        try:
            why = self.unseen
            if unknown and not why:
                found, unclear = identified(self._bin, self._below, unknown, self._clock)
                items += found
                yield from (_unchecked(one.deleted, one.why) for one in unclear)
                unknown = []
        except errors.CS3Error as error:
            why = str(error)
        yield from (_unchecked(one, why) for one in unknown)
        for one, item in reversed(items):
            if why:
                yield _unchecked(one, why)
                continue
            try:
                yield self._settled(one, item)
            except SILENCE as error:
                why = str(error)
                yield _unchecked(one, why)

    def _settled(self, one: Deleted, item: RecycledItem) -> Outcome:
        """:raises CS3Error: one of :data:`~rucio_cs3.cs3.purging.SILENCE`, before anything is known of it."""
        try:
            is_empty = self._bin.is_empty(item)
        except SILENCE:
            raise
        except errors.CS3Error as error:
            return _unchecked(one, str(error))
        if is_empty is None:
            return _unchecked(one, "the server does not say what is in it")
        if is_empty:
            return Outcome(reference=one.reference, deed=Deed.REMOVED)
        try:
            self._bin.restore(item)
        except errors.CS3Error as error:
            return Outcome(reference=one.reference, deed=Deed.NOT_RESTORED, why=str(error))
        return Outcome(reference=one.reference, deed=Deed.RESTORED)


def _unchecked(one: Deleted, why: str) -> Outcome:
    return Outcome(reference=one.reference, deed=Deed.UNCHECKED, why=why)


def _changed(seen: FileInfo, how: str) -> errors.PreconditionFailed:
    return errors.PreconditionFailed(how, operation="Delete", target=str(seen.reference))
