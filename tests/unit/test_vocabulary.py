"""Names say what a thing is for; a name that fits everything says nothing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import yeondong

SAYS_NOTHING = frozenset(
    {"manager", "managers", "helper", "helpers", "util", "utils", "common", "base", "misc", "data", "info"}
)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> list[str]:
    return [word.lower() for word in WORD.findall(name)]


def names_in(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Give line and name of the module, its folder, and every class and function in it."""
    yield 1, path.parent.name
    yield 1, path.stem
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def empty_names_in(path: Path, source: str) -> list[str]:
    return [
        f"{path}:{line}: {name}" for line, name in names_in(path, source) if not SAYS_NOTHING.isdisjoint(words(name))
    ]


def test_no_class_module_or_function_has_a_name_that_says_nothing() -> None:
    modules = sorted(Path(yeondong.__file__).parent.rglob("*.py"))
    assert modules

    assert [found for path in modules for found in empty_names_in(path, path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/utils.py", ""),
        ("common/__init__.py", ""),
        ("core/flow.py", "class FlowManager: ..."),
        ("core/flow.py", "class HTTPHelper: ..."),
        ("core/flow.py", "class Base: ..."),
        ("core/flow.py", "def load_data() -> None: ..."),
        ("core/flow.py", "async def _info2() -> None: ..."),
        ("core/flow.py", "class Flow:\n    def data(self) -> bytes: ..."),
    ],
)
def test_a_name_that_says_nothing_is_found(path: str, source: str) -> None:
    assert len(empty_names_in(Path(path), source)) == 1


@pytest.mark.parametrize(
    "source",
    ["class DatabaseFile: ...", "def based_on() -> None: ...", "class Message:\n    data: bytes", "metadata = 1"],
)
def test_words_are_compared_whole_and_attributes_are_free(source: str) -> None:
    assert empty_names_in(Path("core/message.py"), source) == []
