"""The benchmarks' own code: the link that delays and damages, commands without secrets, figures and the page made of
them. What the figures are is no test.
"""

from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_docs import DOCS, ROOT, rows, section, text_of

sys.path.insert(0, str(ROOT / "benchmarks"))

import conveyor
import copies
import far_link
import import_time
import measuring
import page
import plots
import readme
import tables
from commands import Curl, CurlFolder, GfalCopy, Rclone, RcloneFolder
from figures import Duel, Failure, FarRow, Figures, ImportTime, Notice, Profile, Sample
from peer_process import PeerFailed, PeerProcess
from peers import CommandPeer, FolderPeer, Operation, Peer, Site, Task
from registry import PEERS, peer_class
from rounds import in_turn

SITE = Site(
    gateway="127.0.0.1:1",
    webdav_url="http://127.0.0.1:1/remote.php/webdav",
    root="/localfs",
    username="einstein",
    password="the-password",
    token="the-token",
)
TASK = Task(name="targets/a", local_path="/nowhere/a", size=5, ticket_url="http://127.0.0.1:1/", ticket_token="tick")


# -- the link ----------------------------------------------------------------------------------------------------


class Echo:
    """Sends back what comes, until its client has no more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.got = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while piece := connection.recv(65536):
                self.got += piece
            connection.sendall(self.got)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def sent_over(link: far_link.FarLink, server: Echo, data: bytes) -> bytes:
    """What comes back over a link."""
    link.lead_to(server.address)
    host, _, port = link.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        back = b""
        while piece := connection.recv(65536):
            back += piece
    return back


def test_a_link_changes_nothing(echo: Echo) -> None:
    data = bytes(range(256)) * 8000
    with far_link.FarLink() as link:
        link.behave(round_trip_s=0.002, bytes_per_s=200e6)
        assert sent_over(link, echo, data) == data
    assert echo.got == data


def test_a_flipped_bit_is_one_each_way(echo: Echo) -> None:
    data = bytes(far_link.DAMAGE_AT + 100_000)
    with far_link.FarLink() as link:
        link.behave(up=far_link.flip_a_bit)
        back = sent_over(link, echo, data)
    wrong = bytearray(data)
    wrong[far_link.DAMAGE_AT] = 1
    assert echo.got == bytes(wrong)
    assert back == bytes(wrong)


def test_a_shortened_body_looks_complete(echo: Echo) -> None:
    size = 1024 * 1024
    body = bytes(number % 251 for number in range(size))
    with far_link.FarLink() as link:
        link.behave(up=far_link.shorten(size))
        sent_over(link, echo, b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + body)
    head, _, came = echo.got.partition(b"\r\n\r\n")
    assert len(came) == size - far_link.SHORT_BY
    assert head.endswith(b"Content-Length: %d" % len(came))


@pytest.mark.parametrize(("only", "as_sent"), [(b"ours", True), (b"theirs", False)])
def test_a_link_may_be_for_some_only(echo: Echo, only: bytes, as_sent: bool) -> None:
    data = b"theirs " * 100_000
    with far_link.FarLink() as link:
        link.behave(up=far_link.flip_a_bit, only=only)
        assert (sent_over(link, echo, data) == data) is as_sent


def test_bytes_wait_for_those_before_them() -> None:
    way = far_link._Direction(delay_s=0.5, bytes_per_s=100.0)
    assert [way.due(100, 10.0), way.due(50, 10.0), way.due(10, 20.0)] == pytest.approx([11.5, 12.0, 20.6])


# -- peers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Curl, CurlFolder, GfalCopy, Rclone, RcloneFolder])
def test_no_secret_in_a_command_line(kind: type[CommandPeer]) -> None:
    # davix is not among them: commands.py says why.
    peer = kind(SITE)
    for operation in kind.operations:
        if isinstance(peer, FolderPeer):
            command = peer.folder_command(operation, [TASK, TASK], 2)
        else:
            command = peer.command(operation, TASK)
        told = " ".join(command.words) + repr(command)
        for secret in (SITE.token, SITE.password, TASK.ticket_token):
            assert secret not in told
        assert SITE.token in command.given + "".join(command.variables.values())


def test_no_secret_in_a_repr() -> None:
    for secret in (SITE.token, SITE.password, TASK.ticket_token):
        assert secret not in repr(SITE) + repr(TASK)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_says_what_it_is(name: str) -> None:
    kind = peer_class(name)
    assert issubclass(kind, Peer)
    assert kind.label
    assert issubclass(kind, CommandPeer) == kind.starts
    assert issubclass(kind, FolderPeer) == kind.whole_folders


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
def test_a_peer_that_fails_is_a_message_without_secrets(tmp_path: Path) -> None:
    missing = tmp_path / f"{SITE.token}-file"
    task = dataclasses.replace(TASK, local_path=str(missing))
    with PeerProcess("curl", SITE, python=sys.executable, variables={}) as process:
        for _ in range(2):
            # The process lives on after a failure.
            with pytest.raises(PeerFailed, match="curl ended with") as told:
                process.ask("put", [task], timeout_s=30)
            assert SITE.token not in str(told.value)
            assert process.running
    assert not process.running


def test_a_peer_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\nexec sleep 60\n")
    curl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    peer = PeerProcess("curl", SITE, python=sys.executable, variables={})
    with peer, pytest.raises(PeerFailed, match="no answer within"):
        peer.ask("get", [TASK], timeout_s=0.2)
    assert not peer.running


def test_memory_and_time_of_a_command_are_its_own() -> None:
    script = "block = bytearray(100 * 1024 * 1024)\nsum(range(3_000_000))\nimport time\ntime.sleep(0.3)"
    used = measuring.run(measuring.Command([sys.executable, "-c", script]), watch_memory=True)
    assert 100 * 1024 < used.peak_kib < 200 * 1024
    assert used.cpu_s > 0


def test_each_round_begins_with_another_and_has_all() -> None:
    turns = list(in_turn("abc", 3))
    assert "".join(thing for _, thing in turns) == "cababcbcacab"
    assert [number for number, _ in turns] == [-1] * 3 + [0] * 3 + [1] * 3 + [2] * 3


# -- figures, tables and the page ----------------------------------------------------------------------------------


def made_up() -> Figures:
    """Figures in which curl needs twice as long as ours for a put, and half as long for a get."""
    figures = Figures(
        labels={name: peer_class(name).label for name in PEERS},
        missing={"davix": "no davix-put on PATH"},
        machine={"cloud": "reva", "reva": "3.12.1", "cores": 2, "memory_gib": 8, "processor": "P", "kernel": "K"}
        | {"in_memory": True, "curl": "7.88.1"},
        far=[FarRow("storage", {"put": 0.2}, {"put": 0.1}, {"put": 1.0}, ["get: it broke"])],
        far_link={"round_trip_ms": 20.0, "mbit_per_s": 1000.0},
        notices=[Notice("curl", "upload, a flipped bit", "not noticed")],
        profiles=[Profile("put", 1024**2, [("send", 0.75, 0.25), ("digest", 0.25, 0.25)])],
        imports=[ImportTime("m", "rucio.client", [100.0, 151.0, 200.0], {"grpc": 60.0})],
        duels=[
            Duel("put", 1024**2, "curl", "storage", [(0.01, 0.02), (0.02, 0.01), (0.02, 0.01), (0.01, 0.005)]),
            Duel("get", 1024**2, "curl", "storage", [(0.01, 0.02), (0.02, 0.04), (0.03, 0.02), (0.01, 0.03)]),
            Duel("put", 4096, "bare", "protocol", [(0.001, 0.001), (0.001, 0.002), (0.002, 0.003)]),
            Duel("get", 4096, "bare", "protocol", [(0.0022, 0.0023), (0.0022, 0.0023)]),
            Duel("stat", 4096, "bare", "storage", [(0.001, 0.0011), (0.001, 0.0011)]),
        ],
        failures=[Failure("rclone", "get", 4096, 1, "no answer | within 120 s")],
    )
    seconds: dict[tuple[str, Operation], float] = {
        ("curl", "put"): 0.02,
        ("storage", "put"): 0.01,
        ("curl", "get"): 0.01,
        ("storage", "get"): 0.02,
        ("rclone", "get"): 0.02,
    }
    for (peer, operation), each in seconds.items():
        for size in (4096, 1024**2):
            for factor in (1, 3, 0.5):
                sample = Sample(
                    peer, operation, size, 1, 2, each * factor * 2, 0.01, 50.0, 40.0 if size > 4096 else 10.0
                )
                figures.samples.append(sample)
    return figures


def test_figures_come_back_from_json(tmp_path: Path) -> None:
    figures = made_up()
    figures.write(tmp_path / "figures.json")
    assert Figures.read(tmp_path / "figures.json") == figures


def test_half_a_case_is_no_figure() -> None:
    figures = made_up()
    assert figures.cell("rclone", "get", 4096, 1) is None
    cell = figures.cell("rclone", "get", 1024**2, 1)
    assert cell is not None
    assert cell.median_s == pytest.approx(0.02)


def test_goals_are_judged() -> None:
    assert [row[1:] for row in tables.goals(made_up()).rows] == [
        # The fastest of each, and the middle of all pairs.
        ["2.00", "yes", "0.88 to 2.00", "curl 105 MB/s, ours 210"],
        ["0.50", "no", "0.38 to 1.25", "curl 105 MB/s, ours 52"],
        ["40 MiB", "yes", tables.NONE, ""],
        ["2.0 ms", "yes", "1.0 to 3.0 ms", "the bare calls alone take 1.0 ms"],
        ["2.3 ms", "no", "2.3 to 2.3 ms", "the bare calls alone take 2.2 ms"],
        ["1.10", "yes", "1.10 to 1.10", "1.00 ms bare, ours 1.10"],
        ["151 ms", "no", tables.NONE, ""],
    ]


def test_a_page_is_made_of_figures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    page.write(made_up(), tmp_path / "benchmarks.md")
    made = tmp_path / "benchmarks.md"
    large = {row[0]: row[1:5] for row in rows(section(made, "1 MiB"))}
    assert large["rucio_cs3, CS3Storage"] == ["105 (35\N{EN DASH}210)", "2.00", "52 (17\N{EN DASH}105)", "0.50"]
    assert rows(section(made, "Where the time goes"))[0] == ["send", "75%", "750", "250"]
    assert "no answer \\| within 120 s" in section(made, "What failed")
    assert "davix-put, davix-get (no davix-put on PATH)" in text_of(made)
    svg = ElementTree.parse(tmp_path / "images" / "benchmarks.svg").getroot()
    assert svg.get("viewBox")


def test_ticks_enclose_what_is_drawn() -> None:
    assert plots._decades(0.8, 250) == pytest.approx([0.3, 1, 3, 10, 30, 100, 300])
    assert plots._steps(870) == pytest.approx([0, 250, 500, 750, 1000])


def test_import_times_are_those_of_the_last_import(monkeypatch: pytest.MonkeyPatch) -> None:
    told = """import time: self [us] | cumulative | imported package
