"""The protocol as Rucio sees it: names, meanings of errors, and each operation against embedded clouds."""

from __future__ import annotations

import inspect
import os
import signal
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from tests.unit.rucio_client import configure, connected, protocol_of, rse_info, rse_of  # isort: skip

from rucio.common import exception
from rucio.rse import rsemanager
from rucio.rse.protocols.protocol import RSEProtocol

from rucio_cs3 import rses
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.kept_checksums import KEEP_FROM_BYTES
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.reference import SCHEMES
from rucio_cs3.protocol import UNLIMITED_BYTES, UPLOAD_SUFFIX, Default, NoRename
from rucio_cs3.rucio_exceptions import rucio_exception
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.transfers import ends
from rucio_cs3.transfers import ladder as transfers
from rucio_cs3.transfers.proof import NothingThere

BASE = "davs://cloud.test:443/remote.php/webdav/rucio"
CONTENT = b"physics" * 1000
ADLER32 = f"{zlib.adler32(CONTENT):08x}"


@pytest.fixture(autouse=True)
def _rucio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    configure(tmp_path / "home", monkeypatch)


# -- names -------------------------------------------------------------------------------------------------------

# Name, and how it stands in a PFN.
NAMES = {
    "plain.dat": "plain.dat",
    "with space": "with%20space",
    "100%": "100%25",
    "per%20cent": "per%2520cent",
    "a#b?c": "a%23b%3Fc",
    "a+b&c;d": "a%2Bb%26c%3Bd",
    "a=b,c@d:e": "a%3Db%2Cc%40d%3Ae",
    "~user$1!": "~user$1!",
    "Zürich": "Z%C3%BCrich",
    unicodedata.normalize("NFD", "ü"): "u%CC%88",
    "東京": "%E6%9D%B1%E4%BA%AC",
    "x" * 255: "x" * 255,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_pfn_is_encoded_exactly_once_and_read_back(name: str) -> None:
    protocol = protocol_of(rse_info())
    pfns = protocol.lfns2pfns({"scope": "user.me", "name": name, "path": f"/user/me/{name}"})
    pfn = f"{BASE}/user/me/{NAMES[name]}"
    assert pfns == {f"user.me:{name}": pfn}
    assert protocol.parse_pfns([pfn]) == {
        pfn: {
            "path": "/user/me/",
            "name": name,
            "scheme": "davs",
            "prefix": "/remote.php/webdav/rucio/",
            "port": 443,
            "hostname": "cloud.test",
        }
    }


def test_several_lfns_and_the_deterministic_path() -> None:
    protocol = protocol_of(rse_info())
    pfns = protocol.lfns2pfns([{"scope": "s", "name": "a b"}, {"scope": "user.me", "name": "c"}])
    # Two folders from md5("s:a b") and md5("user.me:c"): Rucio's algorithm "hash".
    assert pfns == {"s:a b": f"{BASE}/s/e2/c7/a%20b", "user.me:c": f"{BASE}/user/me/8d/50/c"}


segments = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..") and len(text.encode()) <= 255
)


@given(st.lists(segments, min_size=1, max_size=4), st.sampled_from(sorted(SCHEMES)))
def test_any_name_survives_its_pfn(names: list[str], scheme: str) -> None:
    protocol = protocol_of(rse_info(scheme=scheme, prefix="/dav/spaces/st-1$sp-2/my%20files/"))
    path = "/".join(names)
    (pfn,) = protocol.lfns2pfns({"scope": "s", "name": path, "path": path}).values()
    assert pfn.isascii()
    assert not set(pfn.partition("://")[2]) & set(" ?#;+&\t\n\"<>'")
    parsed = protocol.parse_pfns(pfn)[pfn]
    assert parsed["path"].lstrip("/") + parsed["name"] == path
    assert parsed["prefix"] == "/dav/spaces/st-1$sp-2/my files/"


@pytest.mark.parametrize(
    ("prefix", "encoded"),
    [
        ("/remote.php/webdav/my folder/", "/remote.php/webdav/my%20folder/"),
        ("/remote.php/webdav/my%20folder/", "/remote.php/webdav/my%20folder/"),
        ("remote.php//webdav/Zürich", "/remote.php/webdav/Z%C3%BCrich/"),
        ("/remote.php/webdav/Z%C3%BCrich/", "/remote.php/webdav/Z%C3%BCrich/"),
        ("/remote.php/webdav/100%25/", "/remote.php/webdav/100%25/"),
        ("/dav/spaces/a-b$c-d/rucio/", "/dav/spaces/a-b$c-d/rucio/"),
        ("/dav/spaces/a-b%24c-d/rucio/", "/dav/spaces/a-b$c-d/rucio/"),
        ("/", "/"),
        ("", "/"),
    ],
)
def test_prefixes_raw_and_encoded(prefix: str, encoded: str) -> None:
    protocol = protocol_of(rse_info(prefix=prefix))
    (pfn,) = protocol.lfns2pfns({"scope": "s", "name": "f", "path": "s/f"}).values()
    assert pfn == f"davs://cloud.test:443{encoded}s/f"
    parsed = protocol.parse_pfns(pfn)[pfn]
    assert (parsed["path"], parsed["name"]) == ("/s/", "f")


