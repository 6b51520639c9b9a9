"""The command line's reference, from the help of its commands: ``python -m tests.command_line_page`` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import click

from tests.pages import ROOT
from yeondong.cli.program import program

PATH: Final = ROOT / "docs" / "reference" / "command-line.md"
MARK: Final = "<!-- Below: written by `python -m tests.command_line_page`. -->\n"
WIDTH: Final = 100


def current() -> str:
    """Return the page as it has to be: what people wrote above the mark, and the help below it."""
    written = PATH.read_text(encoding="utf-8").partition(MARK)[0]
    sections = (f"\n### {name}\n\n```text\n{text}\n```\n" for name, text in helps(program, "yeondong"))
    return written + MARK + "".join(sections)


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Give the help of a command and, in their order, of those below it."""
    context = command.make_context(
        name.rpartition(" ")[2], [], parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            if below is not None:
                yield from helps(below, f"{name} {each}", context)


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(current())
    else:
        PATH.write_text(current(), encoding="utf-8")
