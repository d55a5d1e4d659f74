"""The public settings of a site, by the names that people give them, as the values that the client works with.

The only module that knows these names. Where they stand is another matter: an RSE has them in Rucio
(:mod:`rucio_cs3.rses`), other clouds in a file (:mod:`rucio_cs3.clouds`). Knows no Rucio. Secrets are none of them.
docs/rse-setup.md is the table for people.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import unquote

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import (
    MAX_DOWNLOAD_STREAMS,
    TIMEOUT_MAX_S,
    Deletion,
    DeletionLook,
    Endpoint,
    Landing,
    Proof,
    Timeouts,
    UploadProtocol,
    is_file,
    split_address,
)
from rucio_cs3.cs3.hosts import split_name
from rucio_cs3.cs3.login.secret import expanded
from rucio_cs3.cs3.reference import SCHEMES, WebDAVBase, base_of_prefix, encode_path, parse_root
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
    "cs3_delete": "keep or purge: whether what Rucio deletes stays in the recycle bin (default keep)",
    "cs3_delete_look": "each or never: whether what Rucio deletes is looked at before, so that a folder there stays "
    "(default each)",
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


class Settings:
    """Typed reading of one site's settings; they may arrive as text or as what Rucio made of it.

    :param name: of the site, as messages call it.
    :param values: by the names of :data:`SETTINGS`, and of nothing else.
    :raises ConfigurationError: for a name that is none of them.
    """

    #: What the owner of the settings is, before its name in messages.
    kind = "cloud"

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self._values = values
        unknown = sorted(values.keys() - SETTINGS.keys())
        if unknown:
            raise errors.ConfigurationError(
                f"{self.owner}: there is no setting {unknown[0]}; there are {', '.join(sorted(SETTINGS))}"
            )

    @property
    def owner(self) -> str:
        """Whose they are, for messages."""
        return f"{self.kind} {self.name}"

    def example(self, key: str, value: str) -> str:
        """How people give a setting."""
        return f"{key} = {value}"

    def local(self, name: str) -> str | None:
        """What this machine says instead about one of the files of TLS; ``name`` has no ``cs3_``."""
        return None

    def of_every_site(self) -> dict[str, Any]:
        """The fields of :class:`~rucio_cs3.cs3.config.Site` without its timeouts."""
        return {
            "name": self.name,
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
            for read in (lambda name: self.text(f"cs3_{name}"), self.local)
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
                raise errors.ConfigurationError(f"{self.owner}: {where} names {path}, which is no file on this machine")
        return paths

    def timeouts(self, *names: str) -> Timeouts:
        given = {f"{name}_s": self.seconds(f"cs3_{name}_timeout_s") for name in names}
        return Timeouts(**{name: seconds for name, seconds in given.items() if seconds is not None})

    def wish(self) -> Wish:
        return cast("Wish", self.choice("cs3_transfer_mode", get_args(Wish)) or "auto")

    def audience(self) -> str | None:
        text = self.text("cs3_rucio_token_audience")
        if text is not None and len(text.split()) != 1:
            raise self.wrong("cs3_rucio_token_audience")
        return text

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return None if value is None or value == "" else str(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = str(self._values.get(key, default)).strip().lower()
        if value not in ("true", "false", "1", "0", "yes", "no"):
            raise self.wrong(key)
        return value in ("true", "1", "yes")

    def seconds(self, key: str) -> float | None:
        text = self.text(key)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            raise self.wrong(key) from None
        if not 0 < seconds <= TIMEOUT_MAX_S:
            raise self.wrong(key)
        return seconds

    def count(self, key: str, *, most: int, default: int) -> int:
        text = self.text(key)
        if text is None:
            return default
        # isdecimal() alone is true for the digits of all scripts.
        if not (text.isascii() and text.isdecimal() and len(text) <= 18) or not 1 <= int(text) <= most:
            raise self.wrong(key)
        return int(text)

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        text = self.text(key)
        if text is not None and text not in choices:
            raise self.wrong(key)
        return text

    def host(self, key: str) -> str | None:
        text = self.text(key)
        try:
            if text is None or split_name(text)[1] is None:
                return text
        except ValueError:
            pass
        raise self.wrong(key)

    def wrong(self, key: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(
            f"{self.owner}: setting {key} is {self._values.get(key)!r}, but must be {SETTINGS[key]}"
        )


def endpoint(settings: Settings, protocol: Mapping[str, Any]) -> Endpoint:
    """The CS3 cloud that settings mean.

    :param protocol: scheme, hostname, port and prefix of its PFNs.
    :raises ConfigurationError: naming owner and key, for a missing or wrong setting.
    """
    gateway = settings.text("cs3_gateway")
    if gateway is None:
        raise errors.ConfigurationError(
            f"{settings.owner}: setting cs3_gateway is missing; set it to {SETTINGS['cs3_gateway']}, for example: "
            f"{settings.example('cs3_gateway', 'cernbox.example.org:9142')}"
        )
    split_address(gateway, f"{settings.owner}: setting cs3_gateway")
    # Wrong ones are said at once, and not at the first transfer.
    settings.wish()
    settings.audience()
    with naming(settings):
        return Endpoint(
            gateway=gateway,
            gateway_tls=settings.flag("cs3_gateway_tls", default=True),
            webdav=_webdav(protocol, settings),
            landing=cast("Landing | None", settings.choice("cs3_landing", get_args(Landing))),
            upload_protocol=cast(
                "UploadProtocol", settings.choice("cs3_upload_protocol", get_args(UploadProtocol)) or "auto"
            ),
            keep_checksums=settings.flag("cs3_keep_checksums", default=True),
            deletion=cast("Deletion", settings.choice("cs3_delete", get_args(Deletion)) or "keep"),
            deletion_look=cast("DeletionLook", settings.choice("cs3_delete_look", get_args(DeletionLook)) or "each"),
            download_streams=settings.count("cs3_download_streams", most=MAX_DOWNLOAD_STREAMS, default=4),
            timeouts=settings.timeouts("call", "idle", "processing"),
            **settings.of_every_site(),
        )


def prefix_path(protocol: Mapping[str, Any]) -> str:
    """A protocol's prefix as a URL path with a slash at both ends, percent-encoded once.

    People write it as they see it or as they copied it from a URL; a literal ``%`` must be ``%25``.
    """
    segments = [segment for segment in unquote(protocol.get("prefix") or "").split("/") if segment]
    return encode_path("/" + "".join(f"{segment}/" for segment in segments))


@contextlib.contextmanager
def naming(settings: Settings) -> Iterator[None]:
    """Put the owner of settings before errors that lack it."""
    try:
        yield
    except (errors.ConfigurationError, errors.InvalidReference) as error:
        if settings.name in error.message:
            raise
        raise errors.ConfigurationError(f"{settings.owner}: {error.message}") from error


def _webdav(protocol: Mapping[str, Any], settings: Settings) -> WebDAVBase:
    prefix = prefix_path(protocol)
    base = settings.text("cs3_webdav_base") or base_of_prefix(prefix)
    if base is None:
        raise errors.ConfigurationError(
            f"{settings.owner}: path {prefix} begins with no WebDAV base that is known here; give the URL that a "
            "WebDAV client would take, such as https://cernbox.example.org/remote.php/webdav/…, or say in "
            "cs3_webdav_base where its base ends"
        )
    if protocol["scheme"] not in SCHEMES:
        raise errors.ConfigurationError(
            f"{settings.owner}: scheme {protocol['scheme']} is none of {', '.join(SCHEMES)}, which this protocol serves"
        )
    root = settings.text("cs3_root")
    try:
        parsed_root = parse_root(root) if root else None
    except errors.InvalidReference as error:
        raise errors.ConfigurationError(f"{settings.owner}: setting cs3_root: {error.message}") from error
    server = f"{protocol['scheme']}://{protocol['hostname']}:{protocol['port']}"
    try:
        encoded = encode_path(base)
    except UnicodeEncodeError:
        # JSON can hold half of a pair.
        raise errors.ConfigurationError(
            f"{settings.owner}: the WebDAV base (setting cs3_webdav_base) has a character that no URL can have"
        ) from None
    webdav = WebDAVBase.parse(f"{server}{encoded}", parsed_root)
    try:
        # At once, rather than at the first file.
        webdav.reference(f"{server}{prefix}")
    except errors.InvalidReference as error:
        raise errors.ConfigurationError(
            f"{settings.owner}: prefix {prefix} is not below the WebDAV base {base} (setting cs3_webdav_base)"
        ) from error
    return webdav