@pytest.mark.parametrize(
    ("port", "pfn", "url"),
    [
        (0, "davs://cloud.test:0/remote.php/webdav/rucio/f", "https://cloud.test:443/remote.php/webdav/rucio/f"),
        (443, "davs://cloud.test/remote.php/webdav/rucio/f", "https://cloud.test:443/remote.php/webdav/rucio/f"),
        (
            443,
            "DAVS://CLOUD.test:443/remote.php/webdav/rucio/ä b",
            "https://cloud.test:443/remote.php/webdav/rucio/%C3%A4%20b",
        ),
    ],
)
def test_an_odd_pfn_becomes_a_url_that_all_understand(port: int, pfn: str, url: str) -> None:
    assert protocol_of(rse_info(port=port)).http_url(pfn) == url


def test_the_url_of_a_foreign_pfn_is_refused() -> None:
    with pytest.raises(exception.RSEFileNameNotSupported, match=r"other\.test"):
        protocol_of(rse_info()).http_url("davs://other.test:443/remote.php/webdav/rucio/f")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_and_their_http_url(scheme: str) -> None:
    protocol = protocol_of(rse_info(scheme=scheme, port=8443))
    (pfn,) = protocol.lfns2pfns({"scope": "s", "name": "a b", "path": "s/a b"}).values()
    assert pfn == f"{scheme}://cloud.test:8443/remote.php/webdav/rucio/s/a%20b"
    assert protocol.parse_pfns(pfn)[pfn]["scheme"] == scheme
    plain = "https" if SCHEMES[scheme] else "http"
    assert protocol.http_url(pfn) == f"{plain}://cloud.test:8443/remote.php/webdav/rucio/s/a%20b"


@pytest.mark.parametrize(
    ("port", "pfn"),
    [
        (443, "davs://cloud.test/remote.php/webdav/rucio/f"),
        (443, "davs://cloud.test:0/remote.php/webdav/rucio/f"),
        (443, "cs3s://CLOUD.test:443/remote.php/webdav/rucio/f"),
        (0, "davs://cloud.test:443/remote.php/webdav/rucio/f"),
        (0, "davs://cloud.test/remote.php/webdav//rucio/f"),
        (8443, "https://cloud.test:8443/remote%2Ephp/webdav/rucio/f"),
    ],
)
def test_ports_and_spellings_of_one_place(port: int, pfn: str) -> None:
    parsed = protocol_of(rse_info(port=port)).parse_pfns(pfn)[pfn]
    assert (parsed["path"], parsed["name"], parsed["port"]) == ("/", "f", port)


