"""A CS3 cloud and a plain WebDAV site, in both directions and all modes: what holds for every pair."""

from __future__ import annotations

import pytest

from rucio_cs3.cs3 import BearerProvider, Secret, errors
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Mode, Wish
from tests.partners.ends import (
    CONTENT,
    MODES,
    Partner,
    Seen,
    names_beside,
    of_cloud,
    plain_site,
    transfer,
    webdav_end,
)


@pytest.fixture(
    params=[
        pytest.param(f"{cloud}-{direction}-{site}", marks=marks)
        for cloud, site, marks in (
            ("reva", "xrootd", [pytest.mark.xrootd, pytest.mark.reva]),
            ("reva", "reva_as_webdav", pytest.mark.reva),
            ("embedded", "reva_as_webdav", pytest.mark.reva),
        )
        for direction in ("to", "from")
    ]
)
def sites(request: pytest.FixtureRequest) -> tuple[Partner, Partner]:
    """Source and destination."""
    cloud, direction, site = request.param.split("-")
    both = request.getfixturevalue(cloud), request.getfixturevalue(site)
    return both if direction == "to" else (both[1], both[0])


@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_brought_over_and_proven(sites: tuple[Partner, Partner], path: str, mode: Wish) -> None:
    source, destination = sites
    source.write(path, CONTENT)
    watch = Seen()
    outcome = transfer(source.end(path, "auto"), destination.end(path, mode), watch=watch)
    assert outcome.state is State.DONE, outcome.reason
    assert (outcome.copied, outcome.mode) == (True, Mode(mode))
    assert watch.modes == [Mode(mode)]
    assert destination.read(path) == CONTENT
    assert source.read(path) == CONTENT
    assert names_beside(destination.on_disk(path)) == names_beside(source.on_disk(path)) == ["file"]


@pytest.mark.parametrize("mode", MODES)
def test_other_content_than_the_catalogue_says_does_not_stay(
    sites: tuple[Partner, Partner], path: str, mode: Wish
) -> None:
    source, destination = sites
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    source.write(path, wrong)
    outcome = transfer(source.end(path, "auto"), destination.end(path, mode))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.IntegrityError), outcome.reason
    assert names_beside(destination.on_disk(path)) == []
    assert source.read(path) == wrong


@pytest.mark.parametrize("mode", MODES)
def test_a_leftover_is_replaced_and_a_right_file_is_not(sites: tuple[Partner, Partner], path: str, mode: Wish) -> None:
    source, destination = sites
    source.write(path, CONTENT)
    destination.write(path, b"half of an earlier attempt")
    first = transfer(source.end(path, "auto"), destination.end(path, mode))
    assert (first.state, first.copied) == (State.DONE, True), first.reason
    assert destination.read(path) == CONTENT
    assert names_beside(destination.on_disk(path)) == ["file"]
    again = transfer(source.end(path, "auto"), destination.end(path, mode))
    assert (again.state, again.copied) == (State.DONE, False)


@pytest.mark.reva
def test_one_server_as_two_sites_is_found_out(reva_as_webdav: Partner, path: str) -> None:
    """By the same URL; the source would be the leftover."""
    written = reva_as_webdav.write(path, CONTENT)
    outcome = transfer(reva_as_webdav.end(path, "auto"), reva_as_webdav.end(path, "auto"))
    assert outcome.state is State.FAILED
    assert "same file" in str(outcome.reason)
    assert written.read_bytes() == CONTENT


@pytest.mark.reva
def test_one_server_under_two_urls_is_found_out(path: str) -> None:
    """Known as a cloud by one URL and as a plain site by another, with content that would make it a leftover."""
    with RevaSite("twice", tls=True) as site, of_cloud(site) as cloud:
        user = next(iter(site.users.values()))
        written = cloud.write(path, b"damaged")
        token = cloud.end(path, "auto").authorization(write=True).removeprefix("Bearer ")
        url = f"{site.http_url}/remote.php/dav/files/{user.username}"
        described = plain_site("AGAIN", f"{url}/", site.ca_bundle)
        again = webdav_end(described, BearerProvider(Secret(token)), f"{url}/{path}")
        assert again.stat().size == len(b"damaged")
        for source, destination in ((cloud.end(path, "auto"), again), (again, cloud.end(path, "auto"))):
            for attempt in range(2):
                outcome = transfer(source, destination, attempt=attempt)
                assert outcome.state is State.FAILED
                # A first attempt may copy before it looks, to a name of its own, and finds out that it is damaged.
                assert "same file" in str(outcome.reason) or (attempt == 0 and outcome.mode is Mode.PULL)
                assert written.read_bytes() == b"damaged"
                assert names_beside(written) == ["file"]
