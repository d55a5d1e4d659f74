"""Where a person's or a machine's bearer token is found: by the WLCG's rules, or by a command such as ``oidc-token``.

A token from a file of one's own choice is a :class:`rucio_cs3.cs3.login.secret.Secret`; an issuer is asked for one by
:mod:`rucio_cs3.cs3.login.oauth`.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.secret import read_secret_file

#: A token of more bytes than this is none: no server takes such a header.
_TOKEN_MAX_BYTES = 16 * 1024

#: How long a command may take, in seconds; oidc-agent may have to ask its provider first.
_COMMAND_S = 60.0


@dataclass(frozen=True)
class DiscoveredToken:
    """The token that the WLCG's rules find (Bearer Token Discovery 1.0, doi:10.5281/zenodo.3937438): ``BEARER_TOKEN``,
    the file that ``BEARER_TOKEN_FILE`` names, ``bt_u<uid>`` in ``XDG_RUNTIME_DIR``, ``/tmp/bt_u<uid>``. ``htgettoken``
    leaves it there. The first place that says something counts, as it is.
    """

    def get(self) -> str:
        """
        :raises ConfigurationError: when there is none, or its file is not safe to use.
        """
        if token := os.environ.get("BEARER_TOKEN", "").strip():
            return checked(token, "BEARER_TOKEN")
        if named := os.environ.get("BEARER_TOKEN_FILE"):
            return checked(read_secret_file(Path(named)), f"{named} (BEARER_TOKEN_FILE)")
        # The specification's last place; a file there has to be ours, and closed to others.
        for folder in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108
            path = Path(folder, f"bt_u{os.geteuid()}") if folder else None
            if path is not None and path.exists():
                return checked(read_secret_file(path, own=True), str(path))
        raise errors.ConfigurationError(
            f"there is no bearer token: neither BEARER_TOKEN, BEARER_TOKEN_FILE nor a file bt_u{os.geteuid()} in "
            "XDG_RUNTIME_DIR or /tmp; run htgettoken or oidc-token first"
        )


@dataclass(frozen=True)
class CommandToken:
    """What a command writes, such as ``oidc-token my-account``; run anew for each login, without a shell.

    :param command: program and arguments. They are visible to all users of the machine: no secret belongs there.
    """

    command: tuple[str, ...]

    def get(self) -> str:
        """
        :raises ConfigurationError: when there is no such program, it fails, takes over a minute, or writes no token.
        """
        program = self.command[0]
        try:
            # The command is that of whoever set this up.
            done = subprocess.run(  # noqa: S603
                self.command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise errors.ConfigurationError(f"{program}, which gives the token, took over {_COMMAND_S:.0f} s") from None
        except OSError as exc:
            raise errors.ConfigurationError(f"{program}, which gives the token, cannot be run: {exc.strerror}") from exc
        if done.returncode:
            # What it wrote may hold a secret.
            raise errors.ConfigurationError(
                f"{program}, which gives the token, ended with code {done.returncode}; run it by hand to see why"
            )
        return checked(done.stdout[: _TOKEN_MAX_BYTES + 1].decode("ascii", "replace").strip(), f"what {program} wrote")


def checked(token: str, place: str) -> str:
    """The token, if it can be one.

    :param place: what messages call the place that it is from; the token itself is in no message.
    :raises ConfigurationError: when it is empty, too long, or has other characters than a header may carry.
    """
    if not token or len(token) > _TOKEN_MAX_BYTES or not all("!" <= character <= "~" for character in token):
        raise errors.ConfigurationError(f"{place} is no bearer token")
    return token
