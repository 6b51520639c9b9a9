"""Writing to the terminal, or into a pipe of 80 columns. Colour adds to words and never stands for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from yeondong.cli.wording import plain

WIDE: Final = 100
STATE_STYLES: Final = {
    "running": "green",
    "standby": "dim",
    "pausing": "yellow",
    "paused": "yellow",
    "stopped": "bold red",
    "no worker": "bold red",
}


def console() -> Console:
    """Return a console for standard output. What it prints is text: nothing in it is taken for markup."""
    return Console(markup=False, highlight=False, emoji=False)


def say(text: str = "") -> None:
    """Print a line as it is, however long: a pipe gets it whole, a terminal breaks it."""
    click.echo(text)


def note(text: str) -> None:
    """Tell something beside the result, on standard error."""
    click.echo(f"yeondong: {text}", err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value))


def show(*parts: RenderableType) -> None:
    """Print tables and texts, as wide as the terminal, 80 columns in a pipe, without blanks at the ends of lines."""
    screen = console()
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=screen.is_terminal)


def columns(*names: str, wide: bool | None = None) -> Table:
    """Return a table without lines. A name that ends in ``#`` heads a column of numbers."""
    spacious = console().width >= WIDE if wide is None else wide
    table = Table(box=None, pad_edge=False, padding=(0, 2 if spacious else 1, 0, 0), header_style="bold")
    for name in names:
        numbers = name.endswith("#")
        table.add_column(
            name.rstrip("#"), justify="right" if numbers else "left", overflow="fold", no_wrap=numbers, vertical="top"
        )
    return table


def cells(*values: str | Text) -> Sequence[Text]:
    """Make a row of foreign text safe."""
    return [value if isinstance(value, Text) else Text(plain(value)) for value in values]


def state(name: str) -> Text:
    """Write a state: the word says it, the colour only helps to find it."""
    return Text(name, style=STATE_STYLES.get(name, ""))


def on_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def agreed(yes: bool, question: str) -> bool:
    """Whether to do it: with ``--yes``, or when a person on a terminal says so."""
    if yes:
        return True
    if on_terminal():
        return click.confirm(question, default=False)
    say("Nothing was done: this was a dry run. Add --yes to do it.")
    return False
