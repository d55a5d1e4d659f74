"""The rings: the CS3 client knows neither Rucio nor what is around it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rucio_cs3.cs3

CLIENT = Path(rucio_cs3.cs3.__file__).parent
MODULES = sorted(CLIENT.rglob("*.py"))
PURE = ("errors", "config", "reference", "checksums", "resources", "retry")
TRANSPORTS = {"grpc", "requests", "urllib3", "socket", "http"}


def imported(path: Path) -> set[str]:
    """Dotted names of everything a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_is_something_to_walk() -> None:
    assert {"storage", "gateway", "data_gateway", *PURE} <= {path.stem for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.stem))
def test_the_client_imports_inward_only(path: Path) -> None:
    for name in imported(path):
        first, *rest = name.split(".")
        assert first != "rucio", f"{path.name} imports {name}"
        if first == "rucio_cs3":
            assert rest[:1] == ["cs3"], f"{path.name} imports {name}"


@pytest.mark.parametrize("name", PURE)
def test_the_pure_core_knows_no_transport(name: str) -> None:
    for module in imported(CLIENT / f"{name}.py"):
        assert module.split(".")[0] not in TRANSPORTS, f"{name} imports {module}"


_WITHOUT_RUCIO = """
import importlib.abc, pkgutil, sys

class NoRucio(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "rucio":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoRucio())
try:
    import rucio
except ImportError:
    pass
else:
    sys.exit("rucio is not blocked")
import rucio_cs3.cs3
for module in pkgutil.walk_packages(rucio_cs3.cs3.__path__, "rucio_cs3.cs3."):
    __import__(module.name)
loaded = [name for name in sys.modules if name.split(".")[0] == "rucio" or name.startswith("rucio_cs3.")]
print(*sorted(loaded))
"""


def test_the_client_works_without_rucio() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_RUCIO], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "rucio_cs3.cs3.storage" in loaded
    assert {name for name in loaded if not name.startswith("rucio_cs3.cs3")} <= {"rucio_cs3._version"}


#: What costs a command its time, and is needed only when a connection is opened.
HEAVY = (
    "grpc",
    "google.protobuf",
    "cs3",
    "rucio_cs3.cs3.storage",
    "rucio_cs3.cs3.gateway",
    "rucio_cs3.cs3.http.client",
    "rucio_cs3.cs3.login.oauth",
    "rucio_cs3.transfers.ladder",
)


@pytest.mark.parametrize("module", ["rucio_cs3.protocol", "rucio_cs3.policy", "rucio_cs3.cs3"])
def test_a_command_that_opens_no_connection_imports_no_grpc(module: str) -> None:
    pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")
    # Rucio itself imports no gRPC; otherwise this would say nothing.
    program = f"""
import sys, rucio.rse.rsemanager
print(*sys.modules)
import {module}
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    assert module in after
    assert not before & set(HEAVY)
    assert not after & set(HEAVY)


def test_the_names_of_the_client_are_there_when_they_are_asked_for() -> None:
    for name in rucio_cs3.cs3.__all__:
        found = getattr(rucio_cs3.cs3, name)
        assert getattr(rucio_cs3.cs3, name) is found
    assert rucio_cs3.cs3.CS3Storage.__module__ == "rucio_cs3.cs3.storage"
    with pytest.raises(AttributeError, match=r"'rucio_cs3\.cs3' has no attribute 'Nothing'"):
        getattr(rucio_cs3.cs3, "Nothing")  # noqa: B009
