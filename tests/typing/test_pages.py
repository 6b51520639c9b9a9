"""The code on pages type-checks, as a reader's editor would check it."""

from pathlib import Path

import mypy.api
import pytest

from tests.pages import PAGES, ROOT, read_page

pytestmark = pytest.mark.timeout(300)  # the first run without a cache checks all that we depend on

READMES = ("README.md", "README.ko.md")


@pytest.mark.parametrize("readme", [True, False], ids=["README", "docs"])
def test_code_on_pages_type_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: bool) -> None:
    written: dict[str, str] = {}
    for page in map(read_page, PAGES):
        if (page.name in READMES) is readme and page.name != READMES[1]:
            for name, text in page.files().items():
                assert written.setdefault(name, text) == text, f"{page.name}: another page has a {name} too"
                (tmp_path / name).write_text(text, encoding="utf-8")
    assert written
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    names = [name for name in written if name.endswith(".py")]

    printed, failed, _ = mypy.api.run(["--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "pages"), *names])

    assert "Success" in printed, printed + failed


def test_python_on_pages_is_in_files() -> None:
    unnamed = [
        f"{page.name}, line {block.line}"
        for page in map(read_page, PAGES)
        for block in page.blocks
        if block.language == "python" and block.file is None
    ]

    assert unnamed == []
