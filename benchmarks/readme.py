"""Writes what was measured into benchmarks/README.md, between markers; the words around it are written by hand."""

from __future__ import annotations

from pathlib import Path

_README = Path(__file__).with_name("README.md")


def put(name: str, text: str, path: Path = _README) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- end of name -->``.

    :raises ValueError: when the page has no such place.
    """
    before, begin, rest = path.read_text("utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not begin or not end:
        raise ValueError(f"{path.name} has no place for {name}")
    path.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}", "utf-8")
