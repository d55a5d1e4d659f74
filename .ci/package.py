"""Builds the wheel twice, and looks into it: the same bytes each time, the package's own files, and nothing else.

    package.py FOLDER

The wheel is left in FOLDER. It is built from a copy of what git knows, so that nothing which lies about comes into it.
The build's own needs come from the package index (pip's build isolation). `make package` runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Files beside modules that belong into it.
_DATA = {"rucio_cs3/py.typed"}

#: Beginnings of what no published file may hold: private keys, and JWTs (base64 of '{"alg"' and '{"typ"').
_SECRETS = (b"PRIVATE KEY-----", b"eyJhbGciOi", b"eyJ0eXAiOi")


def main(folder: Path) -> int:
    with tempfile.TemporaryDirectory() as out:
        first, second = (_build(Path(out, name)) for name in ("first", "second"))
        problems = [] if first.read_bytes() == second.read_bytes() else ["two builds differ"]
        problems += look_into(first, _modules())
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / first.name
        wheel.write_bytes(first.read_bytes())
    for problem in problems:
        print(f"{wheel.name}: {problem}", file=sys.stderr)
    if not problems:
        print(f"{wheel}: two builds are equal, and nothing is in it that does not belong there")
    return 1 if problems else 0


def look_into(wheel: Path, modules: set[str]) -> list[str]:
    """What is wrong with the content of a wheel; empty where nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    own = {name for name in content if ".dist-info/" not in name}
    problems = [f"{name} does not belong there" for name in sorted(own - modules - _DATA)]
    problems += [f"{name} is missing" for name in sorted((modules | _DATA) - own)]
    for name, data in sorted(content.items()):
        problems += [f"{name} holds {secret.decode()}" for secret in _SECRETS if secret in data]
    return problems


def _modules() -> set[str]:
    return {name for name in _files() if name.startswith("rucio_cs3/") and name.endswith(".py")}


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _build(folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as source:
        for name in _files():
            copy = Path(source, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), source],
            # Zip knows no time before 1980.
            env={**os.environ, "SOURCE_DATE_EPOCH": "315532800"},
            check=True,
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
