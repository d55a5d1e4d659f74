"""The whole way between two sites in containers, with TLS on all that is HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.containers.places import ContainerPlace
from tests.rucio.recorded_rucio import RecordedRucio
from tests.rucio.test_story import ScopedStory, assert_no_secret, assert_transferred_by_us, plain_files, tell

pytestmark = [pytest.mark.docker, pytest.mark.reva, pytest.mark.rucio]


def test_two_containers(container_place: ContainerPlace, tmp_path: Path) -> None:
    with (
        container_place.site("a", tls=True) as a,
        container_place.site("b", tls=True) as b,
        RecordedRucio(policy_package=SANDBOX_POLICY) as rucio,
    ):
        source, destination = Rse("BOX-A", a, "davs", folder="box"), Rse("BOX-B", b, "davs", folder="box")
        story = ScopedStory(rucio, source, destination, scope="box")
        files = plain_files(tmp_path / "in")
        tell(story, files, tmp_path / "out", story.run_conveyor_once)
        assert_transferred_by_us(rucio, files, b.webdav_url.replace("https", "davs"))
        assert_no_secret(rucio, a, b)
