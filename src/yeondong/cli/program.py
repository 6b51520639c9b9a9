"""The program `yeondong`: its commands, and how errors leave it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from yeondong.cli.check import check
from yeondong.cli.command import Commands
from yeondong.cli.db import db
from yeondong.cli.exits import MEANINGS, Exit, exit_of
from yeondong.cli.failures import failures
from yeondong.cli.flows import flows
from yeondong.cli.groups import groups
from yeondong.cli.printing import note
from yeondong.cli.replay import replay
from yeondong.cli.run import relay, run
from yeondong.cli.status import status
from yeondong.errors import YeondongError


class _Program(Commands):
    """Ends its help with the exit codes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:d}", meaning) for code, meaning in MEANINGS.items()])
        with formatter.section("Examples"):
            for line in ("yeondong run shop.app", "yeondong status shop.app", "yeondong failures list shop.app --all"):
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("yeondong"), prog_name="yeondong", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
def program() -> None:
    """Run the flows of an app, see how they are, and decide about failures.

    APP is always the first argument of a command: module:attribute, or a module whose attribute is named app. The
    current folder is looked at first. With the variable YEONDONG_APP set it may be left out; a command that takes any
    number of further arguments then needs the form with the colon for another app.
    """


for command in (run, relay, status, flows, failures, groups, replay, db, check):
    program.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run_program(sys.argv[1:] if arguments is None else arguments))


def run_program(arguments: Sequence[str]) -> int:  # noqa: PLR0911 - one return for each way out
    """Run one command and return its exit code. Errors become one sentence on standard error."""
    debug = "--debug" in arguments
    try:
        returned: Any = program.main(args=list(arguments), prog_name="yeondong", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "yeondong"
        note(f"{_sentence(error.format_message())} ({where} --help)")
        return Exit.USAGE
    except click.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        note(error.format_message())
        return Exit.USAGE
    except BrokenPipeError:
        # Whoever read our output has gone; what Python would still flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except BaseException as error:  # noqa: BLE001 - the last place: nothing leaves as a traceback unless asked for
        return _told(error, debug=debug)
    return int(returned) if isinstance(returned, int) else Exit.OK


def _told(error: BaseException, *, debug: bool) -> int:
    code = exit_of(error)
    if isinstance(error, SystemExit):
        return int(error.code) if isinstance(error.code, int) else Exit.BUG
    if debug:
        traceback.print_exception(error)
    if code is Exit.BUG:
        note(f"an error inside yeondong: {type(error).__name__}: {error}{'' if debug else ' (--debug shows more)'}")
    elif isinstance(error, YeondongError):
        note(str(error))
    return code


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if not text.startswith("'") else text
