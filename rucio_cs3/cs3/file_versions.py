"""How many old versions of a file a cloud keeps, and how large they are.

Over gRPC only (:mod:`rucio_cs3.cs3.gateway`), one call for each file; CS3APIs has none for a folder. What servers do:

======================  ===============================  ==============================  ===============================
\\                       Reva v3.12.1 ``local`` [run]     Reva v3.12.1 on EOS (code)      OpenCloud (run; rest: code)
======================  ===============================  ==============================  ===============================
overwriting makes one   yes, and a rename onto a file    as EOS is configured            yes, unless it is told not to
                        makes none
they belong to          the path: those of a file that   the file                        the file
                        is moved or deleted stay there
nothing at the place    OK, and those of the path        NOT_FOUND                       NOT_FOUND
no versions             OK and none                      OK and none                     OK and none
======================  ===============================  ==============================  ===============================

Sources: ``local``: pkg/storage/utils/localfs/localfs.go (archiveRevision, ListRevisions); EOS: pkg/storage/fs/eos/
revisions.go, which leaves out without a word a version that it cannot read; OpenCloud: opencloud-eu/reva ffb022b,
decomposedfs/tree/revisions.go and upload/store.go. On CephFS there are none (code of v3.12.1): ``cephmount`` answers OK
and none, ``cephfs`` CODE_INTERNAL of each file (cephfs.go says NotSupported, which storageprovider.go makes that of).
"""

from __future__ import annotations

from dataclasses import dataclass

from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.reference import Reference


@dataclass(frozen=True, kw_only=True, slots=True)
class OldVersions:
    """Those of one file; what can be downloaded now is none of them.

    :param items: how many.
    :param bytes: of all of them together.
    """

    items: int = 0
    bytes: int = 0


def old_versions(gateway: Gateway, file: Reference) -> OldVersions:
    """ListFileVersions; one round trip, two where the answer is NOT_FOUND.

    :raises NotFound: when nothing is there; Reva ``local`` tells of a path whether something is there or not.
    :raises Unsupported: when the server keeps no versions.
    :raises ProtocolViolation: when one is larger than a file can be.
    """
    request = provider_api_pb2.ListFileVersionsRequest(ref=resources.to_message(file))
    sizes = [version.size for version in gateway.ask("ListFileVersions", request, str(file), idempotent=True).versions]
    if max(sizes, default=0) > resources.SIZE_MAX_BYTES:
        raise errors.ProtocolViolation(
            f"the server says that an old version has {max(sizes)} bytes",
            operation="ListFileVersions",
            target=str(file),
        )
    return OldVersions(items=len(sizes), bytes=sum(sizes))
