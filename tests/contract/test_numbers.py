"""The numbers of the cases: those in docs/contract.md and those of the tests are the same set."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "contract.md"

_TEST = re.compile(r"^def test_c(\d{3,4})_", re.MULTILINE)
_ROW = re.compile(r"^\| C(\d{3,4}) \|", re.MULTILINE)


def test_docs_and_tests_have_the_same_numbers() -> None:
    files = sorted(HERE.glob("test_*.py"))
    tested = [int(number) for file in files for number in _TEST.findall(file.read_text("utf-8"))]
    promised = [int(number) for number in _ROW.findall(TABLE.read_text("utf-8"))]
    assert len(set(tested)) == len(tested), "a number is used by two tests"
    assert promised == sorted(set(promised)), "the table is not in order"
    assert sorted(tested) == promised
