"""The starter of PostgreSQL servers: started, gone for a while, ended; and no password where it could be seen."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rucio_cs3.sandbox import postgres as module
from rucio_cs3.sandbox.postgres import PostgresSite, PostgresUnavailable
from rucio_cs3.sandbox.rucio_database import PostgresDatabase

pytestmark = pytest.mark.postgresql

psycopg = pytest.importorskip("psycopg")


def test_databases_are_separate(postgres: PostgresSite) -> None:
    for name in ("one", "two"):
        postgres.create_database(name)
    with postgres.connect("one") as one, postgres.connect("two") as two:
        one.execute("CREATE TABLE t AS SELECT 1 AS n")
        assert one.execute("SELECT n FROM t").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.UndefinedTable):
            two.execute("SELECT n FROM t")


def test_data_outlive_a_pause_and_connections_do_not() -> None:
    with PostgresSite() as site:
        kept = site.connect()
        kept.execute("CREATE TABLE t AS SELECT 1 AS n")
        site.stop_server()
        with pytest.raises(psycopg.OperationalError):
            kept.execute("SELECT n FROM t")
        with pytest.raises(psycopg.OperationalError):
            site.connect()
        kept.close()
        site.start_server()
        with site.connect() as again:
            assert again.execute("SELECT n FROM t").fetchall() == [(1,)]
        log, directory = site.log, site.log.parent
        assert log.is_file()
    assert not directory.exists()
    assert not site.running


def test_only_the_password_opens_it(postgres: PostgresSite) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=postgres.port, user=module.USER, password="guessed", dbname="postgres")


def test_the_password_is_in_no_log_and_no_command_line(postgres: PostgresSite) -> None:
    url = postgres.create_database("secretive")
    password = url.partition("@")[0].rpartition(":")[2]
    assert len(password) > 20
    assert password not in repr(postgres)
    assert password not in repr(PostgresDatabase(url))
    assert password not in postgres.log.read_text("utf-8")
    assert not list(postgres.log.parent.glob("password*"))
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(postgres.log.parent) in processes
    assert password not in processes


def test_nobody_else_may_read_the_data(postgres: PostgresSite) -> None:
    home = postgres.log.parent.stat()
    assert stat.S_IMODE(home.st_mode) == 0o700
    if os.geteuid() == 0:
        assert home.st_uid != 0


_ORPHAN = """
import os, sys
from rucio_cs3.sandbox.postgres import PostgresSite
site = PostgresSite()
site.start()
with site.connect() as connection:
    print(connection.execute("SELECT pg_backend_pid()").fetchone()[0], site.log.parent, flush=True)
    os._exit(1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is dead")
def test_it_ends_when_its_starter_dies() -> None:
    died = subprocess.run([sys.executable, "-c", _ORPHAN], capture_output=True, text=True, check=False, timeout=120)
    assert died.returncode == 1, died.stderr
    home = Path(died.stdout.split()[1])
    pid_file = home / "data" / "postmaster.pid"
    deadline = time.monotonic() + 30
    # The server removes it as its last act.
    while pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not pid_file.exists()
    finally:
        shutil.rmtree(home)


def test_a_query_reads_only_and_gives_ids_as_rucio_does(postgres: PostgresSite) -> None:
    url = postgres.create_database("queried")
    with postgres.connect("queried") as connection:
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE TABLE own.requests (id uuid, name text)")
        connection.execute("INSERT INTO own.requests VALUES ('0a1b2c3d-0000-0000-0000-000000000000', '100%')")
    database = PostgresDatabase(url, schema="own")
    assert not database.prepare()
    assert PostgresDatabase(url).prepare()
    key = "0a1b2c3d000000000000000000000000"
    assert database.query("SELECT id, name FROM requests WHERE id = ? AND name LIKE '%0%'", key) == [(key, "100%")]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        database.query("DELETE FROM requests WHERE id = ? RETURNING id", key)


def test_other_databases_are_refused_without_a_word_of_the_password() -> None:
    with pytest.raises(ValueError, match="nothing else") as caught:
        PostgresDatabase("mysql://rucio:hidden@127.0.0.1/rucio")
    assert "hidden" not in str(caught.value)


def test_a_data_directory_that_cannot_be_made_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    for name in ("initdb", "postgres"):
        (broken / name).write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
        (broken / name).chmod(0o755)
    monkeypatch.setattr(module, "_find_programs", lambda: broken)
    monkeypatch.setattr(module, "_service_user", lambda: None)
    with pytest.raises(PostgresUnavailable, match="no room"), PostgresSite():
        pass
