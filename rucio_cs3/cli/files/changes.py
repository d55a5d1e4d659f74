"""What becomes of each place that a command changes: a sentence for a failure; an object for each with ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rucio_cs3.cli.files.given import place, sentence
from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place

#: The outcome of what went wrong, and of what somebody has decided against; as of copies (rucio_cs3.files.outcomes).
FAILED = "failed"
SKIPPED = "skipped"

#: The outcome of a place whose parts have objects of their own: it has none.
IN_PARTS = ""


@dataclass
class Change:
    """One place, and what becomes of it.

    :param place: as it was typed, and how it is shown once it is found.
    :param facts: what else JSON has of it, None while it is not known.
    """

    place: str
    facts: dict[str, Any]
    outcome: str = FAILED
    reason: str | None = None
    found: Place | None = None

    def find(self, rse: str | None) -> Place:
        """The place that was typed.

        :raises CS3Error: see :func:`rucio_cs3.cli.files.given.place`.
        """
        self.found = place(self.place, rse)
        self.place = self.found.shown
        return self.found

    def became(self, outcome: str, reason: str | None = None, **facts: Any) -> None:
        """Say what was done, and what is known of the place."""
        self.outcome, self.reason = outcome, reason
        self.facts.update(facts)


class Changes:
    """Places that are changed one after the other; a failure of one is said, and the others have their turn.

    :param facts: names of what JSON has of each beside place, outcome and reason; every object has all of them.
    """

    def __init__(self, *, as_json: bool, facts: tuple[str, ...]) -> None:
        self._as_json = as_json
        self._facts = facts
        self._failed = False

    @contextmanager
    def of(self, text: str) -> Iterator[Change]:
        """The place that somebody typed; the block changes it, and says so with :meth:`Change.became`."""
        change = Change(text, dict.fromkeys(self._facts))
        try:
            yield change
        except errors.CS3Error as error:
            self._failed = True
            click.echo(f"Error: {sentence(error, change.found)}", err=True)
            change.became(FAILED, str(error))
        if self._as_json and change.outcome != IN_PARTS:
            told = {"place": change.place, "outcome": change.outcome, **change.facts, "reason": change.reason}
            print_json(told)

    def end(self) -> None:
        """
        :raises SystemExit: with exit code 1, when anything failed.
        """
        if self._failed:
            raise SystemExit(1)
