"""The command line without any server: help, wrong usage, what is missing, and in which words that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

#: Runs the command in a process in which a package cannot be imported, as if it were not installed.
_WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if f"{{name}}.".startswith({package!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from rucio_cs3.cli.main import main
sys.argv = ["rucio-cs3", *{arguments!r}]
main()
"""


def run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUCIO")}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**environment, "RUCIO_HOME": str(home)},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("rucio-cs3", "--help"),
        ("rucio-cs3", "-h"),
        ("rucio-cs3", "--version"),
        ("rucio-cs3", "agent", "--help"),
        ("rucio-cs3", "demo", "--help"),
        ("rucio-cs3", "run", "--help"),
        ("rucio-cs3", "transfers", "--help"),
        ("rucio-cs3-agent", "--help"),
    ],
)
def test_help_needs_no_configuration(arguments: tuple[str, ...], tmp_path: Path) -> None:
    finished = run(BIN / arguments[0], *arguments[1:], home=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "rucio-cs3" in finished.stdout
    assert "Example:" in finished.stdout or "--version" in arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("lss",), "No such command 'lss'. Did you mean ls"),
        (("agent", "--threads", "0"), "--threads"),
        (("demo", "/does/not/exist"), "/does/not/exist"),
        (("demo", "--clouds", "paper"), "paper"),
        (("run", "rucio-nonsense"), "rucio-nonsense is no command of the Rucio"),
        (("run", "../bin/rucio"), "is no command of the Rucio"),
        (("run", "python3"), "python3 is no command of the Rucio"),
    ],
)
def test_wrong_usage_is_said_and_exits_with_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    finished = run(BIN / "rucio-cs3", *arguments, home=tmp_path)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("command", [("rucio-cs3", "agent"), ("rucio-cs3-agent",)])
def test_an_agent_without_configuration_says_so(command: tuple[str, ...], tmp_path: Path) -> None:
    finished = run(BIN / command[0], *command[1:], "--run-once", home=tmp_path)
    assert finished.returncode == 1
    assert "Rucio cannot be used here" in finished.stderr
    assert str(tmp_path) in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "arguments",
    [("transfers",), ("agent", "--run-once"), ("app-password", "list", "CERNBOX")],
)
def test_a_missing_configuration_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    finished = run(BIN / "rucio-cs3", *arguments, home=tmp_path)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    assert finished.stderr.startswith("Error: Rucio cannot be used here: ")
    assert f"in order: {tmp_path}/etc/rucio.cfg /" in finished.stderr


@pytest.mark.parametrize("arguments", [("agent", "--run-once"), ("run", "rucio-conveyor-submitter", "--run-once")])
def test_beside_rucios_clients_alone(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """As the wheel rucio-clients leaves it: the scripts of the daemons, and nothing of what they need."""
    code = _WITHOUT.format(package="rucio.core", arguments=arguments)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "rucio.cfg").write_text("[client]\n")
    finished = run(sys.executable, "-c", code, home=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("Error: "), finished.stderr
    assert f"{arguments[0] if arguments[0] == 'agent' else arguments[1]} needs Rucio's server" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_transfers_without_configuration_says_so(tmp_path: Path) -> None:
    finished = run(BIN / "rucio-cs3", "transfers", home=tmp_path)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "Rucio cannot be used here" in finished.stderr
    assert str(tmp_path) in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("arguments", [["agent", "--help"], ["run", "rucio"], ["demo"], ["transfers"]])
def test_what_is_not_installed_is_named(arguments: list[str], tmp_path: Path) -> None:
    finished = run(sys.executable, "-c", _WITHOUT.format(package="rucio", arguments=arguments), home=tmp_path)
    assert finished.returncode == 1
    assert "needs rucio" in finished.stderr
    extra = "client" if arguments == ["transfers"] else "server"
    assert f"pip install 'rucio-cs3[{extra}" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "there are no files in"),
        (["a & b.txt"], "a & b.txt"),
        (["one/same.txt", "two/same.txt"], "two files in"),
    ],
)
def test_a_folder_that_the_demo_cannot_take(names: list[str], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    finished = run(BIN / "rucio-cs3", "demo", folder, home=tmp_path)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
