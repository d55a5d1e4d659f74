"""What ``rucio-cs3 dump`` is given, and what it says to people."""

from __future__ import annotations

import re

import pytest

from tests.commands.clouds import CommandPlace
from tests.commands.dump.contents import names


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("NOWHERE", "-o", "x"), 1, "NOWHERE"),
        (("WRONG", "-o", "x"), 1, "refuses to log in einstein"),
        (("TEST:nothing", "-o", "x"), 1, "nothing"),
        (("TEST:d0/file", "-o", "x"), 1, "is a file, not a folder"),
        (("TEST",), 2, "--output"),
        (("TEST", "-o", "missing/folder/x"), 1, "local path missing/folder/x or its folder does not exist"),
        (("TEST", "-o", "."), 2, "is a directory"),
        (("TEST", "-o", "x", "--older-than", "-1"), 2, "older-than"),
        (("TEST", "-o", "x", "--older-than", "nan"), 2, "'nan' is no age; write 12h, 7d or 2w"),
        (("TEST", "-o", "x", "--older-than", "7 days"), 2, "'7 days' is no age"),
    ],
)
def test_bad_input_is_one_sentence(
    small: CommandPlace, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(small.local)
    done = small.run("dump", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    if code == 1:
        assert done.err.startswith("Error: ")
        assert done.err.count("\n") == 1
    assert names(small.local) == []


@pytest.mark.parametrize("settings", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_at_a_narrow_terminal(small: CommandPlace, settings: dict[str, str]) -> None:
    done = small.terminal("dump", "TEST", "-o", small.local / "dump", columns=40, **settings)
    assert done.code == 0
    shown = done.out.replace("\r\n", "\n")
    assert "dump: 4 files, 4 B, in 4 folders\n" in shown
    # How far it is, in one line that comes and goes; without colours, or not at all, where those are not wanted.
    coloured = re.search(r"\x1b\[(?:\d+;)*3\d", shown)
    assert ("0 files" in shown, coloured is not None) == {
        "": (True, True),
        "NO_COLOR": (True, False),
        "TERM": (False, False),
    }["".join(settings)]
    if "TERM" in settings:
        assert "\x1b" not in shown


def test_the_help_shows_how(small: CommandPlace) -> None:
    done = small.run("dump", "--help")
    assert done.code == 0
    assert "rucio-cs3 dump CERNBOX -o dump_20261121.gz" in done.out
