"""An RSE's settings and credentials, read from all the places Rucio and its users keep them.

The only module that knows the names of settings. Public ones come from the protocol's
``extended_attributes`` and the RSE's attributes (the first win) and become one
:class:`~rucio_cs3.cs3.config.Endpoint`; secrets never stand there, because every Rucio client can read
them: :func:`credentials` reads the environment, files and ``rucio.cfg``. docs/rse-setup.md is the table
for people.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import unquote

from rucio.common.config import get_config, get_config_dirs
from rucio.rse import rsemanager

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.auth import BasicProvider, BearerProvider, CredentialProvider, Secret, read_secret_file
from rucio_cs3.cs3.config import Endpoint, Landing, Proof, Timeouts, split_address
from rucio_cs3.cs3.reference import SCHEMES, WebDAVBase, base_of_prefix, encode_path, parse_root

#: All public settings, by their one name in extended_attributes and RSE attributes, and what is expected.
SETTINGS: Mapping[str, str] = {
    "cs3_gateway": "host:port of the CS3 gateway (gRPC)",
    "cs3_gateway_tls": "true or false: whether the gateway speaks TLS (default true)",
    "cs3_webdav_base": "path of the WebDAV base, such as /remote.php/webdav (default: read from the prefix)",
    "cs3_root": "what the WebDAV base stands for: a path such as /eos/project, or <storage_id>$<space_id>",
    "cs3_ca_bundle": "PEM file to verify servers with (default: the system's)",
    "cs3_insecure": "true: certificates of HTTP servers are not verified",
    "cs3_allow_plaintext": "true: tokens may travel without TLS to other machines",
    "cs3_data_hosts": "comma-separated hosts that upload and download tickets may name",
    "cs3_landing": "temporary or direct: how uploads come under their name (default: by kind of root)",
    "cs3_proof": "read, server or size: how content is proven where the server keeps no checksum (default read)",
    "cs3_call_timeout_s": "seconds for one gRPC call, more than 0",
    "cs3_idle_timeout_s": "seconds of silence on a data connection, more than 0",
    "cs3_processing_timeout_s": "seconds to wait for a server's post-processing, more than 0",
}

#: What an entry with credentials may hold.
_CREDENTIAL_KEYS = ("username", "password", "password_file", "token", "token_file")

#: Names a file with credentials: JSON, keyed by RSE name.
CREDENTIALS_VARIABLE = "RUCIO_CS3_CREDENTIALS"

#: RSE attributes hardly change, and in a client each look is a request; Rucio itself caches for 15 minutes.
_ATTRIBUTES_TTL_S = 300.0
_attributes: dict[tuple[int, str], tuple[float, Mapping[str, Any]]] = {}


def endpoint(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Endpoint:
    """The endpoint of one protocol of an RSE.

    :param rse_settings: Rucio's RSE info (``rsemanager.get_rse_info``).
    :param protocol: one of its protocols: scheme, hostname, port, prefix, extended_attributes.
    :param read_attributes: gives the RSE's attributes; None asks Rucio.
    :raises ConfigurationError: naming RSE and key, for a missing, wrong or unknown setting.
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
    reader = _Settings(rse, settings)
    gateway = reader.text("cs3_gateway")
    if gateway is None:
        raise errors.ConfigurationError(
            f"RSE {rse}: setting cs3_gateway is missing; set it to {SETTINGS['cs3_gateway']}, for example: "
            f"rucio rse attribute set {rse} --key cs3_gateway --value cernbox.example.org:9142"
        )
    timeouts = {
        f"{name}_s": seconds
        for name in ("call", "idle", "processing")
        if (seconds := reader.seconds(f"cs3_{name}_timeout_s")) is not None
    }
    split_address(gateway, f"RSE {rse}: setting cs3_gateway")
    # A path on this machine may differ from one machine to the next, so the local rucio.cfg wins.
    local, ca_bundle = _local_setting("ca_bundle"), reader.text("cs3_ca_bundle")
    if local or ca_bundle:
        where = "ca_bundle in section [cs3] of rucio.cfg" if local else "setting cs3_ca_bundle"
        ca_bundle = local or ca_bundle
        if not Path(str(ca_bundle)).is_file():
            raise errors.ConfigurationError(f"RSE {rse}: {where} names {ca_bundle}, which is no file on this machine")
    try:
        return Endpoint(
            name=rse,
            gateway=gateway,
            gateway_tls=reader.flag("cs3_gateway_tls", default=True),
            webdav=_webdav(rse, protocol, reader),
            ca_bundle=Path(ca_bundle) if ca_bundle else None,
            insecure=reader.flag("cs3_insecure"),
            allow_plaintext=reader.flag("cs3_allow_plaintext"),
            data_hosts=frozenset(filter(None, re.split(r"[,\s]+", reader.text("cs3_data_hosts") or ""))),
            landing=cast("Landing | None", reader.choice("cs3_landing", get_args(Landing))),
            proof=cast("Proof", reader.choice("cs3_proof", get_args(Proof)) or "read"),
            timeouts=Timeouts(**timeouts),
        )
    except (errors.ConfigurationError, errors.InvalidReference) as error:
        if rse in error.message:
            raise
        raise errors.ConfigurationError(f"RSE {rse}: {error.message}") from error


