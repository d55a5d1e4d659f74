"""docs/monitoring.md has the options, keys, fields and metrics that the code has."""

from __future__ import annotations

import configparser
import logging
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from rucio_cs3.agent import transfer_log
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.listing.entries import Count, Listing, Stage, Transfer
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode
from tests.unit.test_docs import DOCS, blocks, rows, section

PAGE = DOCS / "monitoring.md"
NOW = datetime(2024, 5, 1, 10)


def tables(heading: str) -> list[list[list[str]]]:
    """All tables below a heading."""
    text, found = "\n" + section(PAGE, heading), []
    while "\n|" in text:
        found.append(rows(text))
        text = "\n" + text[text.index("\n|") + 1 :].partition("\n\n")[2]
    return found


@pytest.mark.skipif(find_spec("rucio") is None, reason="neither Rucio wheel is installed")
def test_states_and_options() -> None:
    from rucio_cs3.cli.transfers import command

    states, options = tables("rucio-cs3 transfers")[:2]
    assert [row[0] for row in states] == [stage.value for stage in Stage]
    in_code = {option.opts[-1]: option for option in command.params if isinstance(option, click.Option)}
    in_code = {max(option.opts, key=len): option for option in in_code.values()}
    told = {row[0]: row[2] for row in options}
    assert told.keys() == in_code.keys()
    for name in ("--limit", "--minutes"):
        assert told[name] == str(in_code[name].default)


def test_keys_of_the_json() -> None:
    transfer = Transfer(
        stage=Stage.QUEUED, request_id="1", scope="s", name="n", source=None, destination="B", size_bytes=1
    )
    listing = Listing(at=NOW, transfers=[transfer], counts={stage: Count(number=0) for stage in Stage})
    told, of_transfer = tables("JSON")
    made = listing.as_dict()
    assert [row[0] for row in told] == list(made)
    assert [row[0] for row in of_transfer] == list(made["transfers"][0])
    (summary,) = [row[1] for row in told if row[0] == "summary"]
    for key in made["summary"].keys() - {stage.value for stage in Stage}:
        assert f"{key}:" in summary


def test_fields_of_the_log() -> None:
    noted: list[dict[str, object]] = []

    def note(_level: int, _message: str, *_arguments: object, extra: dict[str, dict[str, object]]) -> None:
        noted.append(extra["transfer"])

    subject = Subject(
        request_id="1", scope="s", name="n", size_bytes=1, source="A", destination="B", source_url="a",
        destination_url="b",
    )  # fmt: skip
    transfer_log.began(note, subject, Mode.PULL)
    transfer_log.ended(note, subject, Outcome(state=State.DONE), 1.0)
    began, ended = noted
    (told,) = tables("Log")
    assert {row[0] for row in told} == ended.keys()
    assert {row[0] for row in told if row[1] == "both"} == began.keys()
    assert {row[1] for row in told} == {"both", "ended"}


def test_configuration_of_the_log_is_the_docstrings() -> None:
    (told,) = [code for code in blocks(PAGE, "ini") if "logjson" in code]
    in_code = (transfer_log.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    assert [line.strip() for line in in_code.splitlines()] == told.splitlines()
    parser = configparser.ConfigParser()
    parser.read_string(told)
    # What Rucio gives to Python's formatter, to which these are names of attributes.
    record = logging.LogRecord("x", logging.INFO, "x", 1, "message", None, None)
    record.transfer = {"event": "began"}
    assert "message {'event': 'began'}" in logging.Formatter(parser["common"]["logformat"]).format(record)


def test_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("rucio") is None or find_spec("rucio.core") is None:
        pytest.skip("the Rucio server is not installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from prometheus_client import REGISTRY

    from rucio_cs3.agent import metrics

    metrics.finished(Outcome(state=State.FAILED, mode=Mode.PULL), 1, 1.0)
    metrics.finished(Outcome(state=State.DONE, mode=Mode.PULL, copied=True), 1, 1.0)
    in_code = {}
    for family in REGISTRY.collect():
        if family.name.startswith("rucio_cs3_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = set().union(*(sample.labels for sample in family.samples)) - {"le"}
            in_code[name] = (family.type, labels)
    (told,) = tables("Metrics")
    assert {row[0]: (row[1], set(filter(None, row[2].split(", ")))) for row in told} == in_code
    # And alerts speak of no other.
    for word in set("".join(blocks(PAGE, "yaml")).replace("(", " ").replace("{", " ").replace("[", " ").split()):
        assert not word.startswith("rucio_cs3_") or word.rstrip(")") in in_code
