"""Help, exit codes and errors of the whole program."""

from __future__ import annotations

import io
import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from yeondong import Yeondong
from yeondong.cli import command as command_module
from yeondong.cli import program as module
from yeondong.cli.command import AppCommand, Command
from yeondong.cli.exits import MEANINGS, Exit, exit_of
from yeondong.cli.loading import Chosen
from yeondong.cli.program import program, run_program
from yeondong.cli.run import configure_logging
from yeondong.errors import AppNotFound, ConnectionLost, DeclarationError, NotADatabase, SettingsError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


def commands(group: click.Group = program, name: str = "yeondong") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_has_help_with_examples_of_itself(name: str, command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.help
    examples = command.examples.strip().splitlines()
    assert examples
    assert all(name in line for line in examples)
    text = command.get_help(click.Context(command, info_name=name))
    assert all(line.strip() in text for line in examples)
    assert max(map(len, text.splitlines())) <= 90


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_app_comes_first_everywhere(name: str, command: click.Command) -> None:
    assert isinstance(command, AppCommand)
    assert command.collect_usage_pieces(click.Context(command))[:2] == ["[OPTIONS]", "APP"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionLost("SQLite", "x.db", "locked"), Exit.UNUSABLE),
        (NotADatabase("no"), Exit.UNUSABLE),
        (AppNotFound("no"), Exit.USAGE),
        (DeclarationError("no"), Exit.USAGE),
        (SettingsError("no"), Exit.USAGE),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (ZeroDivisionError(), Exit.BUG),
    ],
)
def test_an_error_has_its_exit_code(error: BaseException, code: Exit) -> None:
    assert exit_of(error) is code


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command(cls=Command)
    @click.option("--text", default="x")
    def fail(text: str) -> None:
        raise ZeroDivisionError(text)

    monkeypatch.setitem(module.program.commands, "fail", fail)


def test_an_error_of_ours_is_one_sentence_too(failing: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["fail"]) == Exit.BUG
    assert capsys.readouterr().err == (
        "yeondong: an error inside yeondong: ZeroDivisionError: x (--debug shows more)\n"
    )


def test_debug_shows_the_traceback(failing: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["fail", "--debug"]) == Exit.BUG
    assert run_program(["--debug", "fail"]) == Exit.BUG
    assert capsys.readouterr().err.count("Traceback (most recent call last)") == 2


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("no such column: h.until", Exit.UNUSABLE, "(no such column: h.until): run yeondong db check shop.app"),
        ("no such table: held", Exit.UNUSABLE, "(no such table: held): run yeondong db check shop.app"),
        ("near x: syntax error", Exit.BUG, "OperationalError: near x: syntax error"),
    ],
)
def test_tables_of_another_version_hint_at_their_check(
    text: str, code: Exit, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command(cls=AppCommand)
    def fail(chosen: Chosen) -> None:
        raise sqlite3.OperationalError(text)

    monkeypatch.setattr(command_module, "choose", lambda spelled: Chosen(Yeondong("shop"), spelled))
    monkeypatch.setitem(module.program.commands, "fail", fail)

    assert run_program(["fail", "shop.app"]) == code
    assert says in capsys.readouterr().err


def test_help_and_version_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["--help"]) == Exit.OK
    assert run_program(["failures", "retry", "--help"]) == Exit.OK
    assert run_program(["--version"]) == Exit.OK
    assert run_program([]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("Usage: yeondong")


def test_the_page_has_all_exit_codes_with_their_meaning() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert [(int(code), meaning) for code, meaning in rows] == [(code.value, MEANINGS[code]) for code in Exit]


def test_the_page_names_every_command() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name, _ in commands() if f"`{name} APP" not in page] == []


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    root, own = logging.getLogger(), logging.getLogger("yeondong")
    before = root.handlers[:], root.level, own.level
    yield io.StringIO()
    root.handlers[:], root.level, own.level = before


@pytest.mark.parametrize(
    ("quieter", "said"),
    [
        (-2, ["our debug", "our info", "our warning", "their debug", "their info", "their warning"]),
        (-1, ["our debug", "our info", "our warning", "their warning"]),
        (0, ["our info", "our warning", "their warning"]),
        (1, ["our warning", "their warning"]),
        (2, []),
        (9, []),
    ],
)
def test_verbose_and_quiet_choose_what_is_logged(logs: io.StringIO, quieter: int, said: list[str]) -> None:
    configure_logging(quieter, logs)

    for owner, name in (("our", "yeondong.engine"), ("their", "library")):
        for level in ("debug", "info", "warning"):
            logging.getLogger(name).log(logging.getLevelName(level.upper()), "%s %s", owner, level)

    lines = logs.getvalue().splitlines()
    assert [re.sub(r"^\S+Z [A-Z]+ +| logger=.*$", "", line) for line in lines] == said
