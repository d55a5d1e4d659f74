"""Each fault in each mode between each pair of clouds that can show it; afterwards always the same check.

A row of :data:`FAULTS` says where the fault is planted in which mode, and how the attempt has to end. What holds after
every attempt is :meth:`tests.faults.scene.Scene.check`; that the next one ends well, ``check_next``. A pull is tried
twice: as a first attempt, which asks for the copy at once, and as a later one, which looks first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Wish
from tests.faults.conftest import MakeScene
from tests.faults.pairs import every_way, label, marks_of
from tests.faults.scene import SIZE, Side

#: What scripts at points inside an embedded cloud do; a relay before a real Reva cannot.
_INSIDE = ("tpc.",)

Plant = tuple[Side, str, str]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    :param plants: mode -> what is planted.
    :param words: all of these are in the reason.
    :param next_wish: what the RSEs ask for at the next attempt, where it cannot be the same.
    :param state: how the attempt ends; of a mapping, the first key that is the mode or the destination's kind
        counts.
    :param not_with: kinds of cloud at the side where it is planted, at which it cannot happen.
    :param looked_at: it happens only where both ends are looked at before the copy, so not in a first pull.
    :param strays: see :meth:`~tests.faults.scene.Scene.check`.
    :param seconds: other time-outs, for silence.
    """

    name: str
    plants: Mapping[Wish, tuple[Plant, ...]]
    words: tuple[str, ...] = ()
    next_wish: Wish | None = None
    state: State | Mapping[str, State] = State.FAILED
    not_with: tuple[str, ...] = ()
    looked_at: bool = False
    strays: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)

    def end(self, kinds: tuple[str, str], mode: Wish) -> State:
        """How the attempt ends."""
        if isinstance(self.state, State):
            return self.state
        return next((state for key, state in self.state.items() if key in (mode, kinds[1])), State.FAILED)

    def fits(self, kinds: tuple[str, str], mode: Wish) -> bool:
        """Whether it can happen between these clouds in this mode."""
        if mode not in self.plants:
            return False
        for side, point, _ in self.plants[mode]:
            kind = kinds[0] if side == "source" else kinds[1]
            if kind in self.not_with or (kind == "reva" and point.startswith(_INSIDE)):
                return False
        return True


def _both(point: str, script: str) -> dict[Wish, tuple[Plant, ...]]:
    """At the site that moves the bytes by itself."""
    return {"pull": (("destination", point, script),), "push": (("source", point, script),)}


def _naming(*scripts: str) -> dict[Wish, tuple[Plant, ...]]:
    """When the proven file is to get its name."""
    plants: tuple[Plant, ...] = tuple(("destination", "gateway.Move", script) for script in scripts)
    return dict.fromkeys(("pull", "push", "relay"), plants)


#: The data gateway at each side of a relay.
_DATA_GATEWAYS: tuple[tuple[Side, str], ...] = (("source", "data.get"), ("destination", "data.put"))

