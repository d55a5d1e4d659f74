"""Names of DIDs made of the path of a file, by templates that people write. Pure.

A template is text with fields in braces; ``{{`` and ``}}`` are braces themselves. Of ``CERNBOX:projects/x`` that is
registered, the file ``projects/x/run1/a.root`` has

==========  ====================================================  ===========================
field       what it is                                            here
==========  ====================================================  ===========================
``path``    path below the RSE's folder                           ``projects/x/run1/a.root``
``folder``  folder of that                                        ``projects/x/run1``
``below``   path below the folder that is registered              ``run1/a.root``
``name``    name of the file                                      ``a.root``
``stem``    name without its last suffix                          ``a``
``suffix``  the last suffix, with its dot                         ``.root``
``top``     name of the folder that is registered                 ``x``
==========  ====================================================  ===========================

``path``, ``folder`` and ``below`` have parts: ``{path[0]}`` is the first, ``{path[1:]}`` all but the first, as Python
counts; ``{folder:.}`` puts dots where the slashes were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

#: A field, an escaped brace, or a brace that is neither.
_TOKEN = re.compile(r"\{\{|\}\}|\{([a-z]+)(?:\[([^\[\]{}]*)\])?(?::([^{}]*))?\}|[{}]")

_INDEX = re.compile(r"-?\d{1,6}")
_SLICE = re.compile(r"(-?\d{1,6})?:(-?\d{1,6})?")


class TemplateError(ValueError):
    """A template that is none, or one that a file has no name by; the text is for people."""


class Did(NamedTuple):
    """A data identifier of Rucio."""

    scope: str
    name: str

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"


@dataclass(frozen=True)
class Located:
    """Where a file is, as templates see it.

    :param path: names from the RSE's folder to the file; at least one.
    :param depth: how many of them lead to the folder that is registered.
    :param top: name of that folder.
    """

    path: tuple[str, ...]
    depth: int
    top: str

    def parts(self, field: str) -> tuple[str, ...]:
        """The value of a field that has parts."""
        if field == "path":
            return self.path
        return self.path[:-1] if field == "folder" else self.path[self.depth :]

    def text(self, field: str) -> str:
        """The value of a field that has none."""
        name = self.path[-1]
        if field == "top":
            return self.top
        if field == "name":
            return name
        suffix = PurePosixPath(name).suffix
        return suffix if field == "suffix" else name.removesuffix(suffix)


#: Fields with parts, and those without.
PARTS, TEXTS = ("path", "folder", "below"), ("name", "stem", "suffix", "top")

_Piece = str | Callable[[Located], str]


class Template:
    """One template; :meth:`of` fills it in.

    :raises TemplateError: saying what is wrong with it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._pieces = _pieces(text)

    def of(self, file: Located) -> str:
        """
        :raises TemplateError: when the file's path has not the part that is asked for.
        """
        return "".join(piece if isinstance(piece, str) else piece(file) for piece in self._pieces)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


class DidTemplate:
    """The template of a DID, ``scope:name``, or of a name alone."""

    def __init__(self, name: Template, scope: Template) -> None:
        self._name = name
        self._scope = scope

    @classmethod
    def parse(cls, text: str, *, scope: Template) -> DidTemplate:
        """
        :param text: up to the first colon outside of fields it is the scope; without a colon it is the name.
        :param scope: of names alone.
        :raises TemplateError: see :class:`Template`.
        """
        colon = next((m.start() for m in re.finditer(r"\{[^{}]*\}|:", text) if m[0] == ":"), None)
        if colon is None:
            return cls(Template(text), scope)
        return cls(Template(text[colon + 1 :]), Template(text[:colon]))

    def of(self, file: Located) -> Did:
        """
        :raises TemplateError: see :meth:`Template.of`.
        """
        return Did(self._scope.of(file), self._name.of(file))


def _pieces(text: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    end = 0
    for match in _TOKEN.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[1] is not None:
            pieces.append(_field(text, match[1], match[2], match[3]))
        elif len(match[0]) == 2:
            pieces.append(match[0][0])
        else:
            raise TemplateError(
                f"template {text!r} has a brace at character {match.start() + 1} that is no part of a field; fields "
                f"are such as {{path}}, {{path[0]}} and {{folder:.}}, and a brace itself is written twice"
            )
    pieces.append(text[end:])
    return [piece for piece in pieces if piece != ""]


def _field(template: str, field: str, index: str | None, joiner: str | None) -> Callable[[Located], str]:
    if field in TEXTS:
        if index is not None or joiner is not None:
            raise TemplateError(f"template {template!r}: {field} has no parts; {', '.join(PARTS)} have")
        return lambda file: file.text(field)
    if field not in PARTS:
        raise TemplateError(f"template {template!r}: there is no field {field}; there are {', '.join(PARTS + TEXTS)}")
    between = "/" if joiner is None else joiner
    if index is None:
        return lambda file: between.join(file.parts(field))
    if _INDEX.fullmatch(index):
        return lambda file: _part(template, field, file.parts(field), int(index))
    match = _SLICE.fullmatch(index)
    if match is None:
        raise TemplateError(f"template {template!r}: [{index}] is no part; there are such as [0], [-1], [1:] and [:2]")
    chosen = slice(*(int(number) if number else None for number in match.groups()))
    return lambda file: between.join(file.parts(field)[chosen])


def _part(template: str, field: str, parts: tuple[str, ...], index: int) -> str:
    try:
        return parts[index]
    except IndexError:
        raise TemplateError(f"template {template}: {field} has {len(parts)} parts, and [{index}] is none") from None
