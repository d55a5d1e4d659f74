"""The whole way through real servers with Rucio on PostgreSQL, its tables in a schema of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio
from tests.rucio.test_story import ScopedStory, assert_transferred_by_us, plain_files, tell

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio, pytest.mark.reva]


def test_two_reva_sites(postgres: PostgresSite, reva_sites: tuple[RevaSite, RevaSite], tmp_path: Path) -> None:
    a, b = reva_sites
    url = postgres.create_database("story")
    with RecordedRucio(policy_package=SANDBOX_POLICY, database=url, schema="rucio_tables") as rucio:
        source, destination = Rse("PG-A", a, "http", folder="pg"), Rse("PG-B", b, "http", folder="pg")
        story = ScopedStory(rucio, source, destination, scope="pg")
        files = plain_files(tmp_path / "in")
        tell(story, files, tmp_path / "out", story.run_conveyor_once)
        assert_transferred_by_us(rucio, files, b.webdav_url)
        with postgres.connect("story") as connection:
            (elsewhere,) = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN "
                "('rucio_tables', 'pg_catalog', 'information_schema')"
            ).fetchone() or (None,)
        assert elsewhere == 0
        assert_no_secret(rucio, postgres, url, a, b)


def assert_no_secret(rucio: RecordedRucio, postgres: PostgresSite, url: str, *sites: RevaSite) -> None:
    """No password and no beginning of a JWT in the database's own files, nor the database's password in a log."""
    words = {user.password for site in sites for user in site.users.values()} | {"eyJhbGciOi", "eyJ0eXAiOi"}
    files = [path for path in postgres.log.parent.rglob("*") if path.is_file()]
    assert len(files) > 100
    logs = [path for path in rucio.directory.rglob("*.log") if path.is_file()]
    assert logs
    words.add(url.partition("@")[0].rpartition(":")[2])
    texts = [(str(path), path.read_bytes()) for path in [*files, *logs]]
    texts += [("output of a command", text.encode()) for text in rucio.outputs]
    for place, content in texts:
        for word in words:
            assert word.encode() not in content, f"a secret is in {place}"
    for name in ("rucio.cfg", "alembic.ini"):
        assert (rucio.directory / "etc" / name).stat().st_mode & 0o077 == 0
