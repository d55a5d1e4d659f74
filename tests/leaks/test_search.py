"""The search itself: what is planted is found, in each form and in each kind of place."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

import jwt
import pytest

from tests.leaks.known import Known
from tests.leaks.search import Place, dump, files_below, search
from tests.leaks.witnesses import Witnesses

PASSWORD = 'Zauber/"wört% +7'
LONG = "a-machine-key-of-many-letters-0123456789"
TOKEN = jwt.encode({"user": "einstein"}, "x" * 32, algorithm="HS256")


@pytest.fixture
def known() -> Known:
    known = Known()
    known.add("the password", PASSWORD)
    known.add("the key", LONG)
    known.add("the token", TOKEN)
    return known


WRITTEN = {
    "plain": PASSWORD,
    "JSON": json.dumps({"password": PASSWORD}),
    "JSON that is not ASCII": json.dumps({"password": PASSWORD}, ensure_ascii=False),
    "JSON as PHP writes it": json.dumps(PASSWORD).replace("/", "\\/"),
    "a URL": f"https://x/?p={quote(PASSWORD)}",
    "a URL, all in percents": f"https://x/?p={quote(PASSWORD, safe='')}",
    "a form": f"p={quote_plus(PASSWORD)}",
    "a URL in small letters": f"https://x/?p={quote(PASSWORD, safe='').lower().replace('zauber', 'Zauber')}",
    "repr": repr([PASSWORD]),
    "repr of bytes": repr([PASSWORD.encode()]),
    "basic authentication": base64.b64encode(f"einstein:{PASSWORD}".encode()).decode(),
    "the same for another name": base64.b64encode(f"marie:{PASSWORD}".encode()).decode(),
    "the same for a third name": base64.b64encode(f"me:{PASSWORD}x".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"e:{PASSWORD}".encode()).decode(),
    "hexadecimal": PASSWORD.encode().hex(),
    "the beginning of a long one": f"... {LONG[:14]}",
    "the end of a long one": f"{LONG[-14:]} ...",
    "a token": TOKEN,
    "the signature of a token": TOKEN.rpartition(".")[2],
    "the beginning of a signature": TOKEN.rpartition(".")[2][:20],
    "a token in base64": base64.b64encode(f":{TOKEN}".encode()).decode(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_each_form_is_found(known: Known, form: str) -> None:
    content = f"before {WRITTEN[form]} after".encode()
    found = search(known, [Place("somewhere", content), Place("elsewhere", b"nothing at all")])
    assert found
    assert all(line.startswith("somewhere: the ") or line == "somewhere: a token" for line in found)
    assert not search(known, [Place("the findings", "\n".join(found).encode())])


def test_a_token_that_nobody_knows_is_found() -> None:
    other = jwt.encode({"user": "marie"}, "y" * 32, algorithm="HS256")
    macaroon = base64.urlsafe_b64encode(b"0010location x\n0020cid path:/x\n").decode()
    assert search(Known(), [Place("a", f"x {other[:70]}".encode()), Place("b", macaroon.encode())]) == [
        "a: a token",
        "b: a token",
    ]


def test_what_is_no_secret_is_not_found(known: Known) -> None:
    header, claims, signature = TOKEN.split(".")
    harmless = f"{header} {claims} einstein Zauber {signature[:6]} {LONG[:8]} a-machine"
    assert search(known, [Place("harmless", harmless.encode())]) == []
    with pytest.raises(ValueError, match="too short"):
        known.add("nothing", "word")


def test_each_kind_of_place_is_searched(known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One planted secret for each: a file, one in a folder, a database, a deleted file, a command line as the process
    itself and as /proc shows it, and a file that was replaced by another."""
    allowed = tmp_path / "files" / "rse-accounts.cfg"
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / ".hidden").write_text(PASSWORD)
    allowed.write_text(PASSWORD)
    database = tmp_path / "files" / "rucio.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE messages (payload TEXT)")
        # Of 4096 bytes is a page: this one is in several.
        connection.execute("INSERT INTO messages VALUES (?)", ("x" * 4000 + TOKEN + "x" * 9000,))
    outside = tmp_path / "outside"
    program = f"""
import os, pathlib, subprocess, sys
path = pathlib.Path({str(tmp_path / "gone")!r})
path.write_text(os.environ["PLANTED"]); path.unlink()
pathlib.Path({str(outside)!r}).write_text(os.environ["PLANTED"])
subprocess.run([sys.executable, "-c", "import sys; sys.stdin.read()", os.environ["PLANTED"]], stdin=sys.stdin)
"""
    monkeypatch.setenv("PLANTED", LONG)
    with Witnesses(tmp_path / "witness", monkeypatch) as witnesses:
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
            deadline = time.monotonic() + 60
            while not any(LONG.encode() in title for title in list(witnesses._titles)):
                assert time.monotonic() < deadline, "/proc was not looked at"
                time.sleep(0.02)
            assert process.stdin is not None
            process.stdin.close()
        assert process.returncode == 0
    found = search(known, [*files_below(tmp_path / "files", without=[allowed]), dump(database), *witnesses.places()])
    places = {line.rpartition(": ")[0] for line in found}
    name = Path(sys.executable).name
    assert places >= {
        str(tmp_path / "files" / "deep" / ".hidden"),
        f"dump of {database}",
        f"{tmp_path / 'gone'}, which was deleted",
        f"command line of {name} (is)",
        f"command line of {name} (runs)",
        "a line of /proc",
    }
    assert not any(place.endswith("rse-accounts.cfg") for place in places)
    assert outside in witnesses.written()
