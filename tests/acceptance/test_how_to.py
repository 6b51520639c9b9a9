"""How-to pages are done as a reader does them, in a folder with the tutorial's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.terminal import Terminal
from tests.pages import PAGES, ROOT, Page, read_page

FOLDER = ROOT / "docs" / "how-to"
ON_SERVERS = read_page("docs/how-to/postgresql-and-kafka.md")
HOW_TO = [page for page in map(read_page, PAGES) if page.path.parent == FOLDER and page != ON_SERVERS]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.path.stem)
def test_the_page_does_what_it_says(tmp_path: Path, page: Page) -> None:
    for name, text in read_page("docs/tutorial/first-order.md").files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    with Terminal(tmp_path) as terminal:
        terminal.read(page)


@pytest.mark.timeout(120)
def test_the_page_about_servers_does_what_it_says(tmp_path: Path, database: str, kafka: str, kafka_prefix: str) -> None:
    for name, text in read_page("docs/tutorial/first-order.md").files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    servers = {"postgresql://shop@db.example/shop": database, "kafka://kafka.example:9092": kafka}
    assert all(url in ON_SERVERS.text for url in servers)

    def on_ours(text: str) -> str:
        for url, ours in servers.items():
            text = text.replace(url, ours)
        return text

    with Terminal(tmp_path, YEONDONG_KAFKA_PREFIX=kafka_prefix, YEONDONG_LEASE_SECONDS="2") as terminal:
        terminal.read(ON_SERVERS, on_ours)
