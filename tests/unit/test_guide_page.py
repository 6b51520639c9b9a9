"""The guide's rows are all told, and what pages name as code or test is there."""

import re
from itertools import chain

import pytest

from tests.pages import ROOT, read_page

ROWS = {"W": 5, "B": 6, "M": 11, "O": 7, "T": 10, "C": 7, "S": 2}
PATH = re.compile(r"`((?:src|docs|tests|examples|benchmarks)/[\w./-]+)`")
TEST = re.compile(r"`([\w./-]+\.py)::(\w+)`")

GUIDE = read_page("docs/guide.md")
PROMISES = read_page("docs/explanation/promises.md")


def test_all_rows_are_told_in_their_order() -> None:
    told = [row[0] for row in GUIDE.rows() if row[0] != "row"]

    assert told == list(chain.from_iterable([f"{part}{n}" for n in range(1, most + 1)] for part, most in ROWS.items()))


def test_paths_in_the_guide_exist() -> None:
    found = PATH.findall(GUIDE.text)

    assert found
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_a_row_that_is_not_there_yet_says_so() -> None:
    for row, _, here, tested in (cells for cells in GUIDE.rows() if cells[0] != "row"):
        assert PATH.search(tested) or "**not yet**" in here, f"{row} names no test and does not say `not yet`"


def test_all_promises_are_told_with_their_tests() -> None:
    names = ["no-loss", "one-effect", "key-order", "no-phantom", "bounded", "recovers", "true-accounts", "safe-stop"]
    parts = re.split(r"^## ", PROMISES.text, flags=re.MULTILINE)[1:]

    assert [part.partition("\n")[0] for part in parts[:-1]] == names
    for part in parts[:-1]:
        assert TEST.search(part), part
    for name in names:
        assert f"| {name} |" in read_page("README.md").text
        assert f"| {name} |" in read_page("README.ko.md").text


@pytest.mark.parametrize(("path", "name"), sorted(set(TEST.findall(PROMISES.text))))
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
