"""The documentation says what the code says: tables, settings, errors, commands, links and examples."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3 import settings
from rucio_cs3.cli.main import _COMMANDS
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.errors import CS3Error
from rucio_cs3.cs3.reference import SCHEMES
from rucio_cs3.sandbox.cloud import faults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
README = ROOT / "README.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page."""
    return [code for name, code in _BLOCK.findall(text_of(page)) if name == language]


def section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next one of the same or a higher level."""
    text = text_of(page)
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match, f"{page.name} has no heading {heading!r}"
    following = re.search(rf"^#{{1,{len(match[1])}}} ", text[match.end() :], re.MULTILINE)
    return text[match.end() :][: following.start() if following else None]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in a text, without its head and without back quotes."""
    lines = [line for line in text[text.index("\n|") + 1 :].split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def tree(kind: type[CS3Error]) -> list[type[CS3Error]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


#: The client's own errors; transfers have two of their own, which are no part of the tree in the docs.
TREE = [kind for kind in tree(CS3Error) if kind.__module__ == errors.__name__]


@pytest.fixture
def rucio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Rucio that can be imported in this process."""
    if find_spec("rucio") is None:
        pytest.skip("neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)


# -- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("CS3 codes", errors.CS3_CODES),
        ("gRPC statuses", errors.GRPC_STATUSES),
        ("HTTP statuses", {str(status): kind for status, kind in errors.HTTP_STATUSES.items()}),
    ],
)
@pytest.mark.usefixtures("rucio")
def test_tables_of_codes(heading: str, table: Mapping[str, type[CS3Error]]) -> None:
    from rucio_cs3.rucio_exceptions import rucio_exception

    told = {row[0]: (row[1], row[2]) for row in rows(section(DOCS / "cs3apis.md", heading))}
    assert told == {code: (kind.__name__, type(rucio_exception(kind("x"))).__name__) for code, kind in table.items()}


def test_page_of_errors_has_the_tree() -> None:
    told = [(row[0], row[1], row[3]) for row in rows(section(DOCS / "errors.md", "The tree"))]
    in_code = [
        (
            kind.__name__,
            "\N{EN DASH}" if kind is CS3Error else kind.__bases__[0].__name__,
            "yes" if kind.retryable_by_default else "no",
        )
        for kind in TREE
    ]
    assert told == in_code


@pytest.mark.usefixtures("rucio")
def test_page_of_errors_has_rucios_exceptions() -> None:
    from rucio_cs3.rucio_exceptions import PUT_EXCEPTIONS, rucio_exception

    told = {row[0]: (row[4], row[5]) for row in rows(section(DOCS / "errors.md", "The tree"))}
    assert told == {
        kind.__name__: (
            type(rucio_exception(kind("x"))).__name__,
            type(rucio_exception(kind("x"), PUT_EXCEPTIONS)).__name__,
        )
        for kind in TREE
    }


def test_advice_is_about_errors_that_exist() -> None:
    known = {kind.__name__ for kind in TREE}
    for first, *_ in rows(section(DOCS / "errors.md", "What to do")):
        named = set(re.findall(r"\b[A-Z][a-z]\w+[A-Z]\w+|\bLocked\b|\bThrottled\b|\bUnavailable\b", first))
        assert named <= known, first


def test_settings_are_all_there() -> None:
    assert [row[0] for row in rows(section(DOCS / "rse-setup.md", "Settings"))] == list(settings.SETTINGS)


def test_every_named_setting_exists() -> None:
    for page in [*PAGES, *(path for path in (ROOT / "etc").rglob("*") if path.is_file())]:
        # The names of the package itself and of its ring begin like settings.
        named = set(re.findall(r"(?<![\w./`-])cs3_[a-z_]+\b", text_of(page).replace("`", " ")))
        # One is a key of JSON (docs/files.md).
        assert named - {"cs3_path"} <= settings.SETTINGS.keys(), page.name


def test_fault_scripts_of_the_sandbox() -> None:
    told = {
        re.split(r"[-:]<|:", script)[0]
        for row in rows(section(DOCS / "sandbox.md", "Faults"))
        for script in row[0].split(", ")
    }
    assert told == faults._PLAIN | faults._NUMBERED | faults._NAMED | {"return", "answer"}


def test_map_of_modules_is_complete() -> None:
    package = ROOT / "rucio_cs3"
    modules = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if not path.name.startswith("_") and path.relative_to(package).parts[0] not in ("cli", "sandbox")
    }
    told = {row[0] for row in rows(section(DOCS / "architecture.md", "Module map"))}
    assert told == modules | {"cli/", "sandbox/"}


# -- commands ----------------------------------------------------------------------------------------------------

_CHECK = """
import json, sys
import click
from rucio_cs3.cli.main import cli
wrong, options = [], {}
for words in json.load(sys.stdin):
    name, *arguments = words
    command = cli.get_command(click.Context(cli), name)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        command = command.get_command(click.Context(command), name)
        if command is None:
            break
    if command is None:
        wrong.append([words, "no such command"])
        continue
    for param in command.params:
        if isinstance(param.type, click.Path):
            param.type.exists = False  # the examples' files are not here
    options[name] = [o for p in command.get_params(click.Context(command)) for o in p.opts if o.startswith("--")]
    try:
        command.make_context(name, arguments)
        command.main(["--help"], prog_name=name, standalone_mode=False)
    except click.MissingParameter:
        pass  # running text names commands without their arguments; blocks are run by tests/docs
    except click.ClickException as error:
        wrong.append([words, error.format_message()])
    except click.exceptions.Exit as error:
        if error.exit_code:
            wrong.append([words, f"exit code {error.exit_code}"])
print("\\n" + json.dumps([wrong, options]))
"""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words after ``rucio-cs3`` of each command line in the documentation and the examples."""
    lines = [
        (page.name, line)
        for page in PAGES
        for line in [
            *(line.strip() for block in blocks(page, "bash") for line in block.replace("\\\n", "").splitlines()),
            # A name in running text stands for the command without its arguments.
            *(f"{name} --help" for name in re.findall(r"`(rucio-cs3 [a-z]+)`", text_of(page))),
            *re.findall(r"`(rucio-cs3 [a-z]+ [^`…]+)`", text_of(page)),
            # The examples of each command's help; what is no example there is how it is used.
            *(
                line
                for block in (blocks(page, "text") if page.name == "commands.md" else ())
                for line in block.replace("\\\n", "").splitlines()
                if "[OPTIONS]" not in line
            ),
        ]
    ]
    lines += [
        (unit.name, "rucio-cs3 " + line.partition("rucio-cs3 ")[2])
        for unit in (ROOT / "etc").rglob("*.service")
        for line in text_of(unit).splitlines()
        if line.startswith("ExecStart=")
    ]
    for where, line in lines:
        if line.startswith("rucio-cs3 "):
            words = shlex.split(line, comments=True)[1:]
            # What follows is the shell's, or a remark behind an example.
            end = next((i for i, word in enumerate(words) if word in ("|", ">", "2>", "&&", ";")), len(words))
            if not words[0].startswith("-"):
                yield where, words[:end]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Which command lines are wrong, and the options of each command."""
    if find_spec("rucio") is None or find_spec("rucio.core") is None:
        pytest.skip("the Rucio server is not installed")
    home = tmp_path_factory.mktemp("home")
    (home / "etc").mkdir()
    (home / "etc" / "rucio.cfg").write_text(f"[database]\ndefault = sqlite:///{home}/rucio.db\n")
    # A process of its own: the agent's command makes Rucio a server for good.
    done = subprocess.run(
        [sys.executable, "-c", _CHECK],
        input=json.dumps([words for _, words in commands()]),
        env={"RUCIO_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_command_lines_are_right(checked: Any) -> None:
    assert {words[0] for _, words in commands()} == set(_COMMANDS)
    assert checked[0] == []


def test_options_of_the_agent(checked: Any) -> None:
    told = {row[0] for row in rows(section(DOCS / "transfers.md", "The daemons").partition("--run-once\n")[2])}
    assert told | {"--help"} == set(checked[1]["agent"])


def test_programs_that_are_run_are_rucios() -> None:
    programs = {words[1] for _, words in commands() if words[0] == "run"} - {"--help"}
    assert programs
    scripts = Path(sys.executable).parent
    if not (scripts / "rucio-conveyor-submitter").exists():
        pytest.skip("the Rucio server is not installed")
    for program in programs:
        assert (scripts / program).is_file()


# -- links -------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as code hosts and MkDocs make them."""
    titles = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", text_of(page))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_site_has_all_pages() -> None:
    told = re.findall(r": (\S+\.md)$", text_of(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(told) == sorted(page.name for page in DOCS.glob("*.md"))


def test_pictures_are_well_formed() -> None:
    pictures = list(DOCS.rglob("*.svg"))
    assert pictures
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().get("viewBox")
        assert "prefers-color-scheme: dark" in text_of(picture)


def test_pages_load_nothing_from_elsewhere() -> None:
    """Neither pictures of other servers, nor those that a script of another server has to draw."""
    for page in PAGES:
        assert not re.search(
            r"!\[[^\]]*\]\(https?:|<(?:img|script|link|iframe)\b|^```mermaid", text_of(page), re.MULTILINE
        )
    assert "mermaid" not in text_of(ROOT / "mkdocs.yml")
    assert "font: false" in text_of(ROOT / "mkdocs.yml")


# -- the ten lines of the README, and other examples ---------------------------------------------------------------

TEN_LINES = "Add a cloud to your own Rucio in ten lines"


def rucio_commands(text: str) -> list[list[str]]:
    lines = re.sub(r"\\\n\s*", " ", text)
    return [words for words in (shlex.split(line) for line in _whole(lines)) if words[:1] == ["rucio"]]


def _whole(text: str) -> list[str]:
    """Lines, with those joined that a quotation mark keeps open."""
    whole: list[str] = []
    for line in text.splitlines():
        if whole and whole[-1].count("'") % 2:
            whole[-1] += line
        else:
            whole.append(line)
    return whole


def ten_lines() -> list[list[str]]:
    codes = re.findall(r"```bash\n(.*?)```", section(README, TEN_LINES), re.DOTALL)
    return [words for code in codes for words in rucio_commands(code)]


def options_of(words: list[str]) -> dict[str, str]:
    return {word: words[index + 1] for index, word in enumerate(words[:-1]) if word.startswith("--")}


def test_rucios_commands_are_those_that_the_tests_run() -> None:
    # RucioSite runs each of them for real in tests/rucio.
    source = (ROOT / "rucio_cs3" / "sandbox" / "rucio_site.py").read_text("utf-8")
    more = [words for code in blocks(DOCS / "rse-setup.md", "bash") for words in rucio_commands(code)]
    assert len(ten_lines()) == 5
    for words in [*ten_lines(), *more]:
        verbs = [word for word in words[1:4] if re.fullmatch(r"[a-z]+", word)]
        assert ", ".join(f'"{verb}"' for verb in verbs[:3]) in source, words
        for option in options_of(words):
            assert f'"{option}"' in source, option


@pytest.mark.usefixtures("rucio")
def test_protocol_of_the_ten_lines_is_right() -> None:
    from rucio_cs3 import protocol, rses
    from tests.unit.rucio_client import OPERATIONS

    (words,) = [words for words in ten_lines() if words[1:4] == ["rse", "protocol", "add"]]
    options = options_of(words)
    domains = json.loads(options["--domain-json"])
    assert set(domains["wan"]) == set(OPERATIONS)
    assert hasattr(protocol, options["--impl"].rpartition(".")[2])
    given = {
        "scheme": options["--scheme"],
        "hostname": options["--hostname"],
        "port": int(options["--port"]),
        "prefix": options["--prefix"],
        "extended_attributes": json.loads(options["--extended-attributes-json"]),
    }
    endpoint = rses.endpoint({"rse": words[4], "id": "1"}, given, lambda _: {})
    url = f"davs://{given['hostname']}:443{given['prefix']}a%20b"
    assert str(endpoint.webdav.reference(url)) == "/eos/project/r/rucio/a b"


@pytest.mark.usefixtures("rucio")
def test_configuration_examples_are_right() -> None:
    from rucio_cs3 import policy, rse_logins

    examples = [
        *re.findall(r"```ini\n(.*?)```", section(README, TEN_LINES), re.DOTALL),
        text_of(ROOT / "etc" / "rucio.cfg.example"),
    ]
    for text in examples:
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert parser["policy"]["package"] == policy.__name__
        assert parser["conveyor"]["transfertool"] == policy.TRANSFERTOOL
        assert set(parser["conveyor"]["scheme"].split(",")) <= SCHEMES.keys()
    accounts = [
        *re.findall(r"```json\n(.*?)```", section(README, TEN_LINES), re.DOTALL),
        text_of(ROOT / "etc" / "rse-accounts.cfg.example"),
    ]
    assert len(accounts) == 2
    for text in accounts:
        for entry in json.loads(text).values():
            assert set(entry) <= set(rse_logins.KEYS)


def test_python_examples_of_the_sandbox() -> None:
    codes = blocks(DOCS / "sandbox.md", "python")
    for code in codes:
        compile(code, "sandbox.md", "exec")
    (embedded,) = [code for code in codes if "with EmbeddedCloud" in code]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", embedded], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("b'hello'\n", "")