FAULTS = [
    # -- success that is none
    *(
        Fault(
            name=f"success after an inner {status}",
            plants=_both("tpc.inner-put", f"return-{status}"),
            words=("claimed success, but there is no file",),
        )
        for status in (403, 500, 507)
    ),
    *(
        Fault(
            name=f"the destination answers {status}",
            plants={
                # Reva takes every answer to its inner PUT for success.
                "push": (("destination", "webdav.put", f"return-{status}"),),
            },
            words=("claimed success, but there is no file",),
        )
        for status in (403, 500, 507)
    ),
    *(
        Fault(
            name=f"the destination answers {status}",
            # 403 may be about the ticket alone, so there is another one.
            plants={"relay": (("destination", "data.put", f"return-{status}"),) * (2 if status == 403 else 1)},
            words=(f"HTTP {status}",),
        )
        for status in (403, 500, 507)
    ),
    # In a push the source has sent all of so small a file when its report breaks off: what is there counts.
    Fault(
        name="the report has no end",
        plants=_both("webdav.copy", "cut-after:1000"),
        state={"push": State.DONE},
        not_with=("reva",),
    ),
    Fault(name="the report says nothing", plants=_both("webdav.copy", "say:hello"), not_with=("reva",)),
    Fault(
        name="the report says failure",
        plants=_both("webdav.copy", "say:failure: the disk is on fire"),
        words=("the disk is on fire",),
        not_with=("reva",),
    ),
    Fault(name="the report is lost", plants=_both("webdav.copy", "lost-answer"), state=State.DONE),
    # A source that did this is not believed to push again for a while.
    Fault(
        name="a bare 201",
        plants=_both("webdav.copy", "return-201"),
        words=("201", "a copy within the server"),
        next_wish="auto",
    ),
    # A source that did this is not believed to push again for a while.
    Fault(
        name="a bare 204",
        plants=_both("webdav.copy", "return-204"),
        words=("204", "a copy within the server"),
        next_wish="auto",
    ),
    # -- connections that break
    *(
        Fault(
            name=f"the connection between the sites is cut at byte {size}",
            plants={
                "pull": (("source", "webdav.get", f"cut-after:{size}"),),
                "push": (("destination", "webdav.put", f"cut-after:{size}"),),
            },
        )
        for size in (0, 1, 65_536, SIZE - 1)
    ),
    *(
        Fault(
            name=f"the upload is cut at byte {size}",
            plants={"relay": (("destination", "data.put", f"cut-after:{size}"),)},
        )
        for size in (0, 1, 65_536, SIZE - 1)
    ),
    *(
        Fault(
            name=f"the download is cut at byte {size}",
            plants={"relay": (("source", "data.get", f"cut-after:{size}"),)},
        )
        for size in (0, 1, 65_536, SIZE - 1)
    ),
    Fault(
        name="the answer to the upload is lost",
        plants={"relay": (("destination", "data.put", "lost-answer"),)},
        state=State.DONE,
    ),
    # -- silence
    Fault(
        name="stall without markers",
        plants=_both("webdav.copy", "stall"),
        words=("fell silent",),
    ),
    Fault(
        name="stall in the upload",
        plants={"relay": (("destination", "data.put", "stall-after:1000"),)},
        seconds={"idle_s": 0.4},
    ),
    Fault(
        name="stall in the download",
        plants={"relay": (("source", "data.get", "stall-after:1000"),)},
        seconds={"idle_s": 0.4},
    ),
    # -- wrong content
    Fault(
        name="a byte flips on the way",
        plants={
            "pull": (("source", "webdav.get", "flip-byte"),),
            "push": (("destination", "webdav.put", "flip-byte"),),
            "relay": (("destination", "data.put", "flip-byte"),),
        },
    ),
    Fault(
        name="the source sends another byte",
        plants={"relay": (("source", "data.get", "flip-byte"),)},
        words=("adler32",),
    ),
    Fault(
        name="the source sends fewer bytes and says so",
        plants={
            "pull": (("source", "webdav.get", "short-body:1000"),),
            "relay": (("source", "data.get", "short-body:1000"),),
        },
    ),
    Fault(
        name="the source sends more bytes",
        plants={
            "pull": (("source", "webdav.get", "long-body:1000"),),
            "relay": (("source", "data.get", "long-body:1000"),),
        },
    ),
    # -- tokens
    *(
        Fault(
            name=f"the {side}'s token expires before the first look",
            plants=dict.fromkeys(("pull", "push", "relay"), ((side, "gateway.Stat", "expire-token"),)),
            state=State.DONE,
            looked_at=side == "source",
        )
        for side in ("source", "destination")
    ),
    Fault(
        name="the acting site's token expires with the request",
        plants=_both("webdav.copy", "expire-token"),
        # A look at both ends renews what is over.
        state=State.DONE,
    ),
    Fault(
        name="the other site's token expires with the request",
        plants={
            "pull": (("source", "webdav.get", "expire-token"),),
            "push": (("destination", "webdav.put", "expire-token"),),
        },
        state=State.DONE,
    ),
    Fault(
        name="the source's token expires with the download",
        plants={"relay": (("source", "data.get", "expire-token"),)},
        # The embedded clouds let the ticket expire with the token.
        state=State.DONE,
    ),
    Fault(
        name="the destination's token expires with the upload",
        plants={"relay": (("destination", "data.put", "expire-token"),)},
        # The embedded clouds let the ticket expire with the token.
        state=State.DONE,
    ),
    # -- please come back later
    *(
        Fault(
            name=f"the acting site answers {status} with Retry-After",
            plants=_both("webdav.copy", f"return-{status},retry-after:7"),
            state=State.POSTPONED,
            words=(f"HTTP {status}",),
        )
        for status in (429, 503)
    ),
    *(
        Fault(
            name=f"the {side} answers {status} with Retry-After",
            plants={"relay": ((side, point, f"return-{status},retry-after:7"),)},
            state=State.POSTPONED,
            words=(f"HTTP {status}",),
        )
        for status in (429, 503)
        for side, point in _DATA_GATEWAYS
    ),
    *(
        Fault(
            name=f"the acting site answers {status}",
            plants=_both("webdav.copy", f"return-{status}"),
            words=(f"HTTP {status}",),
        )
        for status in (403, 429, 500, 503)
    ),
    # -- gRPC
    *(
        Fault(
            name=f"the destination answers {code} to {method}",
            plants={"relay": (("destination", f"gateway.{method}", f"code:{code}"),)},
            words=(code,),
        )
        for method, code in (
            ("InitiateFileUpload", "INSUFFICIENT_STORAGE"),
            ("InitiateFileUpload", "PERMISSION_DENIED"),
            ("InitiateFileUpload", "INTERNAL"),
            ("InitiateFileUpload", "LOCKED"),
        )
    ),
    Fault(
        name="the name cannot be given",
        plants=_naming("code:INTERNAL"),
        words=("INTERNAL",),
    ),
    Fault(
        name="the site is away for a moment when the name is to be given",
        plants=_naming("grpc:UNAVAILABLE"),
        state=State.DONE,
    ),
    Fault(
        name="the site is away for long when the name is to be given",
        plants=_naming(*["grpc:UNAVAILABLE"] * 3),
        words=("UNAVAILABLE",),
    ),
    Fault(
        name="the answer to the naming is lost",
        plants=_naming("lost-answer"),
        state=State.DONE,
    ),
    Fault(
        name="an upload is cut, and what it left cannot be removed",
        plants={
            "relay": (
                ("destination", "data.put", "cut-after:1000"),
                ("destination", "gateway.Delete", "grpc:UNAVAILABLE"),
            )
        },
        not_with=("spaces",),
        strays=True,
    ),
]


