"""What is examined: the endpoint that a person named, also where its settings or credentials are wrong.

:mod:`rucio_cs3.places` gives up at the first fault; an examination wants to say all that can be said of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio_cs3 import clouds, places, rse_logins, settings
from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint, Timeouts
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import Reference

if TYPE_CHECKING:
    from rucio_cs3.cs3.data_gateway import DataGateway
    from rucio_cs3.cs3.gateway import Gateway
    from rucio_cs3.cs3.storage import CS3Storage
    from rucio_cs3.doctor.scratch import Scratch

#: Longest waits while something is examined, in seconds; shorter ones of the endpoint's own stay.
PATIENCE = Timeouts(call_s=8.0, operation_s=12.0, connect_s=5.0, idle_s=10.0, processing_s=15.0)


@dataclass(kw_only=True)
class Subject:
    """One endpoint as one identity sees it; for one examination.

    :param name: by which the person called it.
    :param settings: its settings as they were given, by the names of :data:`rucio_cs3.settings.SETTINGS`.
    :param endpoint: with :data:`PATIENCE`; None where ``fault`` says why.
    :param provider: None where ``login_fault`` says why.
    :param protocol: scheme, hostname, port and prefix of its PFNs, and of an RSE all that Rucio says of it.
    :param rse: Rucio's description; None where it is no RSE.
    :param attributes: of the RSE; None where they could not be had.
    """

    name: str
    protocol: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    fault: errors.CS3Error | None = None
    provider: CredentialProvider | None = None
    login_fault: errors.CS3Error | None = None
    folder: Reference | None = None
    rse: Mapping[str, Any] | None = None
    attributes: Mapping[str, Any] | None = None
    #: The folder that all writing is done in, once it is made.
    scratch: Scratch | None = None
    #: Whether the front end does third-party copies, once that is known.
    copies: bool = False

    @property
    def place(self) -> Endpoint:
        """The endpoint.

        :raises ConfigurationError: where the settings make none.
        """
        if self.endpoint is None:
            raise self.fault or errors.ConfigurationError(f"{self.name} has no endpoint")
        return self.endpoint

    @property
    def home(self) -> Reference:
        """The folder that the RSE or name stands for.

        :raises ConfigurationError: where the settings make none.
        """
        if self.folder is None:
            raise self.fault or errors.ConfigurationError(f"{self.name} has no folder")
        return self.folder

    @cached_property
    def storage(self) -> CS3Storage:
        """A client of its own, which waits no longer than :data:`PATIENCE`."""
        from rucio_cs3.cs3.storage import CS3Storage

        if self.provider is None:
            raise self.login_fault or errors.ConfigurationError(f"{self.name} has no credentials")
        return CS3Storage(self.place, self.provider)

    @property
    def gateway(self) -> Gateway:
        """For calls that a storage has no method for."""
        return self.storage.gateway

    @cached_property
    def data(self) -> DataGateway:
        """For single requests with a ticket."""
        from rucio_cs3.cs3.data_gateway import DataGateway

        return DataGateway(self.place, self.storage.http, self.gateway.tokens.get)

    @property
    def authorization(self) -> str:
        """What the front end is shown; a secret."""
        return f"Bearer {self.storage.access_token()}"

    def close(self) -> None:
        """Close all connections. Idempotent."""
        if "storage" in vars(self):
            self.storage.close()


def find(text: str, *, rse: str | None, given: Mapping[str, str]) -> Subject:
    """The endpoint that a text means.

    :param text: name of an RSE or of a section of the clouds file, or a URL.
    :param rse: see :func:`rucio_cs3.places.find`.
    :param given: settings and login of a cloud that stands nowhere yet; then ``text`` is its URL.
    :raises ConfigurationError: when there is no such name, or Rucio cannot be asked.
    """
    clouds.refuse_userinfo(text, "the URL")
    if given:
        if "://" not in text:
            raise errors.ConfigurationError(f"{text} is no URL; settings and a login are given for a URL alone")
        return _of_values(urlsplit(text).hostname or text, {"url": text, **given}, "the command line")
    if "://" in text:
        return _of_url(text, rse)
    name = text.removesuffix(":")
    sections = clouds.configured()
    if name in sections:
        return _of_values(name, sections[name], f"section [{name}] of {clouds.clouds_file()}")
    return _of_rse(name)


def _of_url(url: str, rse: str | None) -> Subject:
    cloud = places.find(url, rse=rse).cloud
    subject = find(cloud.name, rse=None, given={}) if cloud.rse is None else _of_rse(cloud.name, cloud.protocol)
    # What was asked for is the URL, and it may name another folder than that of the RSE.
    subject.folder = cloud.endpoint.webdav.reference(url)
    return subject


def _of_values(name: str, values: Mapping[str, Any], where: str) -> Subject:
    parts = urlsplit(str(values.get("url") or ""))
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    subject = Subject(
        name=name,
        settings={key: values[key] for key in settings.SETTINGS if values.get(key) not in (None, "")},
        protocol={"scheme": parts.scheme, "hostname": host, "port": _port(parts), "prefix": parts.path},
    )
    try:
        _take(subject, clouds.from_settings(name, values, where=where))
    except errors.CS3Error as error:
        # The endpoint may be right, and the login wrong.
        subject.fault = error
        public = {key: value for key, value in values.items() if key not in rse_logins.KEYS}
        with contextlib.suppress(errors.CS3Error):
            _take(subject, clouds.from_settings(name, {**public, "token_discovery": "true"}, where=where))
            subject.provider, subject.fault, subject.login_fault = None, None, error
    return subject


def _of_rse(name: str, protocol: Mapping[str, Any] | None = None) -> Subject:
    """
    :param protocol: which of the RSE's is meant; the first of this package by default.
    """
    # Whoever has neither Rucio nor such an RSE is told so by places, in the words of all commands.
    try:
        from rucio.common.exception import RSENotFound
        from rucio.rse import rsemanager

        from rucio_cs3 import partners, rse_credentials, rses
    except Exception:
        places.find_cloud(name)
        raise
    with _told(f"RSE {name}"):
        try:
            info = rsemanager.get_rse_info(rse=name)
        except RSENotFound:
            places.find_cloud(name)
            raise
    ours = protocol or next((one for one in info["protocols"] if partners.is_ours(one["impl"])), None)
    if ours is None:
        raise errors.ConfigurationError(f"RSE {name} is no CS3 cloud: no protocol of it has an impl of rucio_cs3")
    subject = Subject(name=name, rse=info, protocol=ours)
    with _told(f"the attributes of RSE {name}"):
        attributes = rses.rse_attributes(info)
    try:
        subject.attributes = attributes
        subject.settings = rses.given(info, ours)
        endpoint = subject.endpoint = _patient(rses.endpoint(info, ours))
        subject.folder = endpoint.webdav.reference(clouds.folder_url(ours))
    except errors.CS3Error as error:
        subject.fault = error
    try:
        subject.provider = rse_credentials.credentials(info)
    except errors.CS3Error as error:
        subject.login_fault = error
    return subject


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever Rucio raises, and what is below it (requests, the database), as an error of ours.

    :raises ConfigurationError: instead.
    """
    try:
        yield
    except errors.CS3Error:
        raise
    except Exception as exc:
        words = " ".join(str(exc).split())
        raise errors.ConfigurationError(f"Rucio cannot be asked about {what}: {words or type(exc).__name__}") from exc


def _take(subject: Subject, cloud: Cloud) -> None:
    subject.endpoint = _patient(cloud.endpoint)
    subject.provider = cloud.provider
    subject.folder = cloud.folder


def _patient(endpoint: Endpoint) -> Endpoint:
    shorter = {name: min(value, getattr(endpoint.timeouts, name)) for name, value in vars(PATIENCE).items()}
    return replace(endpoint, timeouts=Timeouts(**shorter))


def _port(parts: Any) -> int:
    try:
        return parts.port or 0
    except ValueError:
        return 0
