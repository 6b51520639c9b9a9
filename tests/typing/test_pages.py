"""The code on pages type-checks, as a reader's editor would check it."""

from pathlib import Path

import mypy.api
import pytest

from tests.pages import PAGES, ROOT, read_page

pytestmark = pytest.mark.timeout(300)  # the first run without a cache checks all that we depend on

READMES = ("README.md", "README.ko.md")


@pytest.mark.parametrize("readme", [True, False], ids=["README", "docs"])
def test_code_on_pages_type_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: bool) -> None:
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    folders = _folders(readme=readme)
    assert folders
    for number, written in enumerate(folders):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
        monkeypatch.chdir(folder)
        names = [name for name in written if name.endswith(".py")]

        printed, failed, _ = mypy.api.run(["--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "pages"), *names])

        assert "Success" in printed, printed + failed


def _folders(*, readme: bool) -> list[dict[str, str]]:
    """Return the files of all pages, in one folder as far as names allow: how-to pages go on from the tutorial."""
    folders: list[dict[str, str]] = []
    for page in map(read_page, sorted(PAGES, key=lambda path: "tutorial" not in str(path))):
        files = page.files() if (page.name in READMES) is readme and page.name != READMES[1] else {}
        fits = (each for each in folders if all(each.get(name, text) == text for name, text in files.items()))
        folder = next(fits, None)
        if folder is not None:
            folder.update(files)
        elif files:
            folders.append(dict(files))
    return folders


def test_python_on_pages_is_in_files() -> None:
    unnamed = [
        f"{page.name}, line {block.line}"
        for page in map(read_page, PAGES)
        for block in page.blocks
        if block.language == "python" and block.file is None
    ]

    assert unnamed == []
