"""What the source says: no dataclass shows a secret in its ``repr``, and nothing of ours ever shows local variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import rucio_cs3

PACKAGE = Path(rucio_cs3.__file__).parent

#: Fields that hold a secret as text. One that is a Secret, a file or another object hides its own.
_SECRET = re.compile(r"(?:^|_)(?:token|password|secret|key|authorization|credential|client_id|ticket|head|headers)$")
_TEXT = re.compile(r"\b(?:str|bytes|Mapping)\b")

#: Text fields of that name that are no secret.
_HARMLESS = {
    "IssuedToken.client_id": "names the client; its secret is another field",
    "OldVersion.key": "the name of an old version of a file",
    "RecycledItem.key": "the name of a deleted file",
}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def shown(tree: ast.Module) -> Iterator[str]:
    """Fields with a secret that ``repr`` shows."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        named = any(ast.unparse(base) == "NamedTuple" for base in node.bases)
        own_repr = any(isinstance(one, ast.FunctionDef) and one.name == "__repr__" for one in node.body)
        if own_repr or not (named or _is_dataclass(node)):
            continue
        for field in node.body:
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            hidden = field.value is not None and "repr=False" in ast.unparse(field.value)
            if _SECRET.search(field.target.id) and _TEXT.search(ast.unparse(field.annotation)) and not hidden:
                yield f"{node.name}.{field.target.id}"


def test_no_record_shows_a_secret() -> None:
    found = {name for _, tree in trees() for name in shown(tree)}
    assert found == set(_HARMLESS)


def test_such_a_record_is_found() -> None:
    source = """
@dataclass(frozen=True)
class A:
    token: str
    password: str | None = None
    secret: str = field(repr=False)
    key_file: Path
class B(NamedTuple):
    headers: Mapping[str, str]
class C(NamedTuple):
    headers: Mapping[str, str]
    def __repr__(self): ...
"""
    assert list(shown(ast.parse(source))) == ["A.token", "A.password", "B.headers"]


def test_nothing_of_ours_shows_local_variables() -> None:
    """Neither rich's tracebacks nor cgitb, nor a hook of our own: locals of a call in progress hold tokens."""
    forbidden = re.compile(r"show_locals|capture_locals|rich\.traceback|cgitb|sys\.excepthook|f_locals|\blocals\(\)")
    # Which looks whether an error is among a caller's variables, and shows nothing.
    looks_itself = {PACKAGE / "notebook" / "withheld.py"}
    found = {path for path in PACKAGE.rglob("*.py") if forbidden.search(path.read_text())}
    assert found == looks_itself
