"""The two lines about a transfer: good sentences, and the same as data through Rucio's own formatter."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.agent import transfer_log
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.cs3 import errors
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode

SUBJECT = Subject(
    request_id="b1946ac92492d2347c6235b4d2611184",
    scope="user.alice",
    name="run7 %s.root",
    size_bytes=4_200_000_000,
    source="CERN",
    destination="PSI",
    source_url="davs://cern.test/x/run7%20%25s.root",
    destination_url="davs://psi.test/x/run7%20%25s.root",
    activity="User",
    rule_id="d41d8cd98f00b204e9800998ecf8427e",
    attempt=1,
)
FULL = errors.NoSpaceLeft("the quota is used up", operation="COPY", target="/x", code="HTTP 507", trace="4711aa")

COMMON = {
    "request_id": SUBJECT.request_id,
    "scope": "user.alice",
    "name": "run7 %s.root",
    "bytes": 4_200_000_000,
    "source": "CERN",
    "destination": "PSI",
    "source_url": SUBJECT.source_url,
    "destination_url": SUBJECT.destination_url,
    "activity": "User",
    "rule_id": SUBJECT.rule_id,
    "attempt": 1,
}
EMPTY = {"reason": None, "error": None, "code": None, "trace": None, "retry_after_s": None}


@pytest.fixture
def logger() -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.getLogger("test_transfer_log")
    handler = Keep()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, records
    logger.removeHandler(handler)


def test_begin(logger: Any) -> None:
    log, records = logger
    transfer_log.began(log.log, SUBJECT, Mode.PULL)
    (record,) = records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        f"{SUBJECT.request_id}: pull of user.alice:run7 %s.root (4.2 GB) begins: "
        f"{SUBJECT.source_url} -> {SUBJECT.destination_url}"
    )
    assert record.transfer == {"event": "began", **COMMON, "mode": "pull"}


@pytest.mark.parametrize(
    ("outcome", "level", "said", "fields"),
    [
        (
            Outcome(state=State.DONE, copied=True, mode=Mode.PUSH),
            logging.INFO,
            "copied and proven by push: 4.2 GB in 35.0 s, 120.0 MB/s",
            {"outcome": "done", "copied": True, "mode": "push", **EMPTY},
        ),
        (
            Outcome(state=State.DONE),
            logging.INFO,
            "was there, and right (4.2 GB)",
            {"outcome": "done", "copied": False, "mode": None, **EMPTY},
        ),
        (
            Outcome(state=State.FAILED, reason=str(FULL), mode=Mode.RELAY, error=FULL),
            logging.ERROR,
            f"failed after 35.0 s: {FULL}",
            {
                "outcome": "failed",
                "copied": False,
                "mode": "relay",
                "reason": str(FULL),
                "retry_after_s": None,
                "error": "NoSpaceLeft",
                "code": "HTTP 507",
                "trace": "4711aa",
            },
        ),
        (
            Outcome(state=State.POSTPONED, reason="too many requests", retry_after_s=30.0),
            logging.WARNING,
            "put off for 30 s: too many requests",
            {**EMPTY, "outcome": "postponed", "copied": False, "mode": None}
            | {"reason": "too many requests", "retry_after_s": 30.0},
        ),
        (
            Outcome(state=State.POSTPONED, reason="the agent stops"),
            logging.WARNING,
            "put off: the agent stops",
            {**EMPTY, "outcome": "postponed", "copied": False, "mode": None, "reason": "the agent stops"},
        ),
        (
            Outcome(state=State.ABANDONED, reason="the request was cancelled"),
            logging.WARNING,
            "abandoned after 35.0 s: the request was cancelled",
            {**EMPTY, "outcome": "abandoned", "copied": False, "mode": None, "reason": "the request was cancelled"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_end(logger: Any, outcome: Outcome, level: int, said: str, fields: dict[str, Any]) -> None:
    log, records = logger
    transfer_log.ended(log.log, SUBJECT, outcome, 35.0)
    (record,) = records
    assert record.levelno == level
    assert record.getMessage() == f"{SUBJECT.request_id}: {said}: user.alice:run7 %s.root, CERN -> PSI"
    assert record.transfer == {"event": "ended", "seconds": 35.0, **COMMON, **fields}


def test_an_empty_file_in_no_time(logger: Any) -> None:
    log, records = logger
    subject = Subject(**{**SUBJECT.__dict__, "size_bytes": 0})
    transfer_log.ended(log.log, subject, Outcome(state=State.DONE, copied=True, mode=Mode.PULL), 0.0)
    assert "0 B in 0.0 s:" in records[0].getMessage()


@pytest.fixture
def rucio_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rucio's logging module, set up as its configuration would by the lines that the module's docstring has."""
    if find_spec("rucio") is None:
        pytest.skip("neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    lines = (transfer_log.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    configure(tmp_path, monkeypatch, more="\n".join(line.strip() for line in lines.splitlines()))
    from rucio.common import logging as rucio_logging

    return rucio_logging


# Rucio's own, from Python 3.12 on.
@pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcfromtimestamp\(\) is deprecated:DeprecationWarning")
def test_rucios_formatter_writes_the_fields_as_json(rucio_logging: Any, logger: Any) -> None:
    log, records = logger
    # As Rucio's heartbeat decorates the logger of a daemon.
    decorated = rucio_logging.formatted_logger(log.log, "[0/1]: %s")
    transfer_log.ended(decorated, SUBJECT, Outcome(state=State.FAILED, reason=str(FULL), error=FULL), 1.5)
    log.info("something else")
    formatter = rucio_logging.rucio_log_formatter(process_name="rucio-cs3-agent")
    line, other = (json.loads(formatter.format(record)) for record in records)
    assert line["transfer"] == records[0].transfer
    assert line["transfer"]["code"] == "HTTP 507"
    assert line["message"].startswith("[0/1]: b1946ac92492d2347c6235b4d2611184: failed after 1.5 s")
    assert line["log"]["level"] == "ERROR"
    assert other["transfer"] is None