import time:      1000 |       1000 |   grpc._early
import time:      1000 |       2000 | rucio.client
import time:      2000 |       2000 |     grpc
import time:       500 |        500 |       google.protobuf
import time:       100 |        600 |     cs3.gateway
import time:       400 |       3000 |   rucio_cs3.cs3
import time:       300 |        300 | rucio_cs3
import time:       700 |       3700 | rucio_cs3.protocol
"""

    class Done:
        stderr = told

    monkeypatch.setattr("subprocess.run", lambda *_args, **_kwargs: Done)
    assert import_time._import_once("rucio.client", {}) == pytest.approx(
        {"grpc": 2.0, "google": 0.5, "cs3": 0.1, "rucio_cs3": 1.4}
    )


def test_page_in_the_docs_is_one_that_this_code_makes() -> None:
    labels = {peer_class(name).label for name in PEERS}
    made = DOCS / "benchmarks.md"
    for heading in ("Small files", "Far from the cloud", "What is noticed"):
        assert {row[0] for row in rows(section(made, heading))} <= labels
    assert all(row[2] in ("yes", "no") for row in rows(section(made, "Goals")))


def test_a_readme_keeps_all_but_the_table(tmp_path: Path) -> None:
    page_with_places = tmp_path / "README.md"
    page_with_places.write_text("words\n\n<!-- one -->\n\nold\n\n<!-- end of one -->\n\nmore words\n")
    readme.put("one", "new\n", page_with_places)
    assert page_with_places.read_text() == "words\n\n<!-- one -->\n\nnew\n\n<!-- end of one -->\n\nmore words\n"
    with pytest.raises(ValueError, match="no place for two"):
        readme.put("two", "new", page_with_places)


@pytest.mark.parametrize("name", ["copies", "conveyor", "looks", "transfers"])
def test_the_readme_has_a_place_for_each_table(name: str, tmp_path: Path) -> None:
    ours = tmp_path / "README.md"
    ours.write_text((ROOT / "benchmarks" / "README.md").read_text())
    readme.put(name, "new", ours)


def test_small_files_are_compared_by_their_medians() -> None:
    seconds = {
        conveyor.AGENT: [2.0, 4.0, 3.0],
        conveyor.ONE_EACH: [6.0] * 3,
        conveyor.COPIES_AND_READS: [3.0] * 3,
        conveyor.COPIES: [1.5] * 3,
    }
    figures = conveyor.Figures(
        files=300, size_bytes=4096, concurrency=4, proof="read", machine={"cores": 2}, seconds={"20": seconds}
    )
    agent, *others = conveyor.table_of(figures).rows
    assert agent[1:] == ["100", "75 to 150", ""]
    assert [row[3] for row in others] == ["2.00", "1.00", "0.50"]
    assert "300 files of 4 KiB, 4 at a time, 3 rounds" in conveyor.words_of(figures)
    assert conveyor.words_of(figures).endswith("share.")
    figures.edges = {"20": [[0.1, 0.5], [0.2, 0.6], [0.9, 0.4]]}
    assert "last report: 20 ms apart 0.20 s and 0.50 s of 3.00 s." in conveyor.words_of(figures)


def test_of_a_large_file_the_fastest_count() -> None:
    names = {name for ours, beside, _ in copies._ROWS for name in (ours, beside)} | {
        "GET by curl alone",
        "PUT by curl alone",
    }
    seconds = {name: [2.0, 1.0, 1.5] for name in names}
    seconds["pull"] = [1.05, 9.0, 1.1]
    seconds["push"] = [1.2, 1.3, 1.4]
    seconds["PUT by curl alone"] = [0.8, 0.9, 0.9]
    rows = {row[0]: row for row in reversed(copies.table_of(copies.Figures(1024, seconds=seconds)).rows)}
    assert (rows["pull"][4], rows["pull"][6]) == ("0.95", "0.95: yes")
    assert (rows["push"][4], rows["push"][6]) == ("0.83", "0.95: no")
    # The slower of the two that a relay is made of.
    assert rows["relay"][4] == "1.00"
