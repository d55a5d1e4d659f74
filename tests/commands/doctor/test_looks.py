"""How ``rucio-cs3 doctor`` looks at a terminal, and what it says of wrong usage."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rucio_cs3.doctor.scratch import PREFIX
from tests.commands.clouds import CommandPlace


def test_forty_columns_and_no_colour(fresh: Callable[..., CommandPlace]) -> None:
    """Names that other people give steer nothing, either."""
    place = fresh()  # what is planted stays there
    place.disk(f"{PREFIX}\x1b[31mred").mkdir()
    done = place.terminal("doctor", "TEST", "--read-only", columns=40, NO_COLOR="1", TERM="dumb")
    assert done.code == 3, done.out
    assert "\x1b" not in done.out
    lines = done.out.replace("\r", "").splitlines()
    assert max(len(line) for line in lines) <= 40
    assert "ok folder" in [line.strip() for line in lines]
    assert "weak listing" in [line.strip() for line in lines]
    assert any(line.startswith("TEST: degraded (") for line in lines)


def test_a_terminal_shows_what_is_waited_for(one_site: CommandPlace) -> None:
    done = one_site.terminal("doctor", "TEST", columns=120)
    assert done.code == 0, done.out
    assert "\x1b[" in done.out
    assert re.search(r"\d+ of \d+ done; ", done.out)
    # The table comes once.
    assert done.out.count("4096 bytes went up") == 1
    assert re.search(r"ok.*upload.*4096 bytes went up", done.out)
    assert one_site.tree() == {}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("doctor", "NOBODY"), 1, "NOBODY"),
        (("doctor", "TEST", "--set", "cs3_nothing=1"), 2, "is no KEY=VALUE"),
        (("doctor", "TEST", "--set", "cs3_proof=read"), 2, "--set and --login go with a URL"),
        (("doctor", "TEST", "--login", "somebody"), 2, "--set and --login go with a URL"),
        (("doctor", "https://x/", "--rse", "TEST", "--set", "cs3_proof=read"), 2, "leave --set and --login out"),
        (("doctor", "https://me:mistyped@x/"), 1, "the URL has a user name or password in it"),
        (("doctor", "https://me:mistyped@x/", "--set", "cs3_proof=read"), 1, "the URL has a user name or password"),
        (("doctor", "TEST", "--rse", "OTHER"), 2, "--rse goes with a URL"),
        (("doctor",), 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_one_sentence(one_site: CommandPlace, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = one_site.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err
    assert "mistyped" not in done.err


def test_advice_is_given_for_whatever_is_not_well(one_site: CommandPlace) -> None:
    """Advice goes with the table, too."""
    one_site.add_entry("WRONG", password="mistyped")
    done = one_site.run("doctor", "WRONG")
    assert done.code == 4
    lines = done.out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("broken")]
    assert "refuses to log in" in lines[number]
    assert lines[number + 1].strip().startswith("→ Check user name and secret")
