"""What the benchmark finds around it: versions, the machine, and the environments that peers need."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

#: The interpreter that has this package.
OURS = sys.executable

_CS3CLIENT = Path(__file__).parents[1] / ".venv-cs3client"
_INSTALL_TIMEOUT_S = 180.0

_RUCIO_CFG = """[client]
rucio_host = http://127.0.0.1:1
auth_host = http://127.0.0.1:1
[policy]
lfn2pfn_algorithm_default = hash
"""

#: What tells its version, and where in it that is.
_PROGRAMS = {
    "curl": (["curl", "--version"], r"curl (\S+)"),
    "rclone": (["rclone", "version"], r"rclone v(\S+)"),
    "davix": (["davix-get", "--version"], r"(\d+\.\d+\.\d+)"),
    "gfal2": (["/usr/bin/python3", "-c", "import gfal2; print(gfal2.get_version())"], r"(\S+)"),
}


class NoEnvironment(RuntimeError):
    """cs3client's environment is not there and cannot be made."""


def rucio_client(folder: Path) -> dict[str, str]:
    """Make a home in which Rucio is a client with a configuration; the variables that say so."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "rucio.cfg").write_text(_RUCIO_CFG)
    return {"RUCIO_HOME": str(folder), "RUCIO_CLIENT_MODE": "1"}


def cs3client_python(tell: Callable[[str], None]) -> Path:
    """The interpreter of an environment with cs3client, whose requirements clash with Rucio's; made where missing.

    :raises NoEnvironment: no network, or no package.
    """
    python = _CS3CLIENT / "bin" / "python"
    if not _has_cs3client(python):
        tell(f"making {_CS3CLIENT.name} for cs3client")
        try:
            venv.create(_CS3CLIENT, with_pip=True, clear=True)
            subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "cs3client"],
                check=True,
                capture_output=True,
                timeout=_INSTALL_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError):
            raise NoEnvironment("pip could not install it") from None
    return python


def _has_cs3client(python: Path) -> bool:
    if not python.is_file():
        return False
    return subprocess.run([str(python), "-c", "import cs3client"], capture_output=True, check=False).returncode == 0


def describe(folder: Path, cloud: str, cs3client: Path | None) -> dict[str, str | int | float]:
    """The machine and the versions, as far as they can be asked."""
    found: dict[str, str | int | float] = {
        "cores": os.cpu_count() or 0,
        "processor": _first(Path("/proc/cpuinfo"), r"model name\s*: (.+)"),
        "memory_gib": round(int(_first(Path("/proc/meminfo"), r"MemTotal:\s+(\d+)") or 0) / 1024**2),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "in_memory": folder.is_relative_to("/dev/shm"),
        "cloud": cloud,
    }
    for name, (command, pattern) in _PROGRAMS.items():
        found[name] = _told(command, pattern)
    for name in ("rucio", "grpcio"):
        found[name] = _distribution(name) or _distribution(f"{name}-clients")
    if cs3client is not None:
        script = "from importlib.metadata import version; print(version('cs3client'))"
        found["cs3client"] = _told([str(cs3client), "-c", script], r"(\S+)")
    if cloud == "reva":
        from rucio_cs3.sandbox.reva import find_revad

        found["reva"] = _told([str(find_revad()), "--version"], r"version=(\S+)")
    return found


def _distribution(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _told(command: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else ""


def _first(path: Path, pattern: str) -> str:
    try:
        match = re.search(pattern, path.read_text())
    except OSError:
        return ""
    return match[1] if match else ""
