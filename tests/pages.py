"""Pages of the documentation as tests read them: links, tables, code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))

_FENCE: Final = re.compile(r"^```(\S*)[^\S\n]*(.*)$")
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|\b(?:src|srcset|href)=\"([^\"]+)\"")
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FILE: Final = re.compile(r"^# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``words`` are those behind the language: they tell tests what to do with it."""

    language: str
    words: Sequence[str]
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that the block is to be written into, if its first line names one: ``# shop.py``."""
        found = _FILE.match(self.text)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def links(self) -> Iterator[str]:
        """Give all link targets outside of code."""
        for found in _LINK.finditer(self.prose()):
            yield found[1] or found[2]

    def prose(self) -> str:
        """Return the text without its code blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub makes them."""
        return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in self.headings()}

    def headings(self) -> Iterator[str]:
        for found in _HEADING.finditer(self.prose()):
            yield found[1]

    def rows(self) -> Iterator[Sequence[str]]:
        """Give the cells of all table rows, headings included."""
        for line in self.prose().splitlines():
            if line.startswith("|") and not set(line) <= set("|-: "):
                yield [cell.strip() for cell in line.strip().strip("|").split("|")]

    def files(self) -> Mapping[str, str]:
        """Return the files that the page makes, by name; a later block of a name takes the earlier one's place."""
        return {block.file: block.text for block in self.blocks if block.file is not None}


def read_page(path: Path | str) -> Page:
    """Read a page, given its path or its name below the project's folder."""
    place = ROOT / path
    text = place.read_text(encoding="utf-8")
    return Page(place, text, tuple(_blocks(text)))


def _blocks(text: str) -> Iterator[Block]:
    inside: list[str] | None = None
    language, words, began = "", "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if inside is None and fence is not None:
            inside, language, words, began = [], fence[1], fence[2], number
        elif inside is not None and line == "```":
            yield Block(language, tuple(words.split()), "\n".join(inside) + "\n", began)
            inside = None
        elif inside is not None:
            inside.append(line)
