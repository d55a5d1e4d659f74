"""C841-C846: whether a site does third-party copies is asked in a way that can write nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rucio_cs3.cs3 import Reference, errors
from rucio_cs3.cs3.webdav.probes import TPCProbes
from tests.contract.copying import authorization, url
from tests.contract.place import Place


def ask(place: Place, probes: TPCProbes | None = None, **changes: str) -> bool:
    given = {"base_url": url(place, place.folder), "authorization": authorization(place), **changes}
    return (probes or TPCProbes()).ask(place.storage.http, given["base_url"], given["authorization"])


def test_c841_a_site_that_does(destination: Place) -> None:
    file = destination.put("file", b"x")
    assert ask(destination)
    assert ask(destination, base_url=url(destination, Reference(destination.storage.endpoint.root)))
    assert destination.names() == ["file"]
    assert destination.stored(file) == b"x"


def test_c842_a_site_that_does_not(without_tpc: Place) -> None:
    file = without_tpc.put("file", b"x")
    assert not ask(without_tpc)
    assert without_tpc.names() == ["file"]
    assert without_tpc.stored(file) == b"x"


def test_c843_a_cloud_that_does_none(spaces: Place) -> None:
    assert not ask(spaces)
    assert spaces.names() == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("return-500", errors.ServerFault),
        ("return-503,retry-after:9", errors.Unavailable),
        ("return-403", errors.AccessDenied),
        ("return-404", errors.PreconditionFailed),
        ("return-201", errors.ProtocolViolation),
        ("return-204", errors.ProtocolViolation),
        ("lost-answer", errors.TransferInterrupted),
    ],
)
def test_c844_an_unclear_answer_is_neither(destination: Place, script: str, kind: type[errors.CS3Error]) -> None:
    probes = TPCProbes()
    destination.fault("webdav.copy", script)
    with pytest.raises(kind) as caught:
        ask(destination, probes)
    assert url(destination, destination.folder) in str(caught.value)
    assert caught.value.retry_after_s == (9 if "retry-after" in script else None)
    assert destination.pending() == []
    assert ask(destination, probes), "it was not remembered"
    with pytest.raises(errors.Unauthenticated) as refused:
        ask(destination, authorization="Bearer bad-token-4711")
    assert "4711" not in str(refused.value)
    assert destination.names() == []


def test_c845_silence_is_neither(destination: Place) -> None:
    destination.fault("webdav.copy", "stall")
    with pytest.raises(errors.DeadlineExceeded):
        ask(replace(destination, storage=destination.impatient()))


def test_c846_a_folder_that_is_missing_is_neither(destination: Place, without_tpc: Place) -> None:
    for place in (destination, without_tpc):
        with pytest.raises(errors.CS3Error) as caught:
            ask(place, base_url=url(place, place.file("missing")))
        assert not isinstance(caught.value, errors.NotFound), "that would be taken for a file's"
        assert place.names() == []