def _cases() -> Iterator[Any]:
    for fault in FAULTS:
        for kinds, mode in every_way():
            if fault.fits(kinds, mode):
                for attempt in (0,) if mode != "pull" else (1,) if fault.looked_at else (0, 1):
                    name = f"{fault.name}-{label(kinds, mode)}{'-again' if attempt else ''}"
                    yield pytest.param(fault, kinds, mode, attempt, marks=marks_of(kinds), id=name)


@pytest.mark.parametrize(("fault", "kinds", "mode", "attempt"), list(_cases()))
def test_fault(
    *,
    make_scene: MakeScene,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kinds: tuple[str, str],
    mode: Wish,
    attempt: int,
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.webdav.tpc.MARKER_TIMEOUT_S", 0.4 if "stall" in fault.name else 20.0)
    scene = make_scene(*kinds, mode)
    if fault.seconds:
        scene.patience(**fault.seconds)
    if mode == "push":
        # The question that goes before every push is a COPY, too, and is not what the fault is for.
        assert scene.source.end(mode).speaks_tpc()
    elif mode == "pull":
        # So is the one that goes before a pull.
        assert scene.destination.end(mode).speaks_tpc()
    for side, point, script in fault.plants[mode]:
        scene.site(side).cloud.faults.add(point, script)
    outcome = scene.run(attempt=attempt)
    scene.check(outcome, strays=fault.strays)
    assert outcome.state is fault.end(kinds, mode), outcome.reason
    for word in fault.words:
        assert word in (outcome.reason or "")
    if outcome.state is State.POSTPONED:
        assert outcome.retry_after_s == 7
    scene.wish = fault.next_wish or mode
    scene.check_next(outcome)


@pytest.mark.parametrize("equal_paths", [True, False])
def test_nobody_is_sent_after_the_file_itself(make_scene: MakeScene, equal_paths: bool) -> None:
    scene = make_scene("v3", "v3", "push", equal_paths=equal_paths)
    assert scene.source.end("push").speaks_tpc()
    scene.source.cloud.faults.add("webdav.copy", "return-201")
    outcome = scene.run()
    scene.check(outcome)
    # What may have stood there had a hidden name, whatever the paths are.
    assert "it is removed again" in (outcome.reason or "")
    assert "may now stand" not in (outcome.reason or "")