def credentials(rse_settings: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> CredentialProvider:
    """Who we are at an RSE. The first place that says something wins, and is believed as a whole:

    1. ``given``: what the caller of ``connect`` passed;
    2. environment ``RUCIO_CS3_<RSE>_USERNAME``, ``…_PASSWORD``, ``…_PASSWORD_FILE``, ``…_TOKEN``, ``…_TOKEN_FILE``
       (the RSE's name in upper case, everything but letters and digits as ``_``);
    3. the file that ``RUCIO_CS3_CREDENTIALS`` names: JSON, keyed by RSE name;
    4. Rucio's ``rse-accounts.cfg``: JSON, keyed by RSE id or name;
    5. section ``[cs3:<RSE>]`` of ``rucio.cfg``.

    All are bound to one RSE, so that a password cannot reach another cloud than its own. (In the environment
    ``SITE-A`` and ``SITE_A`` are one name; a Rucio with both uses the other places.)

    :raises ConfigurationError: naming RSE and place, when there is nothing, or it is incomplete.
    """
    rse, rse_id = str(rse_settings["rse"]), str(rse_settings.get("id", ""))
    places: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
        ("the credentials passed to connect()", lambda: dict(given or {})),
        (f"the environment (RUCIO_CS3_{_variable_part(rse)}_…)", lambda: _from_environment(rse)),
        (f"the file of {CREDENTIALS_VARIABLE}", lambda: _from_own_file(rse)),
        ("rse-accounts.cfg", lambda: _from_rse_accounts(rse, rse_id)),
        (f"section [cs3:{rse}] of rucio.cfg", lambda: _from_rucio_cfg(rse)),
    )
    for place, read in places:
        entry = read()
        if entry:
            return _provider(rse, place, entry)
    raise errors.ConfigurationError(
        f"RSE {rse}: there are no credentials; put username and password (or password_file, token, token_file) "
        f"under the RSE's name into rse-accounts.cfg or the file that {CREDENTIALS_VARIABLE} names"
    )


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
        except ValueError:
            extended = None
    if not isinstance(extended, Mapping):
        raise errors.ConfigurationError(
            f"RSE {rse}: extended_attributes of scheme {protocol['scheme']} are no JSON object"
        )
    return {key: value for key, value in extended.items() if key.startswith("cs3_")}


class _Settings:
    """Typed reading of settings; RSE attributes may arrive as text or as what Rucio made of it."""

    def __init__(self, rse: str, values: Mapping[str, Any]) -> None:
        self._rse = rse
        self._values = values

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
        if not 0 < seconds < math.inf:
            raise self._wrong(key)
        return seconds

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        text = self.text(key)
        if text is not None and text not in choices:
            raise self._wrong(key)
        return text

    def _wrong(self, key: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(
            f"RSE {self._rse}: setting {key} is {self._values.get(key)!r}, but must be {SETTINGS[key]}"
        )


def _provider(rse: str, place: str, entry: Mapping[str, Any]) -> CredentialProvider:
    where = f"RSE {rse}: {place}"
    # Other protocols' keys may stand in the same rse-accounts.cfg entry, so only ours are looked at.
    values = {key: str(entry[key]) for key in _CREDENTIAL_KEYS if entry.get(key)}
    try:
        if "token" in values or "token_file" in values:
            return BearerProvider(_secret(values, "token"))
        if "username" not in values:
            raise errors.ConfigurationError("username is missing")
        return BasicProvider(values["username"], _secret(values, "password"))
    except errors.ConfigurationError as error:
        raise errors.ConfigurationError(f"{where}: {error.message}") from None


def _secret(values: Mapping[str, str], name: str) -> Secret:
    value, file = values.get(name), values.get(f"{name}_file")
    if (value is None) == (file is None):
        raise errors.ConfigurationError(f"give either {name} or {name}_file")
    return Secret(value=value) if file is None else Secret(file=Path(file).expanduser())


def _variable_part(rse: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", rse.upper())


def _from_environment(rse: str) -> dict[str, Any]:
    names = {key: f"RUCIO_CS3_{_variable_part(rse)}_{key.upper()}" for key in _CREDENTIAL_KEYS}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def _from_own_file(rse: str) -> dict[str, Any]:
    name = os.environ.get(CREDENTIALS_VARIABLE)
    if not name:
        return {}
    return _entry(_parsed(read_secret_file(Path(name).expanduser()), name), rse)


def _from_rse_accounts(rse: str, rse_id: str) -> dict[str, Any]:
    # rucio.common.config.get_rse_credentials cannot tell a missing file (no credentials here) from a broken one (an
    # error to report), and of several files it takes the last, whatever is in it. Here the first that has the RSE
    # counts, in the order in which Rucio looks for rucio.cfg.
    for folder in get_config_dirs():
        path = Path(folder) / "rse-accounts.cfg"
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as exc:
            raise errors.ConfigurationError(f"RSE {rse}: {path} cannot be read: {exc}") from exc
        content = _parsed(text, str(path))
        if entry := _entry(content, rse_id) or _entry(content, rse):
            return entry
    return {}


def _from_rucio_cfg(rse: str) -> dict[str, Any]:
    section = f"cs3:{rse}"
    # The file itself, and not config_get: that one also asks the database, where no secret belongs.
    parser = get_config()
    return dict(parser.items(section, raw=True)) if parser.has_section(section) else {}


def _local_setting(name: str) -> str | None:
    parser = get_config()
    return str(parser.get("cs3", name, raw=True)) if parser.has_option("cs3", name) else None


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as exc:
        # The position only: a piece of the text could be a piece of a secret.
        position = f"line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else "somewhere"
        raise errors.ConfigurationError(f"{where} is no valid JSON ({position})") from None
    if not isinstance(content, Mapping):
        raise errors.ConfigurationError(f"{where} must be a JSON object, keyed by RSE")
    return content


def _entry(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    entry = content.get(key)
    return dict(entry) if isinstance(entry, Mapping) else {}
