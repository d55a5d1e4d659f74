"""What an examination has found, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rucio_cs3.doctor.findings import Finding, Verdict, verdict


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it.

    :param name: of what was examined.
    :param findings: by the names of the checks, in the order of the table.
    :param left: what could not be removed, for people.
    :param commands: that make it an RSE.
    :param seconds: from the first check to the last.
    """

    name: str
    findings: Mapping[str, Finding]
    left: Sequence[str] = ()
    commands: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """What it comes to; something that is left behind is a weakness."""
        found = verdict(self.findings)
        return Verdict.DEGRADED if self.left and found is Verdict.OK else found

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "exit_code": self.verdict.exit_code,
            "seconds": round(self.seconds, 2),
            "checks": [
                {
                    "name": name,
                    "status": finding.status.value,
                    "seen": finding.seen,
                    "advice": finding.advice,
                    "facts": dict(finding.facts),
                }
                for name, finding in self.findings.items()
            ],
            "left": list(self.left),
            "commands": list(self.commands),
        }
