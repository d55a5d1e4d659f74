"""An RSE's public settings, read from the places where Rucio and its users keep them.

The only module that knows their names. They come from the protocol's ``extended_attributes`` and the RSE's
attributes (the first win) and become one :class:`~rucio_cs3.cs3.config.Endpoint` for a CS3 cloud, and one
:class:`~rucio_cs3.cs3.config.WebDAVSite` for any other site. Secrets never stand there, because every Rucio client
can read them: :mod:`rucio_cs3.rse_credentials`. docs/rse-setup.md is the table for people.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import unquote

from rucio.common.config import get_config
from rucio.rse import rsemanager

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import (
    MAX_DOWNLOAD_STREAMS,
    TIMEOUT_MAX_S,
    Endpoint,
    Landing,
    Proof,
    Timeouts,
    UploadProtocol,
    WebDAVSite,
    is_file,
    split_address,
)
from rucio_cs3.cs3.hosts import split_name
from rucio_cs3.cs3.login.secret import expanded
from rucio_cs3.cs3.reference import SCHEMES, MountRoot, WebDAVBase, base_of_prefix, encode_path, parse_root
from rucio_cs3.transfers.modes import Wish

#: All public settings, by their one name in extended_attributes and RSE attributes, and what is expected.
SETTINGS: Mapping[str, str] = {
    "cs3_gateway": "host:port of the CS3 gateway (gRPC)",
    "cs3_gateway_tls": "true or false: whether the gateway speaks TLS (default true)",
    "cs3_webdav_base": "path of the WebDAV base, such as /remote.php/webdav (default: read from the prefix)",
    "cs3_root": "what the WebDAV base stands for: a path such as /eos/project, or <storage_id>$<space_id>",
    "cs3_ca_bundle": "PEM file to verify servers with (default: certifi's)",
    "cs3_client_certificate": "PEM file that says who we are to servers that ask for it",
    "cs3_client_key": "PEM file with its key (default: the certificate's file)",
    "cs3_insecure": "true: certificates are not verified",
    "cs3_tls_name_for_tests": "name that certificates must be for in place of the host's; for tests",
    "cs3_allow_plaintext": "true: tokens may travel without TLS to other machines",
    "cs3_rucio_token_audience": "one audience; the token of a user's OIDC session with Rucio is for this cloud, too, "
    "if it names that (default: it is not)",
    "cs3_data_hosts": "comma-separated hosts that tickets and redirects may name beside the RSE's own",
    "cs3_landing": "temporary or direct: how uploads come under their name (default: by kind of root)",
    "cs3_upload_protocol": "auto, simple or tus: how uploads are sent (default auto)",
    "cs3_download_streams": f"how many streams fetch one large file, 1 to {MAX_DOWNLOAD_STREAMS} (default 4)",
    "cs3_keep_checksums": "true or false: keep checksums as metadata where the server stores none (default true)",
    "cs3_proof": "read, server or size: how content is proven where the server keeps no checksum (default read)",
    "cs3_transfer_mode": "auto, pull, push or relay: who moves the bytes of transfers (default auto)",
    "cs3_call_timeout_s": "seconds for one gRPC call, more than 0",
    "cs3_idle_timeout_s": "seconds of silence on a data connection, more than 0",
    "cs3_processing_timeout_s": "seconds to wait for a server's post-processing, more than 0",
}

#: Those of them that a site which is no CS3 cloud has, too. It may have the others as well, where another of the RSE's
#: protocols is ours; they mean nothing here.
PLAIN_SETTINGS = frozenset(
    {
        "cs3_ca_bundle",
        "cs3_client_certificate",
        "cs3_client_key",
        "cs3_insecure",
        "cs3_tls_name_for_tests",
        "cs3_allow_plaintext",
        "cs3_data_hosts",
        "cs3_proof",
        "cs3_transfer_mode",
        "cs3_idle_timeout_s",
    }
)

#: Reads the RSE attributes of an RSE; :func:`rse_attributes` is the real one.
AttributeReader = Callable[[Mapping[str, Any]], Mapping[str, Any]]

#: RSE attributes hardly change, and in a client each look is a request; Rucio itself caches for 15 minutes.
_ATTRIBUTES_TTL_S = 300.0
_attributes: dict[tuple[int, str], tuple[float, Mapping[str, Any]]] = {}


def endpoint(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> Endpoint:
    """The endpoint of one protocol of an RSE.

    :param rse_settings: Rucio's RSE info (``rsemanager.get_rse_info``).
    :param protocol: one of its protocols: scheme, hostname, port, prefix, extended_attributes.
    :param read_attributes: gives the RSE's attributes; None asks Rucio.
    :raises ConfigurationError: naming RSE and key, for a missing, wrong or unknown setting.
    """
    reader = _Settings.of(rse_settings, protocol, read_attributes)
    rse = reader.rse
    gateway = reader.text("cs3_gateway")
    if gateway is None:
        raise errors.ConfigurationError(
            f"RSE {rse}: setting cs3_gateway is missing; set it to {SETTINGS['cs3_gateway']}, for example: "
            f"rucio rse attribute set {rse} --key cs3_gateway --value cernbox.example.org:9142"
        )
    split_address(gateway, f"RSE {rse}: setting cs3_gateway")
    # Wrong ones are said at once, and not at the first transfer.
    reader.wish()
    reader.audience()
    with _naming(rse):
        return Endpoint(
            gateway=gateway,
            gateway_tls=reader.flag("cs3_gateway_tls", default=True),
            webdav=_webdav(rse, protocol, reader),
            landing=cast("Landing | None", reader.choice("cs3_landing", get_args(Landing))),
            upload_protocol=cast(
                "UploadProtocol", reader.choice("cs3_upload_protocol", get_args(UploadProtocol)) or "auto"
            ),
            keep_checksums=reader.flag("cs3_keep_checksums", default=True),
            download_streams=reader.count("cs3_download_streams", most=MAX_DOWNLOAD_STREAMS, default=4),
            timeouts=reader.timeouts("call", "idle", "processing"),
            **reader.of_every_site(),
        )


def webdav_site(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> WebDAVSite:
    """The site behind a protocol that is none of ours (``davs``, ``https``, ``dav``, ``http``), for HTTP from here.

    Parameters and errors as those of :func:`endpoint`; only :data:`PLAIN_SETTINGS` count, and none is needed.
    """
    reader = _Settings.of(rse_settings, protocol, read_attributes)
    with _naming(reader.rse):
        server = f"{protocol['scheme']}://{protocol['hostname']}:{protocol['port']}"
        base = WebDAVBase.parse(f"{server}/", MountRoot("/"))
        return WebDAVSite(
            server=base,
            prefix=base.reference(f"{server}{prefix_path(protocol)}"),
            timeouts=reader.timeouts("idle"),
            **reader.of_every_site(),
        )


def transfer_mode(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> Wish:
    """What an RSE asks for, CS3 cloud or not; parameters and errors as those of :func:`endpoint`."""
    return _Settings.of(rse_settings, protocol, read_attributes).wish()


def rucio_token_audience(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> str | None:
    """Which audience a token of Rucio's users has to be for, to be shown to the cloud; None where none ever is.

    Parameters and errors as those of :func:`endpoint`.
    """
    return _Settings.of(rse_settings, protocol, read_attributes).audience()


def rse_attributes(rse_settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The RSE's attributes: from the database in a server or daemon, by one request in a client.

    :raises RucioException: when Rucio cannot be asked.
    """
    # By id: in a multi-VO Rucio two RSEs may have one name.
    key = (os.getpid(), str(rse_settings.get("id") or rse_settings["rse"]))
    known = _attributes.get(key)
    if known is not None and time.monotonic() - known[0] < _ATTRIBUTES_TTL_S:
        return known[1]
    attributes: Mapping[str, Any]
    if getattr(rsemanager, "SERVER_MODE", False):
        from rucio.core.rse import list_rse_attributes

        attributes = list_rse_attributes(rse_settings["id"])
    else:
        from rucio.client.rseclient import RSEClient

        attributes = RSEClient().list_rse_attributes(rse_settings["rse"])
    _attributes[key] = (time.monotonic(), attributes)
    return attributes


