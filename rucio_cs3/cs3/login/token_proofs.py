"""When a token was last known to be good, so that an answer which a dead token causes, too, can be believed.

OpenCloud says NOT_FOUND to an expired token, and a NOT_FOUND that is believed may mean a lost file. Pure but for the
question that it is given; :mod:`rucio_cs3.cs3.gateway` asks it (``WhoAmI``) and says what else has succeeded.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.tokens import Credential

#: So many characters at the end of a token are changed to forge one: of a JWT, they are part of its signature.
_FORGED_CHARACTERS = 8

#: For how long it is believed how a server refuses tokens, in seconds: behind its address may be another one one day.
_REFUSALS_S = 600.0

#: For how long a server that could not be asked is not asked again, in seconds; tokens are checked meanwhile.
_ASK_AGAIN_S = 10.0


@dataclass(frozen=True)
class _Outcome:
    """Of one question about a token that was not answered with yes.

    :param began_at: by the monotonic clock.
    :param error: why there was no answer; None where the answer was no.
    """

    credential: Credential
    began_at: float
    error: errors.CS3Error | None


class Refusals:
    """How one server refuses a token that it does not accept; safe for many threads.

    Reva v3.12.1 looks at the token before it looks at the request, and refuses with an error of gRPC: an answer of its
    own, such as NOT_FOUND, is then one to a living token, and nothing has to be asked. Its interceptor treats none,
    garbage and an expired one alike, so a forged one shows it.

    :param ask: whether a forged token is refused with an error of gRPC; gets a forged credential and a timeout in
        seconds. None is that the server could not be asked.
    """

    def __init__(self, ask: Callable[[Credential, float], bool | None]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._known: tuple[bool, float] = (False, 0.0)

    def are_unmistakable(self, credential: Credential, timeout_s: float) -> bool:
        """Whether no answer of the server's own is one to a dead token. Asks once in ten minutes."""
        unmistakable, until = self._known
        if time.monotonic() < until:
            return unmistakable
        with self._asking:
            unmistakable, until = self._known
            if time.monotonic() >= until:
                answer = self._ask(_forged(credential), timeout_s)
                # Remembered also where there is none, or each thread that waits would ask after all before it.
                unmistakable = bool(answer)
                self._known = unmistakable, time.monotonic() + (_ASK_AGAIN_S if answer is None else _REFUSALS_S)
            return unmistakable


def _forged(credential: Credential) -> Credential:
    """A token that looks like the real one, and whose signature is not right."""
    kept, end = credential.token[:-_FORGED_CHARACTERS], credential.token[-_FORGED_CHARACTERS:]
    return Credential(kept + "".join("A" if character != "A" else "B" for character in end))


class TokenProofs:
    """What is known of one identity's tokens; safe for many threads.

    Tokens die and do not come back, so one that is good in a call that *begins* after a doubtful answer was good when
    that answer was given. Any call that succeeds is such a proof. Where there was none, one question settles the
    doubts of all threads that had theirs before it began.

    :param ask: whether the server knows the token; gets the credential and a timeout in seconds.
    """

    def __init__(self, ask: Callable[[Credential, float], bool]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._noting = threading.Lock()
        self._proof: tuple[Credential | None, float] = (None, 0.0)
        self._failed: _Outcome | None = None

    def succeeded(self, credential: Credential, began_at: float) -> None:
        """A call with this token that began then (monotonic clock) was answered as only living tokens' are."""
        with self._noting:
            proven, proven_at = self._proof
            # Of two threads the one whose call began earlier may be the later here.
            if proven is not credential or began_at > proven_at:
                self._proof = (credential, began_at)

    def was_good(self, credential: Credential, at: float, timeout_s: float) -> bool:
        """Whether a token was good at a moment of the monotonic clock; asks only where nothing has shown it since.

        :raises CS3Error: when the server cannot say; then an answer to that token is worth nothing either.
        """
        if self._proven(credential, at):
            return True
        with self._asking:
            if self._proven(credential, at):
                return True
            failed = self._failed
            if failed is not None and failed.credential is credential and failed.began_at >= at:
                # Asked after our doubt arose, while we waited for our turn: to ask once more, one after another, would
                # let the last of many threads wait for all of them.
                if failed.error is not None:
                    raise copy.copy(failed.error)
                return False
            began_at = time.monotonic()
            try:
                good = self._ask(credential, timeout_s)
            except errors.CS3Error as error:
                self._failed = _Outcome(credential, began_at, error)
                raise
            if good:
                self.succeeded(credential, began_at)
            else:
                self._failed = _Outcome(credential, began_at, None)
            return good

    def _proven(self, credential: Credential, at: float) -> bool:
        proven, began_at = self._proof
        return proven is credential and began_at >= at
