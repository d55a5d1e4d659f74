"""What a person types for a place in a cloud, as that place: by the name of an RSE or of a cloud, or by URL.

============================  ==============================================================
``CERNBOX:scope/ab/cd/name``  below the folder of an RSE, or of a section of the clouds file
``CERNBOX:/eos/project/r/x``  a path of CS3 at the same cloud
``CERNBOX``, ``CERNBOX:``     the folder itself
``davs://host/…``             a PFN, or any URL at the cloud
============================  ==============================================================

A section of the clouds file (:mod:`rucio_cs3.clouds`) comes before an RSE of the same name, and Rucio is asked only
where there is no such section. What can be done with an RSE only passes over that file: :func:`find_rse`,
:func:`cloud_of_rse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rucio_cs3 import clouds
from rucio_cs3.clouds import Cloud, Place
from rucio_cs3.cs3 import errors


class NoSuchRSE(errors.ConfigurationError):
    """A name that no RSE has, as far as this machine knows: Rucio has none of that name, or there is no Rucio here."""


def find(text: str, *, rse: str | None = None) -> Place:
    """The place that a text means.

    :param rse: name of an RSE or of a section; then the text may be a path alone, or a URL at that cloud.
    :raises ConfigurationError: when there is no such cloud, it is described wrongly, or Rucio cannot be asked.
    :raises InvalidReference: when the path is none, or outside of the cloud.
    """
    if "://" in text:
        clouds.refuse_userinfo(text, "the URL")
        cloud = _at(text) if rse is None else find_cloud(rse, url=text)
        return Place(cloud, cloud.endpoint.webdav.reference(text))
    if rse is not None:
        return find_cloud(rse).place(text.removeprefix(f"{rse}:"))
    name, _, path = text.partition(":")
    if not name or "/" in name:
        raise errors.ConfigurationError(
            f"{text!r} names no cloud; write NAME:path, NAME being an RSE, or use --rse NAME"
        )
    return find_cloud(name).place(path)


def find_rse(text: str) -> Place:
    """As :func:`find`, for what only an RSE can be used for: the clouds file is passed over, whatever it names."""
    if "://" in text:
        clouds.refuse_userinfo(text, "the URL")
        cloud = max(_rses_with_url(text), key=lambda one: _fit(one, text), default=None)
        if cloud is None:
            raise errors.ConfigurationError(f"no RSE of Rucio has a URL that {text} is below")
        return Place(cloud, cloud.endpoint.webdav.reference(text))
    name, _, path = text.partition(":")
    if not name or "/" in name:
        raise errors.ConfigurationError(f"{text!r} names no RSE; write RSE:path")
    return cloud_of_rse(name).place(path)


def cloud_of_rse(name: str) -> Cloud:
    """As :func:`find_cloud`, for what only an RSE can be used for: the clouds file is passed over.

    :raises NoSuchRSE: where Rucio has none of that name, or there is no Rucio; says so where a section has the name.
    :raises ConfigurationError: see :func:`find`.
    """
    try:
        return _of_rse(name, None)
    except NoSuchRSE as error:
        if not _is_section(name):
            raise
        raise NoSuchRSE(
            f"{name} is a section of the clouds file, and only an RSE will do here; {error.message}"
        ) from error


def _is_section(name: str) -> bool:
    try:
        return clouds.from_file(name) is not None
    except errors.CS3Error:
        return False


def find_cloud(name: str, *, url: str | None = None) -> Cloud:
    """The cloud of a section of the clouds file, else of an RSE.

    :param url: of several protocols of an RSE, the one that this belongs to is taken.
    :raises NoSuchRSE: when there is neither.
    :raises ConfigurationError: see :func:`find`.
    """
    cloud = clouds.from_file(name)
    if cloud is not None:
        return cloud
    try:
        return _of_rse(name, url)
    except NoSuchRSE as error:
        raise NoSuchRSE(f"there is no section [{name}] in {clouds.clouds_file()}, and {error.message}") from error


def _at(url: str) -> Cloud:
    """The cloud that a URL is at, with the nearest folder: of the clouds file, else of Rucio's RSEs. Each RSE is looked
    at, which takes a request in a client where Rucio's cache does not know it.
    """
    faults: list[errors.CS3Error] = []
    candidates = list(clouds.with_url(url, faults=faults)) or list(_rses_with_url(url))
    found = max(candidates, key=lambda cloud: _fit(cloud, url), default=None)
    if found is None:
        raise errors.ConfigurationError(
            f"no section of {clouds.clouds_file()} and no RSE of Rucio has a URL that {url} is below"
            # Of one at the same host and port nobody knows whether it would have been the right one.
            + (f"; {faults[0].message}" if faults else "")
        )
    return found


def _fit(cloud: Cloud, url: str) -> int:
    """How well a cloud's folder fits a URL below it; less than nothing where it is not below."""
    path, folder = cloud.endpoint.webdav.reference(url).path, cloud.folder.path
    return len(folder) if not folder or f"{path}/".startswith(f"{folder}/") else -1