def prefix_path(protocol: Mapping[str, Any]) -> str:
    """A protocol's prefix as a URL path with a slash at both ends, percent-encoded once.

    People write it as they see it or as they copied it from a URL; a literal ``%`` must be ``%25``.
    """
    segments = [segment for segment in unquote(protocol.get("prefix") or "").split("/") if segment]
    return encode_path("/" + "".join(f"{segment}/" for segment in segments))


def _webdav(rse: str, protocol: Mapping[str, Any], reader: _Settings) -> WebDAVBase:
    prefix = prefix_path(protocol)
    base = reader.text("cs3_webdav_base") or base_of_prefix(prefix)
    if base is None:
        raise errors.ConfigurationError(
            f"RSE {rse}: prefix {prefix} begins with no WebDAV base known here; set cs3_webdav_base to "
            f"{SETTINGS['cs3_webdav_base']}"
        )
    if protocol["scheme"] not in SCHEMES:
        raise errors.ConfigurationError(
            f"RSE {rse}: scheme {protocol['scheme']} is none of {', '.join(SCHEMES)}, which this protocol serves"
        )
    root = reader.text("cs3_root")
    try:
        parsed_root = parse_root(root) if root else None
    except errors.InvalidReference as error:
        raise errors.ConfigurationError(f"RSE {rse}: setting cs3_root: {error.message}") from error
    server = f"{protocol['scheme']}://{protocol['hostname']}:{protocol['port']}"
    webdav = WebDAVBase.parse(f"{server}{encode_path(base)}", parsed_root)
    try:
        # At once, rather than at the first file.
        webdav.reference(f"{server}{prefix}")
    except errors.InvalidReference as error:
        raise errors.ConfigurationError(
            f"RSE {rse}: prefix {prefix} is not below the WebDAV base {base} (setting cs3_webdav_base)"
        ) from error
    return webdav


