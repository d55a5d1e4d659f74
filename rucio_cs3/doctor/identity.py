"""Checks of the login: whether it is taken, by whom, and for how long."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.tokens import jwt_claims
from rucio_cs3.doctor.findings import Check, Finding, broken, note, ok, weak
from rucio_cs3.doctor.subjects import Subject

#: A token that lives shorter is renewed all the time, in seconds.
_SHORT_S = 600.0

#: ... and one that lives no longer is over before it is used, in seconds.
_DEAD_S = 5.0

#: Clocks that differ by more seconds; of an issue in whole seconds.
_SKEW_S = 60.0


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module."""
    return (
        Check(
            name="login",
            look=_login,
            needs=("gateway",),
            advice="Check user name and secret of the entry with the credentials, and its type (docs/rse-setup.md).",
        ),
        Check(name="token", look=_token, needs=("login",)),
    )


def _login(subject: Subject) -> Finding:
    if subject.provider is None:
        fault = subject.login_fault or errors.ConfigurationError("there are no credentials")
        return broken(fault.message, "Give a login; docs/rse-setup.md says where.")
    began = time.monotonic()
    try:
        subject.storage.tokens.get()
    except errors.Unavailable as error:
        return broken(str(error), f"Check cs3_gateway ({subject.place.gateway}): host and port of the gRPC gateway.")
    kind = type(subject.provider).__name__.removesuffix("Provider")
    took_ms = 1000 * (time.monotonic() - began)
    return ok(f"accepted ({kind}, {took_ms:.0f} ms)", kind=kind, milliseconds=round(took_ms))


def _token(subject: Subject) -> Finding:
    claims = jwt_claims(subject.storage.access_token()) or {}
    issued, ends = claims.get("iat"), claims.get("exp")
    if not isinstance(ends, int | float):
        return note("the access token does not say when it ends")
    now = time.time()
    begins = issued if isinstance(issued, int | float) else now
    life_s, ahead_s = ends - begins, begins - now
    facts = {"life_s": round(life_s), "ahead_s": round(ahead_s)}
    if life_s <= _DEAD_S:
        return broken(
            f"the access token dies at once: it lives for {life_s:.0f} s",
            "Let the gateway issue tokens that live for hours (jwt manager, option expires).",
            **facts,
        )
    shown = f"the access token lives for {_span(life_s)}"
    if abs(ahead_s) > _SKEW_S:
        return weak(
            f"{shown}, and was issued by a clock {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} "
            "this machine's",
            "Set both clocks by NTP.",
            **facts,
        )
    if life_s < _SHORT_S:
        return weak(
            shown,
            "Let it live for an hour or more: third-party copies wait in queues, and each renewal is a login.",
            **facts,
        )
    return ok(shown, **facts)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
