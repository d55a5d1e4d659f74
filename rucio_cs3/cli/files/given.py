"""What all commands on files are given: places, and the options that mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place

F = TypeVar("F", bound=Callable[..., object])

rse_option = click.option("--rse", metavar="NAME", help="The cloud of all places here, which may then be paths alone.")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object in each line.")

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files that are there.")

parallel_option = click.option(
    "--parallel",
    "threads",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Files at a time.",
)


def place(text: str, rse: str | None) -> Place:
    """The place that somebody typed.

    :raises CS3Error: see :func:`rucio_cs3.places.find`.
    """
    from rucio_cs3 import places

    return places.find(text, rse=rse)


def remote_name(place: Place) -> str:
    """The last part of a place's path.

    :raises click.UsageError: for the root, which has none.
    """
    if not place.reference.name:
        raise click.UsageError(f"{place.shown} is a root and has no name; give the name of a file")
    return place.reference.name


def into_folder(text: str, destination: Place, *, several: bool) -> bool:
    """Whether what is put at a destination goes into it, as a folder that is there, or that a slash at the end says
    is to be.

    :param text: as it was typed.
    :raises click.UsageError: for several things and one name.
    """
    if text.endswith(("/", ":")):
        return True
    from rucio_cs3.files import looks

    there = looks.look(destination.storage, destination.reference)
    is_folder = there is not None and there.is_directory
    if several and not is_folder:
        raise click.UsageError(f"{destination.shown} is no folder; end it with a slash to have it made")
    return is_folder


class Each:
    """Several places, one after the other: a failure of one is said, and the others have their turn."""

    def __init__(self, texts: Sequence[str], rse: str | None) -> None:
        self._texts = texts
        self._rse = rse
        self._failed = 0
        self._place: Place | None = None

    def __iter__(self) -> Iterator[Place]:
        for text in self._texts:
            self._place = None
            with self.said():
                self._place = place(text, self._rse)
                yield self._place

    @contextmanager
    def said(self) -> Iterator[None]:
        """Failures of the block are printed, and counted."""
        try:
            yield
        except errors.CS3Error as error:
            self.say(error)

    def say(self, error: errors.CS3Error) -> None:
        self._failed += 1
        click.echo(f"Error: {sentence(error, self._place)}", err=True)

    def end(self) -> None:
        """
        :raises SystemExit: with exit code 1, when anything failed.
        """
        if self._failed:
            raise SystemExit(1)


def sentence(error: errors.CS3Error, place: Place | None = None) -> str:
    """An error as people are told of it.

    :param place: what was asked for; where it is not there, it is called as people call it.
    """
    text = str(error)
    if place is not None and isinstance(error, errors.NotFound) and error.target == str(place.reference):
        text = f"{place.shown} is not there: {text.removeprefix(f'{error.operation} {error.target}: ')}"
    return printable(text)
