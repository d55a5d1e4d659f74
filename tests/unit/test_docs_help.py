"""The help of each command is a manual page; the pages of commands and of messages say what the code says."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from rucio_cs3.cli import manual
from rucio_cs3.cli.main import _COMMANDS
from tests.unit.test_docs import DOCS, ROOT, rows, section, text_of

if importlib.util.find_spec("rucio") is None:
    pytest.skip("neither Rucio wheel is installed", allow_module_level=True)

#: The console script, which this interpreter can run.
COMMAND = str(Path(sys.executable).parent / "rucio-cs3")

# All commands are imported, which makes Rucio a server for good: in a process of its own.
_HELPS = """
import json, click
from rucio_cs3.cli.main import cli
found = {}
def look(name, command, above):
    context = click.Context(command, info_name=name, parent=above)
    found[context.command_path] = command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            look(below, command.get_command(context, below), context)
look("rucio-cs3", cli, None)
print(json.dumps(found))
"""


def run(program: Sequence[str], home: Path, **more: str) -> str:
    (home / "etc").mkdir(exist_ok=True)
    (home / "etc" / "rucio.cfg").write_text(f"[database]\ndefault = sqlite:///{home}/rucio.db\n")
    done = subprocess.run(
        [sys.executable, *program],
        env={"RUCIO_HOME": str(home), "HOME": str(home), "PATH": os.defpath, **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(run(["-c", _HELPS], tmp_path_factory.mktemp("home")).splitlines()[-1])
    return found


def test_every_help_is_a_manual_page(helps: Mapping[str, str]) -> None:
    assert {path.split()[1] for path in helps if " " in path} == set(_COMMANDS)
    for path, text in helps.items():
        assert "Example:" in text, path
        if path != "rucio-cs3":
            assert "Exit codes:" in text, path
            assert path in text.partition("Example:")[2], f"the example of {path} is another command's"
        for line in text.splitlines():
            assert len(line) <= 120, f"{path}: {line}"


def test_the_manual_knows_no_commands_that_are_gone() -> None:
    assert set(manual._OWN_EXIT_CODES) | set(manual._OF_COMMANDS) <= set(_COMMANDS)


def test_page_of_commands_is_what_the_program_says(tmp_path: Path) -> None:
    run([str(ROOT / ".ci" / "commands.py"), str(tmp_path / "commands.md")], tmp_path)
    assert text_of(tmp_path / "commands.md") == text_of(DOCS / "commands.md"), "run: make commands"


# -- completion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_shells_read(shell: str, tmp_path: Path) -> None:
    told = run([COMMAND, "completion", shell], tmp_path, PATH="/usr/bin:/bin")
    assert "_RUCIO_CS3_COMPLETE" in told
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=told, text=True, check=True, timeout=20)


def completed(words: str, home: Path) -> list[str]:
    variables = {"_RUCIO_CS3_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return [line.partition(",")[2] for line in run([COMMAND], home, **variables).splitlines() if line]


def test_commands_options_and_clouds_are_completed(tmp_path: Path) -> None:
    configuration = tmp_path / ".config" / "rucio-cs3"
    configuration.mkdir(parents=True)
    (configuration / "clouds.cfg").write_text("[cernbox]\n[central]\n[other]\n")
    assert completed("rucio-cs3 trans", tmp_path) == ["transfers"]
    assert completed("rucio-cs3 transfers --wat", tmp_path) == ["--watch"]
    assert completed("rucio-cs3 ls ce", tmp_path) == ["cernbox", "central"]
    (configuration / "clouds.cfg").write_text("this is no configuration file")
    assert completed("rucio-cs3 ls ce", tmp_path) == []


# -- messages ------------------------------------------------------------------------------------------------------


def literals(folder: Path) -> Iterator[str]:
    """All texts of the modules of a folder, with … for what is put into them."""
    for path in folder.rglob("*.py"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python says of others' code
            tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def messages(*, of_rucio: bool) -> Iterator[tuple[str, str]]:
    """Heading and words of what people see."""
    page = DOCS / "troubleshooting.md"
    for heading in re.findall(r"^## (.*)$", text_of(page), re.MULTILINE):
        if (heading == "From Rucio") is of_rucio and "\n|" in section(page, heading):
            for line in section(page, heading).splitlines():
                if line.startswith("| ") and not line.startswith("| Message"):
                    yield from ((heading, code) for code in re.findall(r"`([^`]+)`", line.split(" | ")[0]))


@pytest.mark.parametrize("of_rucio", [False, True])
def test_messages_are_those_of_the_code(of_rucio: bool) -> None:
    found = importlib.util.find_spec("rucio" if of_rucio else "rucio_cs3")
    assert found is not None
    assert found.submodule_search_locations
    texts = [" ".join(text.split()) for text in literals(Path(next(iter(found.submodule_search_locations))))]
    told = list(messages(of_rucio=of_rucio))
    assert told
    patterns = {
        message: re.compile(".*".join(re.escape(piece.strip()) for piece in message.split("…"))) for _, message in told
    }
    assert [message for message, pattern in patterns.items() if not any(map(pattern.search, texts))] == []


def test_rows_of_the_page_have_advice() -> None:
    page = DOCS / "troubleshooting.md"
    for heading in re.findall(r"^## (.*)$", text_of(page), re.MULTILINE):
        for row in rows(section(page, heading)) if "\n|" in section(page, heading) else ():
            assert len(row) == 3, row
            assert all(row), row
