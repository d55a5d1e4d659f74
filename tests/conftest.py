"""Fixtures for the real servers, and what happens where one of them is missing.

A test that needs a real Reva or a real Rucio carries the mark ``reva`` or ``rucio``. Without the server it is
skipped and says so; where RUCIO_CS3_REQUIRE (a comma list, for example ``reva,rucio``) names the server, it fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rucio_cs3.sandbox.postgres import postgresql_is_installed
from rucio_cs3.sandbox.reva import REVAD_VARIABLE, RevaSite, find_revad
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite, rucio_is_installed
from rucio_cs3.sandbox.xrootd import xrootd_is_installed

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.containers.engine import Engine
    from tests.containers.places import ContainerPlace

REQUIRE_VARIABLE = "RUCIO_CS3_REQUIRE"

#: Folders whose files start servers of their own that take long to start, and files there whose tests share none.
_TOGETHER = ("containers", "docs", "fts", "partners", "postgresql", "rucio")
_SCATTERED = (
    "tests/postgresql/test_kill_loop.py",
    "tests/rucio/test_demo.py",
    "tests/rucio/test_inside.py",
    "tests/rucio/test_register.py",
    "tests/rucio/test_sandbox_command.py",
    "tests/rucio/test_story.py",
)

_REASON_CHARACTERS = 1_000


def _reva_missing() -> str | None:
    # A RUCIO_CS3_REVAD that cannot be run raises here: a wish that is not met is an error, not a skip.
    return None if find_revad() else f"no revad: set {REVAD_VARIABLE} or put one on PATH"


def _rucio_missing() -> str | None:
    return None if rucio_is_installed() else "no Rucio server: pip install 'rucio-cs3[server,sandbox]'"


def _postgresql_missing() -> str | None:
    return None if postgresql_is_installed() else "no PostgreSQL server: install Debian's postgresql, or the like"


def _xrootd_missing() -> str | None:
    return None if xrootd_is_installed() else "no xrootd: install Debian's xrootd-server and xrootd-server-plugins"


@lru_cache
def _docker_missing() -> str | None:
    if find_spec("docker") is None:
        return "no Python package docker: pip install 'rucio-cs3[test]'"
    from tests.containers.engine import engine_missing

    return engine_missing()


def _links_missing() -> str | None:
    from tests.containers.links import links_missing

    return _docker_missing() or links_missing()


def _gfal_missing() -> str | None:
    missing = [name for name in ("gfal-copy", "davix-put") if shutil.which(name) is None]
    return f"no {missing[0]}: install Debian's gfal2-util-scripts, gfal2-plugin-http and davix" if missing else None


_SERVERS: dict[str, Callable[[], str | None]] = {
    "reva": _reva_missing,
    "rucio": _rucio_missing,
    "postgresql": _postgresql_missing,
    "xrootd": _xrootd_missing,
    "gfal": _gfal_missing,
    "docker": _docker_missing,
    "links": _links_missing,
}

#: What a story needs whose clouds are all of one kind (``--clouds``), in place of the mark ``reva``.
_CLOUDS: dict[str, tuple[str, ...]] = {"embedded": (), "process": ("reva",), "containers": ("reva", "docker")}


def _required() -> frozenset[str]:
    names = os.environ.get(REQUIRE_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def _need(server: str) -> None:
    """Skip or fail the running test if ``server`` is missing."""
    reason = _SERVERS[server]()
    if reason is None:
        return
    if server in _required():
        pytest.fail(f"{reason}, and {REQUIRE_VARIABLE} requires it", pytrace=False)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clouds",
        choices=sorted(_CLOUDS),
        help="where the stories of tests/rucio/test_story.py find all their clouds: embedded ones, revad in processes "
        "or in containers; each story takes what it is written for if none is named",
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = _required() - _SERVERS.keys()
    if unknown:
        known = ", ".join(_SERVERS)
        raise pytest.UsageError(f"{REQUIRE_VARIABLE} names {', '.join(sorted(unknown))}; it knows {known}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """For ``-n auto``: most tests wait for servers or for time to pass. pytest-xdist's own variable is its to read."""
    return None if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else 2 * (os.cpu_count() or 1)


def _scope(nodeid: str) -> str:
    """What one worker runs from beginning to end: a file, or a test."""
    file = nodeid.partition("::")[0]
    return file if Path(file).parent.name in _TOGETHER and file not in _SCATTERED else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """For ``--dist loadgroup``: tests of one file that share a Rucio, or what takes as long, stay together.

    Not by marks ``xdist_group``, which pytest-xdist 3.8.0 loses with pytest 9.2.0 (it sets ``_nodeid``).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByServers(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    return ByServers(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = {server for server in _SERVERS if item.get_closest_marker(server)}
    clouds = item.config.getoption("--clouds")
    if clouds is not None and "story_clouds" in getattr(item, "fixturenames", ()):
        needed = (needed - {"reva"}) | {*_CLOUDS[clouds]}
    for server in _SERVERS:
        if server in needed:
            _need(server)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure has with it what the containers wrote."""
    report = yield
    engine = getattr(item, "funcargs", {}).get("engine")
    if report.failed and engine is not None:
        report.sections.extend(engine.logs())
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where and why, once more and in short, below what servers wrote: that may be all that somebody keeps."""
    reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    if reports:
        terminalreporter.write_sep("=", "reasons")
    for report in reports:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(crash or report.longrepr)[:_REASON_CHARACTERS]
        terminalreporter.write_line(f"{report.nodeid} ({report.when}): {reason}")


@pytest.fixture(scope="session", autouse=True)
def _no_state_in_the_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept of unfinished uploads is kept elsewhere; child processes are told, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUCIO_CS3_STATE_DIR", str(tmp_path_factory.mktemp("states", numbered=False) / "uploads"))
        yield


@pytest.fixture(scope="session")
def reva_sites() -> Iterator[tuple[RevaSite, RevaSite]]:
    """Two real Reva sites, ``a`` and ``b``, with HTTP-TPC and without TLS."""
    _need("reva")
    with RevaSite("a") as a, RevaSite("b") as b:
        yield a, b


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The Docker Engine; what is made there goes away with the session."""
    _need("docker")
    from tests.containers.engine import Engine

    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def container_place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ContainerPlace:
    """A network of containers for the whole session."""
    _need("reva")
    from tests.containers.places import ContainerPlace

    return ContainerPlace(engine, tmp_path_factory.mktemp("containers"))


@pytest.fixture(scope="session")
def rucio_site() -> Iterator[RucioSite]:
    """A real Rucio with the sandbox's policy package; tests use scopes and RSEs of their own."""
    _need("rucio")
    with RucioSite(policy_package=SANDBOX_POLICY) as site:
        yield site
