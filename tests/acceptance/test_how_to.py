"""How-to pages are done as a reader does them, in a folder with the tutorial's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.terminal import Terminal
from tests.pages import PAGES, ROOT, Page, read_page

FOLDER = ROOT / "docs" / "how-to"
HOW_TO = [read_page(path) for path in PAGES if path.parent == FOLDER]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.path.stem)
def test_the_page_does_what_it_says(tmp_path: Path, page: Page) -> None:
    for name, text in read_page("docs/tutorial/first-order.md").files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    with Terminal(tmp_path) as terminal:
        terminal.read(page)
