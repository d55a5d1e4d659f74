"""The recycle bin of a cloud: list, restore, purge one item. Never more than that one.

Over gRPC only (:mod:`rucio_cs3.cs3.gateway`). What servers differ in, and what is settled here:

===================  =================================  ===========================  ==============================
\\                    Reva v3.12.1 ``local`` [run]       Reva v3 on EOS (code)        OpenCloud (run, by key: code)
===================  =================================  ===========================  ==============================
whose bin            of the whole mount, all users      of the folder's owner        of the space
time windows         ignored                            needed: two days without,    ignored
                                                        14 days, 2,000 items
key                  ``name.d<milliseconds>``           EOS's                        id of the deleted node
a key listed alone   no: the whole bin                  no: the whole bin            yes, with the size
size of a file       yes                                yes                          0 in listings (decomposedfs)
deletion time        milliseconds in place of seconds   seconds                      seconds
restore over a file  INTERNAL                           (not read)                   ALREADY_EXISTS; posix replaces
no such key          INTERNAL                           (not read)                   NOT_FOUND
a folder's content   (nobody says)                      (not read)                   ``key/`` lists it (code)
purge of a folder    only where it is empty             (not read)                   with all in it (code)
no key at all        **empties the bin**                not supported                **empties the bin**
===================  =================================  ===========================  ==============================

ListRecycleStream is gRPC UNKNOWN "unimplemented" in the gateways of both lines, so a listing is one message; its size
is limited by :data:`~rucio_cs3.cs3.channel.LISTING_MAX_BYTES`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import MountRoot, Reference

_log = logging.getLogger(__name__)

_DAY_S = 86_400

#: How far back items are looked for by default, in seconds: longer than bins keep them (EOS at CERN 30 days).
LOOK_BACK_S = 90 * _DAY_S

#: Days that are asked for at once where a server takes windows; Reva's EOS driver refuses more than 14 by default, and
#: this is halved where it refuses that, too.
_WINDOW_DAYS = 7

#: Later in seconds than any deletion, so that it can only be milliseconds (Reva v3.12.1 local): the year 5138.
_MILLISECONDS_FROM = 10**11


@dataclass(frozen=True, kw_only=True)
class RecycledItem:
    """A file or folder in the recycle bin; of a folder, what was in it is not told.

    :param reference: where it was.
    :param key: the server's name for it; says nothing.
    :param size: bytes; None where the server does not say.
    :param deleted_at_s: seconds since the epoch by the server's clock; whole seconds at most servers.
    """

    reference: Reference
    key: str = field(repr=False)
    size: int | None
    is_directory: bool
    deleted_at_s: float
    #: The folder that the server was asked with, which decides whose bin it is.
    bin_of: Reference = field(repr=False)
    #: The server is Reva's ``local`` driver, by its times in milliseconds: it purges a folder by rmdir(2).
    by_rmdir: bool = field(default=False, repr=False)


class RecycleBin:
    """The recycle bin as one identity sees it; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway, namespace: Namespace) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._namespace = namespace

    def items(
        self, folder: Reference, *, since_s: float | None = None, until_s: float | None = None
    ) -> Iterator[RecycledItem]:
        """What was deleted at or below a folder, in no order. Each item once.

        Where the server takes time windows, memory is bounded by what was deleted in a week; elsewhere by its one
        answer, of which some 250,000 items pass.

        :param since_s: seconds since the epoch by the server's clock; :data:`LOOK_BACK_S` ago by default.
        :param until_s: likewise; no limit by default.
        :raises NotFound: when the cloud knows no such place at all.
        :raises Throttled: when there are too many items for an answer.
        :raises Unsupported: when the server has no recycle bin.
        """
        now = time.time()
        since_s = now - LOOK_BACK_S if since_s is None else since_s
        # The server's clock, and its time zone, may be ahead of ours.
        last_s = now + _DAY_S if until_s is None else min(until_s, now) + _DAY_S
        for item in self._windows(folder, since_s, last_s):
            below = item.reference == folder or not folder.path or item.reference.path.startswith(f"{folder.path}/")
            if below and since_s <= item.deleted_at_s and (until_s is None or item.deleted_at_s <= until_s):
                yield item

    def measured(self, item: RecycledItem) -> RecycledItem:
        """The item with its size where listings do not tell it (OpenCloud; of a folder that of all in it); one call.

        :raises NotFound: when it is in the bin no more.
        """
        if item.size is not None or self._endpoint.stores_paths:
            return item
        sizes = [one.size for one in self._ask(item.bin_of, key=item.key).recycle_items if one.key == item.key]
        if not sizes:
            raise errors.NotFound(
                "is no longer in the recycle bin", operation="ListRecycle", target=str(item.reference)
            )
        return replace(item, size=sizes[0] if sizes[0] <= resources.SIZE_MAX_BYTES else None)

    def restore(self, item: RecycledItem) -> None:
        """Put an item back where it was. Its folder is made where it is missing; what stands there stays.

        The look at the place and the restoration are not one step. OpenCloud's posix driver replaces a file that
        somebody writes there between them; all others refuse.

        :raises AlreadyExists: when something is there.
        :raises NotFound: when the item is in the bin no more.
        """
        place = item.reference
        if self._namespace.present(place) is not None:
            raise _taken(place)
        self._namespace.make_directories(place.parent)
        request = provider_api_pb2.RestoreRecycleItemRequest(ref=self._message(item.bin_of), key=_checked_key(item))
        try:
            self._gateway.ask("RestoreRecycleItem", request, str(place))
        except errors.CS3Error as error:
            # Reva v3.12.1 says INTERNAL to whatever is wrong, and an answer may be lost: both ends are looked at.
            if isinstance(error, errors.AccessDenied | errors.Unauthenticated | errors.Unsupported):
                raise
            self._settle_restore(item, error)
        self._namespace.saw_folder(place.parent)

    def is_empty(self, item: RecycledItem) -> bool | None:
        """Whether nothing is in a folder in the bin; None where the server has no way to tell.

        Reva's ``local`` driver has only one: it purges a folder where that is empty, and fails where it is not. So
        there an empty folder is out of the bin when this returns. Try before whether that holds, here
        (:mod:`rucio_cs3.cs3.bin_proof`): another version may purge whatever is in it.

        :raises NotFound: when it is in the bin no more.
        """
        if not self._endpoint.stores_paths:
            inside = self._ask(item.bin_of, key=f"{_checked_key(item)}/").recycle_items
            # Of a server that does not know this form, others may come.
            ours = all(one.key.startswith(f"{item.key}/") for one in inside)
            return not inside if ours else None
        if not item.by_rmdir:
            return None
        try:
            purged = self.purge(item)
        except errors.ServerFault:
            return False
        if not purged:
            raise errors.NotFound("is no longer in the recycle bin", target=str(item.reference))
        return True

    def _settle_restore(self, item: RecycledItem, error: errors.CS3Error) -> None:
        place = item.reference
        there, in_bin = self._namespace.present(place) is not None, self._holds(item)
        if there and in_bin:
            raise _taken(place) from error
        if in_bin:
            raise error
        if not there:
            raise errors.NotFound(
                "is no longer in the recycle bin", operation="RestoreRecycleItem", target=str(place), code=error.code
            ) from error
        _log.info("RestoreRecycleItem %s: done although the server did not say so (%s)", place, error)

    def purge(self, item: RecycledItem) -> bool:
        """Free what one item takes, for good.

        :returns: False where it was in the bin no more; that is no error.
        :raises ServerFault: of a folder that is not empty, at Reva v3.12.1 ``local``.
        """
        request = provider_api_pb2.PurgeRecycleRequest(ref=self._message(item.bin_of), key=_checked_key(item))
        try:
            # Nothing else ever gets this key, so it may be said twice.
            self._gateway.ask("PurgeRecycle", request, str(item.reference), idempotent=True)
        except (errors.NotFound, errors.ServerFault) as error:
            # Reva v3.12.1 local: INTERNAL also where it is gone, as after a first call whose answer was lost.
            if self._holds(item):
                raise
            _log.info("PurgeRecycle %s: it is in the bin no more (%s)", item.reference, error)
            return False
        return True

    def _holds(self, item: RecycledItem) -> bool:
        """Whether an item is in the bin."""
        if self._endpoint.stores_paths:
            window = self._windows(item.bin_of, item.deleted_at_s - _DAY_S, item.deleted_at_s + _DAY_S)
            return any(one.key == item.key for one in window)
        # All of it: what OpenCloud says to a key that is gone depends on its driver.
        return any(one.key == item.key for one in self._ask(item.bin_of).recycle_items)

    def _windows(self, folder: Reference, since_s: float, last_s: float) -> Iterator[RecycledItem]:
        if not self._endpoint.stores_paths:
            yield from self._read(folder, self._ask(folder).recycle_items)
            return
        # A window long before all deletions: whoever answers with items all the same ignores windows, and these are
        # all of them.
        everything = self._ask(folder, window=(0, _DAY_S)).recycle_items
        if everything:
            yield from self._read(folder, everything)
            return
        days, end_s = _WINDOW_DAYS, int(last_s)
        before: set[str] = set()
        while end_s > since_s:
            # EOS is asked day by day from the end on, so a window is whole days, and the day that two share is
            # listed twice.
            start_s = end_s - days * _DAY_S
            try:
                items = self._ask(folder, window=(max(start_s, 0), end_s)).recycle_items
            except errors.InvalidRequest as error:
                if days == 1:
                    raise errors.Throttled(
                        f"more was deleted within a day than {self._endpoint.name} lists at once; {error.message}",
                        operation="ListRecycle",
                        target=str(folder),
                        code=error.code,
                        retryable=False,
                    ) from error
                days //= 2
                continue
            yield from self._read(folder, (one for one in items if one.key not in before))
            before = {one.key for one in items}
            end_s = start_s

    def _ask(
        self, folder: Reference, *, window: tuple[int, int] | None = None, key: str = ""
    ) -> provider_api_pb2.ListRecycleResponse:
        request = provider_api_pb2.ListRecycleRequest(ref=self._message(folder), key=key)
        if window is not None:
            request.from_ts.CopyFrom(types_pb2.Timestamp(seconds=window[0]))
            request.to_ts.CopyFrom(types_pb2.Timestamp(seconds=window[1]))
        answer: provider_api_pb2.ListRecycleResponse = self._gateway.ask(
            "ListRecycle", request, str(folder), idempotent=True
        )
        return answer

    def _message(self, folder: Reference) -> resources_pb2.Reference:
        # At OpenCloud the bin is the space's, and folders may be gone.
        return resources.to_message(folder if self._endpoint.stores_paths else Reference(folder.root))

    def _read(self, folder: Reference, items: Iterable[resources_pb2.RecycleItem]) -> Iterator[RecycledItem]:
        for item in items:
            place = self._place(item.ref.path)
            if place is None or item.size > resources.SIZE_MAX_BYTES or not _is_key(item.key):
                continue
            is_directory = item.type == resources_pb2.RESOURCE_TYPE_CONTAINER
            # OpenCloud decomposedfs says 0 of every file, and both lines something else than what is in it of a folder.
            unknown = is_directory or (not self._endpoint.stores_paths and item.size == 0)
            seconds, nanos = item.deletion_time.seconds, item.deletion_time.nanos
            yield RecycledItem(
                reference=place,
                key=item.key,
                size=None if unknown else item.size,
                is_directory=is_directory,
                deleted_at_s=seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds + nanos / 1e9,
                bin_of=folder,
                by_rmdir=is_directory and self._endpoint.stores_paths and seconds >= _MILLISECONDS_FROM,
            )

    def _place(self, path: str) -> Reference | None:
        """Where an item was; None outside of this endpoint's root, and for what is no path."""
        root = self._endpoint.root
        if isinstance(root, MountRoot):
            above = root.path.rstrip("/")
            if not path.startswith(f"{above}/"):
                return None
            path = path[len(above) :]
        try:
            # OpenCloud: "/d/x" from decomposedfs, "d/x" from posix.
            return Reference(root).child(path.removeprefix("./"))
        except errors.InvalidReference:
            return None


def _is_key(key: str) -> bool:
    # A server takes an empty key for the whole bin, and so Reva does one that only cleans to nothing, such as "/./".
    return key.strip("./") != "" and "/" not in key


def _checked_key(item: RecycledItem) -> str:
    if not _is_key(item.key):
        raise errors.InvalidRequest("the server's key for it would mean the whole bin", target=str(item.reference))
    return item.key


def _taken(place: Reference) -> errors.AlreadyExists:
    return errors.AlreadyExists("something stands there, and stays", operation="RestoreRecycleItem", target=str(place))
