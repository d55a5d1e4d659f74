"""Who we are at an RSE: an entry with credentials, read from the places where Rucio and its users keep secrets.

None of them is Rucio's database, which every Rucio client can read. What is public: :mod:`rucio_cs3.rses`.
docs/rse-setup.md is the text for people.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rucio.common.config import get_config, get_config_dirs
from rucio.rse import rsemanager

from rucio_cs3 import oidc, rse_logins
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.confidential import Confidential
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken
from rucio_cs3.cs3.login.providers import BearerProvider, CredentialProvider
from rucio_cs3.cs3.login.secret import read_secret_file

#: Names a file with credentials: JSON, keyed by RSE name.
CREDENTIALS_VARIABLE = "RUCIO_CS3_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class RucioSession(Confidential):
    """The token by which somebody is logged in to Rucio, and whether an RSE takes such tokens.

    :param token: what Rucio's clients pass to ``create_protocol``: a text with two dots, of any kind of session
        (Rucio 41.5.1 client/uploadclient.py:96), or None.
    :param audience: the RSE's setting ``cs3_rucio_token_audience``; None where it takes none.
    """

    token: str | None = field(repr=False)
    audience: str | None


def credentials(
    rse_settings: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    *,
    write: bool = True,
    session: RucioSession | None = None,
) -> CredentialProvider:
    """Who we are at an RSE. The first place that says something wins, and is believed as a whole:

    1. ``given``: what the caller of ``connect`` passed;
    2. environment ``RUCIO_CS3_<RSE>_USERNAME``, ``…_PASSWORD_FILE`` and so on (the RSE's name in upper case,
       everything but letters and digits as ``_``; then a key of :data:`rucio_cs3.rse_logins.KEYS`);
    3. the file that ``RUCIO_CS3_CREDENTIALS`` names: JSON, keyed by RSE name;
    4. Rucio's ``rse-accounts.cfg``: JSON, keyed by RSE id or name;
    5. section ``[cs3:<RSE>]`` of ``rucio.cfg``.

    Where none of them says anything, and the RSE's attribute ``oidc_support`` is true, Rucio's own OIDC client gets a
    token for the RSE (:mod:`rucio_cs3.oidc`); in servers and daemons only. Otherwise it is the token of the user's
    session with Rucio, where the RSE names an audience for such tokens, and the token is for that one.

    All are bound to one RSE, so that a password cannot reach another cloud than its own. (In the environment
    ``SITE-A`` and ``SITE_A`` are one name; a Rucio with both uses the other places.)

    :param write: whether a token that Rucio gets has to allow writing; what is configured is what it is.
    :param session: the user's session with Rucio; None where there is none.
    :raises ConfigurationError: naming RSE and place, when there is nothing, it is incomplete, or the session's token
        must not be shown to this RSE.
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
        if rse_logins.is_ours(entry):
            return _provider(rse, place, entry)
    if oidc.is_supported(rse_settings):
        return oidc.RucioTokenProvider(rse_id=rse_id, rse=rse, write=write)
    if session is not None and session.token and session.audience:
        if session.audience in _audiences_of_rucio():
            # Rucio's own would then be in every token, and no leave of anybody.
            raise errors.ConfigurationError(
                f"RSE {rse}: cs3_rucio_token_audience is {session.audience!r}, which is Rucio's own; the token of the "
                "session with Rucio is not sent, so give the cloud an audience of its own"
            )
        token = AudienceToken(session.token, session.audience, f"RSE {rse}: the token of the session with Rucio")
        token.get()  # says at once what is wrong with it
        return BearerProvider(token)
    wanted = "" if session is None or session.audience is None else f", or log in to Rucio for {session.audience!r}"
    raise errors.ConfigurationError(
        f"RSE {rse}: there are no credentials; put username and password (or password_file, token, token_file) "
        f"under the RSE's name into rse-accounts.cfg or the file that {CREDENTIALS_VARIABLE} names, or set "
        f"RUCIO_CS3_{_variable_part(rse)}_USERNAME and _PASSWORD_FILE{wanted}"
    )


def _provider(rse: str, place: str, entry: Mapping[str, Any]) -> CredentialProvider:
    try:
        return rse_logins.provider(entry, _account)
    except errors.ConfigurationError as error:
        raise errors.ConfigurationError(f"RSE {rse}: {place}: {error.message}") from None


def _account() -> str:
    """The Rucio account that this process works for, as far as a protocol can know it: Rucio passes it none.

    ``RUCIO_ACCOUNT``; otherwise ``root`` in servers and daemons, and ``[client] account`` in clients, as Rucio 41.5.1
    has it (client/baseclient.py). What a program or ``rucio --account`` says instead is not seen here.

    :raises ConfigurationError: when nobody says.
    """
    if account := os.environ.get("RUCIO_ACCOUNT"):
        return account
    if getattr(rsemanager, "SERVER_MODE", False):
        return "root"
    parser = get_config()
    if parser.has_option("client", "account"):
        return str(parser.get("client", "account", raw=True))
    raise errors.ConfigurationError("users needs a Rucio account; set RUCIO_ACCOUNT, or account in [client]")


def _audiences_of_rucio() -> frozenset[str]:
    """For whom tokens of Rucio alone are, as far as it is known here: what a server expects, or what a client asks for
    where that is one (Rucio 41.5.1 core/oidc.py:67, client/baseclient.py:291).
    """
    parser = get_config()
    known: set[str] = set()
    for section, option in (("oidc", "expected_audience"), ("client", "oidc_audience")):
        words = parser.get(section, option, raw=True).split() if parser.has_option(section, option) else []
        known.update(words if len(words) == 1 else [])
    return frozenset(known)


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
            with path.open("rb") as file:
                status, data = os.fstat(file.fileno()), file.read()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise errors.ConfigurationError(f"RSE {rse}: {path} cannot be read: {exc.strerror}") from exc
        content = _parsed(data, str(path))
        if entry := _entry(content, rse_id) or _entry(content, rse):
            rse_logins.refuse_open(path, status, entry)
            return entry
    return {}


def _from_rucio_cfg(rse: str) -> dict[str, Any]:
    section = f"cs3:{rse}"
    # The file itself, and not config_get: that one also asks the database, where no secret belongs.
    parser = get_config()
    if not parser.has_section(section):
        return {}
    entry = dict(parser.items(section, raw=True))
    if not rse_logins.is_ours(entry):
        return {}
    path = Path(os.environ.get("RUCIO_CONFIG") or next(path for path in _rucio_cfgs() if path.exists()))
    rse_logins.refuse_open(path, path.stat(), entry)
    return entry


def _rucio_cfgs() -> Iterator[Path]:
    """Where Rucio looks for its configuration, where no variable names it (Rucio 41.5.1 common/config.py, Config)."""
    return (Path(folder) / "rucio.cfg" for folder in get_config_dirs())


def _parsed(data: str | bytes, where: str) -> Mapping[str, Any]:
    content, position = None, ""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as exc:
        # The position only: a piece of the text could be a piece of a secret.
        position = f"line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else "somewhere"
    if position:
        # Outside of the block: the other error has all of the text.
        raise errors.ConfigurationError(f"{where} is no valid JSON ({position})")
    if not isinstance(content, Mapping):
        raise errors.ConfigurationError(f"{where} must be a JSON object, keyed by RSE")
    return content


def _entry(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    entry = content.get(key)
    return dict(entry) if isinstance(entry, Mapping) and rse_logins.is_ours(entry) else {}
