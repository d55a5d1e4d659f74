"""Checks of the folder itself: whether it is there, by gRPC and by WebDAV, how large it is, and what room there is.

They read; nothing is written.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence

from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2, spaces_api_pb2

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.channel import LISTING_MAX_BYTES
from rucio_cs3.cs3.http.client import drain, http_error
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.doctor.findings import REFUSED, Check, Finding, Status, broken, few, note, ok, weak
from rucio_cs3.doctor.scratch import PREFIX
from rucio_cs3.doctor.subjects import Subject
from rucio_cs3.listing.amounts import size as shown_size

#: The largest listing that Reva's gateway takes from its storage provider, in bytes (v3.12.1 pool/option.go, a
#: constant; OpenCloud's default, OC_GRPC_MAX_RECEIVED_MESSAGE_SIZE). An entry with a name of 65 characters was measured
#: to take 391 bytes there.
_REVA_MAX_BYTES = 10_240_000

#: From so much of a largest message on, a folder is near the end of its growth.
_LARGE_SHARE = 0.5

#: What gRPC of other programs takes by default, in bytes: 4 MiB.
_GRPC_DEFAULT_BYTES = 4 * 1024 * 1024

#: With less left of a quota, uploads are about to fail: bytes, and share of the whole.
_LITTLE_BYTES = 1024**3
_LITTLE_SHARE = 0.02


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module."""
    return (
        Check(name="folder", look=_folder, needs=("login", "token"), advice="Check cs3_root and the folder's path."),
        Check(name="references", look=_references, needs=("folder",), severity=Status.WEAK),
        Check(
            name="listing",
            look=_listing,
            needs=("folder",),
            severity=Status.WEAK,
            advice="Use a folder with fewer entries: lfn2pfn_algorithm hash keeps them small.",
        ),
        Check(
            name="quota",
            look=_quota,
            needs=("folder",),
            severity=Status.WEAK,
            advice="Ask the cloud's operator why; Rucio cannot be told how full it is.",
        ),
        Check(
            name="WebDAV folder",
            look=_webdav_folder,
            needs=("folder", "WebDAV"),
            advice="Check cs3_webdav_base and cs3_root against the front end's own settings.",
        ),
    )


def _folder(subject: Subject) -> Finding:
    home = subject.home
    kind = "path" if subject.place.stores_paths else "space"
    try:
        info = subject.gateway.stat(home)
    except errors.NotFound:
        return _missing(subject, kind)
    except errors.Unauthenticated as error:
        return broken(
            f"a new access token is refused at once: {error.message}",
            "Check that all services of the cloud share one jwt secret, and that their clocks agree.",
        )
    if not info.is_directory:
        return broken(f"{home} is a file", "Name a folder.", kind=kind)
    return ok(f"{home} is there (named by {kind})", kind=kind, reference=str(home))


def _missing(subject: Subject, kind: str) -> Finding:
    """The folder is not there: what is, so that nobody has to guess."""
    home = subject.home
    make = f"If the settings are right, make it: rucio-cs3 mkdir -p {subject.name}:"
    above = home.parent
    try:
        while above != above.parent and not subject.storage.exists(above):
            above = above.parent
        if subject.storage.exists(above):
            return broken(
                f"{home} is not there ({above} is{_with(subject, above)})",
                f"{make} — otherwise check the URL's path, and cs3_root, which is what the WebDAV base stands for.",
                kind=kind,
            )
    except errors.CS3Error as error:
        return broken(f"{home} is not there, and nobody knows about {above}: {error.message}", make, kind=kind)
    others = _roots(subject)
    known = f"; this login can see {few(others)}" if others else ""
    return broken(
        f"not even {above} is there, which cs3_root names{known}",
        "Correct cs3_root: it is what the WebDAV base stands for in CS3.",
        kind=kind,
        roots=others,
    )


def _with(subject: Subject, folder: Reference) -> str:
    """Names of the folders in a folder, as the end of a sentence; empty where they cannot be told."""
    with contextlib.suppress(errors.CS3Error):
        if names := sorted(info.reference.name for info in subject.storage.list(folder) if info.is_directory):
            return f", with {few(names)} in it"
    return ""


def _roots(subject: Subject) -> list[str]:
    """What cs3_root could be: spaces by id, or what stands below ``/``."""
    with contextlib.suppress(errors.CS3Error):
        if subject.place.stores_paths:
            top = Reference(MountRoot("/"))
            listed = provider_api_pb2.ListContainerRequest(ref=resources.to_message(top))
            answer = subject.gateway.ask("ListContainer", listed, "/", idempotent=True)
            return [f"/{resources.listed_name(info)}" for info in answer.infos]
        spaces = subject.gateway.ask(
            "ListStorageSpaces", spaces_api_pb2.ListStorageSpacesRequest(), "", idempotent=True
        )
        return [
            f"{space.root.storage_id}${space.root.space_id} ({space.name})"
            for space in spaces.storage_spaces
            if space.space_type != "virtual"
        ]
    return []


