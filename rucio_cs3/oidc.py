"""Tokens for storages from Rucio's own OIDC client: short-lived, for one RSE, and for reading alone where that will do.

Only where the RSE's attribute ``oidc_support`` says so, only in servers and daemons (a client has no client secret of
Rucio's), and only for protocols of scheme ``davs``: that is how Rucio's FTS submitter has it (Rucio 41.5.1
transfertool/fts3.py:89 and 1023). The tokens of Rucio's users are another matter: :mod:`rucio_cs3.rse_credentials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rucio.rse import rsemanager

from rucio_cs3 import rses
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.providers import Login
from rucio_cs3.cs3.login.tokens import Credential, TokenSource, credential_of_unknown_age

#: Rucio's name of the attribute (Rucio 41.5.1 common/constants.py:142).
ATTRIBUTE = "oidc_support"


def is_supported(rse_settings: Mapping[str, Any]) -> bool:
    """Whether Rucio is to get tokens for an RSE, and can where this runs."""
    if not getattr(rsemanager, "SERVER_MODE", False):
        return False
    # The database gives a bool, and text where it was set as such.
    return str(rses.rse_attributes(rse_settings).get(ATTRIBUTE, False)).lower() == "true"


@dataclass(frozen=True, kw_only=True)
class RucioTokenProvider:
    """Logs in with a token that Rucio's OIDC client gets for one RSE; one is kept until it nears its end.

    :param write: whether it has to allow writing, and deleting what was written; otherwise reading alone.
    """

    rse_id: str
    rse: str
    write: bool

    def login(self) -> Login:
        """
        :raises Unavailable: when Rucio gets no token; its log says why, as at level DEBUG.
        """
        # Rucio keeps tokens in memcached (41.5.1 core/oidc.py:65), and without one not at all. Of two threads that
        # are the first here, one keeps its source for nothing.
        source = _SOURCES.get(self) or _SOURCES.setdefault(self, TokenSource(self._ask))
        return Login("bearer", "", source.get().token)

    def lasting_secret(self) -> str | None:
        return None

    def _ask(self) -> Credential:
        from rucio.core.oidc import request_token
        from rucio.core.rse import determine_audience_for_rse, determine_scope_for_rse

        # As Rucio asks for FTS, but for offline_access: that is for a service that renews tokens by itself. StoRM
        # wants storage.read for a stat, so writing alone would not do.
        scopes = ["storage.modify", "storage.read"] if self.write else ["storage.read"]
        audience = determine_audience_for_rse(rse_id=self.rse_id)
        scope = determine_scope_for_rse(rse_id=self.rse_id, scopes=scopes)
        if not audience:
            raise errors.ConfigurationError(
                f"RSE {self.rse}: {ATTRIBUTE} is set, but no protocol has scheme davs, and Rucio gets no other tokens"
            )
        token = request_token(audience=audience, scope=scope)
        if not token:
            # Rucio's function says no more than that, be it a refusal or a network that is away (41.5.1 core/oidc.py).
            raise errors.Unavailable(
                f"RSE {self.rse}: Rucio got no token for audience {audience} and scope {scope}; see [oidc] in "
                "rucio.cfg, idpsecrets.json and, with level DEBUG, the log",
                operation="Login",
                target=self.rse,
            )
        return credential_of_unknown_age(token)


#: A source is fork-safe itself.
_SOURCES: dict[RucioTokenProvider, TokenSource] = {}
