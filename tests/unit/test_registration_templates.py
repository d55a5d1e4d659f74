"""Names of DIDs by templates."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.registration.templates import Did, DidTemplate, Located, Template, TemplateError

FILE = Located(("projects", "x", "run1", "a.root.gz"), 2, "x")

#: Names as a cloud has them: anything but a slash and NUL, braces and colons, too.
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map(tuple)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{path}", "projects/x/run1/a.root.gz"),
        ("{below}", "run1/a.root.gz"),
        ("{folder}", "projects/x/run1"),
        ("{name}", "a.root.gz"),
        ("{stem}", "a.root"),
        ("{suffix}", ".gz"),
        ("{top}", "x"),
        ("{path[0]}", "projects"),
        ("{path[-1]}", "a.root.gz"),
        ("{path[1:]}", "x/run1/a.root.gz"),
        ("{path[:-1]:.}", "projects.x.run1"),
        ("{path[1:3]:_}", "x_run1"),
        ("{folder:}", "projectsxrun1"),
        ("{folder[9:]}", ""),
        ("data.{top}_{{{stem}}}{suffix}", "data.x_{a.root}.gz"),
        ("", ""),
        ("plain", "plain"),
    ],
)
def test_a_template_is_filled_in(template: str, name: str) -> None:
    assert Template(template).of(FILE) == name


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{paths}", "no field paths"),
        ("{name[0]}", "name has no parts"),
        ("{top:.}", "top has no parts"),
        ("{path[x]}", "[x] is no part"),
        ("{path[1:2:3]}", "[1:2:3] is no part"),
        ("{path.__class__}", "brace at character 1"),
        ("{path!r}", "brace at character 1"),
        ("a{", "brace at character 2"),
        ("}", "brace at character 1"),
        ("{path[99999999999]}", "is no part"),
    ],
)
def test_what_is_no_template_says_why(template: str, why: str) -> None:
    with pytest.raises(TemplateError, match="template") as caught:
        Template(template)
    assert why in str(caught.value)


def test_a_part_that_a_path_has_not_says_so() -> None:
    with pytest.raises(TemplateError, match=r"path has 1 parts, and \[1\] is none"):
        Template("{path[1]}").of(Located(("a",), 0, "CLOUD"))


@given(path=PATHS)
def test_the_whole_path_is_a_name_of_its_own(path: tuple[str, ...]) -> None:
    assert Template("{path}").of(Located(path, 0, "")) == "/".join(path)


@given(path=PATHS, depth=st.integers(0, 5), cut=st.integers(-7, 7))
def test_two_slices_make_the_whole(path: tuple[str, ...], depth: int, cut: int) -> None:
    file = Located(path, min(depth, len(path) - 1), "top")
    first, rest = Template(f"{{path[:{cut}]}}").of(file), Template(f"{{path[{cut}:]}}").of(file)
    assert "/".join(part for part in (first, rest) if part) == "/".join(path)
    assert Template("{stem}{suffix}").of(file) == path[-1]


@given(text=st.text(max_size=40))
def test_any_text_is_a_template_or_says_why_not(text: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(Template(text).of(FILE), str)


@given(text=st.text(max_size=20))
def test_braces_are_written_twice(text: str) -> None:
    assert Template(text.replace("{", "{{").replace("}", "}}")).of(FILE) == text


@pytest.mark.parametrize(
    ("template", "did"),
    [
        ("{folder:.}", Did("jdoe", "projects.x.run1")),
        ("user.{path[0]}:{top}", Did("user.projects", "x")),
        ("{path[1:]}", Did("jdoe", "x/run1/a.root.gz")),
        ("group:a:b", Did("group", "a:b")),
    ],
)
def test_the_template_of_a_dataset_may_have_a_scope(template: str, did: Did) -> None:
    assert DidTemplate.parse(template, scope=Template("jdoe")).of(FILE) == did
