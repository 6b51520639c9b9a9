"""The tutorial and the README are done as a reader does them: files written, commands typed, output compared."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.acceptance.terminal import Terminal, shows
from tests.pages import read_page

PORT = "8765"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    page = read_page("docs/tutorial/first-order.md")
    port = free_port()
    assert PORT in page.text

    with Terminal(tmp_path, YEONDONG_LEASE_SECONDS="2") as terminal:
        terminal.read(page, lambda text: text.replace(PORT, port))


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_lines_of_the_readme_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "shop.py").write_text(read_page(name).files()["shop.py"], encoding="utf-8")
    with Terminal(tmp_path) as terminal:
        assert terminal.type("python shop.py") == (0, "\n")
        terminal.type("yeondong run shop > worker.log 2>&1 &")
        terminal.look(
            "python -c \"import sqlite3; print(*sqlite3.connect('shop.db').execute('select * from points'))\"",
            ["('kim', 390)"],
        )
        assert terminal.type("kill $!; wait $!")[0] == 0


def test_both_readmes_have_the_same_code_and_lead_to_the_same_pages() -> None:
    english, korean = read_page("README.md"), read_page("README.ko.md")

    def code(text: str) -> list[str]:
        return [line.partition("  #")[0] for line in text.splitlines()]

    assert [code(block.text) for block in english.blocks] == [code(block.text) for block in korean.blocks]
    assert set(english.links()) - {"README.ko.md"} == set(korean.links()) - {"README.md"}


def test_what_a_page_shows_is_compared() -> None:
    assert shows("a  1\nb\n", ["a 1"])
    assert shows("first\n\nx in between\nlast one\n", ["first", "…", "last …"])
    assert not shows("last\nfirst\n", ["first", "last"])
    assert not shows("packed 20\n", ["packed 2"])
    assert not shows("", ["packed 2"])