def _rses_with_url(url: str) -> Iterator[Cloud]:
    for name in names_of_rses():
        try:
            cloud = _of_rse(name, url)
        except errors.ConfigurationError:
            continue  # no cloud of ours, or one that nobody here can log in to
        if clouds.holds(cloud.endpoint, url):
            yield cloud


def _of_rse(name: str, url: str | None) -> Cloud:
    """The cloud of an RSE.

    :raises NoSuchRSE: with what is missing, and nothing of the clouds file.
    """
    # Late: Rucio reads its configuration when it is imported, and who has no Rucio needs none of this.
    try:
        from rucio.common.exception import ConfigNotFound, RSENotFound, RucioException
        from rucio.rse import rsemanager
    except ImportError as exc:
        raise NoSuchRSE(f"Rucio is not installed here ({exc.name})") from exc
    except Exception as exc:
        # Rucio's imports read its configuration, and raise what that makes of it.
        raise NoSuchRSE(f"Rucio cannot be used here: {_one_line(exc)}") from exc
    from rucio_cs3 import partners, rse_credentials, rses

    try:
        settings = rsemanager.get_rse_info(rse=name)
        ours = [protocol for protocol in settings["protocols"] if partners.is_ours(protocol["impl"])]
        if not ours:
            raise errors.ConfigurationError(f"RSE {name} is no CS3 cloud: no protocol of it has an impl of rucio_cs3")
        found = [(protocol, rses.endpoint(settings, protocol)) for protocol in ours]
        protocol, endpoint = next(((one, end) for one, end in found if url and clouds.holds(end, url)), found[0])
        return Cloud(
            name=name,
            endpoint=endpoint,
            provider=rse_credentials.credentials(settings, session=_session(settings, protocol)),
            folder=endpoint.webdav.reference(clouds.folder_url(protocol)),
            scheme=protocol["scheme"],
            rse=settings,
            protocol=protocol,
        )
    except RSENotFound:
        raise NoSuchRSE(f"Rucio knows no RSE {name}; rucio rse list shows all") from None
    except ConfigNotFound:
        raise NoSuchRSE("Rucio has no configuration here (rucio.cfg)") from None
    except RucioException as exc:
        raise errors.ConfigurationError(f"Rucio cannot be asked about RSE {name}: {_one_line(exc)}") from exc


def _session(settings: Mapping[str, Any], protocol: Mapping[str, Any]) -> Any:
    """The session with Rucio, where this RSE takes its token; a server has none."""
    from rucio.rse import rsemanager

    from rucio_cs3 import rse_credentials, rses

    audience = rses.rucio_token_audience(settings, protocol)
    if audience is None or getattr(rsemanager, "SERVER_MODE", False):
        return None
    from rucio.client.rseclient import RSEClient

    return rse_credentials.RucioSession(RSEClient().auth_token, audience)


def names_of_rses() -> Iterator[str]:
    """All RSEs of Rucio; none where Rucio is neither installed nor configured.

    :raises ConfigurationError: when it cannot be asked.
    """
    try:
        from rucio.common.exception import ConfigNotFound, RucioException
        from rucio.rse import rsemanager
    except Exception:
        # Neither installed nor configured: then there are no RSEs.
        return
    try:
        if getattr(rsemanager, "SERVER_MODE", False):
            from rucio.core.rse import list_rses

            yield from (rse["rse"] for rse in list_rses())
        else:
            from rucio.client.rseclient import RSEClient

            yield from (rse["rse"] for rse in RSEClient().list_rses())
    except ConfigNotFound:
        return
    except RucioException as exc:
        raise errors.ConfigurationError(f"Rucio cannot be asked for its RSEs: {_one_line(exc)}") from exc


def _one_line(error: Exception) -> str:
    """Rucio's words, which have line breaks and tabs."""
    return " ".join(str(error).split())
