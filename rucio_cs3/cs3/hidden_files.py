"""Hidden siblings in a cloud: where a copy lands, is proven, and then gets the file's name.

Their names are :mod:`rucio_cs3.cs3.hidden_names`'. Uploads of a local file have their own, which nobody sees
(:mod:`rucio_cs3.cs3.uploads.uploads`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.attempt import Options
from rucio_cs3.cs3.uploads.leftovers import Leftovers
from rucio_cs3.cs3.uploads.uploads import Uploads


class HiddenFiles:
    """Those of one endpoint; safe for many threads. Each ``hidden`` is a
    :func:`~rucio_cs3.cs3.hidden_names.hidden_sibling` that nobody else has.
    """

    def __init__(self, namespace: Namespace, uploads: Uploads, leftovers: Leftovers) -> None:
        self._namespace = namespace
        self._uploads = uploads
        self._leftovers = leftovers

    def store(self, body: UploadBody, hidden: Reference) -> None:
        """Send what ``body`` reads, with the promises of :meth:`~rucio_cs3.cs3.storage.CS3Storage.store`: nothing is
        left where it fails, as far as the server can be reached.
        """
        self._uploads.upload(body, hidden, Options(hidden=True))

    def take_name(self, hidden: Reference, reference: Reference, *, size: int) -> None:
        """Give one of ``size`` bytes, which is whole and proven, the name of its file.

        One look and one Move. Reva v3.12.1 has no condition for its Move, so what comes to stand there between the two
        is replaced.

        :raises AlreadyExists: when something stands there; both stay.
        """
        self._namespace.take_name(hidden, reference, size=size)

    def discard(self, hidden: Reference, *, may_come: bool) -> None:
        """Remove what stands under that name, if anything.

        :param may_come: it may yet come into being, as what a broken connection leaves: then it is waited for, up to
            two seconds.
        :raises CS3Error: when something may be left, because the gateway did not answer for some seconds, or refused,
            or shows not even the folder.
        """
        if not self._leftovers.remove_sibling(hidden, stubs=may_come) and not self._namespace.is_gone(hidden):
            raise errors.Unavailable(
                "the storage shows neither the file nor its folder", operation="Delete", target=str(hidden)
            )

    def left_of(self, reference: Reference) -> Sequence[Reference]:
        """The traceable hidden siblings of a file, which killed processes have left, or a site that went on by itself
        with a copy nobody waited for any more. That of a living transfer is among them.

        One listing of the folder.

        :raises CS3Error: when it cannot be listed; that there is none is no error.
        """
        return self._leftovers.siblings(reference)
