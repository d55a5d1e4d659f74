"""How every command ends: what becomes of errors, of Ctrl-C, and of a pipe that nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import click

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors

#: Exit codes of a shell for what a signal ended: 128 and its number.
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM


class Interrupted(Exception):
    """Ctrl-C, as it passes through click, which would make two lines of it.

    :param how_far: for people; may be empty.
    """


class PipeClosed(Exception):
    """Nobody reads the output any more; as it passes through click, which would make a failure of it."""


@contextlib.contextmanager
def past_click() -> Iterator[None]:
    """Let these two out of a block within click."""
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(*exc.args) from exc
    except BrokenPipeError as exc:
        raise PipeClosed from exc


@contextlib.contextmanager
def ending_well() -> Iterator[None]:
    """Turn whatever ends the block into an exit code and at most one line.

    :raises SystemExit: for everything but an error of this program itself, which keeps its traceback.
    """
    try:
        yield
        sys.stdout.flush()
    except click.Abort as exc:
        # At a question: Ctrl-C, or nobody there to answer it.
        if isinstance(exc.__context__, KeyboardInterrupt):
            _interrupted("")
        _fail("Error: nobody has answered", 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.CS3Error as error:
        _fail(f"Error: {error}", 1)
    except (KeyboardInterrupt, Interrupted) as exc:
        _interrupted(str(exc))
    except (BrokenPipeError, PipeClosed):
        _pipe_closed()
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        _fail(f"Error: {printable(where)}{exc.strerror or exc}", 1)
    except Exception as exc:
        # Rucio's, by name: who has no Rucio cannot import them. Anything else is a defect, and keeps its traceback.
        if not type(exc).__module__.startswith("rucio.common.exception"):
            raise
        _fail(f"Error: Rucio: {printable(' '.join(str(exc).split()))}", 1)
    except SystemExit as exc:
        # rich's way to end where nobody reads.
        if isinstance(exc.__context__, BrokenPipeError):
            _pipe_closed()
        raise


def end_on_sigterm() -> None:
    """A command that is told to end removes what it has begun, as at Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def _interrupted(how_far: str) -> None:
    # Behind the ^C that a terminal shows.
    line = "\n" if sys.stderr.isatty() else ""
    _fail(f"{line}Interrupted{': ' if how_far else ''}{how_far}", INTERRUPTED)


def _fail(line: str, code: int) -> None:
    with contextlib.suppress(OSError):
        click.echo(line, err=True)
    sys.exit(code)


def _pipe_closed() -> None:
    # What is left in buffers is written when the interpreter ends, and would be said to fail then.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.isatty():
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
                    continue
                os.dup2(nowhere, stream.fileno())
    sys.exit(PIPE_CLOSED)
