"""A CS3 cloud and a plain site that stand before one disk, and a file that is its own destination."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from typing import Literal

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.ladder import State
from tests.partners.ends import CONTENT, Partner, of_cloud, transfer
from tests.recording_site import Answer, Asked, RecordingSite
from tests.unit.plain_site import end_of

#: As XRootD 5.5.3 answers: no etag.
_ANSWER = """<?xml version="1.0"?>
<d:multistatus xmlns:d="DAV:"><d:response><d:href>{path}</d:href><d:propstat><d:prop>
<d:resourcetype>{kind}</d:resourcetype><d:getcontentlength>{size}</d:getcontentlength>{time}
</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="cloud") as cloud:
        yield cloud


@pytest.fixture
def partner(cloud: EmbeddedCloud) -> Iterator[Partner]:
    with of_cloud(cloud) as partner:
        yield partner


@pytest.fixture(params=["with-times", "without-times"])
def disk(cloud: EmbeddedCloud, request: pytest.FixtureRequest) -> Iterator[RecordingSite]:
    """A plain site over the cloud's disk."""

    def answer(asked: Asked) -> Answer:
        file = cloud.path_on_disk(asked.path.strip("/"))
        if asked.method == "PROPFIND":
            if not file.exists():
                return Answer(404)
            status = file.stat()
            kind, size = ("<d:collection/>", 0) if file.is_dir() else ("", status.st_size)
            time = f"<d:getlastmodified>{formatdate(status.st_mtime, usegmt=True)}</d:getlastmodified>"
            time = time if request.param == "with-times" else ""
            return Answer(207, body=_ANSWER.format(path=asked.path, kind=kind, size=size, time=time).encode())
        if asked.method == "DELETE":
            file.unlink()
            return Answer(204)
        if asked.method == "GET":
            return Answer(200, body=file.read_bytes())
        return Answer(200 if asked.method == "HEAD" else 405)

    with RecordingSite(answer) as site:
        yield site


@pytest.mark.parametrize("proof", ["read", "server"])
@pytest.mark.parametrize("way", ["to-the-plain-site", "from-the-plain-site"])
def test_the_source_is_not_taken_for_a_leftover(
    partner: Partner, disk: RecordingSite, way: str, proof: Literal["read", "server"]
) -> None:
    # Where nothing but the size is compared, the right file is as good a candidate for removal as a wrong one.
    data = b"the only copy" if proof == "read" else CONTENT
    partner.write("rucio/f", data)
    plain: End = end_of(disk, "/rucio/f", proof=proof)
    cloud = partner.end("rucio/f", "relay")
    source, destination = (cloud, plain) if way == "to-the-plain-site" else (plain, cloud)
    outcome = transfer(source, destination)
    assert partner.read("rucio/f") == data, "the source is gone"
    if way == "to-the-plain-site" or proof == "read":
        assert outcome.state is State.FAILED
        assert isinstance(outcome.error, errors.InvalidRequest)
        assert "be the same file" in str(outcome.reason) or "look like the same file" in str(outcome.reason)


def test_a_folder_in_the_files_place_is_never_deleted(partner: Partner) -> None:
    partner.write("rucio/folder/thesis.tex", b"years of work")
    with pytest.raises(errors.InvalidRequest, match="folder"):
        partner.end("rucio/folder", "auto").delete()
    assert partner.read("rucio/folder/thesis.tex") == b"years of work"
