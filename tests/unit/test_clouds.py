"""The clouds file, and what a person's text means with it. RSEs: tests/rucio and tests/unit/test_places.py."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3 import clouds, places
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.providers import BasicProvider
from rucio_cs3.cs3.reference import MountRoot, Reference, SpaceRoot

CERNBOX = """
[cernbox]
url = https://cernbox.test/remote.php/webdav/eos/user/j/j doe
cs3_gateway = cernbox.test:9142
cs3_idle_timeout_s = 7
username = jdoe
password = pass%word
"""
SPACE = """
[space]
url = https://cloud.test:9200/dav/spaces/1a$2b/below
cs3_gateway = cloud.test:9142
token = abc
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "clouds.cfg"
    path.touch(0o600)
    path.write_text(CERNBOX + SPACE)
    monkeypatch.setenv(clouds.CLOUDS_VARIABLE, str(path))
    return path


def test_a_section_is_a_cloud(file: Path) -> None:
    cloud = places.find_cloud("cernbox")
    assert cloud.endpoint.gateway == "cernbox.test:9142"
    assert cloud.endpoint.timeouts.idle_s == 7
    assert cloud.folder == Reference(MountRoot("/"), "eos/user/j/j doe")
    assert isinstance(cloud.provider, BasicProvider)
    assert "pass%word" not in repr(cloud)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("cernbox", "eos/user/j/j doe"),
        ("cernbox:", "eos/user/j/j doe"),
        ("cernbox:a/b:c", "eos/user/j/j doe/a/b:c"),
        ("cernbox:/eos/project/x/", "eos/project/x"),
        ("cernbox:/", ""),
        ("https://cernbox.test/remote.php/webdav/eos/user/j/j%20doe/a%25b", "eos/user/j/j doe/a%b"),
        ("davs://cernbox.test:443/remote.php/webdav/eos/other", "eos/other"),
    ],
)
def test_what_a_text_means(file: Path, text: str, path: str) -> None:
    assert places.find(text).reference == Reference(MountRoot("/"), path)


def test_a_space_has_no_other_paths(file: Path) -> None:
    assert places.find("space:x").reference == Reference(SpaceRoot("1a", "2b"), "below/x")
    with pytest.raises(errors.InvalidReference, match="space: /x is a path of CS3, but this cloud is a space"):
        places.find("space:/x")


def test_a_root_is_not_left(file: Path) -> None:
    file.write_text(f"{CERNBOX}cs3_root = /eos\n")
    assert places.find("cernbox:/eos/x").reference == Reference(MountRoot("/eos"), "x")
    assert places.find("cernbox:/eos").reference == Reference(MountRoot("/eos"))
    for outside in ("/eosx", "/other/eos/x"):
        with pytest.raises(errors.InvalidReference, match="is not below /eos, which is all of this cloud"):
            places.find(f"cernbox:{outside}")


@pytest.mark.parametrize("shown", ["cernbox:", "cernbox:a/b", "cernbox:/eos/user/j/j doe2/a", "space:a"])
def test_what_is_shown_means_the_same_again(file: Path, shown: str) -> None:
    place = places.find(shown)
    assert place.shown == shown
    assert places.find(place.url).reference == place.reference


def test_with_a_name_a_path_will_do(file: Path) -> None:
    assert places.find("a/b", rse="cernbox") == places.find("cernbox:a/b")
    assert places.find("cernbox:a/b", rse="cernbox") == places.find("cernbox:a/b")
    assert places.find("/eos/x", rse="cernbox") == places.find("cernbox:/eos/x")


def test_of_two_at_one_host_the_nearest_is_meant(file: Path) -> None:
    file.write_text(CERNBOX + CERNBOX.replace("[cernbox]", "[deeper]").replace("j doe", "j doe/deep"))
    assert places.find("https://cernbox.test/remote.php/webdav/eos/user/j/j%20doe/deep/x").cloud.name == "deeper"
    assert places.find("https://cernbox.test/remote.php/webdav/eos/user/j/j%20doe/x").cloud.name == "cernbox"


