"""Reference pages name what exists: tables and columns, classes and functions, files and anchors."""

import importlib
import re
import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import pytest

from tests.pages import PAGES, ROOT, Page, read_page
from yeondong.core.message import Message
from yeondong.messaging.brokers.sqlite.tables import broker_tables
from yeondong.stores import tables
from yeondong.stores.sqlite import schema

DOTTED = re.compile(r"`(yeondong(?!\.toml)(?:\.\w+)+)`")
PARTS_OF_HEADINGS = re.compile(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
VIEW_COLUMNS = re.compile(r"view `yeondong_outbox_status` .*?: (.*?)\. ", re.DOTALL)


every_page = pytest.mark.parametrize("page", [read_page(path) for path in PAGES], ids=lambda page: page.name)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def attribute(path: str) -> Any:
    """Import the longest module of a dotted path and get the rest from it. Raises AttributeError."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AttributeError(path)


@every_page
def test_what_a_page_names_in_the_code_exists(page: Page) -> None:
    for name in DOTTED.findall(page.text):
        attribute(name)


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links():
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.path.parent / file if file else page.path
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in read_page(target.resolve()).anchors(), f"{page.name} links to {link}"


@every_page
def test_no_page_is_left_over(page: Page) -> None:
    if page.path.parent == ROOT:
        return
    linked = {
        (other.path.parent / link.partition("#")[0]).resolve()
        for other in map(read_page, PAGES)
        if other.path != page.path
        for link in other.links()
    }
    assert page.path.resolve() in linked, f"nothing links to {page.name}"


@pytest.mark.parametrize("metadata", [tables.metadata, broker_tables()], ids=["store", "broker"])
def test_all_columns_stand_on_the_page_in_their_order(metadata: Any) -> None:
    listed = {
        name: first_cells(text)
        for name, text in PARTS_OF_HEADINGS.findall(read_page("docs/reference/messages.md").text)
    }

    for table in metadata.sorted_tables:
        assert listed.get(table.name) == [column.name for column in table.columns], table.name


def test_the_view_s_columns_stand_on_the_page() -> None:
    found = VIEW_COLUMNS.search(read_page("docs/reference/messages.md").text)
    assert found is not None

    with closing(sqlite3.connect(":memory:")) as database:
        for statement in schema.creating().values():
            database.execute(statement)
        columns = [row[1] for row in database.execute("PRAGMA table_info(yeondong_outbox_status)")]

    assert re.findall(r"`(\w+)`", found[1]) == columns


def test_a_message_s_fields_stand_on_the_page() -> None:
    table = read_page("docs/reference/messages.md").text.partition("## The store's tables")[0]

    assert first_cells(table) == [field.name for field in msgspec.structs.fields(Message)]


def test_names_in_the_glossary_are_told_once() -> None:
    words = [row[0] for row in read_page("docs/reference/glossary.md").rows() if row[0] != "word"]

    assert words
    assert len(words) == len(set(words))
