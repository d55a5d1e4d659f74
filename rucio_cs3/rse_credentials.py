"""Who we are at an RSE: an entry with credentials, read from the places where Rucio and its users keep secrets.

None of them is Rucio's database, which every Rucio client can read. What is public: :mod:`rucio_cs3.rses`.
docs/rse-setup.md is the text for people.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rucio.common.config import get_config, get_config_dirs

from rucio_cs3 import oidc, rse_logins
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.login.secret import read_secret_file

#: Names a file with credentials: JSON, keyed by RSE name.
CREDENTIALS_VARIABLE = "RUCIO_CS3_CREDENTIALS"


def credentials(
    rse_settings: Mapping[str, Any], given: Mapping[str, Any] | None = None, *, write: bool = True
) -> CredentialProvider:
    """Who we are at an RSE. The first place that says something wins, and is believed as a whole:

    1. ``given``: what the caller of ``connect`` passed;
    2. environment ``RUCIO_CS3_<RSE>_USERNAME``, ``…_PASSWORD_FILE`` and so on (the RSE's name in upper case,
       everything but letters and digits as ``_``; then a key of :data:`rucio_cs3.rse_logins.KEYS`);
    3. the file that ``RUCIO_CS3_CREDENTIALS`` names: JSON, keyed by RSE name;
    4. Rucio's ``rse-accounts.cfg``: JSON, keyed by RSE id or name;
    5. section ``[cs3:<RSE>]`` of ``rucio.cfg``.

    Where none of them says anything, and the RSE's attribute ``oidc_support`` is true, Rucio's own OIDC client gets a
    token for the RSE (:mod:`rucio_cs3.oidc`); in servers and daemons only.

    All are bound to one RSE, so that a password cannot reach another cloud than its own. (In the environment
    ``SITE-A`` and ``SITE_A`` are one name; a Rucio with both uses the other places.)

    :param write: whether a token that Rucio gets has to allow writing; what is configured is what it is.
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
    if oidc.is_supported(rse_settings):
        return oidc.RucioTokenProvider(rse_id=rse_id, rse=rse, write=write)
    raise errors.ConfigurationError(
        f"RSE {rse}: there are no credentials; put username and password (or password_file, token, token_file) "
        f"under the RSE's name into rse-accounts.cfg or the file that {CREDENTIALS_VARIABLE} names"
    )


def _provider(rse: str, place: str, entry: Mapping[str, Any]) -> CredentialProvider:
    try:
        return rse_logins.provider(entry)
    except errors.ConfigurationError as error:
        raise errors.ConfigurationError(f"RSE {rse}: {place}: {error.message}") from None


def _variable_part(rse: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", rse.upper())


def _from_environment(rse: str) -> dict[str, Any]:
    names = {key: f"RUCIO_CS3_{_variable_part(rse)}_{key.upper()}" for key in rse_logins.KEYS}
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
