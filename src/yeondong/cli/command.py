"""What all commands have in common: how APP is given, ``--debug``, and help with examples."""

from __future__ import annotations

import getpass
import os
import socket
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from yeondong.cli.exits import MEANINGS, Exit
from yeondong.cli.loading import Chosen, choose
from yeondong.errors import SchemaMismatch

APP_VARIABLE = "YEONDONG_APP"

F = TypeVar("F", bound=Callable[..., Any])


class Commands(click.Group):
    """Lists its commands in the order of their use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Command(click.Command):
    """A command that takes ``--debug`` and shows its exit codes, and its examples as they are written."""

    def __init__(self, *args: Any, examples: str = "", exits: Sequence[Exit] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        self.exits = exits
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, help="Show tracebacks of errors.")
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.exits:
            with formatter.section("Exit codes"):
                formatter.write_dl([(f"{code:d}", MEANINGS[code]) for code in self.exits])
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")
        super().format_epilog(ctx, formatter)


class AppCommand(Command):
    """A command whose first argument is APP.

    With YEONDONG_APP set it may be left out. Where that leaves open what the first argument is, one with a colon
    (``module:attribute``) is an app and any other is not.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.insert(0, click.Argument(["chosen"], metavar="APP", required=True, callback=_choose))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        default = os.environ.get(APP_VARIABLE)
        if default and not self._names_app(ctx, args):
            args = [default, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            cause = getattr(error, "orig", None) or error
            chosen = ctx.params.get("chosen")
            if not isinstance(cause, sqlite3.OperationalError) or not isinstance(chosen, Chosen):
                raise
            if not str(cause).startswith(("no such column", "no such table")):
                raise
            raise SchemaMismatch(
                f"the tables are not those of this version ({cause}): run {chosen.command('db check')}"
            ) from error

    def _names_app(self, ctx: click.Context, args: Sequence[str]) -> bool:
        words = self._words(ctx, args)
        takes = [param for param in self.params[1:] if isinstance(param, click.Argument)]
        if all(param.nargs == 1 and param.required for param in takes):
            return len(words) > len(takes)
        return bool(words) and ":" in words[0]

    def _words(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Return what is left when the options are taken out."""
        parser = self.make_parser(ctx)
        found, left, _ = parser.parse_args(list(args))
        words: list[str] = []
        for param in self.params:
            if isinstance(param, click.Argument) and param.name is not None:
                value = found.get(param.name)
                words.extend(value if isinstance(value, tuple | list) else [value] if isinstance(value, str) else [])
        return [*words, *left]


def _choose(ctx: click.Context, _param: click.Parameter, value: str) -> Chosen | None:
    return None if ctx.resilient_parsing else choose(value)


def by_option(function: F) -> F:
    """Add ``--by``: who is recorded as having decided."""
    return click.option(
        "--by", default=whoami, show_default="user@host", metavar="WHO", help="Who decides this; it is recorded."
    )(function)


def yes_option(function: F) -> F:
    """Add ``--yes``; without it a command only says what it would do."""
    return click.option("--yes", is_flag=True, help="Do it. Without this it is a dry run, and asks on a terminal.")(
        function
    )


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)


def whoami() -> str:
    """Name the user and the machine, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"  # a container's user has often no name
    return f"{user}@{socket.gethostname()}"
