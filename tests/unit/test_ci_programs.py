"""The programs of .ci: an audit that asked nobody is no success, and a wheel with a stranger in it is no wheel."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
#: The release that the audit asks about first.
CANARY = "urllib3==1.24.1"

Audit = Callable[[Mapping[str, list[str]] | None], "subprocess.CompletedProcess[str]"]

# Answers as pip-audit 2.10.1 does: a package that the index does not know is skipped, and that is a success.
_PIP_AUDIT = """#!{python}
import json, pathlib, sys
known = json.loads(pathlib.Path({known!r}).read_text())
if known is None:
    sys.exit("requests.exceptions.ConnectionError: no such host")
found = []
for line in pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().splitlines():
    name, version = line.split("==")
    ids = known.get(line, known.get(name))
    if ids is not None:
        found.append({{"name": name, "version": version, "vulns": [{{"id": one}} for one in ids]}})
    else:
        found.append({{"name": name, "skip_reason": "not found on PyPI"}})
print(json.dumps({{"dependencies": found, "fixes": []}}))
"""


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Runs the audit of this environment; it is given all advisories, by package or release, or None for no service."""

    def run(known: Mapping[str, list[str]] | None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "known").write_text(json.dumps(known))
        program = tmp_path / "pip-audit"
        program.write_text(_PIP_AUDIT.format(python=sys.executable, known=str(tmp_path / "known")))
        program.chmod(0o755)
        return subprocess.run(
            [sys.executable, CI / "audit.py", program, sys.executable],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("known", [None, {}, {"click": ["PYSEC-1"]}])
def test_who_does_not_know_a_known_weakness_is_not_believed(
    audit: Audit, known: Mapping[str, list[str]] | None
) -> None:
    done = audit(known)
    assert done.returncode == 0
    assert "Nothing was audited" in done.stdout
    assert ("no such host" in done.stderr) == (known is None)


@pytest.mark.parametrize(("conflicts", "installs", "succeeds"), [(0, 1, True), (1, 1, False), (1, 0, False)])
def test_an_audit_without_its_program_is_none(conflicts: int, installs: int, succeeds: bool, tmp_path: Path) -> None:
    """Exit codes of `pip check` and of the installation of pip-audit."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv-audit" / "bin").mkdir(parents=True)
    for name, code in (("venv/bin/python", conflicts), ("venv-audit/bin/python", installs), ("python", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "venv" / ".ready").touch()
    done = subprocess.run(
        ["make", "audit", f"VENV={tmp_path / 'venv'}", f"PYTHON={tmp_path / 'python'}"],
        cwd=CI.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is succeeds
    assert ("Nothing was audited: pip-audit could not be installed\n" in done.stdout) is succeeds


def test_an_advisory_about_what_is_needed_fails(audit: Audit) -> None:
    done = audit({CANARY: ["PYSEC-2019-133"], "click": ["PYSEC-1"]})
    assert done.returncode == 1
    assert "click (needed by this package): PYSEC-1" in done.stdout


def test_an_advisory_about_what_others_brought_is_told(audit: Audit) -> None:
    done = audit({CANARY: ["PYSEC-2019-133"], "click": [], "pytest": ["PYSEC-2"]})
    assert done.returncode == 0
    assert "pytest (not needed by this package itself): PYSEC-2" in done.stdout
    assert "click" not in done.stdout


def wheel_of(path: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("more", "less", "problems"),
    [
        ({}, "", []),
        ({"rucio_cs3/notes.txt": ""}, "", ["rucio_cs3/notes.txt does not belong there"]),
        ({"tests/test_x.py": ""}, "", ["tests/test_x.py does not belong there"]),
        ({}, "rucio_cs3/a.py", ["rucio_cs3/a.py is missing"]),
        ({}, "rucio_cs3/py.typed", ["rucio_cs3/py.typed is missing"]),
        ({"rucio_cs3/a.py": "'-----BEGIN PRIVATE KEY-----'"}, "", ["rucio_cs3/a.py holds PRIVATE KEY-----"]),
        ({"rucio_cs3-1.dist-info/METADATA": "eyJhbGciOiJub25lIn0"}, "", ["…/METADATA holds eyJhbGciOi"]),
    ],
)
def test_what_does_not_belong_into_a_wheel(
    tmp_path: Path, more: Mapping[str, str], less: str, problems: list[str]
) -> None:
    files = {"rucio_cs3/a.py": "", "rucio_cs3/py.typed": "", "rucio_cs3-1.dist-info/METADATA": "", **more}
    files.pop(less, None)
    look_into = runpy.run_path(str(CI / "package.py"))["look_into"]
    found = look_into(wheel_of(tmp_path / "x.whl", files), {"rucio_cs3/a.py"})
    assert found == [problem.replace("…", "rucio_cs3-1.dist-info") for problem in problems]
