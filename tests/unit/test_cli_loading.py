"""Finding the app, and where APP stands among a command's arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from yeondong.app import Yeondong
from yeondong.cli.command import AppCommand
from yeondong.cli.loading import Chosen, choose, open_session
from yeondong.errors import AppNotFound, SchemaMissing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules of names that no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "cli_shop.py").write_text("from yeondong import Yeondong\napp = Yeondong('shop')\nname = 'shop'\n")
    (tmp_path / "cli_two.py").write_text(
        "from yeondong import Yeondong\nmain = Yeondong('main')\nother = Yeondong('other')\n"
    )
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("cli_"):
            del sys.modules[name]


@pytest.mark.parametrize("spelled", ["cli_shop", "cli_shop:app"])
def test_an_app_is_found_in_the_current_folder(folder: Path, spelled: str) -> None:
    assert choose(spelled).app.name == "shop"
    assert choose("cli_two:other").app.name == "other"


@pytest.mark.parametrize(
    ("spelled", "says"),
    [
        ("cli_nowhere", "no module named 'cli_nowhere'; looked in {folder} and where packages are installed"),
        ("cli_shop:aap", "cli_shop has no 'aap'; Yeondong apps there: cli_shop:app"),
        ("cli_shop:name", "cli_shop:name is no Yeondong app but a str; Yeondong apps there: cli_shop:app"),
        ("cli_two", "cli_two has no 'app'; Yeondong apps there: cli_two:main, cli_two:other"),
        ("cli_shop.py", "'cli_shop.py' names no app; write module:attribute, as in cli_shop:app"),
        ("cli_shop:", "'cli_shop:' names no app"),
        ("", "'' names no app; write module:attribute, as in shop:app"),
        ("../cli_shop.py", "'../cli_shop.py' names no app; write module:attribute, as in cli_shop:app"),
    ],
)
def test_an_app_that_is_not_found_is_told_with_what_there_is(folder: Path, spelled: str, says: str) -> None:
    with pytest.raises(AppNotFound) as raised:
        choose(spelled)

    assert str(raised.value).startswith(says.format(folder=folder))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name' ({path}, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero ({path}, line 2)"),
        ("raise SystemExit(3)", "SystemExit: 3 ({path}, line 1)"),
        ("def x(:", "SyntaxError: invalid syntax (cli_broken.py, line 1)"),
        ("import yeondong\nyeondong.Yeondong('')", "'' is no name for an app: use letters, digits, - and _"),
    ],
)
def test_an_app_that_does_not_import_is_told_with_the_cause_and_its_place(folder: Path, source: str, says: str) -> None:
    path = folder / "cli_broken.py"
    path.write_text(source)

    with pytest.raises(AppNotFound) as raised:
        choose("cli_broken")

    assert str(raised.value).startswith(f"cli_broken does not import: {says.format(path=path)}")


def test_looking_makes_no_store_where_there_is_none(folder: Path) -> None:
    chosen = Chosen(Yeondong("shop"), "cli_shop")

    with pytest.raises(SchemaMissing, match=r"there is no store at .*/shop\.db yet"):
        open_session(chosen)

    assert not (folder / "shop.db").exists()


def test_a_hint_is_a_command_that_can_be_pasted() -> None:
    chosen = Chosen(Yeondong("shop"), "shop.app")

    assert chosen.command("flows resume", "orders/my search") == "yeondong flows resume shop.app 'orders/my search'"


# --- where APP stands -------------------------------------------------------------------------------------------------


@click.command(cls=AppCommand)
def plain_command(chosen: Chosen) -> None: ...


@click.command(cls=AppCommand)
@click.argument("channel")
@click.argument("group")
@click.option("--yes", is_flag=True)
def two_arguments(chosen: Chosen, channel: str, group: str, *, yes: bool) -> None: ...


@click.command(cls=AppCommand)
@click.argument("ids", nargs=-1)
@click.option("--flow")
def many_arguments(chosen: Chosen, ids: tuple[str, ...], *, flow: str | None) -> None: ...


def parsed(command: click.Command, *words: str) -> tuple[str, dict[str, object]]:
    values = command.make_context("x", list(words)).params
    return values.pop("chosen").spelled, values


@pytest.mark.parametrize(
    ("command", "words", "app"),
    [
        (plain_command, ["cli_shop"], "cli_shop"),
        (two_arguments, ["--yes", "cli_shop", "a", "b"], "cli_shop"),
        (many_arguments, ["cli_shop", "h1", "--flow", "x", "h2"], "cli_shop"),
    ],
)
def test_app_is_the_first_argument(folder: Path, command: click.Command, words: Sequence[str], app: str) -> None:
    assert parsed(command, *words)[0] == app


@pytest.mark.parametrize(
    ("command", "words", "app", "values"),
    [
        (plain_command, [], "cli_two:main", {}),
        (plain_command, ["cli_shop"], "cli_shop", {}),
        (two_arguments, ["a", "--yes", "b"], "cli_two:main", {"channel": "a", "group": "b", "yes": True}),
        (two_arguments, ["cli_shop", "a", "b"], "cli_shop", {"channel": "a", "group": "b", "yes": False}),
        (many_arguments, [], "cli_two:main", {"ids": (), "flow": None}),
        (many_arguments, ["--flow", "a:b"], "cli_two:main", {"ids": (), "flow": "a:b"}),
        (many_arguments, ["h1", "h2"], "cli_two:main", {"ids": ("h1", "h2"), "flow": None}),
        (many_arguments, ["cli_shop:app", "h1"], "cli_shop:app", {"ids": ("h1",), "flow": None}),
    ],
)
def test_with_the_variable_app_may_be_left_out(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: click.Command,
    words: Sequence[str],
    app: str,
    values: dict[str, object],
) -> None:
    monkeypatch.setenv("YEONDONG_APP", "cli_two:main")

    assert parsed(command, *words) == (app, values)


def test_without_both_the_usage_is_told() -> None:
    with pytest.raises(click.MissingParameter) as raised:
        parsed(plain_command)

    assert raised.value.format_message() == "Missing argument 'APP'."
