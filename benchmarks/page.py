"""The figures in the documentation: each method's part of the page is written by ``--page``, the rest by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measuring import ROOT, Line
from benchmarks.table import COLUMNS, cells_of, notes_of, targets_of

PAGE: Final = ROOT / "docs" / "reference" / "benchmarks.md"


def write_page(method: str, lines: Sequence[Line], machine: Mapping[str, str], rounds: int | None) -> Path:
    """Replace what stands between the marks of this method."""
    begin, end = f"<!-- figures: {method} -->", f"<!-- end: {method} -->"
    text = PAGE.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{PAGE} has no place for the figures of {method}; it needs {begin} and {end}")
    command = f"python -m benchmarks {method}{'' if rounds is None else f' --rounds {rounds}'}"
    PAGE.write_text(f"{before}{begin}\n{_figures(lines, machine, command)}\n{end}{after}")
    return PAGE


def _figures(lines: Sequence[Line], machine: Mapping[str, str], command: str) -> str:
    on = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "date")
    rows = [[*cells_of(line), "\n".join(targets_of(line))] for line in lines]
    table = [list(COLUMNS), ["---", "---", "---:", "---:", "---:", "---:", "---:", "---"], *rows]
    return "\n".join(
        [
            f"`{command}` on {machine['date']}: {on}.",
            "",
            *("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in table),
            "",
            *(f"- {note}" if not note.startswith(" ") else f"  - {note.strip()}" for note in notes_of(lines)),
        ]
    )