def test_another_section_with_a_mistake_at_the_same_server(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends nothing, and is named where nothing else fits."""
    monkeypatch.setattr(places, "names_of_rses", lambda: iter(()))
    broken = CERNBOX.replace("[cernbox]", "[broken]").replace("cs3_gateway", "gatway")
    url = "https://cernbox.test:443/remote.php/webdav/eos/user/j/j%20doe/x"
    file.write_text(broken + CERNBOX)
    assert places.find(url).cloud.name == "cernbox"
    file.write_text(broken)
    with pytest.raises(errors.ConfigurationError, match=r"section \[broken\] of .*: there is no key gatway"):
        places.find(url)
    # Another port is another server.
    with pytest.raises(errors.ConfigurationError, match=r"no section of .* is below$"):
        places.find(url.replace(":443", ":444"))


def test_a_password_in_a_url_is_refused_and_not_repeated(file: Path) -> None:
    for url in ("https://jdoe:pass%word@cernbox.test/x", "https://[jdoe:pass%word@cernbox.test/x"):
        with pytest.raises(errors.ConfigurationError, match="the URL has a user name or password in it") as caught:
            places.find(url)
        assert "pass%word" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cs3_gateway = cernbox.test:9142\n", ""), "cloud cernbox: setting cs3_gateway is missing"),
        (("cs3_idle_timeout_s = 7", "cs3_idle_timeout_s = -1"), "cloud cernbox: setting cs3_idle_timeout_s is '-1'"),
        (("cs3_idle_timeout_s = 7", "gatway = x"), r"section \[cernbox\] of .*: there is no key gatway"),
        (("username = jdoe\n", ""), r"section \[cernbox\] of .*: username is missing"),
        (("url = https://cernbox.test", "url = "), "url must be the WebDAV URL"),
        (("url = https://", "url = https://["), "url must be the WebDAV URL"),
        (("https://", "https://jdoe:pass%word@"), r"section \[cernbox\] of .*: url has a user name or password in it"),
        (("https://", "https://[jdoe:pass%word@"), r"section \[cernbox\] of .*: url has a user name or password in it"),
        (("[cernbox]", "no section"), "is no configuration file"),
    ],
)
def test_mistakes(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(CERNBOX.replace(*change))
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        places.find("cernbox:x")
    assert "pass%word" not in str(caught.value)


def test_a_password_that_others_can_read_is_refused(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(errors.ConfigurationError, match=r"clouds\.cfg"):
        places.find("cernbox:x")


def test_a_file_that_is_named_must_be_there(file: Path) -> None:
    file.unlink()
    with pytest.raises(errors.ConfigurationError, match=r"RUCIO_CS3_CLOUDS names .*, which is not there"):
        places.find("cernbox:x")


@pytest.mark.parametrize("text", ["", ":x", "/a/b", "a/b:c"])
def test_a_text_without_a_name(file: Path, text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="names no cloud"):
        places.find(text)


def test_what_is_no_rse_has_a_class_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str, _url: str | None) -> clouds.Cloud:
        raise places.NoSuchRSE(f"Rucio knows no RSE {name}")

    monkeypatch.setattr(places, "_of_rse", none)
    with pytest.raises(places.NoSuchRSE) as missing:
        places.find("nowhere:x")
    assert str(missing.value) == f"there is no section [nowhere] in {file}, and Rucio knows no RSE nowhere"
    assert type(pickle.loads(pickle.dumps(missing.value))) is places.NoSuchRSE
    with pytest.raises(places.NoSuchRSE, match=r"^Rucio knows no RSE nowhere$"):
        places.find_rse("nowhere:x")
    for find in (places.find_rse, places.cloud_of_rse):
        with pytest.raises(
            places.NoSuchRSE, match=r"^cernbox is a section of the clouds file, and only an RSE will do"
        ):
            find("cernbox")

    def away(name: str, _url: str | None) -> clouds.Cloud:
        raise errors.ConfigurationError(f"Rucio cannot be asked about RSE {name}")

    # Then nobody knows whether there is one.
    monkeypatch.setattr(places, "_of_rse", away)
    with pytest.raises(errors.ConfigurationError, match=r"^Rucio cannot be asked about RSE cernbox$") as asked:
        places.cloud_of_rse("cernbox")
    assert not isinstance(asked.value, places.NoSuchRSE)


def test_an_rse_is_found_whatever_a_section_of_its_name_says(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = replace(places.find_cloud("cernbox"), name="of Rucio", rse={"rse": "cernbox"})
    monkeypatch.setattr(places, "_of_rse", lambda _name, _url: rse)
    file.write_text("[cernbox]\nthis is = no section\n")
    assert places.cloud_of_rse("cernbox") is rse
    assert places.find_rse("cernbox:a/b").cloud is rse
