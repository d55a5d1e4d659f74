"""``rucio-cs3 doctor``: what an endpoint can do, by trying, and what is to be done where it cannot.

Reads options, shows, and ends with the right code; what is tried is in :mod:`rucio_cs3.doctor.examination`.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

from rucio_cs3.cli.files.shown import print_json

if TYPE_CHECKING:
    from rucio_cs3.doctor.examination import Examination
    from rucio_cs3.doctor.findings import Finding
    from rucio_cs3.doctor.subjects import Subject

#: Width of what is written into a file or a pipe, in characters: nobody folds lines there.
_PIPE_WIDTH = 400

#: Longest wait for Rucio to say what is to be examined, in seconds.
_FIND_S = 30.0

#: Longest waits at the end, in seconds: for checks that may still write (longer than the endpoint's own waits, see
#: doctor.subjects.PATIENCE), and for the removal.
_SETTLE_S = 15.0
_REMOVAL_S = 20.0

#: How often a signal is looked for meanwhile, in seconds.
_LOOK_S = 0.1


def _settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Mapping[str, str]:
    from rucio_cs3.settings import SETTINGS

    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or key not in SETTINGS:
            raise click.BadParameter(f"{value!r} is no KEY=VALUE with a KEY of {', '.join(SETTINGS)}")
        found[key] = text
    return found


@click.command(name="doctor")
@click.argument("name", metavar="RSE|NAME|URL")
@click.option("--rse", metavar="NAME", help="The RSE or cloud that a URL is at, where several could be.")
@click.option("--read-only", is_flag=True, help="Write nothing at the endpoint; what would is not tried.")
@click.option("--rse-name", metavar="NAME", help="Print the commands that make it an RSE of this name.")
@click.option(
    "--set",
    "given",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_settings,
    help="A setting (cs3_...) of a URL that stands nowhere yet; may be given several times.",
)
@click.option("--login", metavar="USER", help="Log in at such a URL as this user; the password is asked for.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    name: str,
    rse: str | None,
    read_only: bool,
    rse_name: str | None,
    given: Mapping[str, str],
    login: str | None,
    as_json: bool,
) -> None:
    """Try what an endpoint can do, say what is to be done, and print the commands that make it an RSE.

    It writes small files in one hidden folder of its own, below the folder that is examined, and removes that.

    Exit code: 0 all is well, 3 something is weak, 4 something is broken; 1 nothing could be examined, 2 wrong usage.

    \b
    Example:
      rucio-cs3 doctor CERNBOX
      rucio-cs3 doctor CERNBOX --read-only --json | jq '.checks[] | select(.status == "broken")'
      rucio-cs3 doctor https://cernbox.example.org/remote.php/webdav/eos/user/j/jdoe/rucio \\
          --set cs3_gateway=cernbox.example.org:9142 --login jdoe --rse-name CERNBOX
    """
    from rucio_cs3 import clouds
    from rucio_cs3.cli.doctor_table import ending, growing, plain, rows
    from rucio_cs3.doctor import set_up, subjects
    from rucio_cs3.doctor.checks import all_checks
    from rucio_cs3.doctor.deadlines import within
    from rucio_cs3.doctor.examination import Examination
    from rucio_cs3.doctor.report import Report

    is_url = "://" in name
    if rse is not None and not is_url:
        raise click.UsageError("--rse goes with a URL")
    if (given or login is not None) and not is_url:
        raise click.UsageError("--set and --login go with a URL")
    if rse is not None and (given or login is not None):
        raise click.UsageError("--rse names a cloud that has its settings and login: leave --set and --login out")
    clouds.refuse_userinfo(name, "the URL")
    values = dict(given)
    if login is not None:
        values |= {"username": login, "password": click.prompt(f"Password of {login}", hide_input=True, err=True)}
    subject = within(_FIND_S, "Rucio", lambda: subjects.find(name, rse=rse, given=values))
    checks = all_checks(subject, read_only=read_only)
    names = [check.name for check in checks]
    console = Console(highlight=False)
    if console.is_terminal:
        # Of one that is called dumb rich believes that it has 80 columns.
        console.size = shutil.get_terminal_size()
    else:
        console.width = _PIPE_WIDTH
    began = time.monotonic()
    with (
        _quiet(),
        contextlib.closing(subject),
        _Signals() as signals,
        _shown(console, live=not as_json) as live,
    ):
        examination = Examination(
            subject,
            checks,
            read_only=read_only,
            changed=lambda found: live(growing(names, found, width=console.width, height=console.height)),
        )
        left = _run(examination, subject, signals)
    found = {check.name: examination.found[check.name] for check in checks}
    report = Report(
        name=name,
        findings=found,
        left=left,
        commands=_commands(subject, rse_name, found, set_up.lines),
        seconds=time.monotonic() - began,
    )
    if as_json:
        print_json(report.as_dict())
    else:
        if console.is_terminal:
            console.print(rows(names, found, width=console.width))
        else:
            click.echo(plain(names, found))
        console.print(ending(report))
        if report.commands:
            # As they are: a shell is to read them.
            click.echo("\n" + "\n".join(report.commands))
    sys.exit(report.verdict.exit_code)


def _commands(subject: Subject, rse_name: str | None, found: Mapping[str, Finding], lines: Any) -> list[str]:
    name = rse_name or (subject.name if subject.rse is not None else None)
    if name is None:
        return []
    account = None
    with contextlib.suppress(Exception):  # no Rucio here, or none that is set up: the line is left out
        from rucio_cs3.doctor.rucio_words import Rucio

        account = Rucio.account()
    return lines(subject, name, found, account=account)  # type: ignore[no-any-return]


def _run(examination: Examination[Subject], subject: Subject, signals: _Signals) -> list[str]:
    """Make all checks, and remove what they wrote, whatever ends them.

    :returns: what is left, for people.
    """
    from rucio_cs3.doctor.deadlines import begin

    interruption: BaseException | None = None
    try:
        examination.run()
        signals.hold()
    except BaseException as exc:  # Ctrl-C, too: first nothing may stay
        signals.hold()
        interruption = exc
    left: list[str] = []
    removal = begin("doctor-removal", lambda: _remove(examination, subject))
    until = time.monotonic() + _SETTLE_S + _REMOVAL_S
    # Who asks twice does not want to wait.
    while wait([removal], _LOOK_S).not_done and time.monotonic() < until and not signals.asked_again:
        pass
    if removal.done():
        left = removal.result()
    elif subject.scratch is not None:
        left = [f"{subject.scratch.folder} (the server does not answer)"]
    interruption = interruption or signals.held
    if interruption is not None:
        for one in left:
            click.echo(f"could not be removed: {one}", err=True)
        raise interruption
    return left


def _remove(examination: Examination[Subject], subject: Subject) -> list[str]:
    """Remove what was written, once nobody writes any more.

    :returns: what is left, for people.
    """
    if subject.scratch is not None:
        subject.scratch.end()
    settled = examination.settle(_SETTLE_S)
    # Not before: the folder may have been on its way.
    if subject.scratch is None:
        return []
    left = subject.scratch.remove()
    if not settled and examination.settle(_REMOVAL_S):
        left = subject.scratch.remove()
    return left


class _Signals:
    """Ctrl-C and SIGTERM: they end the examination, and after :meth:`hold` they are only taken note of, so that
    nothing stays behind. In another thread than the main one it does nothing.
    """

    def __init__(self) -> None:
        #: What is to be raised in the end, of a signal that came after :meth:`hold`.
        self.held: BaseException | None = None
        #: Whether somebody has asked twice.
        self.asked_again = False
        self._asked = False
        self._holds = False
        self._before: dict[int, Any] = {}

    def hold(self) -> None:
        """Raise nothing any more."""
        self._holds = True

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell makes what it starts in the background deaf to Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _: object) -> None:
        self.asked_again, self._asked = self._asked, True
        ending = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if not self._holds:
            raise ending
        self.held = self.held or ending


@contextlib.contextmanager
def _shown(console: Console, *, live: bool) -> Iterator[Any]:
    """Shows the table while it grows, and takes it away in the end; at a terminal only."""
    if not live or not console.is_terminal or console.is_dumb_terminal:
        yield lambda _: None
        return
    with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="ellipsis") as table:
        try:
            yield lambda renderable: table.update(renderable, refresh=True)
        finally:
            # Rich shows the last state once more, and what has left the screen could not be taken away.
            table.update("")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What is logged and warned about has its row in the table."""
    logger, silent = logging.getLogger("rucio_cs3"), logging.NullHandler()
    propagates = logger.propagate
    logger.addHandler(silent)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(silent)
