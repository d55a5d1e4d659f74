"""The examples of the documentation, and what their mark-up says: is each run, how, and what must come of it.

The mark-up is HTML comments, which no reader sees; what there is of it is in tests/README.md. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES: Sequence[Path] = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

#: Languages of blocks that are programs, and so are run or say why not.
PROGRAMS = ("bash", "python")

#: Languages of blocks that may be what a program has written.
_OUTPUTS = ("text", "json", "")

#: How long one block may take, in seconds; a busy machine needs minutes for what takes seconds elsewhere.
TIMEOUT_S = 300.0

_PIECE = re.compile(
    r"^<!-- *(?P<comment>.*?) *-->[ \t]*$|^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_EXIT = re.compile(r"exit (\d+(?: or \d+)*)")
_STDIN = re.compile(r"stdin (\S+)")


class MarkUpError(ValueError):
    """The mark-up of a page says nothing that can be obeyed; the text names page and line."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something to run, in the order of the page.

    :param where: page and line, for messages.
    :param language: one of :data:`PROGRAMS`.
    :param hidden: whether readers do not see it.
    :param configuration: ``person``, ``operator`` or ``none``: whose configuration of Rucio it sees.
    :param exit_codes: with one of which it must end.
    :param interrupted: it runs until Ctrl-C, which it gets after its first words.
    :param stdin: file with its input, relative to the page's folder; None for no input.
    :param stdout: what it must have written, as far as the page shows it.
    """

    where: str
    language: str
    code: str
    hidden: bool = False
    configuration: str = "person"
    exit_codes: frozenset[int] = frozenset({0})
    interrupted: bool = False
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None


@dataclass
class Page:
    """What the mark-up of one page asks for.

    :param fresh: names of RSEs that the page's own examples make.
    :param replaced: words of the examples -> what stands for them in the sandbox, as a shell reads it.
    :param unmarked: where a block is neither run nor said not to be.
    :param left: where a block is not run, and why.
    """

    path: Path
    steps: list[Step] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    replaced: dict[str, str] = field(default_factory=dict)
    unmarked: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.stem.lower()


def parse(path: Path, text: str | None = None) -> Page:
    """
    :param text: of the page; read from ``path`` if None.
    :raises MarkUpError: for mark-up that says nothing.
    """
    page = Page(path)
    text = path.read_text("utf-8") if text is None else text
    mark: str | None = None
    end = 0
    for piece in _PIECE.finditer(text):
        where = f"{path.name}:{text.count(chr(10), 0, piece.start()) + 1}"
        # A mark belongs to the block right behind it.
        if mark is not None and text[end : piece.start()].strip():
            raise MarkUpError(f"{where}: {mark!r} has no block behind it")
        end = piece.end()
        comment = piece["comment"]
        if comment is not None:
            mark = _comment(page, where, comment, mark)
            continue
        _block(page, where, piece["language"], piece["code"], mark)
        mark = None
    if mark is not None:
        raise MarkUpError(f"{path.name}: {mark!r} has no block behind it")
    return page


def _comment(page: Page, where: str, comment: str, mark: str | None) -> str | None:
    """Obeys what stands by itself; gives the mark of the next block."""
    word, _, rest = (part.strip() for part in comment.partition(":"))
    if word == "fresh":
        page.fresh |= {name.strip() for name in rest.split(",")}
        return mark
    if word == "replace":
        text, with_, new = rest.rpartition(" with ")
        if not with_:
            raise MarkUpError(f"{where}: replace what with what?")
        page.replaced[text.strip()] = new.strip()
        return mark
    if word in ("before", "after"):
        if not rest:
            raise MarkUpError(f"{where}: {word} has no commands")
        page.steps.append(Step(where=where, language="bash", code=rest, hidden=True))
        return mark
    if word in ("run", "not run", "output"):
        if word == "not run" and not rest:
            raise MarkUpError(f"{where}: not run, but why?")
        return comment
    return mark  # a remark


def _block(page: Page, where: str, language: str, code: str, mark: str | None) -> None:
    word, _, rest = (part.strip() for part in (mark or "").partition(":"))
    if word == "output":
        if language not in _OUTPUTS or not page.steps or rest not in ("", "stdout", "stderr"):
            raise MarkUpError(f"{where}: this cannot be the output of anything")
        page.steps[-1] = _with_output(page.steps, rest or "stdout", code, where)
    elif language not in PROGRAMS:
        if word:
            raise MarkUpError(f"{where}: {mark!r} is for {' and '.join(PROGRAMS)}, not {language or 'plain'} blocks")
    elif word == "run":
        page.steps.append(_step(where, language, code, rest))
    elif word == "not run":
        page.left[where] = rest
    else:
        page.unmarked.append(where)


def _with_output(steps: list[Step], stream: str, code: str, where: str) -> Step:
    step = steps[-1]
    if step.hidden:
        raise MarkUpError(f"{where}: output must come before the hidden commands that look at what was done")
    return replace(step, **{stream: code})  # type: ignore[arg-type]


def _step(where: str, language: str, code: str, words: str) -> Step:
    options: dict[str, object] = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        if word == "operator":
            options["configuration"] = "operator"
        elif word == "no rucio":
            options["configuration"] = "none"
        elif word == "until Ctrl-C":
            options["interrupted"] = True
        elif found := _EXIT.fullmatch(word):
            options["exit_codes"] = frozenset(map(int, found[1].split(" or ")))
        elif found := _STDIN.fullmatch(word):
            options["stdin"] = found[1]
        else:
            raise MarkUpError(f"{where}: run: {word!r} is no such option")
    return Step(where=where, language=language, code=code, **options)  # type: ignore[arg-type]


# -- outputs -----------------------------------------------------------------------------------------------------

_NUMBER = r"\d+(?:[.:]\d+)*"
_LINES = re.compile(r"([\u2500-\u259f])\1+|-{2,}")


def differs(shown: str, written: str) -> str | None:
    """The first line of ``shown`` that is not in ``written`` at its place; None where all is so.

    Blanks and the lengths of lines that are drawn do not count, any number stands for any number, and ``…`` for
    anything; alone in a line it stands for any lines.
    """
    lines = list(_lines(written))
    at, anywhere = 0, False
    for line in _lines(shown):
        if line == "…":
            anywhere = True
            continue
        pattern = re.compile(_pattern(line))
        found = next((i for i in range(at, len(lines)) if pattern.fullmatch(lines[i])), None)
        if found is None or (found != at and not anywhere):
            return line
        at, anywhere = found + 1, False
    return None if at == len(lines) or anywhere else f"(nothing more, but there is: {lines[at]})"


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        plain = _LINES.sub(lambda run: run[0][0], " ".join(line.split()))
        if plain:
            yield plain


def _pattern(line: str) -> str:
    parts = re.split(rf"(…|{_NUMBER})", line)
    return "".join(
        ".*" if part == "…" else _NUMBER if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
