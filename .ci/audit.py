"""Asks the Python Packaging Advisory Database about what is installed in an environment, by pip-audit.

    audit.py PIP_AUDIT PYTHON

PIP_AUDIT is the program, PYTHON the interpreter of the environment. Exit codes: 0 nothing is known against what this
package brings, or nobody could be asked, which is said; 1 there is an advisory; 2 the environment cannot be read.

pip-audit ends with "no known vulnerabilities" where a package index knows no advisories at all, as mirrors do. So it is
first asked about a release with a well-known one; only who knows that is believed.

What this package does not bring itself, such as Rucio and all that Rucio asks for, is told and fails nothing: its
bounds are not ours to change. `make audit` runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: A release with an advisory since 2019 (PYSEC-2019-132, PYSEC-2019-133).
CANARY = "urllib3==1.24.1"

#: Prints name and version of all that is installed, and whether this package needs it without any extra.
_INSTALLED = """
import json
from importlib.metadata import distribution, distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
needed, new = set(), {"rucio-cs3"}
while new:
    name = new.pop()
    needed.add(name)
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            new.add(canonicalize_name(requirement.name))
    new -= needed
found = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
found.pop("rucio-cs3")
print(json.dumps([[name, version, name in needed] for name, version in sorted(found.items())]))
"""


def main(pip_audit: str, python: str) -> int:
    read = subprocess.run([python, "-c", _INSTALLED], capture_output=True, text=True, check=False)
    if read.returncode:
        print(f"{python} cannot say what is installed:\n{read.stderr}", file=sys.stderr)
        return 2
    installed: list[tuple[str, str, bool]] = [(name, version, ours) for name, version, ours in json.loads(read.stdout)]
    if not advisories(pip_audit, [CANARY]):
        print(f"No advisory service could be asked: none knows {CANARY}. Nothing was audited.")
        return 0
    found = advisories(pip_audit, [f"{name}=={version}" for name, version, _ in installed])
    if found is None:
        print("The advisory service has stopped to answer. Nothing was audited.")
        return 0
    ours = {name for name, _, needed in installed if needed}
    for name, ids in sorted(found.items()):
        whose = "needed by this package" if name in ours else "not needed by this package itself"
        print(f"{name} ({whose}): {', '.join(ids)}")
    print(f"{len(installed)} packages were asked about, {len(found)} have advisories.")
    return 1 if ours & found.keys() else 0


def advisories(pip_audit: str, requirements: list[str]) -> dict[str, list[str]] | None:
    """Package -> ids of its advisories; None where nobody has answered."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("\n".join(requirements), encoding="utf-8")
        done = subprocess.run(
            [pip_audit, "--requirement", str(path), "--no-deps", "--disable-pip", "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        # It has ended with a traceback; the reason is its last line.
        print(f"pip-audit: {done.stderr.strip().rpartition(chr(10))[2]}", file=sys.stderr)
        return None
    return {one["name"]: [vuln["id"] for vuln in one["vulns"]] for one in answer["dependencies"] if one.get("vulns")}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
