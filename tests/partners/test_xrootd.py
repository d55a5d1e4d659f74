"""A real Reva and a real XRootD: both directions, all modes, and what is left when it fails."""

from __future__ import annotations

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.xrootd import XRootDSite
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Mode, Wish
from tests.partners.ends import CONTENT, MODES, Partner, of_xrootd, transfer

pytestmark = [pytest.mark.xrootd, pytest.mark.reva]


@pytest.fixture(params=["to-xrootd", "from-xrootd"])
def sites(request: pytest.FixtureRequest, reva: Partner, xrootd: Partner) -> tuple[Partner, Partner]:
    """Source and destination."""
    return (reva, xrootd) if request.param == "to-xrootd" else (xrootd, reva)


def test_auto_pulls(sites: tuple[Partner, Partner], path: str) -> None:
    source, destination = sites
    source.write(path, CONTENT)
    outcome = transfer(source.end(path, "auto"), destination.end(path, "auto"))
    assert (outcome.state, outcome.mode) == (State.DONE, Mode.PULL), outcome.reason


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_file(sites: tuple[Partner, Partner], path: str, mode: Wish) -> None:
    source, destination = sites
    source.write(path, b"")
    outcome = transfer(source.end(path, "auto"), destination.end(path, mode), b"")
    assert outcome.state is State.DONE, outcome.reason
    assert destination.read(path) == b""


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_source_leaves_nothing(sites: tuple[Partner, Partner], path: str, mode: Wish) -> None:
    source, destination = sites
    outcome = transfer(source.end(path, "auto"), destination.end(path, mode))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.NotFound)
    assert f"the source {source.end(path, 'auto').name} has no such file" in str(outcome.reason)
    assert destination.read(path) is None


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_where_the_file_belongs_stays(sites: tuple[Partner, Partner], path: str, mode: Wish) -> None:
    source, destination = sites
    source.write(path, CONTENT)
    inside = destination.write(f"{path}/somebody's", b"data")
    outcome = transfer(source.end(path, "auto"), destination.end(path, mode))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.AlreadyExists)
    assert inside.read_bytes() == b"data"


@pytest.mark.parametrize("mode", MODES)
def test_a_token_that_xrootd_does_not_know_fails_cleanly(
    reva: Partner, xrootd: Partner, xrootd_site: XRootDSite, path: str, mode: Wish
) -> None:
    stranger = of_xrootd(xrootd_site, token="eyJhbGciOiJub25lIn0.e30.c29tZWJvZHk")
    reva.write(path, CONTENT)
    outcome = transfer(reva.end(path, "auto"), stranger.end(path, mode))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, (errors.AccessDenied, errors.Unauthenticated))
    assert xrootd.read(path) is None
    xrootd.write(f"{path}2", CONTENT)
    outcome = transfer(stranger.end(f"{path}2", "auto"), reva.end(f"{path}2", mode))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, (errors.AccessDenied, errors.Unauthenticated))
    assert reva.read(f"{path}2") is None


def test_xrootd_cannot_push_over_http2(reva_http2: Partner, xrootd: Partner, path: str) -> None:
    """XRootD 5.5.3 sends nothing until it has read a status line (XrdTpcState.cc, ReadCB), which is "100 Continue" in
    HTTP/1.1 and does not come in HTTP/2. It fails cleanly, and the next attempt takes another way.
    """
    xrootd.write(path, CONTENT)
    pushed = transfer(xrootd.end(path, "push"), reva_http2.end(path, "auto"))
    assert pushed.state is State.FAILED
    assert "500" in str(pushed.reason)
    assert reva_http2.read(path) is None
    for attempt, mode in enumerate((Mode.PULL, Mode.PUSH, Mode.RELAY)):
        outcome = transfer(xrootd.end(path, "auto"), reva_http2.end(path, "auto"), attempt=attempt)
        assert outcome.mode is mode
        assert (outcome.state is State.DONE) == (mode is not Mode.PUSH), outcome.reason
        reva_http2.on_disk(path).unlink(missing_ok=True)