@pytest.mark.parametrize(
    ("pfn", "reason"),
    [
        ("davs://other.test:443/remote.php/webdav/rucio/f", "other.test"),
        ("davs://cloud.test.evil.test:443/remote.php/webdav/rucio/f", "evil.test"),
        ("davs://cloud.test:444/remote.php/webdav/rucio/f", "444"),
        ("dav://cloud.test:443/remote.php/webdav/rucio/f", "http"),
        ("root://cloud.test:443//remote.php/webdav/rucio/f", "root"),
        ("davs://cloud.test:443/remote.php/webdav/rucio2/f", "outside the prefix"),
        ("davs://cloud.test:443/remote.php/webdav/f", "outside the prefix"),
        ("davs://cloud.test:443/remote.php/webdav/rucio", "outside the prefix"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/../f", r"'\.\.'"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/%2e%2e/f", r"'\.\.'"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/a%2Ff", "%2F"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/f?x=1", "query"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/f#x", "fragment"),
        ("davs://me:secret@cloud.test:443/remote.php/webdav/rucio/f", "user name or password"),
        ("davs://cloud.test:443/remote.php/webdav/rucio/" + "x" * 256, "255 bytes"),
        ("f", "scheme"),
    ],
)
def test_a_pfn_of_somewhere_else_is_refused(pfn: str, reason: str) -> None:
    protocol = protocol_of(rse_info())
    with pytest.raises(exception.RSEFileNameNotSupported, match=reason) as caught:
        protocol.parse_pfns([pfn])
    assert "secret" not in str(caught.value)


def test_rsemanager_makes_and_parses_pfns() -> None:
    info = rse_info()
    pfns = rsemanager.lfns2pfns(info, {"scope": "s", "name": "a b", "path": "s/a b"})
    assert pfns == {"s:a b": f"{BASE}/s/a%20b"}
    assert rsemanager.parse_pfns(info, list(pfns.values()))[pfns["s:a b"]]["name"] == "a b"


# -- the meaning of errors ---------------------------------------------------------------------------------------

DELETED, STRIKE, OTHER = "recorded as deleted", "a strike against the RSE", "tried again in the next cycle"

#: What Rucio's reaper does after each error: only a file that is known to be absent is recorded as deleted, and only
#: a fault of the whole RSE counts against it.
MEANINGS = {
    errors.NotFound: DELETED,
    errors.Unauthenticated: STRIKE,
    errors.Throttled: STRIKE,
    errors.Unavailable: STRIKE,
    errors.DeadlineExceeded: STRIKE,
    errors.CS3Error: OTHER,
    errors.AlreadyExists: OTHER,
    errors.AccessDenied: OTHER,
    errors.InvalidRequest: OTHER,
    errors.InvalidReference: OTHER,
    errors.Unsupported: OTHER,
    errors.PreconditionFailed: OTHER,
    errors.Locked: OTHER,
    errors.TooEarly: OTHER,
    errors.StillProcessing: OTHER,
    errors.NoSpaceLeft: OTHER,
    errors.Cancelled: OTHER,
    transfers.RequestGone: OTHER,
    transfers.ClaimLost: OTHER,
    transfers.Stopping: OTHER,
    ends.NothingToLend: OTHER,
    NothingThere: OTHER,
    errors.ServerFault: OTHER,
    errors.UnknownCode: OTHER,
    errors.ProtocolViolation: OTHER,
    errors.TransferInterrupted: OTHER,
    errors.IntegrityError: OTHER,
    errors.SizeMismatch: OTHER,
    errors.ChecksumMismatch: OTHER,
    errors.LocalError: OTHER,
    errors.LocalNotFound: OTHER,
    errors.LocalChanged: OTHER,
    errors.LocalNoSpaceLeft: OTHER,
    errors.ConfigurationError: OTHER,
}


def all_errors(kind: type[errors.CS3Error] = errors.CS3Error) -> set[type[errors.CS3Error]]:
    if kind.__name__.startswith("_") or kind.__module__.startswith(("rucio_cs3.inventory.", "rucio_cs3.places")):
        return set()  # a module's own, which it catches itself, or one that no protocol comes upon
    return {kind}.union(*(all_errors(one) for one in kind.__subclasses__()))


def reaper_does(error: BaseException) -> str:
    """As rucio/daemons/reaper/reaper.py::delete_from_storage of Rucio 41.5.1."""
    if isinstance(error, exception.SourceNotFound):
        return DELETED
    strikes = (exception.ServiceUnavailable, exception.RSEAccessDenied, exception.ResourceTemporaryUnavailable)
    return STRIKE if isinstance(error, strikes) else OTHER


def test_every_error_has_a_meaning() -> None:
    assert all_errors() == set(MEANINGS)


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: str(kind.__name__))
def test_what_the_reaper_does(kind: type[errors.CS3Error]) -> None:
    error = kind("something happened", operation="Delete", target="/eos/f", code="CODE_X")
    translated = rucio_exception(error)
    assert reaper_does(translated) == MEANINGS[kind]
    assert str(error) in str(translated)


# What a delete answers, how often, and what comes out of the real class.
REFUSALS = [
    ("code:NOT_FOUND", 1, exception.SourceNotFound),
    ("code:PERMISSION_DENIED", 1, exception.AccessDenied),
    ("code:LOCKED", 1, exception.RucioException),
    ("code:TOO_EARLY", 1, exception.RucioException),
    ("code:INTERNAL", 1, exception.RucioException),
    ("code:INVALID", 1, exception.RucioException),
    ("code:FAILED_PRECONDITION", 1, exception.RucioException),
    ("code:UNIMPLEMENTED", 1, exception.RSEOperationNotSupported),
    ("grpc:NOT_FOUND", 1, exception.RucioException),
    ("grpc:UNKNOWN", 1, exception.RucioException),
    ("grpc:RESOURCE_EXHAUSTED", 1, exception.ResourceTemporaryUnavailable),
    ("grpc:UNAVAILABLE", 1, exception.ServiceUnavailable),
    ("code:UNAVAILABLE", 1, exception.ServiceUnavailable),
    ("code:UNAUTHENTICATED", 2, exception.RSEAccessDenied),
    ("grpc:PERMISSION_DENIED", 2, exception.RSEAccessDenied),
]


