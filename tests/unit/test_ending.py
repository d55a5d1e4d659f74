"""What becomes of whatever ends a command: at most one line, and the exit code of it."""

from __future__ import annotations

import click
import pytest

from rucio_cs3.cli.ending import Interrupted, PipeClosed, ending_well, past_click
from rucio_cs3.cs3 import errors


def aborted_by(cause: BaseException) -> BaseException:
    """As click's questions do it."""
    try:
        try:
            raise cause
        except BaseException:
            raise click.Abort from None
    except click.Abort as abort:
        return abort


def exit_of_rich() -> BaseException:
    try:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904  # as rich does it
    except SystemExit as exc:
        return exc


def rucios() -> Exception:
    exceptions = pytest.importorskip("rucio.common.exception", reason="neither Rucio wheel is installed")
    error: Exception = exceptions.CannotAuthenticate("no\n\tway")
    return error


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (lambda: errors.NotFound("nothing", target="TEST:x"), 1, "Error: TEST:x: nothing\n"),
        (lambda: click.ClickException("wrong"), 1, "Error: wrong\n"),
        (lambda: click.UsageError("wrong"), 2, "Error: wrong\n"),
        (lambda: KeyboardInterrupt(), 130, "Interrupted\n"),
        (lambda: Interrupted("3 files copied"), 130, "Interrupted: 3 files copied\n"),
        (lambda: aborted_by(KeyboardInterrupt()), 130, "Interrupted\n"),
        (lambda: aborted_by(EOFError()), 1, "Error: nobody has answered\n"),
        (lambda: BrokenPipeError(32, "Broken pipe"), 141, ""),
        (lambda: PipeClosed(), 141, ""),
        (exit_of_rich, 141, ""),
        (lambda: SystemExit(3), 3, ""),
        (lambda: PermissionError(13, "Permission denied", "a\x1bb"), 1, "Error: a\ufffdb: Permission denied\n"),
    ],
)
def test_endings(made: object, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(made)
    with pytest.raises(SystemExit) as caught, ending_well():
        raise made()
    assert (caught.value.code, capsys.readouterr()) == (code, ("", said))


def test_rucios_words_become_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, ending_well():
        raise rucios()
    shown = capsys.readouterr().err
    assert caught.value.code == 1
    assert shown.startswith("Error: Rucio: ")
    assert len(shown.splitlines()) == 1
    assert "no way" in shown


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), ending_well():
        raise ZeroDivisionError


@pytest.mark.parametrize(("cause", "kind"), [(KeyboardInterrupt("x"), Interrupted), (BrokenPipeError(), PipeClosed)])
def test_click_does_not_see_them(cause: BaseException, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, past_click():
        raise cause
    assert str(caught.value) == str(cause)
