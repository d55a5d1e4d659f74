"""Where a bearer token is found: the WLCG's places in their order, commands, and what is none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.bearer_tokens import CommandToken, DiscoveredToken, checked

VARIABLES = ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def token_file(path: Path, token: str, mode: int = 0o600) -> Path:
    path.write_text(f"{token}\n")
    path.chmod(mode)
    return path


def test_the_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    token_file(tmp_path / f"bt_u{os.geteuid()}", "of-the-session")
    assert DiscoveredToken().get() == "of-the-session"
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(token_file(tmp_path / "named", "of-the-file")))
    assert DiscoveredToken().get() == "of-the-file"
    monkeypatch.setenv("BEARER_TOKEN", " of-the-variable\n")
    assert DiscoveredToken().get() == "of-the-variable"


def test_what_is_found_is_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storages are shared by what is equal."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    token_file(tmp_path / f"bt_u{os.geteuid()}", "of-the-session")
    found = [DiscoveredToken()]
    for word in ("first", "second"):
        monkeypatch.setenv("BEARER_TOKEN", word)
        found.append(DiscoveredToken())
    assert DiscoveredToken() == found[-1]
    assert len(set(found)) == 3
    assert [one.get() for one in found] == ["of-the-session", "first", "second"]
    assert "second" not in repr(found)
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens.os.geteuid", lambda: 2**31 - 7)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "named"))
    monkeypatch.delenv("BEARER_TOKEN")
    of_another = DiscoveredToken()
    monkeypatch.undo()
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "named"))
    assert DiscoveredToken() != of_another


def test_a_folder_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_RUNTIME_DIR after ``su``."""
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens.os.geteuid", lambda: 2**31 - 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    real = os.stat

    def closed(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", closed)
    with pytest.raises(errors.ConfigurationError, match="no bearer token"):
        DiscoveredToken().get()


def test_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may lay one could send another secret of ours to a cloud."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"bt_u{os.geteuid()}").symlink_to(token_file(tmp_path / "key", "secret-word"))
    with pytest.raises(errors.ConfigurationError, match="it is a link") as caught:
        DiscoveredToken().get()
    assert "secret-word" not in str(caught.value)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / f"bt_u{os.geteuid()}"))
    assert DiscoveredToken().get() == "secret-word"  # that one we have named ourselves


def test_a_rotated_token_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = token_file(tmp_path / "named", "first")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(path))
    giver = DiscoveredToken()
    assert giver.get() == "first"
    path.write_text("second")
    assert giver.get() == "second"


def test_a_named_file_that_is_missing_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    token_file(tmp_path / f"bt_u{os.geteuid()}", "another")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(errors.ConfigurationError, match="missing"):
        DiscoveredToken().get()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    token_file(tmp_path / f"bt_u{os.geteuid()}", "secret-word", 0o644)
    with pytest.raises(errors.ConfigurationError, match="chmod 600") as caught:
        DiscoveredToken().get()
    assert "secret-word" not in str(caught.value)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = token_file(tmp_path / f"bt_u{os.geteuid()}", "planted")
    real = os.fstat

    def of_another(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[stat.ST_UID] += 1
        return os.stat_result(fields)

    monkeypatch.setattr("rucio_cs3.cs3.login.secret.os.fstat", of_another)
    with pytest.raises(errors.ConfigurationError, match=f"{path} belongs to another user"):
        DiscoveredToken().get()


def test_no_token_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user whose file in /tmp nobody has made.
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens.os.geteuid", lambda: 2**31 - 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(errors.ConfigurationError, match=r"no bearer token.*BEARER_TOKEN_FILE.*htgettoken"):
        DiscoveredToken().get()


def test_a_command_gives_a_token_without_a_shell() -> None:
    assert CommandToken(("echo", "a$HOME;b")).get() == "a$HOME;b"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("no-such-program-of-ours",), "no-such-program-of-ours, .* cannot be run: No such file"),
        (("true",), "what true wrote is no bearer token"),
        (("echo", "two words"), "what echo wrote is no bearer token"),
        (("printf", "\\377"), "what printf wrote is no bearer token"),
        (("head", "-c", "20000", "/dev/zero"), "what head wrote is no bearer token"),
    ],
)
def test_a_command_that_gives_none(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        CommandToken(command).get()
    assert "secret-word" not in str(caught.value)


def test_a_command_that_fails() -> None:
    """It may be for a moment: its agent's issuer is away, say."""
    with pytest.raises(errors.Unavailable, match=r"sh, .* ended with code 3; run it by hand") as caught:
        CommandToken(("sh", "-c", "echo secret-word >&2; exit 3")).get()
    assert caught.value.retryable
    assert "secret-word" not in str(caught.value)


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens._COMMAND_S", 0.2)
    with pytest.raises(errors.Unavailable, match="sleep, which gives the token, took over"):
        CommandToken(("sleep", "60")).get()


@pytest.mark.parametrize("text", ["", "a b", "a\nX-Injected: 1", "é", "a" * 20_000, "\x7f"])
def test_what_no_header_could_carry_is_no_token(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="the place is no bearer token"):
        checked(text, "the place")