def _extended_attributes(rse: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    extended = protocol.get("extended_attributes") or {}
    if isinstance(extended, str):
        try:
            extended = json.loads(extended)
        except (ValueError, RecursionError):
            extended = None
    if not isinstance(extended, Mapping):
        raise errors.ConfigurationError(
            f"RSE {rse}: extended_attributes of scheme {protocol['scheme']} are no JSON object"
        )
    return {key: value for key, value in extended.items() if key.startswith("cs3_")}


@contextlib.contextmanager
def _naming(rse: str) -> Iterator[None]:
    """Put the RSE's name before errors that lack it."""
    try:
        yield
    except (errors.ConfigurationError, errors.InvalidReference) as error:
        if rse in error.message:
            raise
        raise errors.ConfigurationError(f"RSE {rse}: {error.message}") from error


class _Settings:
    """Typed reading of settings; RSE attributes may arrive as text or as what Rucio made of it."""

    def __init__(self, rse: str, values: Mapping[str, Any]) -> None:
        self.rse = rse
        self._values = values

    @classmethod
    def of(
        cls,
        rse_settings: Mapping[str, Any],
        protocol: Mapping[str, Any],
        read_attributes: AttributeReader | None,
    ) -> _Settings:
        """
        :raises ConfigurationError: for an unknown setting.
        """
        rse = str(rse_settings["rse"])
        attributes = (read_attributes or rse_attributes)(rse_settings)
        settings = {key: value for key, value in attributes.items() if key.startswith("cs3_")}
        settings.update(_extended_attributes(rse, protocol))
        unknown = sorted(settings.keys() - SETTINGS.keys())
        if unknown:
            raise errors.ConfigurationError(
                f"RSE {rse}: there is no setting {unknown[0]}; there are {', '.join(sorted(SETTINGS))}"
            )
        return cls(rse, settings)

    def of_every_site(self) -> dict[str, Any]:
        """The fields of :class:`~rucio_cs3.cs3.config.Site` without its timeouts."""
        return {
            "name": self.rse,
            **self._files_of_tls(),
            "insecure": self.flag("cs3_insecure"),
            "tls_name_for_tests": self.host("cs3_tls_name_for_tests"),
            "allow_plaintext": self.flag("cs3_allow_plaintext"),
            "data_hosts": frozenset(filter(None, re.split(r"[,\s]+", self.text("cs3_data_hosts") or ""))),
            "proof": self.choice("cs3_proof", get_args(Proof)) or "read",
        }

    def _files_of_tls(self) -> dict[str, Path | None]:
        """Paths may differ from one machine to the next, so those of the local ``rucio.cfg`` win; but a client
        certificate is shown only where the RSE asks for one.

        :raises ConfigurationError: naming the place of a path where no file is.
        """
        given, local = (
            {name: read(name) for name in ("ca_bundle", "client_certificate", "client_key")}
            for read in (lambda name: self.text(f"cs3_{name}"), _local_setting)
        )
        chosen = dict(given)
        if local["ca_bundle"]:
            chosen["ca_bundle"] = local["ca_bundle"]
        if given["client_certificate"] and local["client_certificate"]:
            chosen["client_certificate"], chosen["client_key"] = local["client_certificate"], local["client_key"]
        paths = {name: expanded(path) if path else None for name, path in chosen.items()}
        for name, path in paths.items():
            if path is not None and not is_file(path):
                is_local = chosen[name] == local[name]
                where = f"{name} in section [cs3] of rucio.cfg" if is_local else f"setting cs3_{name}"
                raise errors.ConfigurationError(
                    f"RSE {self.rse}: {where} names {path}, which is no file on this machine"
                )
        return paths

    def timeouts(self, *names: str) -> Timeouts:
        given = {f"{name}_s": self.seconds(f"cs3_{name}_timeout_s") for name in names}
        return Timeouts(**{name: seconds for name, seconds in given.items() if seconds is not None})

    def wish(self) -> Wish:
        return cast("Wish", self.choice("cs3_transfer_mode", get_args(Wish)) or "auto")

    def audience(self) -> str | None:
        text = self.text("cs3_rucio_token_audience")
        if text is not None and len(text.split()) != 1:
            raise self._wrong("cs3_rucio_token_audience")
        return text

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return None if value is None or value == "" else str(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = str(self._values.get(key, default)).strip().lower()
        if value not in ("true", "false", "1", "0", "yes", "no"):
            raise self._wrong(key)
        return value in ("true", "1", "yes")

    def seconds(self, key: str) -> float | None:
        text = self.text(key)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            raise self._wrong(key) from None
        if not 0 < seconds <= TIMEOUT_MAX_S:
            raise self._wrong(key)
        return seconds

    def count(self, key: str, *, most: int, default: int) -> int:
        text = self.text(key)
        if text is None:
            return default
        # isdecimal() alone is true for the digits of all scripts.
        if not (text.isascii() and text.isdecimal() and len(text) <= 18) or not 1 <= int(text) <= most:
            raise self._wrong(key)
        return int(text)

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        text = self.text(key)
        if text is not None and text not in choices:
            raise self._wrong(key)
        return text

    def host(self, key: str) -> str | None:
        text = self.text(key)
        try:
            if text is None or split_name(text)[1] is None:
                return text
        except ValueError:
            pass
        raise self._wrong(key)

    def _wrong(self, key: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(
            f"RSE {self.rse}: setting {key} is {self._values.get(key)!r}, but must be {SETTINGS[key]}"
        )


def _local_setting(name: str) -> str | None:
    parser = get_config()
    return str(parser.get("cs3", name, raw=True)) if parser.has_option("cs3", name) else None
