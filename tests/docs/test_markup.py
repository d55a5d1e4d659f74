"""Each example of the documentation says whether it is run, and the mark-up that says so is understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import PAGES, MarkUpError, differs, parse


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.stem))
def test_each_example_is_run_or_says_why_not(path: Path) -> None:
    assert parse(path).unmarked == []


_PAGE = """
<!-- fresh: CERNBOX -->
<!-- a remark -->
<!-- before:
touch a
-->
<!-- run: operator, exit 1 or 3 -->
```bash
false
```

<!-- output -->
```text
no
```
<!-- not run: it is long -->
```python
while True: ...
```
```bash
nobody looks at this
```
```ini
[x]
```
"""


def test_what_a_page_asks_for() -> None:
    page = parse(Path("some.md"), _PAGE)
    assert page.fresh == {"CERNBOX"}
    hidden, step = page.steps
    assert (hidden.code, hidden.hidden) == ("touch a", True)
    assert (step.code, step.configuration, step.stdout) == ("false\n", "operator", "no\n")
    assert step.exit_codes == {1, 3}
    assert page.left == {"some.md:17": "it is long"}
    assert page.unmarked == ["some.md:20"]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- run: backwards -->\n```bash\n```\n",
        "<!-- not run -->\n```bash\n```\n",
        "<!-- run -->\nwords\n```bash\n```\n",
        "<!-- run -->\nwords\n",
        "<!-- run -->\n```ini\n```\n",
        "<!-- output -->\n```text\n```\n",
        "<!-- before: -->\n",
    ],
)
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(MarkUpError, match=r"some\.md"):
        parse(Path("some.md"), text)


@pytest.mark.parametrize(
    ("shown", "written", "wrong"),
    [
        ("a b", "a   b\n\n", None),
        ("12 files, 1.5 MB", "3 files, 220 MB", None),
        ("── ends", "───────── ends", None),
        ("at … of it", "at 10 % of it", None),
        ("first\n…\nlast", "first\nmore\nmore\nlast", None),
        ("first\n…", "first\nmore", None),
        ("a b", "a c", "a b"),
        ("first\nlast", "first\nmore\nlast", "last"),
        ("first", "first\nmore", "(nothing more, but there is: more)"),
        ("first\n…\nlast", "first\nlast\nmore", "(nothing more, but there is: more)"),
        ("3 files", "no files", "3 files"),
    ],
)
def test_outputs_are_compared(shown: str, written: str, wrong: str | None) -> None:
    assert differs(shown, written) == wrong