@pytest.fixture(scope="module")
def v3() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="v3", quota_bytes=50_000_000) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def spaces() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="spaces", behaviour=Behaviour.SPACES) as cloud:
        yield cloud


@pytest.fixture(params=["v3", "spaces"])
def cloud(request: pytest.FixtureRequest) -> Iterator[EmbeddedCloud]:
    chosen: EmbeddedCloud = request.getfixturevalue(request.param)
    yield chosen
    pending = chosen.faults.pending()
    chosen.faults.clear()
    assert pending == []


class Box:
    """A folder of a cloud as an RSE, with its protocol object."""

    def __init__(self, cloud: EmbeddedCloud, folder: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = cloud
        self.folder = folder
        self.local = local
        self._monkeypatch = monkeypatch
        self.protocol = self.connect()

    def connect(self, settings: dict[str, Any] | None = None, **more: Any) -> Default:
        info = rse_of(self.cloud, folder=self.folder, settings=settings, **more)
        return connected(self.cloud, self._monkeypatch, info)

    def pfn(self, name: str) -> str:
        (pfn,) = self.protocol.lfns2pfns({"scope": "s", "name": name, "path": f"s/{name}"}).values()
        return pfn

    def on_disk(self, name: str) -> Path:
        return self.cloud.path_on_disk(f"{self.folder}/s/{name}")

    def source(self, data: bytes = CONTENT) -> Path:
        path = self.local / "source.dat"
        path.write_bytes(data)
        return path

    def put(self, name: str, data: bytes = CONTENT) -> str:
        pfn = self.pfn(name)
        self.protocol.put(str(self.source(data)), pfn)
        return pfn

    def files(self) -> set[str]:
        """All files on the cloud's disk below the prefix, hidden ones included."""
        folder = self.cloud.path_on_disk(self.folder)
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def box(request: pytest.FixtureRequest, cloud: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(cloud, f"box {zlib.crc32(request.node.nodeid.encode()):x} ü", tmp_path, monkeypatch)


@pytest.mark.parametrize(("script", "times", "kind"), REFUSALS)
def test_a_refused_delete(box: Box, script: str, times: int, kind: type[Exception]) -> None:
    pfn = box.put("f")
    box.cloud.faults.add("gateway.Delete", script, times)
    with pytest.raises(exception.RucioException) as caught:
        box.protocol.delete(pfn)
    assert type(caught.value) is kind
    assert box.files() == {"s/f"}


# -- operations --------------------------------------------------------------------------------------------------

NAMES_ON_DISK = ("plain.dat", "a b", "100%", "per%20cent", "a#b?c", "a+b&c;d", "Zürich 東京")


@pytest.mark.parametrize("name", NAMES_ON_DISK)
def test_put_stat_get_rename_delete(box: Box, name: str) -> None:
    protocol, pfn = box.protocol, box.pfn(name)
    temporary = pfn + UPLOAD_SUFFIX
    assert not protocol.exists(pfn)
    source = box.source()
    protocol.put(source.name, temporary, str(source.parent), transfer_timeout=None)
    stated = protocol.stat(temporary)
    assert (stated["filesize"], stated["adler32"]) == (len(CONTENT), ADLER32)
    protocol.rename(temporary, pfn)
    assert box.files() == {f"s/{name}"}
    assert box.on_disk(name).read_bytes() == CONTENT
    assert protocol.exists(pfn)
    assert not protocol.exists(temporary)
    target = box.local / "target"
    protocol.get(pfn, str(target), transfer_timeout=600)
    assert target.read_bytes() == CONTENT
    protocol.delete(pfn)
    assert box.files() == set()
    protocol.close()


def test_an_existing_name_is_not_overwritten_by_put(box: Box) -> None:
    pfn = box.put("f")
    with pytest.raises(exception.FileReplicaAlreadyExists, match="exists"):
        box.put("f", b"other")
    assert box.protocol.stat(pfn)["filesize"] == len(CONTENT)
    assert box.on_disk("f").read_bytes() == CONTENT


def test_a_leftover_of_rucios_temporary_name_is_overwritten(box: Box) -> None:
    temporary = box.put("f" + UPLOAD_SUFFIX, b"half of an upl")
    box.protocol.put(str(box.source()), temporary)
    assert box.files() == {f"s/f{UPLOAD_SUFFIX}"}
    assert box.on_disk("f" + UPLOAD_SUFFIX).read_bytes() == CONTENT
    assert box.protocol.stat(temporary)["adler32"] == ADLER32


def test_a_folder_is_never_overwritten(box: Box) -> None:
    box.put(f"f{UPLOAD_SUFFIX}/inner")
    with pytest.raises(exception.FileReplicaAlreadyExists):
        box.put("f" + UPLOAD_SUFFIX)
    assert box.files() == {f"s/f{UPLOAD_SUFFIX}/inner"}


def test_a_missing_local_file_is_the_source_of_put(box: Box) -> None:
    with pytest.raises(exception.SourceNotFound, match="nowhere"):
        box.protocol.put("nowhere", box.pfn("f"), str(box.local))
    with pytest.raises(exception.SourceAccessDenied):
        box.protocol.put(str(box.local), box.pfn("f"))
    assert box.files() == set()


@pytest.mark.parametrize(("script", "times"), [("code:NOT_FOUND", 2), ("code:PERMISSION_DENIED", 1)])
def test_put_never_speaks_of_a_missing_source_when_the_cloud_refuses(box: Box, script: str, times: int) -> None:
    # In a folder that is there: a refusal that a missing one causes is not the last word.
    box.put("neighbour")
    box.cloud.faults.add("gateway.InitiateFileUpload", script, times=times)
    with pytest.raises(exception.DestinationNotAccessible):
        box.put("f")
    assert box.files() == {"s/neighbour"}


def test_missing_files(box: Box) -> None:
    box.put("neighbour")
    pfn, target = box.pfn("missing"), box.local / "target"
    for call in (
        lambda: box.protocol.stat(pfn),
        lambda: box.protocol.get(pfn, str(target)),
        lambda: box.protocol.delete(pfn),
        lambda: box.protocol.rename(pfn, box.pfn("new")),
    ):
        with pytest.raises(exception.SourceNotFound, match="missing"):
            call()
    assert not box.protocol.exists(pfn)
    assert not target.exists()


def test_a_storage_that_shows_nothing_at_all_has_not_deleted_everything(box: Box) -> None:
    """Not even the prefix's folder: a wrong cs3_root, lost access, an unmounted disk. No word of "deleted"."""
    assert not box.protocol.exists(box.pfn("file"))
    with pytest.raises(exception.ServiceUnavailable, match="not even the prefix's folder"):
        box.protocol.delete(box.pfn("file"))


def test_rename_keeps_what_has_the_new_name(box: Box) -> None:
    one, two = box.put("one"), box.put("two", b"second")
    with pytest.raises(exception.FileReplicaAlreadyExists):
        box.protocol.rename(one, two)
    assert box.on_disk("one").read_bytes() == CONTENT
    assert box.on_disk("two").read_bytes() == b"second"
    box.protocol.rename(one, box.pfn("new folder/one"))
    assert box.files() == {"s/new folder/one", "s/two"}


def test_no_operation_leaves_the_prefix(box: Box) -> None:
    box.put("f")
    outside = box.pfn("f").replace(box.pfn("")[: -len("s/")], box.pfn("")[: -len("s/")].replace("box%20", "bax%20"))
    assert outside != box.pfn("f")
    for call in (
        lambda: box.protocol.exists(outside),
        lambda: box.protocol.stat(outside),
        lambda: box.protocol.get(outside, str(box.local / "x")),
        lambda: box.protocol.put(str(box.source()), outside),
        lambda: box.protocol.delete(outside),
        lambda: box.protocol.rename(box.pfn("f"), outside),
        lambda: box.protocol.rename(outside, box.pfn("g")),
    ):
        with pytest.raises(exception.RSEFileNameNotSupported, match="outside the prefix"):
            call()
    assert box.files() == {"s/f"}


def test_no_rename_differs_in_the_flag_alone(box: Box) -> None:
    protocol = box.connect(impl="rucio_cs3.protocol.NoRename")
    assert isinstance(protocol, NoRename)
    assert (protocol.renaming, protocol.overwrite) == (False, False)
    assert (box.protocol.renaming, box.protocol.overwrite) == (True, False)
    name = "x" * 255  # no room for Rucio's suffix
    protocol.put(str(box.source()), box.pfn(name))
    assert protocol.stat(box.pfn(name))["adler32"] == ADLER32
    assert box.files() == {f"s/{name}"}
    with pytest.raises(exception.FileReplicaAlreadyExists):
        protocol.put(str(box.source(b"other")), box.pfn(name))
    assert box.on_disk(name).read_bytes() == CONTENT


@pytest.mark.parametrize("proof", ["read", "server", "size"])
@pytest.mark.parametrize("verify", [True, False])
def test_stat_of_a_file_that_somebody_else_wrote(box: Box, verify: bool, proof: str) -> None:
    pfn = box.put("f")
    # Not the object that uploaded it, which knows the checksum from reading it back.
    protocol = box.connect({"cs3_proof": proof}, verify_checksum=verify)
    if box.cloud.behaviour is Behaviour.SPACES:
        stated = protocol.stat(pfn)
        assert (stated["filesize"], stated["adler32"]) == (len(CONTENT), ADLER32)
        assert len(stated["md5"]) == 32
    elif verify and proof == "read":
        # So small a file is read.
        assert protocol.stat(pfn) == {"filesize": len(CONTENT), "adler32": ADLER32}
    else:
        assert protocol.stat(pfn) == {"filesize": len(CONTENT)}


@pytest.mark.parametrize("proof", ["read", "server", "size"])
@pytest.mark.parametrize("verify", [True, False])
def test_stat_of_a_large_file_that_somebody_else_wrote(
    v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool, proof: str
) -> None:
    box = Box(v3, f"large-{verify}-{proof}", tmp_path, monkeypatch)
    pfn = box.put("f")
    box.on_disk("f").write_bytes(bytes(KEEP_FROM_BYTES))
    protocol = box.connect({"cs3_proof": proof}, verify_checksum=verify)
    if verify and proof == "read":
        with pytest.raises(exception.RSEChecksumUnavailable, match="at RSE CLOUD: the server keeps no adler32"):
            protocol.stat(pfn)
    else:
        assert protocol.stat(pfn) == {"filesize": KEEP_FROM_BYTES}


def test_a_large_upload_is_known_to_everybody_and_costs_one_look(box: Box) -> None:
    data = CONTENT * (KEEP_FROM_BYTES // len(CONTENT) + 1)
    pfn = box.pfn("f")
    # As Rucio's upload client does it, and another process looks later.
    box.put("f" + UPLOAD_SUFFIX, data)
    box.protocol.rename(pfn + UPLOAD_SUFFIX, pfn)
    assert box.cloud.log is not None
    later = box.connect()
    before = box.cloud.log.read_text("utf-8")
    stated = later.stat(pfn)
    assert (stated["filesize"], stated["adler32"]) == (len(data), f"{zlib.adler32(data):08x}")
    done = box.cloud.log.read_text("utf-8")[len(before) :]
    assert (done.count("gRPC "), done.count("gRPC Stat CODE_OK"), done.count("HTTP")) == (1, 1, 0)


def test_a_small_upload_is_stated_without_another_read(box: Box) -> None:
    pfn = box.put("f")
    box.cloud.faults.add("data.get", "return-500")
    assert box.protocol.stat(pfn)["adler32"] == ADLER32
    assert box.cloud.faults.pending() == ["data.get return-500 x1"]
    box.cloud.faults.clear()


def test_stat_of_a_folder_reads_nothing(v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(v3, "folder", tmp_path, monkeypatch)
    box.put("d/f")
    with pytest.raises(exception.RSEChecksumUnavailable):
        box.protocol.stat(box.pfn("d"))


@pytest.mark.parametrize("impl", ["Default", "NoRename"])
def test_an_upload_is_proven_by_reading_it_back(
    v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impl: str
) -> None:
    box = Box(v3, f"proven-{impl}", tmp_path, monkeypatch)
    protocol = box.connect(impl=f"rucio_cs3.protocol.{impl}")
    pfn = box.pfn("f")
    protocol.put(str(box.source()), pfn)
    assert protocol.stat(pfn) == {"filesize": len(CONTENT), "adler32": ADLER32}
    # What was proven is the content, not the name.
    box.on_disk("f").write_bytes(bytes(KEEP_FROM_BYTES))
    with pytest.raises(exception.RSEChecksumUnavailable):
        protocol.stat(pfn)


@pytest.mark.parametrize("name", ["f", "f" + UPLOAD_SUFFIX])
def test_a_byte_that_flips_on_the_way_is_found_and_nothing_is_left(
    v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    box = Box(v3, f"flipped-{len(name)}", tmp_path, monkeypatch)
    v3.faults.add("data.put", "flip-byte")
    with pytest.raises(exception.FileConsistencyMismatch, match="adler32"):
        box.put(name)
    assert v3.faults.pending() == []
    assert box.files() == set()
    # It may be repeated, as Rucio's upload client does.
    box.put(name)
    assert box.on_disk(name).read_bytes() == CONTENT


def test_without_verification_nothing_is_read_back(
    v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(v3, "unverified", tmp_path, monkeypatch)
    v3.faults.add("data.get", "return-500")
    for settings, more in (
        ({"cs3_proof": "size"}, {}),
        ({"cs3_proof": "server"}, {}),
        ({}, {"verify_checksum": False}),
    ):
        pfn = box.pfn(f"f-{len(settings)}-{settings.get('cs3_proof')}")
        box.connect(settings, **more).put(str(box.source()), pfn)
    assert v3.faults.pending() == ["data.get return-500 x1"]
    with pytest.raises(exception.RucioException):
        box.put("verified")
    assert v3.faults.pending() == []
    assert not box.on_disk("verified").exists()


def test_an_empty_file_has_the_checksum_of_nothing(box: Box) -> None:
    pfn = box.put("empty", b"")
    stated = box.protocol.stat(pfn)
    assert (stated["filesize"], stated["adler32"]) == (0, "00000001")
    box.protocol.get(pfn, str(box.local / "empty"))
    assert (box.local / "empty").read_bytes() == b""


def test_a_transfer_that_takes_too_long_in_all(box: Box) -> None:
    pfn = box.put("f")
    target = box.local / "target"
    with pytest.raises(exception.ServiceUnavailable, match=r"took longer|fell silent|in time"):
        box.protocol.get(pfn, str(target), transfer_timeout=1e-9)  # type: ignore[arg-type]
    assert not target.exists()
    assert {path.name for path in box.local.iterdir()} == {"home", "source.dat"}
    # More than one piece: after the last byte there is nothing left to end.
    source = box.source(bytes(3_000_000))
    with pytest.raises(exception.ServiceUnavailable, match=r"took longer|fell silent|in time"):
        box.protocol.put(str(source), box.pfn("g"), transfer_timeout=1e-9)  # type: ignore[arg-type]
    assert box.files() == {"s/f"}


def test_get_into_a_missing_folder_blames_this_side(box: Box) -> None:
    pfn = box.put("f")
    with pytest.raises(exception.DestinationNotAccessible):
        box.protocol.get(pfn, str(box.local / "missing" / "f"))


# -- space -------------------------------------------------------------------------------------------------------


def test_space_of_a_disk(v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(v3, "space", tmp_path, monkeypatch)
    total, unused = box.protocol.get_space_usage()  # before the first upload there is no folder
    assert total == 50_000_000
    box.put("f")
    assert box.protocol.get_space_usage() == (total, unused - len(CONTENT))


def test_space_without_a_limit(spaces: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(spaces, "space", tmp_path, monkeypatch)
    before, unused = box.protocol.get_space_usage()
    assert unused == UNLIMITED_BYTES
    assert before < 2**63
    box.put("f")
    # What is used is that of the whole space, where other files may be.
    assert box.protocol.get_space_usage() == (before + len(CONTENT), UNLIMITED_BYTES)


def test_space_with_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedCloud(name="quota", behaviour=Behaviour.SPACES, quota_bytes=10_000) as cloud:
        box = Box(cloud, "space", tmp_path, monkeypatch)
        assert box.protocol.get_space_usage() == (10_000, 10_000)
        box.put("f")
        assert box.protocol.get_space_usage() == (10_000, 10_000 - len(CONTENT))
        with pytest.raises(exception.RSEOverQuota):
            box.put("g")
        assert box.files() == {"s/f"}


# -- connection and Rucio's calls ---------------------------------------------------------------------------------


def test_connect_says_what_is_wrong(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    info = rse_of(box.cloud, folder=box.folder)
    with pytest.raises(exception.RSEAccessDenied, match="refuses to log in einstein") as caught:
        protocol_of(info).connect({"username": "einstein", "password": "not-the-password"})
    assert "not-the-password" not in str(caught.value)
    with pytest.raises(exception.ConfigurationError, match="RSE CLOUD: there are no credentials"):
        protocol_of(info).connect()
    with pytest.raises(exception.ServiceUnavailable, match="connect"):
        protocol_of(info).exists(box.pfn("f"))


def test_objects_of_one_rse_share_a_storage(box: Box) -> None:
    assert box.connect().storage is box.protocol.storage
    assert box.connect({"cs3_proof": "size"}).storage is not box.protocol.storage


@pytest.mark.parametrize("impl", ["Default", "NoRename"])
@pytest.mark.parametrize("size", [0, 5000])
def test_rsemanager_does_everything(box: Box, monkeypatch: pytest.MonkeyPatch, impl: str, size: int) -> None:
    """Rucio's other way to storage, which checks an upload more loosely than its upload client."""
    user = box.cloud.first_user
    monkeypatch.setenv("RUCIO_CS3_CLOUD_USERNAME", user.username)
    monkeypatch.setenv("RUCIO_CS3_CLOUD_PASSWORD", user.password)
    content = bytes(range(250)) * (size // 250)
    info = rse_of(box.cloud, folder=box.folder, impl=f"rucio_cs3.protocol.{impl}")
    lfn = {"scope": "s", "name": "a b", "filesize": size, "adler32": f"{zlib.adler32(content):08x}"}
    box.source(content).rename(box.local / "a b")
    done = rsemanager.upload(info, lfn, source_dir=str(box.local))
    assert done["success"]
    (pfn,) = rsemanager.lfns2pfns(info, lfn).values()
    assert done["pfn"] == pfn
    assert rsemanager.exists(info, lfn)
    with pytest.raises(exception.FileReplicaAlreadyExists):
        rsemanager.upload(info, lfn, source_dir=str(box.local))
    assert rsemanager.rename(info, {"scope": "s", "name": "a b", "new_name": "new"})
    (path,) = [path for path in box.cloud.path_on_disk(box.folder).rglob("*") if path.is_file()]
    assert (path.name, path.read_bytes()) == ("new", content)
    ok, usage = rsemanager.get_space_usage(info)
    assert ok
    assert usage["totalsize"] > usage["unusedsize"] or not size
    assert rsemanager.delete(info, {"scope": "s", "name": "new"})
    assert box.files() == set()
    with pytest.raises(exception.SourceNotFound):
        rsemanager.delete(info, {"scope": "s", "name": "new"})


def test_rsemanager_refuses_a_flipped_byte(v3: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a wrong checksum where the size is right (rsemanager.py:500), so ``put`` has to find it."""
    box = Box(v3, "flipped-rsemanager", tmp_path, monkeypatch)
    monkeypatch.setenv("RUCIO_CS3_CLOUD_USERNAME", v3.first_user.username)
    monkeypatch.setenv("RUCIO_CS3_CLOUD_PASSWORD", v3.first_user.password)
    v3.faults.add("data.put", "flip-byte")
    lfn = {"scope": "s", "name": "source.dat", "filesize": len(CONTENT), "adler32": ADLER32}
    with pytest.raises(exception.RucioException, match="adler32"):
        rsemanager.upload(rse_of(v3, folder=box.folder), lfn, source_dir=str(box.source().parent))
    assert v3.faults.pending() == []
    assert box.files() == set()


PUBLIC = sorted(
    name for name, value in vars(RSEProtocol).items() if inspect.isfunction(value) and not name.startswith("_")
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_method_takes_what_rucios_takes(name: str) -> None:
    theirs = list(inspect.signature(getattr(RSEProtocol, name)).parameters.values())
    ours = list(inspect.signature(getattr(Default, name)).parameters.values())
    assert [one.name for one in ours[: len(theirs)]] == [one.name for one in theirs]
    for mine, other in zip(ours, theirs, strict=False):
        assert mine.kind is other.kind
        assert mine.default is not inspect.Parameter.empty or other.default is inspect.Parameter.empty
    assert all(one.default is not inspect.Parameter.empty for one in ours[len(theirs) :])


# As called in rucio/client/uploadclient.py, downloadclient.py, rse/rsemanager.py and daemons of Rucio 41.5.1.
CALLS: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
    ("connect", (), {}),
    ("close", (), {}),
    ("exists", ("pfn",), {}),
    ("stat", ("pfn",), {}),
    ("put", ("name", "pfn", "dir"), {"transfer_timeout": None}),
    ("put", ("name", "pfn", None), {"transfer_timeout": 5}),
    ("get", ("pfn", "dest"), {"transfer_timeout": None}),
    ("delete", ("pfn",), {}),
    ("rename", ("pfn", "new"), {}),
    ("get_space_usage", (), {}),
    ("lfns2pfns", ({},), {}),
    ("parse_pfns", ([],), {}),
    ("parse_pfns", (), {"pfns": []}),
]


@pytest.mark.parametrize(("name", "arguments", "keywords"), CALLS)
def test_every_call_of_rucio_fits(name: str, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
    inspect.signature(getattr(Default, name)).bind(object(), *arguments, **keywords)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads, which is the point
def test_a_forked_child_goes_on_with_the_object_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although another thread of the parent, which is not there in the child, held a lock at the fork."""
    monkeypatch.setattr(rses, "rse_attributes", lambda _settings: {"cs3_gateway": "127.0.0.1:1"})
    monkeypatch.setattr("rucio_cs3.cs3.login.authentication.Authentication.log_in", lambda _: Credential("token"))
    protocol = protocol_of(rse_info(hostname="127.0.0.1"))
    protocol.connect({"username": "u", "password": "w"})
    storage = protocol.storage
    assert protocol.storage is storage
    tokens = storage._gateway.tokens
    tokens.invalidate(tokens.get())
    with tokens._lock:
        child = os.fork()
        if not child:
            # Nothing of pytest may run here. The alarm ends a child that hangs.
            signal.alarm(20)
            os._exit(0 if protocol.storage.access_token() == "token" and protocol.storage is not storage else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert protocol.storage is storage
