"""Where a person's or a machine's bearer token is found: by the WLCG's rules, by a command such as ``oidc-token``, or
in the hands of somebody who had it for something else.

A token from a file of one's own choice is a :class:`rucio_cs3.cs3.login.secret.Secret`; an issuer is asked for one by
:mod:`rucio_cs3.cs3.login.oauth`.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.confidential import Confidential
from rucio_cs3.cs3.login.secret import read_secret_file
from rucio_cs3.cs3.login.tokens import jwt_claims, jwt_expiry

#: A token of more bytes than this is none: no server takes such a header.
_TOKEN_MAX_BYTES = 16 * 1024

#: How long a command may take, in seconds; oidc-agent may have to ask its provider first.
_COMMAND_S = 60.0


@dataclass(frozen=True, slots=True)
class _Place(Confidential):
    """Where a token was found; nothing where there is none.

    :param own: whether anybody could have put the file there.
    :param uid: who has found it: what is private differs from one user to another.
    """

    uid: int
    value: str | None = field(default=None, repr=False)
    file: Path | None = None
    own: bool = False


def _found() -> _Place:
    uid = os.geteuid()
    if token := os.environ.get("BEARER_TOKEN", "").strip():
        return _Place(uid, value=token)
    if named := os.environ.get("BEARER_TOKEN_FILE"):
        return _Place(uid, file=Path(named))
    # The specification's last place; a file there has to be ours, and closed to others.
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108
        # Not by Path, which raises where a folder is another user's, as after su.
        if folder and os.path.exists(name := os.path.join(folder, f"bt_u{uid}")):  # noqa: PTH110, PTH118
            return _Place(uid, file=Path(name), own=True)
    return _Place(uid)


@dataclass(frozen=True, slots=True)
class DiscoveredToken(Confidential):
    """The token that the WLCG's rules find (Bearer Token Discovery 1.0, doi:10.5281/zenodo.3937438): ``BEARER_TOKEN``,
    the file that ``BEARER_TOKEN_FILE`` names, ``bt_u<uid>`` in ``XDG_RUNTIME_DIR``, ``/tmp/bt_u<uid>``. ``htgettoken``
    leaves it there. The first place that says something counts, as it is.

    The place is looked for when this is made, and is part of it: what two users or two tokens find are two identities.
    A file is read anew each time.
    """

    place: _Place = field(default_factory=_found)

    def get(self) -> str:
        """
        :raises ConfigurationError: when there is none, or its file is not safe to use.
        """
        if self.place.value is not None:
            return checked(self.place.value, "BEARER_TOKEN")
        if self.place.file is not None:
            return checked(read_secret_file(self.place.file, own=self.place.own), str(self.place.file))
        raise errors.ConfigurationError(
            f"there is no bearer token: neither BEARER_TOKEN, BEARER_TOKEN_FILE nor a file bt_u{self.place.uid} in "
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
        :raises Unavailable: when it fails, or takes over a minute.
        :raises ConfigurationError: when there is no such program, or it writes no token.
        """
        program = self.command[0]
        try:
            # The command is that of whoever set this up.
            done = subprocess.run(  # noqa: S603
                self.command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise errors.Unavailable(f"{program}, which gives the token, took over {_COMMAND_S:.0f} s") from None
        except OSError as exc:
            raise errors.ConfigurationError(f"{program}, which gives the token, cannot be run: {exc.strerror}") from exc
        if done.returncode:
            # What it wrote may hold a secret.
            raise errors.Unavailable(
                f"{program}, which gives the token, ended with code {done.returncode}; run it by hand to see why"
            )
        return checked(done.stdout[: _TOKEN_MAX_BYTES + 1].decode("ascii", "replace").strip(), f"what {program} wrote")


@dataclass(frozen=True, slots=True)
class AudienceToken(Confidential):
    """A token that its owner has for something else, and that goes out only where its issuer meant it to go, too.

    Whose signature it bears is looked at by those who get it, and not here.

    :param token: not compared by what it claims, but as a whole: a forged one must not find the login of another.
    :param audience: has to be one of its ``aud`` (RFC 7519, 4.1.3), letter by letter.
    :param whose: what messages call it.
    """

    token: str = field(repr=False)
    audience: str
    whose: str

    def get(self) -> str:
        """
        :raises ConfigurationError: when it is no JWT, is for somebody else, has ended, or does not say when it ends.
        """
        token = self.token.strip()
        claims = jwt_claims(token)
        if claims is None:
            raise errors.ConfigurationError(
                f"{self.whose} is no JWT, so nobody can tell whom it is for; it is not sent"
            )
        audience = claims.get("aud")
        if self.audience not in (audience if isinstance(audience, list) else [audience]):
            raise errors.ConfigurationError(
                f"{self.whose} is not for audience {self.audience}; it is not sent, so get one that is"
            )
        if self.is_over():
            raise errors.ConfigurationError(f"{self.whose} has ended; get a new one")
        return checked(token, self.whose)

    def is_over(self) -> bool:
        """Whether it has ended, by the clock of this machine, or does not say when it will."""
        return (jwt_expiry(self.token.strip()) or 0.0) <= time.time()


def checked(token: str, place: str) -> str:
    """The token, if it can be one.

    :param place: what messages call the place that it is from; the token itself is in no message.
    :raises ConfigurationError: when it is empty, too long, or has other characters than a header may carry.
    """
    if not token or len(token) > _TOKEN_MAX_BYTES or not all("!" <= character <= "~" for character in token):
        raise errors.ConfigurationError(f"{place} is no bearer token")
    return token
