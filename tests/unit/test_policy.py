"""What register() does to Rucio's tables of schemes; the transfertool needs real processes, see tests/rucio."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

constants = pytest.importorskip("rucio.common.constants", reason="neither Rucio wheel is installed")

from rucio_cs3 import policy  # noqa: E402
from rucio_cs3 import register as register_of_the_package  # noqa: E402
from rucio_cs3.cs3.reference import SCHEMES  # noqa: E402


def finders() -> list[object]:
    return [finder for finder in sys.meta_path if type(finder).__name__ == "_TransferFinder"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    schemes, scheme_map = list(constants.SUPPORTED_PROTOCOLS), {k: list(v) for k, v in policy._scheme_map().items()}
    meta_path = list(sys.meta_path)
    yield
    constants.SUPPORTED_PROTOCOLS[:] = schemes
    policy._scheme_map().clear()
    policy._scheme_map().update(scheme_map)
    sys.meta_path[:] = meta_path


def test_schemes_are_added_in_place_and_once() -> None:
    known = constants.SUPPORTED_PROTOCOLS
    for scheme in policy.NEW_SCHEMES:
        while scheme in known:
            known.remove(scheme)
    assert not policy.registered()["schemes"]
    policy.register()
    policy.register()
    register_of_the_package()
    assert constants.SUPPORTED_PROTOCOLS is known
    assert [known.count(scheme) for scheme in SCHEMES] == [1] * len(SCHEMES)
    assert policy.registered()["schemes"]


@pytest.mark.parametrize("one", SCHEMES)
@pytest.mark.parametrize("other", SCHEMES)
def test_schemes_match_when_both_or_neither_use_tls(one: str, other: str) -> None:
    policy._scheme_map().clear()
    assert not policy.registered()["scheme_map"]
    policy.register()
    assert (other in policy._scheme_map()[one]) == (SCHEMES[one] == SCHEMES[other])
    assert policy.registered()["scheme_map"]


def test_what_rucio_maps_stays() -> None:
    policy._scheme_map()["davs"] = ["root"]
    policy.register()
    assert policy._scheme_map()["davs"][0] == "root"


def test_many_threads_register_once() -> None:
    for scheme in policy.NEW_SCHEMES:
        constants.SUPPORTED_PROTOCOLS.remove(scheme)
    for finder in finders():
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(policy.register) for _ in range(64)]:
            done.result()
    assert [constants.SUPPORTED_PROTOCOLS.count(scheme) for scheme in policy.NEW_SCHEMES] == [1, 1, 1]
    assert len(finders()) == 1


def test_only_one_module_is_looked_for() -> None:
    finder = policy._TransferFinder()
    assert finder.find_spec("rucio.core.request", None) is None
    assert finder.find_spec("transfer", None) is None


def test_module_being_loaded_is_watched_and_one_without_the_table_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loading = ModuleType("rucio.core.transfer")
    loading.__spec__ = ModuleSpec("rucio.core.transfer", None)
    monkeypatch.setitem(sys.modules, "rucio.core.transfer", loading)
    policy.register()
    assert type(loading) is ModuleType  # loaded, but a Rucio that has moved the table
    loading.__spec__._initializing = True  # type: ignore[attr-defined]
    policy.register()
    assert type(loading) is policy._PartialTransferModule
    loading.something = 1  # type: ignore[attr-defined]
    assert loading.something == 1
    assert type(loading) is policy._PartialTransferModule
    with caplog.at_level(logging.ERROR):
        policy._add_transfertool({})
    assert "not registered" in caplog.text
    assert policy.registered()["transfertool"] is False


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("Unable to load schema module rucio_cs3.policy.schema from policy package, falling back to generic", False),
        ("Unable to load permission module rucio_cs3.policy.permission from policy package, falling back", False),
        ("Unable to load schema module site_policy.schema from policy package, falling back to generic", True),
        ("Unable to find policy package rucio_cs3.policy", True),
    ],
)
def test_only_the_expected_warning_is_dropped(message: str, passes: bool) -> None:
    record = logging.LogRecord("policy", logging.WARNING, __file__, 1, message, None, None)
    assert bool(logging.getLogger("policy").filter(record)) == passes
