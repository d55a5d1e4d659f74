"""gfal2 and davix, as FTS and people use them, on PFNs that this package's protocol makes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Secret, WebDAVBase, parse_root
from rucio_cs3.protocol import Default
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import hash_path
from tests.unit.rucio_client import protocol_of, rse_info

GfalMode = Literal["pull", "push", "streamed"]

#: Names that are hard on URLs; each is a file's name in Rucio.
NAMES = (
    "plain.root",
    "with space",
    "größe-数",
    "100%",
    "100%25 off",
    "a+b",
    "c#d",
    "q?r",
    "p&q=1;x,y",
    "~t'(!)*",
)

SCOPE = "user.jdoe"

_PROGRAM = Path(__file__).parent / "copy_as_fts.py"
_TIMEOUT_S = 120
_OPTION = {"pull": "3rd pull", "push": "3rd push", "streamed": "streamed"}


@dataclass(frozen=True)
class GfalOutcome:
    """
    :param code: an errno; 0 where gfal2 takes the copy for done.
    """

    code: int
    message: str


@dataclass
class GfalRse:
    """A Reva site as an RSE, with a token.

    :param scheme: of the PFNs.
    :param token: the site's own access token. A secret.
    """

    site: RevaSite
    scheme: str
    protocol: Default = field(init=False)
    token: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        url = urlsplit(self.site.webdav_url)
        info = rse_info(
            rse=self.site.name.upper(),
            scheme=self.scheme,
            hostname=str(url.hostname),
            port=int(url.port or 0),
            prefix=f"{url.path}/rucio/",
            extended={"cs3_gateway": self.site.gateway, "cs3_gateway_tls": False, "cs3_root": self.site.root},
        )
        self.protocol = protocol_of(info)
        endpoint = Endpoint(
            name=self.site.name,
            gateway=self.site.gateway,
            gateway_tls=False,
            webdav=WebDAVBase.parse(self.site.webdav_url, parse_root(self.site.root)),
            ca_bundle=self.site.ca_bundle,
        )
        user = next(iter(self.site.users.values()))
        with CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password))) as storage:
            self.token = storage.access_token()

    @property
    def base(self) -> str:
        """What the token is for, as gfal2's map of credentials wants it."""
        return f"{self.scheme}://{urlsplit(self.site.webdav_url).netloc}/"

    def pfn(self, name: str) -> str:
        """What Rucio hands out for a file."""
        (pfn,) = self.protocol.lfns2pfns({"scope": SCOPE, "name": name}).values()
        return pfn

    def on_disk(self, name: str) -> Path:
        """Where the site keeps a file, whether it is there or not."""
        return self.site.path_on_disk(f"rucio/{hash_path(SCOPE, name)}")

    def write(self, name: str, data: bytes) -> None:
        """Put a file on the site's disk, behind its back."""
        path = self.on_disk(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True)
class Gfal:
    """The programs of gfal2 and davix.

    :param home: an empty folder; nothing of this machine's user is seen.
    :param certificates: folder of trusted authorities, named as OpenSSL wants them; None for plaintext.
    """

    home: Path
    certificates: Path | None = None

    def copy(
        self,
        source: str,
        destination: str,
        *tokens: GfalRse,
        only: GfalMode | None = None,
        overwrite: bool = False,
        checksum: str | None = None,
        wrong: Mapping[str, str] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> GfalOutcome:
        """Copy as FTS does, with a token for each end.

        :param tokens: the RSEs whose tokens are given.
        :param only: the one mode to try; None is gfal2's default: pull, then push, then streamed.
        :param checksum: adler32 to compare at both ends.
        :param wrong: base URL -> token in place of the right one.
        :param options: of gfal2's HTTP plugin, in place of those that ``only`` means.
        """
        if options is None and only is not None:
            options = {
                "DEFAULT_COPY_MODE": _OPTION[only],
                "ENABLE_FALLBACK_TPC_COPY": False,
                "ENABLE_STREAM_COPY": only == "streamed",
            }
        job = {
            "source": source,
            "destination": destination,
            "tokens": {**{rse.base: rse.token for rse in tokens}, **(wrong or {})},
            "options": options or {},
            "overwrite": overwrite,
            "checksum": checksum,
        }
        done = self._run([self.python, str(_PROGRAM)], given=json.dumps(job))
        assert done.returncode == 0, done.stderr
        return GfalOutcome(**json.loads(done.stdout))

    def shell(self, script: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run what people type.

        :param variables: environment of the shell, secrets included.
        """
        return self._run(["bash", "-euo", "pipefail", "-c", script], variables=variables)

    @property
    def python(self) -> str:
        """Debian's Python, which has gfal2's bindings; the test's own is another."""
        found = shutil.which("python3", path="/usr/bin:/bin")
        assert found is not None
        return found

    def _run(
        self, command: list[str], *, given: str = "", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8", **(variables or {})}
        # The programs of gfal2-util look for a Python that has gfal2, and believe this.
        environment["GFAL_PYTHONBIN"] = self.python
        if self.certificates is not None:
            environment["X509_CERT_DIR"] = str(self.certificates)
        return subprocess.run(
            command,
            input=given,
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )


@dataclass(frozen=True)
class Grid:
    """Two RSEs with third-party copy, two without, and what reaches them."""

    source: GfalRse
    destination: GfalRse
    without_tpc: GfalRse
    also_without_tpc: GfalRse
    gfal: Gfal


def certificate_folder(folder: Path, *authorities: Path) -> Path:
    """A folder of authorities under the names that OpenSSL looks for, as /etc/grid-security/certificates is."""
    folder.mkdir()
    for number, authority in enumerate(authorities):
        (folder / f"{number}.pem").write_bytes(authority.read_bytes())
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True, timeout=_TIMEOUT_S)
    return folder