def _references(subject: Subject) -> Finding:
    """The same folder by the id that a Stat gives it; both lines take that (Reva v3.12.1, OpenCloud)."""
    home = subject.home
    named = "path" if subject.place.stores_paths else "space and path"
    request = provider_api_pb2.StatRequest(ref=resources.to_message(home))
    info = subject.gateway.ask("Stat", request, str(home), idempotent=True).info
    by_id = provider_api_pb2.StatRequest(ref=resources_pb2.Reference(resource_id=info.id, path="."))
    try:
        found = subject.gateway.ask("Stat", by_id, "by id", idempotent=True).info
    except (errors.NotFound, *REFUSED) as error:
        return note(f"by {named}; not by id ({error.code}), which nothing here needs", by_id=False)
    if found.id != info.id:
        return note(f"by {named}; by id another one is found, which nothing here needs", by_id=False)
    return ok(f"by {named}, and by id", by_id=True)


def _listing(subject: Subject) -> Finding:
    home = subject.home
    request = provider_api_pb2.ListContainerRequest(ref=resources.to_message(home))
    response = subject.gateway.ask("ListContainer", request, str(home), idempotent=True)
    size = response.ByteSize()
    # Of this examination itself, which may have begun to write.
    mine = subject.scratch.folder.name if subject.scratch is not None else ""
    names = [name for info in response.infos if (name := resources.listed_name(info)) != mine]
    count = len(names)
    # A larger one has come: then the server's own limit is another one, and ours is what is known.
    whose, limit = (
        ("Reva passes on between its storage provider and its gateway", _REVA_MAX_BYTES)
        if size <= _REVA_MAX_BYTES
        else ("this package takes", LISTING_MAX_BYTES)
    )
    facts = {"entries": count, "bytes": size, "limit_bytes": limit}
    seen = f"{count} entries in a message of {shown_size(size)}; {whose} {shown_size(limit)} at most"
    if old := sorted(name for name in names if name.startswith(PREFIX)):
        return weak(
            f"{seen}; an examination that was killed has left {old[0]}",
            f"Unless another one runs now, remove it: rucio-cs3 rm -r {shlex.quote(f'{subject.name}:{old[0]}')}",
            **facts,
        )
    if size > _LARGE_SHARE * limit:
        return weak(seen, "Spread files over more folders (lfn2pfn_algorithm hash).", **facts)
    if size > _GRPC_DEFAULT_BYTES:
        return note(f"{seen}; other programs, with gRPC's own limit of 4 MiB, cannot list it", **facts)
    return ok(seen, **facts)


def _quota(subject: Subject) -> Finding:
    quota = subject.gateway.quota(subject.home)
    facts = {"total": quota.total_bytes, "used": quota.used_bytes, "remaining": quota.remaining_bytes}
    if quota.remaining_bytes is None:
        return ok(f"no limit; {shown_size(quota.used_bytes)} are used", **facts)
    total = quota.total_bytes or 0
    seen = f"{shown_size(quota.remaining_bytes)} of {shown_size(total)} are left"
    advice = "Empty the recycle bin, delete files, or ask for more."
    if quota.remaining_bytes <= 0:
        return broken(f"full: {seen}", advice, **facts)
    if quota.remaining_bytes < min(_LITTLE_BYTES, _LITTLE_SHARE * total):
        return weak(f"nearly full: {seen}", advice, **facts)
    return ok(seen, **facts)


def _webdav_folder(subject: Subject) -> Finding:
    return shown_by_webdav(subject, subject.home, "the folder")


def shown_by_webdav(subject: Subject, reference: Reference, what: str) -> Finding:
    """Whether the front end shows what gRPC does, by PROPFIND."""
    place = subject.place
    url = place.webdav.url(reference)
    headers = {"Authorization": subject.authorization, "Depth": "0"}
    with subject.storage.http.request("PROPFIND", url, headers=headers, target=url) as answer:
        status = answer.status_code
        if status == 207:
            drain(answer)
            return ok(f"{what} is at {url}, too", url=url)
        error = http_error(answer, "PROPFIND", url)
    if status == 401:
        return weak(
            "the front end does not take the gateway's access tokens (401), so there are no third-party copies",
            "Let it take them: at Reva, token_strategy_chain with bearer in http.middlewares.auth.",
            status=status,
        )
    if status == 404:
        return broken(
            f"{what} is at {reference} by gRPC, but not at {url}, so nobody finds files by their URLs",
            f"Correct cs3_root ({place.root}) or cs3_webdav_base ({place.webdav.path}): the base must stand for the "
            "root that the front end has (Reva: webdav_namespace or files_namespace of ocdav).",
            status=status,
        )
    return broken(str(error), "Ask the cloud's operator what its front end has against it.", status=status)
