"""What a type checker sees of the public face: correct use passes, each mistake is rejected."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import mypy.api
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ERROR = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): error: ")

pytestmark = pytest.mark.timeout(300)  # the first run without a cache checks all that we depend on


def statements() -> Iterator[tuple[str, range]]:
    """Give each statement of `bad.py` that is no import, with its lines."""
    source = (HERE / "bad.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body[1:]:
        if not isinstance(node, ast.ImportFrom):
            decorators = getattr(node, "decorator_list", [])
            lines = range(min([node.lineno, *(d.lineno for d in decorators)]), (node.end_lineno or node.lineno) + 1)
            yield " ".join(source.splitlines()[lines.start - 1 : lines.stop - 1]), lines


def errors_in(name: str) -> dict[int, str]:
    """Run the checker over one file and give its errors by line."""
    output, failure, _ = mypy.api.run(["--config-file", str(ROOT / "pyproject.toml"), str(HERE / name)])
    assert not failure, failure
    found = {}
    for line in output.splitlines():
        match = ERROR.match(line)
        if match:
            assert Path(match["path"]).name == name, line
            found[int(match["line"])] = line
    return found


@pytest.fixture(scope="module", autouse=True)
def _in_the_checkout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def rejected() -> dict[int, str]:
    return errors_in("bad.py")


def test_the_shop_type_checks() -> None:
    assert errors_in("shop.py") == {}


def test_the_shop_can_be_declared() -> None:
    shop = importlib.import_module("tests.typing.shop")

    assert set(shop.app.subscriptions) == {"orders/search", "orders/statistics", "points/shop", "letters/shop"}


@pytest.mark.parametrize(("statement", "lines"), list(statements()))
def test_a_mistake_is_rejected(statement: str, lines: range, rejected: dict[int, str]) -> None:
    assert any(line in rejected for line in lines), statement


def test_nothing_else_is_rejected(rejected: dict[int, str]) -> None:
    meant = {line for _, lines in statements() for line in lines}

    assert [text for line, text in rejected.items() if line not in meant] == []
