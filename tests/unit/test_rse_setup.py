"""RSEs as a file describes them: reading and checking. What Rucio makes of it: tests/rucio/test_rse_apply.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.rse_setup.wanted import DOMAINS, NO_LIMIT, WantedRSE, read

EXAMPLE = Path(__file__).parents[2] / "etc" / "rses.example.yaml"


def wanted(tmp_path: Path, text: str) -> list[WantedRSE]:
    path = tmp_path / "rses.yaml"
    path.write_text(text)
    return read(path)


def test_the_example() -> None:
    cernbox, space = read(EXAMPLE)
    assert cernbox.name == "CERNBOX"
    assert cernbox.protocols is not None
    (protocol,) = cernbox.protocols
    assert protocol.key == ("davs", "cernbox.example.org", 443)
    assert protocol.as_rucio()["domains"] == DOMAINS
    assert protocol.extended_attributes == {"cs3_gateway": "cernbox.example.org:9142"}
    assert cernbox.attributes == {"skip_upload_stat": "True", "cs3_transfer_mode": "auto"}
    assert cernbox.limits == {"root": NO_LIMIT, "jdoe": 500 * 10**9}
    assert (cernbox.distances, space.distances) == ({"SPACE": 1}, {"CERNBOX": 1})
    assert space.protocols is not None
    assert space.protocols[0].impl == "rucio_cs3.protocol.NoRename"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a table of RSEs"),
        ("- a", "must be a table of RSEs"),
        ("A: [", r"is no valid YAML \(line"),
        ("A: 7", "RSE A must be a table"),
        ("A: {protocol: []}", "RSE A: there is no key protocol"),
        ("A: {protocols: [{prefix: /x/}]}", "RSE A: protocol 1: hostname is missing"),
        ("A: {protocols: [{hostname: h, prefix: /x/, port: true}]}", "RSE A: protocol 1: port is of a wrong kind"),
        ("A: {protocols: [{hostname: h, prefix: /x/, portt: 1}]}", "RSE A: protocol 1: there is no key portt"),
        ("A: {protocols: [{hostname: h, prefix: /x/}, {hostname: h, prefix: /y/}]}", "two protocols have the same"),
        ("A: {distances: {B: 0}}", "RSE A: distance to B must be 1 or more"),
        ("A: {limits: {root: much}}", "RSE A: limit of root must be infinity, or bytes such as 500 GB"),
        ("A: {attributes: {tier: null}}", "RSE A: attribute tier must be a text, a number, true or false"),
        ("A: {attributes: {password: geheim}}", "password does not belong here"),
        ("A: {protocols: [{hostname: h, prefix: /x/, settings: {token: geheim}}]}", "token does not belong here"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        wanted(tmp_path, text)
    assert "rses.yaml" in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"rses\.yaml cannot be read: No such file"):
        read(tmp_path / "rses.yaml")


@pytest.mark.parametrize(
    ("text", "limit"), [("infinity", NO_LIMIT), ("7", 7), ("1.5 TB", 1_500_000_000_000), ("2GB", 2_000_000_000)]
)
def test_limits(tmp_path: Path, text: str, limit: int) -> None:
    (rse,) = wanted(tmp_path, f"A: {{limits: {{root: {text}}}}}")
    assert rse.limits == {"root": limit}
