"""Clouds whose tokens die at a chosen moment: before a request reaches the server, in the middle of its body, or after
the server's answer, which the client gets only then.

All three clouds are behind the relays of ``faulty_reva.py``: what the server sees in place of a dead token is the same
token with an end an hour ago, signed by the server's own secret.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from rucio_cs3.cs3 import errors
from tests.contract.faulty_reva import FaultyReva
from tests.contract.http_relay import Moment, Witness

#: What every login is sent with after somebody has changed the password.
CHANGED = "changed-meanwhile-4711"


@dataclass(frozen=True)
class Death:
    """What happens at the moment.

    :param access: access tokens die, and so for ``transfer``.
    :param identity: nobody is let in by the old password any more.
    """

    access: bool = True
    transfer: bool = False
    identity: bool = False


ACCESS = Death()
TRANSFER = Death(access=False, transfer=True)
ALL = Death(transfer=True)
REVOKED = Death(transfer=True, identity=True)


class Doom(Witness):
    """Acts at the passage number ``number``, counted from 0 over all of ``watched``.

    :param dying: whose tokens it concerns.
    """

    def __init__(self, death: Death, number: int, watched: list[FaultyReva], dying: list[FaultyReva]) -> None:
        self._death = death
        self._number = number
        self._watched = watched
        self._dying = dying
        self._lock = threading.Lock()
        self._count = 0
        #: Where it happened; None while it has not.
        self.at: tuple[str, Moment] | None = None

    def __enter__(self) -> Doom:
        for cloud in self._watched:
            cloud.witness = self
        return self

    def __exit__(self, *_: object) -> None:
        for cloud in self._watched:
            cloud.witness = Witness()
            cloud.password = None

    def passes(self, point: str, moment: Moment) -> None:
        with self._lock:
            number, self._count = self._count, self._count + 1
            if number != self._number:
                return
            self.at = (point, moment)
            for cloud in self._dying:
                cloud.tokens.expire_all(access=self._death.access, transfer=self._death.transfer)
                cloud.password = CHANGED if self._death.identity else None


def at_each_passage(
    death: Death, watched: list[FaultyReva], dying: list[FaultyReva] | None = None
) -> Iterator[tuple[int, Doom]]:
    """One doom for each passage of what is run in the loop's body, until a run has fewer passages."""
    for number in itertools.count():
        doom = Doom(death, number, watched, watched if dying is None else dying)
        yield number, doom
        if doom.at is None:
            assert number > 1, "nothing passed"
            return


def secrets_of(*clouds: FaultyReva) -> set[str]:
    """All that these clouds have ever given out, and what their users know."""
    found = {CHANGED}
    for cloud in clouds:
        found |= cloud.tokens.all()
        found |= {user.password for user in cloud.users.values()}
    return found


def assert_says_whose(error: BaseException, cloud: FaultyReva) -> None:
    """A refused login, said as somebody can act on it."""
    user = next(iter(cloud.users))
    text = str(error)
    for word in (cloud.gateway, user, "(basic)"):
        assert word in text, text
    assert CHANGED not in text


def run_revoked(run: Callable[[], object], cloud: FaultyReva) -> bool:
    """Run what is to fail cleanly, or to be done already.

    :returns: whether it was done.
    """
    try:
        run()
    except errors.Unauthenticated as error:
        assert_says_whose(error, cloud)
        told = "".join(traceback.format_exception(error))
        assert not [secret for secret in secrets_of(cloud) if secret in told]
        return False
    except errors.CS3Error as error:
        pytest.fail(f"{type(error).__name__} in place of Unauthenticated: {error}")
    return True
