"""The error tree: total tables, texts that stand alone, and exceptions that survive a trip between processes."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import grpc
import pytest
from cs3.rpc.v1beta1 import code_pb2

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.errors import CS3Error


def tree(kind: type[CS3Error]) -> list[type[CS3Error]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


# Those of transfers are below it, too; whether they are loaded depends on the other tests.
TREE = [kind for kind in tree(CS3Error) if kind.__module__ == errors.__name__]


def test_every_cs3_code_but_ok_has_an_error() -> None:
    assert len(code_pb2.Code.keys()) == 22
    assert set(errors.CS3_CODES) == set(code_pb2.Code.keys()) - {"CODE_OK"}
    for name in errors.CS3_CODES:
        assert errors.for_cs3_code(name) is errors.CS3_CODES[name]


def test_every_grpc_status_but_ok_has_an_error() -> None:
    assert set(errors.GRPC_STATUSES) == {status.name for status in grpc.StatusCode} - {"OK"}
    for name in errors.GRPC_STATUSES:
        assert errors.for_grpc_status(name) is errors.GRPC_STATUSES[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CODE_NOT_FOUND", errors.NotFound),
        ("CODE_ALREADY_EXISTS", errors.AlreadyExists),
        ("CODE_PERMISSION_DENIED", errors.AccessDenied),
        ("CODE_UNAUTHENTICATED", errors.Unauthenticated),
        ("CODE_INSUFFICIENT_STORAGE", errors.NoSpaceLeft),
        ("CODE_LOCKED", errors.Locked),
        ("CODE_TOO_EARLY", errors.TooEarly),
        ("CODE_INVALID", errors.ProtocolViolation),
        ("CODE_REDIRECTION", errors.Unsupported),
        ("CODE_4711", errors.UnknownCode),
        ("", errors.UnknownCode),
    ],
)
def test_cs3_codes_that_matter(name: str, kind: type[CS3Error]) -> None:
    assert errors.for_cs3_code(name) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NOT_FOUND", errors.ServerFault),
        ("PERMISSION_DENIED", errors.Unauthenticated),
        ("UNAVAILABLE", errors.Unavailable),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("UNIMPLEMENTED", errors.Unsupported),
        ("A_NEW_ONE", errors.UnknownCode),
    ],
)
def test_grpc_statuses_that_matter(name: str, kind: type[CS3Error]) -> None:
    assert errors.for_grpc_status(name) is kind


def test_not_found_comes_from_few_codes_only() -> None:
    """Rucio's reaper takes it for "deleted"."""
    found = [name for name, kind in {**errors.CS3_CODES, **errors.GRPC_STATUSES}.items() if kind is errors.NotFound]
    assert found == ["CODE_NOT_FOUND"]
    assert [status for status in range(300, 600) if errors.for_http_status(status) is errors.NotFound] == [404, 410]


@pytest.mark.parametrize("status", [*range(300, 600), -1, 0, 99, 100, 206, 299, 600, 999, 10**9])
def test_every_http_status_has_an_error(status: int) -> None:
    kind = errors.for_http_status(status)
    assert issubclass(kind, CS3Error)
    if status in errors.HTTP_STATUSES:
        assert kind is errors.HTTP_STATUSES[status]
    elif 300 <= status < 400:
        assert kind is errors.ProtocolViolation
    elif 400 <= status < 500:
        assert kind is errors.InvalidRequest
    elif 500 <= status < 600:
        assert kind is errors.ServerFault
    else:
        assert kind is errors.UnknownCode


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, errors.ProtocolViolation),
        (401, errors.Unauthenticated),
        (403, errors.AccessDenied),
        (409, errors.PreconditionFailed),
        (412, errors.PreconditionFailed),
        (413, errors.NoSpaceLeft),
        (418, errors.InvalidRequest),
        (419, errors.ChecksumMismatch),
        (423, errors.Locked),
        (425, errors.TooEarly),
        (429, errors.Throttled),
        (500, errors.ServerFault),
        (503, errors.Unavailable),
        (507, errors.NoSpaceLeft),
        (599, errors.ServerFault),
    ],
)
def test_http_statuses_that_matter(status: int, kind: type[CS3Error]) -> None:
    assert errors.for_http_status(status) is kind


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: str(kind.__name__))
def test_an_error_survives_pickle_and_copy(kind: type[CS3Error]) -> None:
    fields: dict[str, Any] = {"operation": "Stat", "target": "/a/ä", "code": "CODE_X", "trace": "t1"}
    for retryable in (None, True, False):
        error = kind("it broke", **fields, retryable=retryable)
        for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(other) is kind
            assert str(other) == str(error)
            assert vars(other) == vars(error)
            assert other.retryable == (kind.retryable_by_default if retryable is None else retryable)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: str(kind.__name__))
def test_an_error_is_no_oserror(kind: type[CS3Error]) -> None:
    assert not issubclass(kind, OSError)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "it broke"),
        ({"operation": "Stat"}, "Stat: it broke"),
        ({"target": "/a"}, "/a: it broke"),
        ({"operation": "Stat", "target": "/a"}, "Stat /a: it broke"),
        ({"code": "HTTP 500"}, "it broke (HTTP 500)"),
        ({"trace": "t1"}, "it broke (trace t1)"),
        (
            {"operation": "PUT", "target": "/a", "code": "HTTP 500", "trace": "t1"},
            "PUT /a: it broke (HTTP 500, trace t1)",
        ),
    ],
)
def test_the_text_stands_alone(fields: dict[str, Any], text: str) -> None:
    assert str(CS3Error("it broke", **fields)) == text


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"^\s*[|+ -]*\+-- (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(kind.__name__ for kind in TREE[1:])


def test_what_may_be_tried_again() -> None:
    assert {kind.__name__ for kind in TREE if kind.retryable_by_default} == {
        "Locked", "TooEarly", "StillProcessing", "Throttled", "Unavailable", "DeadlineExceeded", "TransferInterrupted",
    }  # fmt: skip
